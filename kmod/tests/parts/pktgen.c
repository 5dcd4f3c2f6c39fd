// SPDX-License-Identifier: GPL-2.0
/* Part of a patch by hand, on a module of the distribution: /proc/net/pktgen/pgctrl. */
#include <linux/seq_file.h>

extern const char __klpsym_pktgen__version__0[];

static int pgctrl_show(struct seq_file *seq, void *v)
{
	seq_puts(seq, "patched ");
	seq_puts(seq, __klpsym_pktgen__version__0);
	return 0;
}

extern typeof(pgctrl_show) invivo_new_pgctrl_show __alias(pgctrl_show);
