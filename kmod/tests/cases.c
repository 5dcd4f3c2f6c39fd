// SPDX-License-Identifier: GPL-2.0
/*
 * The only program of the guest in which patches of kernel modules are tried:
 * the first process. Each case says what it saw in one line on the console; what
 * it should be is known to who booted the guest. Each begins and ends with
 * nothing loaded.
 *
 * Expects in its file system /<module>.ko of tgt, hold, foreign, pktgen and the
 * patches below; pktgen is the distribution's. Perhaps clones of tgt. And other builds:
 * tgt-nofunction.ko and tgt-nosymbol.ko lack a function to be replaced and a
 * symbol referred to; pktgen-changed.ko has one byte changed.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

/* tgt and hold; adds 100, and in the second 200, to tgt's number. */
#define FIRST	"invivo_l1_0000000000000001"
#define SECOND	"invivo_l2_0000000000000002"
/* tgt, hold, pktgen, the kernel itself and clones of tgt; adds 300. */
#define MANY	"invivo_l3_0000000000000003"
/* As FIRST, built without the clear. */
#define CONTROL	"invivo_l4_0000000000000004"

#define ROUNDS		60
#define IN_TRANSITION	8
#define MOST_TARGETS	64
#define NAME_SIZE	16

static const char *yes(bool is)
{
	return is ? "yes" : "no";
}

/* Guards the others: without the clear, old kernels refuse a target that was there once. */
static void trap(void)
{
	int first, again, healed, then;

	on(CONTROL, "");
	first = load("tgt", "");
	unload("tgt");
	again = load("tgt", "");
	unload("tgt");
	healed = heal(CONTROL, "tgt");
	then = load("tgt", "");
	say("1 without clear: %s, again %s, heal %s, then %s with %d", name(first), name(again),
	    name(healed), name(then), value());
	unload("tgt");
	off(CONTROL);
}

/* What the guest's first process and a reader of the number tell each other. */
struct shared {
	atomic_bool stop;
	atomic_int reads;
	atomic_int old;
};

static void read_until_stopped(struct shared *shared)
{
	while (!shared->stop) {
		int seen = value();

		shared->reads += seen >= 0;
		shared->old += seen >= 0 && seen != 114;
		/* A guest has few processors, and the kernel needs them too. */
		usleep(1000);
	}
	_exit(0);
}

static void reload_with_a_reader(void)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int i, refused = 0, old = 0;
	pid_t reader;

	on(FIRST, "");
	reader = fork();
	if (reader == 0)
		read_until_stopped(shared);
	for (i = 0; i < ROUNDS; i++) {
		refused += load("tgt", "") != 0;
		old += value() != 114;
		refused += unload("tgt") != 0;
	}
	shared->stop = true;
	waitpid(reader, NULL, 0);
	printf("invivo-note: the reader read %d times\n", shared->reads);
	say("2 reloads: %d, refused %d, unpatched %d, a reader saw %s code, old code %d", i,
	    refused, old, shared->reads ? "new" : "no", shared->old);
	off(FIRST);
}

static void init_fails(void)
{
	int failed, good;

	on(FIRST, "");
	failed = load("tgt", "fail=1");
	good = load("tgt", "");
	say("3 init fails: %s, then %s with %d", name(failed), name(good), value());
	unload("tgt");
	off(FIRST);
}

static void wrong_build(void)
{
	static const char file[] = "/sys/kernel/livepatch/" FIRST "/heal";
	bool before, needed, needed_then;
	int wrong, right, healed, then, loaded, unknown;

	on(FIRST, "");
	before = begins(file, "tgt");
	wrong = load_file("/tgt-nofunction.ko", "");
	right = load("tgt", "");
	needed = begins(file, "tgt\n");
	healed = heal(FIRST, "tgt\n");
	needed_then = begins(file, "tgt");
	then = load("tgt", "");
	say("4 no such function: %s, right %s, heal %s, right %s with %d", name(wrong), name(right),
	    name(healed), name(then), value());
	say("4 needs heal: before %s, refused %s, healed %s, loaded %s", yes(before), yes(needed),
	    yes(needed_then), yes(begins(file, "tgt")));

	loaded = heal(FIRST, "tgt");
	unknown = heal(FIRST, "tg");
	unload("tgt");

	wrong = load_file("/tgt-nosymbol.ko", "");
	right = load("tgt", "");
	say("4 no such symbol: %s, right %s with %d", name(wrong), name(right), value());
	unload("tgt");
	off(FIRST);

	say("4 heal: loaded %s, unknown %s, after the patch %s", name(loaded), name(unknown),
	    name(heal(FIRST, "tgt")));
}

