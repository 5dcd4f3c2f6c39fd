/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of a patch module share.
 */
#ifndef _INVIVO_PATCH_H
#define _INVIVO_PATCH_H

#include <linux/livepatch.h>

/*
 * Rises when the meaning of the module's own modinfo fields or of its errors
 * changes.
 */
#define INVIVO_PATCH_ABI	"1"

/*
 * The table knows a new function by an alias, and so needs neither its type
 * nor its linkage. The part that has the function ends with the definition:
 *
 *	extern typeof(name) invivo_new_name __alias(name);
 */
#define INVIVO_FUNC_DECLARE(_name)					\
	extern char invivo_new_##_name[]

/**
 * INVIVO_FUNC - one entry of a function table
 * @_name:	the function, by its name in the source and in the kernel
 * @_pos:	its position among the kernel's symbols of that name, from 1;
 *		0 if the name is unique, in which case an ambiguous name makes
 *		the kernel refuse the module
 */
#define INVIVO_FUNC(_name, _pos)					\
	{								\
		.old_name = #_name,					\
		.new_func = invivo_new_##_name,				\
		.old_sympos = _pos,					\
	}

/* Ends with an empty entry; written by the builder. */
extern struct klp_object invivo_objects[];

#endif /* _INVIVO_PATCH_H */
