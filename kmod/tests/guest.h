/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the cases are made of: one call, one act on the kernel. Acts return 0 or
 * an errno.
 */
#ifndef _GUEST_H
#define _GUEST_H

#include <stdbool.h>
#include <sys/types.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof(*(array)))

/* Prints "invivo-case: ..." as one line. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* An errno's name, "ok" for 0. */
const char *name(int error);
long now_ms(void);

/* Modules, by name; the file is /<name>.ko unless it is given. */
int load(const char *module, const char *parameters);
int load_file(const char *path, const char *parameters);
int unload(const char *module);
long references(const char *module);

/* Patches. on(): loaded and its transition complete; off(): gone in every sense. */
int on(const char *patch, const char *parameters);
int off(const char *patch);
int disable(const char *patch);
/* Waits until a replaced or disabled patch is no patch any more. */
int wait_gone(const char *patch);
int wait_complete(const char *patch);
bool in_transition(const char *patch);
bool exists(const char *patch, const char *object);
bool patched(const char *patch, const char *object);
int heal(const char *patch, const char *target);
/* How many functions have an ftrace hook. */
int hooks(void);

/* The number in /proc/tgt, or in that of a clone of it; -1 if there is none. */
int value(void);
int value_of(const char *module);
/* Whether a file begins with the text. */
bool begins(const char *path, const char *text);

/* A process that sleeps in hold_wait() until let_go(). */
pid_t hold(void);
void let_go(pid_t pid);

/* The number of lines in the kernel's log that contain the text. */
int logged(const char *text);
/* How often the kernel complained; shows each. */
int complaints(void);

#endif /* _GUEST_H */
