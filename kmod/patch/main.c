// SPDX-License-Identifier: GPL-2.0
/*
 * A patch module: replaces functions of exactly one kernel build through
 * upstream livepatch, together with every patch loaded before it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/elf.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/printk.h>
#include <linux/string.h>
#include <linux/types.h>

#include "build.h"
#include "compat.h"
#include "patch.h"
#include "targets.h"

static const u8 invivo_build_id[] = INVIVO_BUILD_ID_BYTES;

static_assert(sizeof(invivo_build_id) == BUILD_ID_SIZE_MAX);

static struct klp_patch invivo_patch = {
	.mod = THIS_MODULE,
	.objs = invivo_objects,
	.replace = true,
};

/*
 * The running kernel's build id. Nothing that tells it is exported: the builder
 * turns the references into livepatch relocations, which the module loader
 * resolves before init runs.
 *
 * Context: module init, any locks.
 * Return: the build id, BUILD_ID_SIZE_MAX bytes; zeros if the kernel has none of
 * that length.
 */
#ifdef HAVE_VMLINUX_BUILD_ID
static const u8 * __init invivo_kernel_build_id(void)
{
	return vmlinux_build_id;
}
#else
static const u8 * __init invivo_kernel_build_id(void)
{
	static const u8 none[BUILD_ID_SIZE_MAX] __initconst;
	const u8 *at = __start_notes;
	size_t left = __stop_notes - __start_notes;

	while (left >= sizeof(struct elf_note)) {
		const struct elf_note *note = (const void *)at;
		const u8 *name = at + sizeof(*note);
		size_t desc = sizeof(*note) + ALIGN((size_t)note->n_namesz, 4);
		size_t size = desc + ALIGN((size_t)note->n_descsz, 4);

		if (size > left)
			break;
		if (note->n_type == NT_GNU_BUILD_ID &&
		    note->n_descsz == BUILD_ID_SIZE_MAX &&
		    note->n_namesz == sizeof("GNU") && !memcmp(name, "GNU", sizeof("GNU")))
			return at + desc;
		at += size;
		left -= size;
	}

	return none;
}
#endif

/*
 * Release and vermagic do not tell two builds of a kernel apart; the GNU build
 * id does.
 *
 * Context: module init, may sleep, no locks held.
 * Return: 0 if the running kernel is the one that the module was built for,
 * -EINVAL otherwise.
 */
static int __init invivo_check_build_id(void)
{
	const u8 *kernel = invivo_kernel_build_id();
	const u8 *own = invivo_build_id;

	/* Compared from one place, not as numbers within the code: tests change it there. */
	OPTIMIZER_HIDE_VAR(own);
	if (!memcmp(kernel, own, sizeof(invivo_build_id)))
		return 0;

	pr_err("built for kernel build id %*phN, this kernel is %*phN\n",
	       (int)sizeof(invivo_build_id), invivo_build_id,
	       (int)sizeof(invivo_build_id), kernel);
	return -EINVAL;
}

/*
 * Context: module init, may sleep; klp_enable_patch() takes klp_mutex.
 * Return: 0 once the transition has begun; the errors are listed in
 * kmod/README.md.
 */
static int __init invivo_patch_init(void)
{
	int ret;

	ret = invivo_check_build_id();
	if (ret)
		return ret;

	ret = invivo_targets_init(invivo_objects);
	if (ret)
		return ret;

	ret = klp_enable_patch(&invivo_patch);
	if (ret) {
		invivo_targets_exit();
		return ret;
	}

	invivo_targets_enabled(&invivo_patch);

	/* Code of this patch may be called after the patch was taken off. */
	if (INVIVO_STAYS)
		__module_get(THIS_MODULE);

	return 0;
}

/*
 * Reached only after the patch was disabled or replaced and its transition is
 * complete: livepatch holds a reference on the module until then.
 */
static void __exit invivo_patch_exit(void)
{
	invivo_targets_exit();
}

module_init(invivo_patch_init);
module_exit(invivo_patch_exit);

MODULE_DESCRIPTION("Invivo live patch, level " INVIVO_LEVEL);
MODULE_AUTHOR("The Invivo authors");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_INFO(invivo_abi, INVIVO_PATCH_ABI);
MODULE_INFO(invivo_level, INVIVO_LEVEL);
MODULE_INFO(invivo_set, INVIVO_SET);
MODULE_INFO(invivo_build_id, INVIVO_BUILD_ID);
MODULE_INFO(invivo_inputs, INVIVO_INPUTS);
MODULE_INFO(invivo_fixes, INVIVO_FIXES);
MODULE_INFO(invivo_unload, INVIVO_UNLOAD);
