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

/**
 * INVIVO_FUNC - one entry of a function table
 * @_name:	the function, by its name in the kernel
 * @_new:	the symbol of the new function; the table needs neither its
 *		type nor its linkage. A part written by hand ends with
 *		extern typeof(name) invivo_new_name __alias(name);
 * @_pos:	its position among the kernel's symbols of that name, from 1;
 *		0 if the name is unique, in which case an ambiguous name makes
 *		the kernel refuse the module
 */
#define INVIVO_FUNC(_name, _new, _pos)					\
	{								\
		.old_name = _name,					\
		.new_func = _new,					\
		.old_sympos = _pos,					\
	}

/* Ends with an empty entry; written by the builder. */
extern struct klp_object invivo_objects[];

#endif /* _INVIVO_PATCH_H */
