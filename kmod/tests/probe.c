// SPDX-License-Identifier: GPL-2.0
/*
 * A kprobe that may change where the kernel's cmdline_proc_show() goes on, since
 * it is also called after the function's first instruction: the function is its
 * own alone, and nobody can redirect it meanwhile.
 */
#include <linux/kprobes.h>
#include <linux/module.h>

static void probe_after(struct kprobe *kprobe, struct pt_regs *regs, unsigned long flags)
{
}

static struct kprobe probe = {
	.symbol_name	= "cmdline_proc_show",
	.post_handler	= probe_after,
};

static int __init probe_init(void)
{
	return register_kprobe(&probe);
}

static void __exit probe_exit(void)
{
	unregister_kprobe(&probe);
}

module_init(probe_init);
module_exit(probe_exit);

MODULE_DESCRIPTION("Invivo test: a kprobe that has a function for itself");
MODULE_AUTHOR("The Invivo authors");
MODULE_LICENSE("GPL");
