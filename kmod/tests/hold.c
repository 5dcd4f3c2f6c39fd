// SPDX-License-Identifier: GPL-2.0
/*
 * A module to be patched: who reads /proc/hold sleeps in hold_wait() until it is
 * killed, and so holds open every transition of a patch that replaces the
 * function.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(hold_queue);

static noinline int hold_wait(void)
{
	return wait_event_killable(hold_queue, false);
}

static int hold_show(struct seq_file *seq, void *v)
{
	return hold_wait();
}

static int __init hold_init(void)
{
	return proc_create_single("hold", 0444, NULL, hold_show) ? 0 : -ENOMEM;
}

static void __exit hold_exit(void)
{
	remove_proc_entry("hold", NULL);
}

module_init(hold_init);
module_exit(hold_exit);

MODULE_DESCRIPTION("Invivo test: a module that holds transitions open");
MODULE_AUTHOR("The Invivo authors");
MODULE_LICENSE("GPL");
