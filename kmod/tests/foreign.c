// SPDX-License-Identifier: GPL-2.0
/*
 * Somebody else's live patch, which replaces no other: /proc/cmdline says
 * "foreign".
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int foreign_cmdline(struct seq_file *seq, void *v)
{
	seq_puts(seq, "foreign\n");
	return 0;
}

static struct klp_func foreign_funcs[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = foreign_cmdline,
	},
	{ }
};

static struct klp_object foreign_objects[] = {
	{ .funcs = foreign_funcs },
	{ }
};

static struct klp_patch foreign_patch = {
	.mod = THIS_MODULE,
	.objs = foreign_objects,
};

static int __init foreign_init(void)
{
	return klp_enable_patch(&foreign_patch);
}

static void __exit foreign_exit(void)
{
}

module_init(foreign_init);
module_exit(foreign_exit);

MODULE_DESCRIPTION("Invivo test: a live patch of somebody else");
MODULE_AUTHOR("The Invivo authors");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
