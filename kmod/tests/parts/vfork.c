// SPDX-License-Identifier: GPL-2.0
/* Part of a patch by hand, on the kernel itself: vfork(2), as it is. */
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

static long __x64_sys_vfork(const struct pt_regs *unused)
{
	struct kernel_clone_args args = {
		.flags		= CLONE_VFORK | CLONE_VM,
		.exit_signal	= SIGCHLD,
	};

	return kernel_clone(&args);
}

extern typeof(__x64_sys_vfork) invivo_new___x64_sys_vfork __alias(__x64_sys_vfork);
