// SPDX-License-Identifier: Apache-2.0
/*
 * Does the kernel count its directory entries as they are, or far above that? Either way a new
 * file is one more.
 *
 * Exit code: 0 far above, 10 as they are, 2 it does not count.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { ABOVE = 0, UNKNOWN = 2, PLAIN = 10, FILES = 300, OTHERS = 100 };

static long entries(void)
{
	long number = -1;
	FILE *file = fopen("/proc/sys/fs/dentry-state", "r");

	if (!file || fscanf(file, "%ld", &number) != 1)
		number = -1;
	if (file)
		fclose(file);
	return number;
}

int main(void)
{
	char name[32];
	long before = entries(), after;
	int n;

	for (n = 0; n < FILES; n++) {
		snprintf(name, sizeof(name), "/many%d", n);
		close(open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	}
	after = entries();
	for (n = 0; n < FILES; n++) {
		snprintf(name, sizeof(name), "/many%d", n);
		unlink(name);
	}
	printf("%ld, with %d files more %ld\n", before, FILES, after);
	if (before < 0 || after < before + FILES - OTHERS || after > before + FILES + OTHERS)
		return UNKNOWN;
	return before >= 1000000000 ? ABOVE : PLAIN;
}
