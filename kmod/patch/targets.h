/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kernel modules as targets of a patch: the hook around klp_enable_patch().
 * Only a patch that has such a target is built with it.
 */
#ifndef _INVIVO_TARGETS_H
#define _INVIVO_TARGETS_H

#include <linux/livepatch.h>

#ifdef INVIVO_TARGETS

int invivo_targets_init(struct klp_object *objects);
void invivo_targets_enabled(struct klp_patch *patch);
void invivo_targets_exit(void);

/*
 * The lock around all of livepatch. Like text_poke() and its company it is not
 * exported: the builder turns the reference into a livepatch relocation.
 */
extern struct mutex klp_mutex;

#else

static inline int invivo_targets_init(struct klp_object *objects)
{
	return 0;
}

static inline void invivo_targets_enabled(struct klp_patch *patch)
{
}

static inline void invivo_targets_exit(void)
{
}

#endif /* INVIVO_TARGETS */

#endif /* _INVIVO_TARGETS_H */
