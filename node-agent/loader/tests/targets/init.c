// SPDX-License-Identifier: Apache-2.0
/* The guest's first program: makes the machine usable, runs the cases, and ends it. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	char *const cases[] = { "/cases", "--exact", "in_the_guest", "--ignored", "--nocapture", NULL };
	char *const environment[] = { "RUST_BACKTRACE=0", NULL };
	int console, status = 1;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	console = open("/dev/console", O_RDWR);
	dup2(console, STDOUT_FILENO);
	dup2(console, STDERR_FILENO);

	if (!fork()) {
		execve(cases[0], cases, environment);
		_exit(127);
	}
	wait(&status);

	printf("invivo-boot: end %d\n", status);
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
