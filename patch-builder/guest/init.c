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
 * /foreign.ko, a module that must be refused.
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

/* The first bytes of each function that is replaced. */
struct code {
	unsigned long address;
	unsigned char bytes[BYTES];
};

/* The address of the function, by its position among the symbols of its name; 0 if there is none. */
static unsigned long address_of(const char *object, const char *function, int position)
{
	FILE *file = fopen("/proc/kallsyms", "r");
	char line[1024], name[512], module[128];
	unsigned long address, found = 0;
	char type;
	int seen = 0;

	while (file && fgets(line, sizeof(line), file)) {
		int fields = sscanf(line, "%lx %c %511s [%127[^]]", &address, &type, name, module);

		if (fields < 3 || strcmp(name, function))
			continue;
		if (strcmp(object, fields == 4 ? module : "vmlinux"))
			continue;
		if (++seen == position || !position) {
			found = address;
			break;
		}
	}
	if (file)
		fclose(file);
	return found;
}

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

/* Reads the beginnings of all functions. Returns how many, -1 if one cannot be read. */
static int beginnings(const char *list, struct code *codes)
{
	FILE *file = fopen(list, "r");
	char object[128], function[512];
	int position, n = 0;

	while (file && n < FUNCTIONS &&
	       fscanf(file, "%127s %511s %d", object, function, &position) == 3) {
		struct code *code = &codes[n++];

		code->address = address_of(object, function, position);
		if (!code->address || memory(code->address, code->bytes, BYTES)) {
			printf("invivo-complaint: cannot read %s of %s\n", function, object);
			n = -1;
			break;
		}
	}
	if (file)
		fclose(file);
	return n;
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

/* Loads what is to be there before. Returns 0 or the first errno. */
static int modules(void)
{
	FILE *file = fopen("/modules", "r");
	char path[256];
	int ret = 0;

	while (file && !ret && fgets(path, sizeof(path), file)) {
		path[strcspn(path, "\n")] = 0;
		ret = load(path);
		if (ret)
			printf("invivo-complaint: %s: %s\n", path, strerror(ret));
	}
	if (file)
		fclose(file);
	return ret;
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
	/* Once more: what was left behind would be in the way now. */
	say("again", load("/patch.ko"));
	say("again-ms", wait_for(name, "transition", '0'));
	check("again-patched");
	say("again-disable", disable(name));
	say("again-reverse-ms", wait_for(name, "enabled", -1));
	say("again-unload", syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0);
	say("again-left", differing(codes, count));
}

static struct code batch_codes[FUNCTIONS];

/* Loads and takes back one of several patches. Returns the step that failed, NULL if none did. */
static const char *try_one(const char *name, long *value)
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
	if (*value)
		return "unload";
	*value = differing(batch_codes, count);
	if (*value)
		return "left";
	*value = complaints() - before;
	return *value ? "complaints" : NULL;
}

/* Each patch that /names lists, one after the other. */
static void batch(FILE *names)
{
	char name[128];

	modules();
	while (fgets(name, sizeof(name), names)) {
		const char *failed;
		long value;

		name[strcspn(name, "\n")] = 0;
		failed = try_one(name, &value);
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
