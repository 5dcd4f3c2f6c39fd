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

/*
 * Since 5.14 the kernel keeps its own build id as a variable. Before, it is only
 * among the notes that the linker has put into it.
 */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
#define HAVE_VMLINUX_BUILD_ID 1
#include <linux/buildid.h>
#else
#include <linux/types.h>
#define BUILD_ID_SIZE_MAX 20
#define NT_GNU_BUILD_ID 3
extern const u8 __start_notes[], __stop_notes[];
#endif

#endif /* _INVIVO_COMPAT_H */
