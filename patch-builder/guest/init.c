// SPDX-License-Identifier: Apache-2.0
/*
 * The only program of the guest in which a patch module is tried: the first
 * process. Loads, looks, takes back, looks again, and says what it saw in
 * lines of "invivo-boot: <what> <value>" on the console.
 *
 * Expects in its file system: /check, the recipe's check program; /patch.ko
 * and /name, the module and its name; optionally /foreign.ko, a module that
 * must be refused.
 */
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

static void check(const char *when)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0) {
		execl("/check", "/check", NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	say(when, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
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

static void try(const char *name)
{
	long start;

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
	check("patched");
	say("disable", disable(name));
	say("reverse-ms", wait_for(name, "enabled", -1));
	say("unload", syscall(SYS_delete_module, name, O_NONBLOCK) ? errno : 0);
	check("reverted");
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

	file = fopen("/name", "r");
	if (file && fgets(name, sizeof(name), file))
		try(name);
	say("complaints", complaints());
	say("end", 0);

	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
