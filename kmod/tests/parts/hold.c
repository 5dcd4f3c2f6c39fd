// SPDX-License-Identifier: GPL-2.0
/* Part of a patch by hand: who reads /proc/hold sleeps in new code. */
#include <linux/sched.h>
#include <linux/wait.h>

extern struct wait_queue_head __klpsym_hold__hold_queue__0;

static int hold_wait(void)
{
	return wait_event_killable(__klpsym_hold__hold_queue__0, false);
}

extern typeof(hold_wait) invivo_new_hold_wait __alias(hold_wait);
