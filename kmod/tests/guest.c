// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KLOG_READ_ALL	3
#define KLOG_SIZE	(1 << 20)
#define PATIENCE_MS	60000
#define POLL_US		10000
#define LIVEPATCH	"/sys/kernel/livepatch/"

void say(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	fputs("invivo-case: ", stdout);
	vprintf(format, list);
	putchar('\n');
	fflush(stdout);
	va_end(list);
}

const char *name(int error)
{
	return error ? strerrorname_np(error) : "ok";
}

long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Returns the length, -1 if there is no such file. */
static int read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = -1;

	if (fd < 0)
		return -1;
	length = read(fd, text, size - 1);
	close(fd);
	if (length >= 0)
		text[length] = 0;
	return length;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = errno;
	close(fd);
	return ret;
}

int load_file(const char *path, const char *parameters)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return errno;
	if (syscall(SYS_finit_module, fd, parameters, 0))
		ret = errno;
	close(fd);
	return ret;
}

int load(const char *module, const char *parameters)
{
	char path[128];

	snprintf(path, sizeof(path), "/%s.ko", module);
	return load_file(path, parameters);
}

int unload(const char *module)
{
	return syscall(SYS_delete_module, module, O_NONBLOCK) ? errno : 0;
}

long references(const char *module)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", module);
	return read_file(path, text, sizeof(text)) > 0 ? strtol(text, NULL, 10) : -1;
}

/* The first character of a file below the patch's folder, 0 if it is not there. */
static char attribute(const char *patch, const char *file)
{
	char path[256], text[8];

	snprintf(path, sizeof(path), LIVEPATCH "%s/%s", patch, file);
	return read_file(path, text, sizeof(text)) > 0 ? text[0] : 0;
}

static int wait_for(const char *patch, const char *file, char value)
{
	long start = now_ms();

	while (attribute(patch, file) != value) {
		if (now_ms() - start > PATIENCE_MS)
			return ETIMEDOUT;
		usleep(POLL_US);
	}
	return 0;
}

int wait_complete(const char *patch)
{
	return wait_for(patch, "transition", '0');
}

int wait_gone(const char *patch)
{
	return wait_for(patch, "enabled", 0);
}

bool in_transition(const char *patch)
{
	return attribute(patch, "transition") == '1';
}

bool exists(const char *patch, const char *object)
{
	char path[256];

	snprintf(path, sizeof(path), LIVEPATCH "%s/%s", patch, object);
	return access(path, F_OK) == 0;
}

bool patched(const char *patch, const char *object)
{
	char file[128], path[256];

	snprintf(file, sizeof(file), "%s/patched", object);
	snprintf(path, sizeof(path), LIVEPATCH "%s/%s", patch, file);
	if (!access(path, F_OK) || errno != ENOENT)
		return attribute(patch, file) == '1';
	/*
	 * Before 6.1 the kernel does not tell. It is always there itself, and a
	 * module that it could not patch it does not load.
	 */
	if (!exists(patch, object))
		return false;
	snprintf(path, sizeof(path), "/sys/module/%s/initstate", object);
	return !strcmp(object, "vmlinux") || begins(path, "live\n");
}

int disable(const char *patch)
{
	char path[256];

	snprintf(path, sizeof(path), LIVEPATCH "%s/enabled", patch);
	return write_file(path, "0");
}

int on(const char *patch, const char *parameters)
{
	int ret = load(patch, parameters);

	return ret ? ret : wait_complete(patch);
}

int off(const char *patch)
{
	int ret = disable(patch);

	if (!ret)
		ret = wait_gone(patch);
	return ret ? ret : unload(patch);
}

int heal(const char *patch, const char *target)
{
	char path[256];

	snprintf(path, sizeof(path), LIVEPATCH "%s/heal", patch);
	return write_file(path, target);
}

int hooks(void)
{
	FILE *file = fopen("/sys/kernel/tracing/enabled_functions", "r");
	char line[512];
	int count = 0;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		count++;
	fclose(file);
	return count;
}

int value_of(const char *module)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), "/proc/%s", module);
	return read_file(path, text, sizeof(text)) > 0 ? atoi(text) : -1;
}

int value(void)
{
	return value_of("tgt");
}

bool begins(const char *path, const char *text)
{
	char content[256];

	return read_file(path, content, sizeof(content)) > 0 &&
	       strncmp(content, text, strlen(text)) == 0;
}

/* The third field of /proc/PID/stat. */
static char state(pid_t pid)
{
	char path[64], text[256], *rest;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (read_file(path, text, sizeof(text)) <= 0)
		return 0;
	rest = strrchr(text, ')');
	return rest ? rest[2] : 0;
}

pid_t hold(void)
{
	long start = now_ms();
	pid_t pid = fork();

	if (pid == 0) {
		char text[8];

		read_file("/proc/hold", text, sizeof(text));
		_exit(0);
	}
	/* A killable sleep counts as a disk sleep; nothing else on its way does. */
	while (state(pid) != 'D' && now_ms() - start < PATIENCE_MS)
		usleep(POLL_US);
	return pid;
}

void let_go(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Calls what is to be done with each line of the kernel's log. */
static int each_line(bool (*wanted)(const char *line, const char *text), const char *text)
{
	char *log = malloc(KLOG_SIZE + 1), *line, *rest;
	int size = log ? klogctl(KLOG_READ_ALL, log, KLOG_SIZE) : -1;
	int count = 0;

	if (size < 0) {
		free(log);
		return -1;
	}
	log[size] = 0;
	for (line = strtok_r(log, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		count += wanted(line, text);
	free(log);
	return count;
}

static bool contains(const char *line, const char *text)
{
	return strstr(line, text);
}

int logged(const char *text)
{
	return each_line(contains, text);
}

static bool complains(const char *line, const char *unused)
{
	static const char *const marks[] = {
		"BUG:", "WARNING:", "Oops", "Call Trace", "stall", "general protection",
		"does not match expected value",
	};
	size_t i;

	(void)unused;
	for (i = 0; i < ARRAY_SIZE(marks); i++) {
		if (strstr(line, marks[i])) {
			printf("invivo-complaint: %s\n", line);
			return true;
		}
	}
	return false;
}

int complaints(void)
{
	return each_line(complains, NULL);
}
