// SPDX-License-Identifier: GPL-2.0
/*
 * Kernel modules as targets of a patch.
 *
 * When a target is loaded, livepatch resolves the patch's references to the
 * target's own symbols and writes them into the patch (sections named
 * .klp.rela.<target>.*). It refuses to write where something stands already,
 * and then refuses the target: a driver that went once could not come back.
 * Something stands there if
 *
 * - the target was unloaded, or its init failed, and the kernel is older than
 *   6.4. Livepatch tells the patch when that happens (post_unpatch), and what
 *   was written is cleared here. Later kernels do the same themselves;
 * - the target was refused because a function to be replaced is not in it. No
 *   kernel clears then, and none tells: the file "heal" does on demand. It is
 *   beside "enabled", so that whoever may switch the patch may heal it and
 *   needs no other part of sysfs.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/elf.h>
#include <linux/errno.h>
#include <linux/kobject.h>
#include <linux/livepatch.h>
#include <linux/memory.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/types.h>
#include <asm/text-patching.h>

#include "compat.h"
#include "targets.h"

/* More targets than any patch has that was ever built. */
#define INVIVO_SKIP_MAX	128

static struct klp_object *invivo_targets;

/* By the object's place in invivo_targets: the module that it holds, or NULL. */
static struct module **invivo_pinned;

static char *skip[INVIVO_SKIP_MAX];
static unsigned int skips;
module_param_array(skip, charp, &skips, 0444);
MODULE_PARM_DESC(skip, "targets to leave alone, separated by commas");

static bool pin;
module_param(pin, bool, 0444);
MODULE_PARM_DESC(pin, "keep targets from being unloaded while they are patched (default: off)");

/*
 * Context: any.
 * Return: whether @section holds relocations to symbols of the module @target.
 */
static bool invivo_is_rela_of(const char *section, const char *target)
{
	size_t len = str_has_prefix(section, ".klp.rela.");

	if (!len)
		return false;
	section += len;
	len = str_has_prefix(section, target);
	return len && section[len] == '.';
}

/*
 * Context: any.
 * Return: how many bytes the kernel writes for @rela; none of the types that it
 * does not write occurs in a module that it has loaded.
 */
static size_t invivo_rela_size(const Elf_Rela *rela)
{
	switch (ELF_R_TYPE(rela->r_info)) {
	case R_X86_64_64:
	case R_X86_64_PC64:
		return sizeof(u64);
	case R_X86_64_32:
	case R_X86_64_32S:
	case R_X86_64_PC32:
	case R_X86_64_PLT32:
		return sizeof(u32);
	default:
		return 0;
	}
}

/*
 * Looks at every place that livepatch writes for @target, and clears it if @clear.
 * Nothing can be running in it: new code is reached only through the target,
 * which is not there or is leaving.
 *
 * Context: may sleep, klp_mutex held; takes text_mutex.
 * Return: the number of places that were not clear.
 */
static unsigned int invivo_written(const char *target, bool clear)
{
	const struct klp_modinfo *info = THIS_MODULE->klp_info;
	static const u64 zero;
	unsigned int count = 0;
	unsigned int i;

	mutex_lock(&text_mutex);
	for (i = 1; i < info->hdr.e_shnum; i++) {
		const Elf_Shdr *shdr = &info->sechdrs[i];
		const Elf_Rela *rela = (void *)shdr->sh_addr;
		const Elf_Rela *end = (void *)shdr->sh_addr + shdr->sh_size;

		if (!(shdr->sh_flags & SHF_RELA_LIVEPATCH) ||
		    !invivo_is_rela_of(info->secstrings + shdr->sh_name, target))
			continue;

		for (; rela < end; rela++) {
			void *loc = (void *)info->sechdrs[shdr->sh_info].sh_addr + rela->r_offset;
			size_t size = invivo_rela_size(rela);

			if (!memcmp(loc, &zero, size))
				continue;
			if (clear)
				text_poke(loc, &zero, size);
			count++;
		}
	}
	if (clear && count)
		text_poke_sync();
	mutex_unlock(&text_mutex);

	return count;
}

/*
 * The targets that were refused and would be again, one a line. They are not
 * loaded, and what an attempt to load them has left stands in the patch.
 *
 * Context: read of the patch's file, may sleep; takes klp_mutex, but does not
 * wait for it: livepatch may hold it for many seconds.
 * Return: the length, -EAGAIN if livepatch is at work.
 */
static ssize_t heal_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct klp_object *obj;
	int len = 0;

	if (!mutex_trylock(&klp_mutex))
		return -EAGAIN;
	for (obj = invivo_targets; obj->funcs; obj++)
		if (obj->name && !obj->mod && invivo_written(obj->name, false))
			len += sysfs_emit_at(buf, len, "%s\n", obj->name);
	mutex_unlock(&klp_mutex);

	return len;
}

/*
 * The name of a target that is not loaded: clears what an attempt to load it
 * has left. Harmless where nothing was left.
 *
 * Context: write to the patch's file, may sleep; takes klp_mutex, as writing to
 * "enabled" does. The file goes with the patch's folder, outside klp_mutex.
 * Return: @size, -EBUSY if the target is loaded, -ENOENT if the patch has no
 * such target.
 */