static void patch_comes_first(void)
{
	int init, leave;

	on(FIRST, "");
	init = logged("tgt: init sees 114");
	leave = logged("tgt: exit sees 114");
	load("tgt", "");
	init = logged("tgt: init sees 114") - init;
	unload("tgt");
	leave = logged("tgt: exit sees 114") - leave;
	say("5 patch first: init patched %s, exit patched %s", yes(init == 1), yes(leave == 1));
	off(FIRST);
}

/* Counts loads of the target that went well while the patch stood in its transition. */
static int reload(const char *patch, int one, int other)
{
	int i, good = 0;

	for (i = 0; i < IN_TRANSITION; i++) {
		int seen;

		unload("tgt");
		if (!in_transition(patch) || load("tgt", ""))
			continue;
		seen = value();
		good += seen == one || seen == other;
	}
	return good;
}

static void reload_in_transitions(void)
{
	int loading, replacing, reversing;
	pid_t sleeper;

	load("tgt", "");
	load("hold", "");

	sleeper = hold();
	load(FIRST, "");
	loading = reload(FIRST, 14, 114);
	let_go(sleeper);
	wait_complete(FIRST);
	say("6 reloads while loading: %d, then %d", loading, value());

	sleeper = hold();
	load(SECOND, "");
	replacing = reload(SECOND, 114, 214);
	let_go(sleeper);
	wait_complete(SECOND);
	wait_gone(FIRST);
	say("6 reloads while replacing: %d, then %d, old %s", replacing, value(),
	    name(unload(FIRST)));

	sleeper = hold();
	disable(SECOND);
	reversing = reload(SECOND, 214, 14);
	let_go(sleeper);
	wait_gone(SECOND);
	say("6 reloads while reversing: %d, then %d, old %s", reversing, value(),
	    name(unload(SECOND)));

	unload("tgt");
	unload("hold");
}

static void rollback(void)
{
	int cleared, now, after;

	load("tgt", "");
	on(FIRST, "dyndbg=+p");
	cleared = logged("tgt goes: ");
	disable(FIRST);
	wait_gone(FIRST);
	cleared = logged("tgt goes: ") - cleared;
	now = value();
	say("7 rollback, loaded: cleared %d, %d, patch %s", cleared, now, name(unload(FIRST)));

	on(FIRST, "dyndbg=+p");
	cleared = logged("tgt goes: 2 relocations");
	unload("tgt");
	cleared = logged("tgt goes: 2 relocations") - cleared;
	disable(FIRST);
	wait_gone(FIRST);
	now = unload(FIRST);
	after = load("tgt", "");
	say("7 rollback, absent: cleared %d, patch %s, target %s with %d", cleared, name(now),
	    name(after), value());
	unload("tgt");
}

static void pinned(void)
{
	long one, two, left, none;
	int refused, failed, again;

	load("tgt", "");
	on(FIRST, "pin=1");
	one = references("tgt");
	refused = unload("tgt");
	on(SECOND, "pin=1");
	wait_gone(FIRST);
	two = references("tgt");
	unload(FIRST);
	left = references("tgt");
	off(SECOND);
	none = references("tgt");
	say("8 pin, replace: references %ld, %ld, %ld, %ld", one, two, left, none);

	unload("tgt");
	on(FIRST, "pin=1");
	failed = load("tgt", "fail=1");
	again = load("tgt", "");
	one = references("tgt");
	off(FIRST);
	none = references("tgt");
	say("9 pin: unload %s, failed init %s, again %s, references %ld, %ld, unload %s",
	    name(refused), name(failed), name(again), one, none, name(unload("tgt")));
}

/* tgt or a clone of it; who asked hold for a number would be held. */
static bool has_number(const char *target)
{
	return strncmp(target, "tgt", 3) == 0;
}

/*
 * The targets of MANY: tgt, hold, pktgen, and as many clones of tgt as there are
 * (tgt00, tgt01 ...). Returns how many.
 */
static int targets_of_many(char names[][NAME_SIZE])
{
	int count = 0, clone;

	strcpy(names[count++], "tgt");
	strcpy(names[count++], "hold");
	strcpy(names[count++], "pktgen");
	for (clone = 0; count < MOST_TARGETS; clone++) {
		char path[64];

		snprintf(names[count], NAME_SIZE, "tgt%02d", clone);
		snprintf(path, sizeof(path), "/%s.ko", names[count]);
		if (access(path, F_OK))
			break;
		count++;
	}
	return count;
}

