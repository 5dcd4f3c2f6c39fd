// SPDX-License-Identifier: GPL-2.0
/*
 * A module to be patched: /proc/tgt shows a number, which its init and exit
 * see too. A patch reaches its private data and calls its private function.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/errno.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static int tgt_data = 7;
module_param_named(data, tgt_data, int, 0644);
MODULE_PARM_DESC(data, "half of the number");

static bool fail;
module_param(fail, bool, 0444);
MODULE_PARM_DESC(fail, "let init fail");

static noinline __noclone int tgt_twice(int number)
{
	return number * 2;
}

static noinline int tgt_value(void)
{
	return tgt_twice(READ_ONCE(tgt_data));
}

static int tgt_show(struct seq_file *seq, void *v)
{
	seq_printf(seq, "%d\n", tgt_value());
	return 0;
}

static int __init tgt_init(void)
{
	pr_info("init sees %d\n", tgt_value());
	if (fail)
		return -ENODEV;

	return proc_create_single("tgt", 0444, NULL, tgt_show) ? 0 : -ENOMEM;
}

static void __exit tgt_exit(void)
{
	remove_proc_entry("tgt", NULL);
	pr_info("exit sees %d\n", tgt_value());
}

module_init(tgt_init);
module_exit(tgt_exit);

MODULE_DESCRIPTION("Invivo test: a module to be patched");
MODULE_AUTHOR("The Invivo authors");
MODULE_LICENSE("GPL");
