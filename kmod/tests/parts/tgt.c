// SPDX-License-Identifier: GPL-2.0
/*
 * Part of a patch by hand: the number in /proc/tgt, with ADDED added to it. What
 * is private to the target is named as the builder's klp step wants it:
 * __klpsym_<object>__<symbol>__<position>.
 */
#include <linux/compiler.h>

extern int __klpsym_tgt__tgt_data__0;
int __klpsym_tgt__tgt_twice__0(int number);

static int tgt_value(void)
{
	return ADDED + __klpsym_tgt__tgt_twice__0(READ_ONCE(__klpsym_tgt__tgt_data__0));
}

extern typeof(tgt_value) invivo_new_tgt_value __alias(tgt_value);
