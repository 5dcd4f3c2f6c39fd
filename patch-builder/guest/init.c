// SPDX-License-Identifier: Apache-2.0
/*
 * The only program of the guest in which a patch module is tried: the first
 * process. Loads, looks, takes back, looks again, and says what it saw in
 * lines of "invivo-boot: <what> <value>" on the console.
 *
 * Expects in its file system: /patch.ko and /name, the module and its name;
 * /check0, /check1 and so on, the recipes' check programs, if they have any;
 * /modules, the kernel modules to be there before, one path a line;
 * /functions, what is replaced: "object function position" a line; optionally
 * /foreign.ko, a module that must be refused, and /stays if the module must
 * refuse to be unloaded.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KLOG_READ_ALL	3
#define KLOG_SIZE	(1 << 20)
#define PATIENCE_MS	60000
#define POLL_MS		50
#define MODULES		512
#define PATH		512
#define ROUNDS		2

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void say(const char *what, long value)
{
	printf("invivo-boot: %s %ld\n", what, value);
	fflush(stdout);
}

static int run(const char *program)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		execl(program, program, NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Says what all checks say if they agree, else -2; 0 and 10 as the builder knows them. */
static void check(const char *when)
{
	char program[32];
	int all = -3, n;

	for (n = 0;; n++) {
		int one;

		snprintf(program, sizeof(program), "/check%d", n);
		if (access(program, X_OK))
			break;
		one = run(program);
		all = n && one != all ? -2 : one;
	}
	say(when, all);
}

/* Returns 0 or an errno. */
static int load(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return errno;
	if (syscall(SYS_finit_module, fd, "", 0))
		ret = errno;
	close(fd);
	return ret;
}

/* The first character of a livepatch attribute, -1 if it is not there. */
static int attribute(const char *patch, const char *name)
{
	char path[256], value = 0;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/livepatch/%s/%s", patch, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (read(fd, &value, 1) != 1)
		value = 0;
	close(fd);
	return value;
}

/* Milliseconds until the attribute has the value, -1 if it never has. */
static long wait_for(const char *patch, const char *name, int value)
{
	long start = now_ms();

	while (attribute(patch, name) != value) {
		if (now_ms() - start > PATIENCE_MS)
			return -1;
		usleep(POLL_MS * 1000);
	}
	return now_ms() - start;
}

/* Returns 0 or an errno. */
static int disable(const char *patch)
{
	char path[256];
	int fd, ret = 0;

	snprintf(path, sizeof(path), "/sys/kernel/livepatch/%s/enabled", patch);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	if (write(fd, "0", 1) != 1)
		ret = errno;
	close(fd);
	return ret;
}