static void many_targets(void)
{
	static char names[MOST_TARGETS][NAME_SIZE];
	int count = targets_of_many(names), refused = 0, distributions = 0, old = 0, ret, i, round;
	int there[2] = { 0 }, new[2] = { 0 }, hooked[2];

	on(MANY, "");
	for (round = 0; round < 2; round++) {
		for (i = 0; i < count; i++) {
			refused += load(names[i], "") != 0;
			there[round] += patched(MANY, names[i]);
			new[round] += has_number(names[i]) && value_of(names[i]) == 314;
		}
		there[round] += patched(MANY, "vmlinux") && begins("/proc/cmdline", "patched");
		distributions += begins("/proc/net/pktgen/pgctrl", "patched Packet Generator");
		hooked[round] = hooks();
		for (i = 0; i < count; i++)
			refused += unload(names[i]) != 0;
	}
	say("10 %d objects, twice: refused %d, patched %d, %d, hooks %d, %d, new code %d, %d, distribution's %d",
	    count + 1, refused, there[0], there[1], hooked[0], hooked[1], new[0], new[1],
	    distributions);

	for (i = 0; i < count; i++)
		load(names[i], "");
	ret = off(MANY);
	for (i = 0; i < count; i++)
		old += has_number(names[i]) && value_of(names[i]) == 14;
	say("10 reverted: %s, hooks %d, old code %d", name(ret), hooks(), old);
	for (i = 0; i < count; i++)
		unload(names[i]);
}

static void unrelated_load(void)
{
	long start;
	int ret;

	load("tgt", "");
	load("hold", "");
	on(FIRST, "");
	disable(FIRST);
	start = now_ms();
	ret = load("pktgen", "");
	start = now_ms() - start;
	printf("invivo-note: a module beside a rollback loaded in %ld ms\n", start);
	say("11 another module during a rollback: %s, within 10 s %s", name(ret),
	    yes(start < 10000));
	unload("pktgen");
	wait_gone(FIRST);
	unload(FIRST);
	unload("hold");
	unload("tgt");
}

static void skipping(void)
{
	int whole, without, unknown, nothing, right;

	load_file("/tgt-nofunction.ko", "");
	load("pktgen", "");
	whole = load(MANY, "");
	unknown = load(MANY, "skip=tgt,pktge");
	nothing = load(FIRST, "skip=tgt,hold");
	without = on(MANY, "skip=tgt,hold");
	say("12 wrong one is loaded: %s, skip %s, target %d, its object %s, the others patched %s, new code %s",
	    name(whole), name(without), value(), exists(MANY, "tgt") ? "there" : "none",
	    yes(patched(MANY, "pktgen") && patched(MANY, "vmlinux")),
	    yes(begins("/proc/net/pktgen/pgctrl", "patched Packet Generator") &&
		begins("/proc/cmdline", "patched")));
	unload("tgt");
	right = load("tgt", "");
	say("12 skip: right one %s with %d, heal %s, unknown %s, all %s, reads %s", name(right),
	    value(), name(heal(MANY, "tgt")), name(unknown), name(nothing),
	    begins("/sys/module/" MANY "/parameters/skip", "tgt,hold\n") ? "tgt,hold" : "other");
	off(MANY);
	unload("tgt");
	unload("pktgen");
}

static void changed_bytes(void)
{
	int changed = load_file("/pktgen-changed.ko", "");

	say("14 signed and changed: %s, as it was %s", name(changed), name(load("pktgen", "")));
	unload("pktgen");
}

static void foreign(void)
{
	int ret = on("foreign", "");
	bool before = begins("/proc/cmdline", "foreign");

	on(FIRST, "");
	wait_gone("foreign");
	say("17 foreign patch: %s, at work %s, after ours %s", name(ret), yes(before),
	    yes(begins("/proc/cmdline", "foreign")));
	off(FIRST);
	unload("foreign");
}

/* Whatever a case left behind would spoil those after it. */
static void left_behind(void)
{
	static const char *const names[] = {
		"tgt", "hold", "pktgen", "foreign", FIRST, SECOND, MANY, CONTROL,
	};
	int count = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (references(names[i]) >= 0) {
			printf("invivo-note: %s was left behind\n", names[i]);
			count++;
		}
	}
	say("end: left behind %d", count);
}

int main(void)
{
	static void (*const cases[])(void) = {
		trap, reload_with_a_reader, init_fails, wrong_build,
		patch_comes_first, reload_in_transitions, rollback, pinned, many_targets,
		unrelated_load, skipping, changed_bytes, foreign, left_behind,
	};
	int console;
	size_t i;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	console = open("/dev/console", O_RDWR);
	dup2(console, STDOUT_FILENO);
	dup2(console, STDERR_FILENO);

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		long start = now_ms();

		cases[i]();
		printf("invivo-note: %ld ms\n", now_ms() - start);
	}
	say("18 complaints of the kernel: %d", complaints());
	printf("invivo-boot: end 0\n");
	fflush(stdout);

	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