static ssize_t heal_store(struct kobject *kobj, struct kobj_attribute *attr, const char *buf,
			  size_t size)
{
	size_t len = strcspn(buf, "\n");
	struct klp_object *obj;
	unsigned int count;
	ssize_t ret = -ENOENT;

	mutex_lock(&klp_mutex);
	for (obj = invivo_targets; obj->funcs; obj++) {
		if (!obj->name || strlen(obj->name) != len || strncmp(obj->name, buf, len))
			continue;
		if (obj->mod) {
			ret = -EBUSY;
			break;
		}
		count = invivo_written(obj->name, true);
		pr_info("healed %s: %u relocations cleared\n", obj->name, count);
		ret = size;
		break;
	}
	mutex_unlock(&klp_mutex);

	return ret;
}

static struct kobj_attribute invivo_heal = __ATTR_RW_MODE(heal, 0600);

/*
 * Called by livepatch before it patches a target, be it loaded or coming.
 *
 * Context: may sleep, klp_mutex held.
 * Return: 0. A target that is already leaving cannot be held and need not be.
 */
static int invivo_pre_patch(struct klp_object *obj)
{
	if (try_module_get(obj->mod))
		invivo_pinned[obj - invivo_targets] = obj->mod;

	return 0;
}

/*
 * Called by livepatch when a target is no longer patched: because it goes, its
 * init has failed, or the patch was taken off. Not called for a patch that was
 * replaced.
 *
 * Context: may sleep, klp_mutex held.
 */
static void invivo_post_unpatch(struct klp_object *obj)
{
	struct module **pinned = &invivo_pinned[obj - invivo_targets];

#ifndef HAVE_KLP_CLEAR_RELOCS
	/* A target that stays is patched by another patch next, never by this one. */
	if (obj->mod->state != MODULE_STATE_LIVE) {
		unsigned int count = invivo_written(obj->name, true);

		pr_debug("%s goes: %u relocations cleared\n", obj->name, count);
	}
#endif

	module_put(*pinned);
	*pinned = NULL;
}

/*
 * Takes the targets named in "skip" out of @objects.
 *
 * Context: module init.
 * Return: 0, -ESRCH if a name is not a target's, -ENODATA if nothing is left.
 */
static int __init invivo_skip(struct klp_object *objects)
{
	struct klp_object *from, *to;
	unsigned int i;

	for (i = 0; i < skips; i++) {
		for (from = objects; from->funcs; from++)
			if (from->name && !strcmp(from->name, skip[i]))
				break;
		if (!from->funcs) {
			pr_err("skip: %s is not a target of this patch\n", skip[i]);
			return -ESRCH;
		}
		/* The last entry, which is empty, moves up with the others. */
		for (to = from++; to->funcs; to++, from++)
			*to = *from;
	}

	return objects->funcs ? 0 : -ENODATA;
}

/**
 * invivo_targets_init() - prepare a patch's objects for klp_enable_patch()
 * @objects:	the patch's objects, ended by an empty one
 *
 * Context: module init, before klp_enable_patch(); may sleep.
 * Return: 0, -ESRCH or -ENODATA if the parameter "skip" is wrong, -ENOMEM.
 */
int __init invivo_targets_init(struct klp_object *objects)
{
	struct klp_object *obj;
	int ret;

	ret = invivo_skip(objects);
	if (ret)
		return ret;

	for (obj = objects; obj->funcs; obj++) {
		if (!obj->name)
			continue;
		obj->callbacks.post_unpatch = invivo_post_unpatch;
		if (pin)
			obj->callbacks.pre_patch = invivo_pre_patch;
	}

	invivo_targets = objects;
	invivo_pinned = kcalloc(obj - objects, sizeof(*invivo_pinned), GFP_KERNEL);
	return invivo_pinned ? 0 : -ENOMEM;
}

/**
 * invivo_targets_enabled() - make the patch's own files
 * @patch:	the patch, enabled
 *
 * The patch is at work by now and cannot be refused any more; without the file
 * it cannot heal.
 *
 * Context: module init, after klp_enable_patch(); may sleep.
 */
void __init invivo_targets_enabled(struct klp_patch *patch)
{
	int ret = sysfs_create_file(&patch->kobj, &invivo_heal.attr);

	if (ret)
		pr_warn("no file heal: %d\n", ret);
}

/**
 * invivo_targets_exit() - let go of what is still held
 *
 * A patch that was replaced got no post_unpatch, and may still pin targets.
 *
 * Context: module exit, or init after klp_enable_patch() failed; may sleep.
 */
void invivo_targets_exit(void)
{
	struct klp_object *obj;

	for (obj = invivo_targets; obj->funcs; obj++)
		module_put(invivo_pinned[obj - invivo_targets]);
	kfree(invivo_pinned);
}

#ifdef HAVE_KLP_CLEAR_RELOCS
MODULE_INFO(invivo_features, "heal,skip,pin");
#else
MODULE_INFO(invivo_features, "clear,heal,skip,pin");
#endif