/* How often the kernel complained; each complaint is shown. */
static long complaints(void)
{
	static const char *const marks[] = {
		"BUG:", "WARNING:", "Oops", "Call Trace", "stall", "general protection",
	};
	char *log = malloc(KLOG_SIZE + 1), *line, *rest;
	long count = 0;
	int size;

	size = log ? klogctl(KLOG_READ_ALL, log, KLOG_SIZE) : -1;
	if (size < 0)
		return -1;
	log[size] = 0;
	for (line = strtok_r(log, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		size_t i;

		if (strstr(line, "livepatch") || strstr(line, "invivo"))
			printf("invivo-kernel: %s\n", line);
		for (i = 0; i < sizeof(marks) / sizeof(*marks); i++) {
			if (strstr(line, marks[i])) {
				printf("invivo-complaint: %s\n", line);
				count++;
				break;
			}
		}
	}
	free(log);
	return count;
}

#define FUNCTIONS	4096
#define BYTES		16

/* A function that is replaced, and its first bytes. */
struct code {
	char object[128];
	char function[256];
	int position;
	int seen;
	unsigned long address;
	unsigned char bytes[BYTES];
};

/* Reads the kernel's memory. Returns 0 or -1. */
static int memory(unsigned long address, void *to, size_t size)
{
	int fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
	Elf64_Ehdr header;
	Elf64_Phdr segment;
	int i, ret = -1;

	if (fd < 0)
		return -1;
	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		header.e_phnum = 0;
	for (i = 0; i < header.e_phnum; i++) {
		off_t at = header.e_phoff + i * sizeof(segment);

		if (pread(fd, &segment, sizeof(segment), at) != sizeof(segment))
			break;
		if (segment.p_type != PT_LOAD || address < segment.p_vaddr ||
		    address - segment.p_vaddr >= segment.p_memsz)
			continue;
		at = segment.p_offset + (address - segment.p_vaddr);
		ret = pread(fd, to, size, at) == (ssize_t)size ? 0 : -1;
		break;
	}
	close(fd);
	return ret;
}

/* Finds the functions' addresses, each by its position among the symbols of its name. */
static void addresses(struct code *codes, int count)
{
	FILE *file = fopen("/proc/kallsyms", "r");
	char line[1024], name[512], module[128];
	unsigned long address;
	char type;
	int n;

	while (file && fgets(line, sizeof(line), file)) {
		int fields = sscanf(line, "%lx %c %511s [%127[^]]", &address, &type, name, module);

		if (fields < 3)
			continue;
		for (n = 0; n < count; n++) {
			struct code *code = &codes[n];

			if (code->address || strcmp(name, code->function) ||
			    strcmp(code->object, fields == 4 ? module : "vmlinux"))
				continue;
			if (++code->seen == code->position || !code->position)
				code->address = address;
		}
	}
	if (file)
		fclose(file);
}

/* Reads the beginnings of all functions. Returns how many, -1 if one cannot be read. */
static int beginnings(const char *list, struct code *codes)
{
	FILE *file = fopen(list, "r");
	int count = 0, n;

	memset(codes, 0, FUNCTIONS * sizeof(*codes));
	while (file && count < FUNCTIONS &&
	       fscanf(file, "%127s %255s %d", codes[count].object, codes[count].function,
		      &codes[count].position) == 3)
		count++;
	if (file)
		fclose(file);
	addresses(codes, count);
	for (n = 0; n < count; n++) {
		struct code *code = &codes[n];

		if (!code->address || memory(code->address, code->bytes, BYTES)) {
			printf("invivo-complaint: cannot read %s of %s\n", code->function, code->object);
			return -1;
		}
	}
	return count;
}

/* How many of the functions do not begin as they did. */
static int differing(const struct code *codes, int count)
{
	unsigned char bytes[BYTES];
	int n, other = 0;

	for (n = 0; n < count; n++)
		if (memory(codes[n].address, bytes, BYTES) || memcmp(bytes, codes[n].bytes, BYTES))
			other++;
	return other;
}

/* Loads what is to be there before, as far as it can. Returns 0 or the first errno. */
static int modules(void)
{
	FILE *file = fopen("/modules", "r");
	char path[256];
	int ret = 0, error;

	while (file && fgets(path, sizeof(path), file)) {
		path[strcspn(path, "\n")] = 0;
		error = load(path);
		if (error)
			printf("invivo-complaint: %s: %s\n", path, strerror(error));
		if (!ret)
			ret = error;
	}
	if (file)
		fclose(file);
	return ret;
}

/* The paths of /modules, in their order. Returns how many. */
static int paths(char (*list)[PATH], int most)
{
	FILE *file = fopen("/modules", "r");
	int n = 0;

	while (file && n < most && fgets(list[n], PATH, file)) {
		list[n][strcspn(list[n], "\n")] = 0;
		n++;
	}
	if (file)
		fclose(file);
	return n;
}

/* The module's name, from its path, which it changes. */
static const char *module_of(char *path)
{
	char *slash = strrchr(path, '/');

	path = slash ? slash + 1 : path;
	path[strcspn(path, ".")] = 0;
	return path;
}

/* How many targets are there and not patched. */
static int unpatched(const char *patch, char (*list)[PATH], int count)
{
	int n, other = 0;

	for (n = 0; n < count; n++) {
		char copy[PATH], file[PATH + 16];
		int patched;

		memcpy(copy, list[n], PATH);
		snprintf(file, sizeof(file), "%s/patched", module_of(copy));
		patched = attribute(patch, file);
		/* Not all are targets: some are only needed by one. */
		if (patched != -1 && patched != '1') {
			printf("invivo-complaint: %s is not 1\n", file);
			other++;
		}
	}
	return other;
}

/*
 * All modules go and come back, each after what it needs. Some cannot go: they
 * are in use, or have no exit. Returns how many did not come back.
 */
static int round_of(char (*list)[PATH], int count, int *kept)
{
	static int gone[MODULES];
	int n, refused = 0;

	for (n = count - 1; n >= 0; n--) {
		char copy[PATH];

		memcpy(copy, list[n], PATH);
		gone[n] = !syscall(SYS_delete_module, module_of(copy), O_NONBLOCK);
		*kept += !gone[n];
	}
	for (n = 0; n < count; n++) {
		int error = gone[n] ? load(list[n]) : 0;

		if (error) {
			printf("invivo-complaint: %s: %s\n", list[n], strerror(error));
			refused++;
		}
	}
	return refused;
}

/* How much of the beginning of a function is the place for the tracer. */
static size_t place(const unsigned char *bytes)
{
	static const unsigned char endbr[] = { 0xf3, 0x0f, 0x1e, 0xfa };

	return memcmp(bytes, endbr, sizeof(endbr)) ? 5 : 9;
}

/*
 * Loads the patch once more, lets its targets come and go, and takes it off:
 * the targets lie elsewhere then, and their functions begin as they did.
 */
static void rounds(const char *name, const struct code *codes, int count)
{
	static char list[MODULES][PATH];
	static struct code again[FUNCTIONS];
	int modules = paths(list, MODULES), kept = 0, refused = 0, other = 0, n;
	long start;

	if (!modules)
		return;
	say("rounds-load", load("/patch.ko"));
	say("rounds-transition-ms", wait_for(name, "transition", '0'));
	start = now_ms();
	for (n = 0; n < ROUNDS; n++) {
		refused += round_of(list, modules, &kept);
		other += unpatched(name, list, modules);
	}
	say("rounds-ms", now_ms() - start);
	say("rounds-kept", kept);
	say("rounds-refused", refused);
	say("rounds-unpatched", other);
	say("rounds-disable", disable(name));
	say("rounds-reverse-ms", wait_for(name, "enabled", -1));
	say("rounds-unload", syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0);
	other = beginnings("/functions", again) == count ? 0 : count;
	for (n = 0; n < count; n++)
		other += !!memcmp(codes[n].bytes, again[n].bytes, place(codes[n].bytes));
	say("rounds-left", other);
}

static void try(const char *name)
{
	static struct code codes[FUNCTIONS];
	int count;
	long start;

	say("modules", modules());
	count = beginnings("/functions", codes);
	say("functions", count);
	check("before");
	if (access("/foreign.ko", F_OK) == 0) {
		say("foreign", load("/foreign.ko"));
		check("after-foreign");
	}
	start = now_ms();
	say("load", load("/patch.ko"));
	say("load-ms", now_ms() - start);
	say("transition-ms", wait_for(name, "transition", '0'));
	say("enabled", attribute(name, "enabled") - '0');
	say("redirected", differing(codes, count));
	check("patched");
	say("disable", disable(name));
	say("reverse-ms", wait_for(name, "enabled", -1));
	say("unload", syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0);
	check("reverted");
	say("left", differing(codes, count));
	/* What stays in memory cannot be loaded again. */
	if (access("/stays", F_OK) == 0)
		return;
	/* Once more: what was left behind would be in the way now. */
	say("again", load("/patch.ko"));
	say("again-ms", wait_for(name, "transition", '0'));
	check("again-patched");
	say("again-disable", disable(name));
	say("again-reverse-ms", wait_for(name, "enabled", -1));
	say("again-unload", syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0);
	say("again-left", differing(codes, count));
	rounds(name, codes, count);
}

static struct code batch_codes[FUNCTIONS];

/*
 * Loads and takes back one of several patches; it unloads with the errno @gone.
 * Returns the step that failed, NULL if none did.
 */
static const char *try_one(const char *name, int gone, long *value)
{
	char path[256];
	long before = complaints();
	int count;

	snprintf(path, sizeof(path), "/patches.d/%s.functions", name);
	count = beginnings(path, batch_codes);
	*value = count;
	if (count <= 0)
		return "functions";
	snprintf(path, sizeof(path), "/patches.d/%s.ko", name);
	*value = load(path);
	if (*value)
		return "load";
	*value = wait_for(name, "transition", '0');
	if (*value < 0)
		return "transition";
	*value = differing(batch_codes, count);
	if (*value != count)
		return "redirected";
	*value = disable(name);
	if (*value)
		return "disable";
	*value = wait_for(name, "enabled", -1);
	if (*value < 0)
		return "reverse";
	*value = syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0;
	if (*value != gone)
		return "unload";
	*value = differing(batch_codes, count);
	if (*value)
		return "left";
	*value = complaints() - before;
	return *value ? "complaints" : NULL;
}

/* Each patch that /names lists, one after the other: "name", or "name stays". */
static void batch(FILE *names)
{
	char name[128];

	modules();
	while (fgets(name, sizeof(name), names)) {
		const char *failed;
		int stays;
		long value;

		stays = strstr(name, " stays") != NULL;
		name[strcspn(name, " \n")] = 0;
		failed = try_one(name, stays ? EAGAIN : 0, &value);
		if (failed)
			printf("invivo-batch: %s %s %ld\n", name, failed, value);
		else
			printf("invivo-batch: %s ok\n", name);
		fflush(stdout);
	}
}

int main(void)
{
	char name[64] = "";
	FILE *file;
	int console;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	console = open("/dev/console", O_RDWR);
	dup2(console, STDOUT_FILENO);
	dup2(console, STDERR_FILENO);

	file = fopen("/names", "r");
	if (file)
		batch(file);
	file = fopen("/name", "r");
	if (file && fgets(name, sizeof(name), file))
		try(name);
	say("complaints", complaints());
	say("end", 0);

	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
