// SPDX-License-Identifier: GPL-2.0
/* Part of a patch by hand, on the kernel itself: /proc/cmdline. */
#include <linux/seq_file.h>

static int cmdline_proc_show(struct seq_file *seq, void *v)
{
	seq_puts(seq, "patched\n");
	return 0;
}

extern typeof(cmdline_proc_show) invivo_new_cmdline_proc_show __alias(cmdline_proc_show);
