/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between kernels, by what a kernel has.
 */
#ifndef _INVIVO_COMPAT_H
#define _INVIVO_COMPAT_H

#include <linux/version.h>

/*
 * Since 6.4 livepatch itself clears what it has written on behalf of a target
 * module when that module goes or its init fails.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define HAVE_KLP_CLEAR_RELOCS 1
#endif

#endif /* _INVIVO_COMPAT_H */
