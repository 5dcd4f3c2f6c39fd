// SPDX-License-Identifier: Apache-2.0
/*
 * With which error does the kernel refuse to compute with a word that is not there? Each way of computing
 * faults at a place of its own.
 *
 * Exit code: 0 the patch's, 10 the kernel's own, 2 any other, or none.
 */
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATCHED = 0, UNKNOWN = 2, PLAIN = 10 };

static const int ways[] = { FUTEX_OP_SET, FUTEX_OP_ADD, FUTEX_OP_OR, FUTEX_OP_ANDN, FUTEX_OP_XOR };

#define WAYS (sizeof(ways) / sizeof(*ways))

static int error_of(int way, unsigned int *word)
{
	unsigned int there = 0;
	long ret = syscall(SYS_futex, &there, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 1, 1, word,
			   FUTEX_OP(way, 1, FUTEX_OP_CMP_EQ, 0));

	return ret < 0 ? errno : 0;
}

int main(void)
{
	size_t page = sysconf(_SC_PAGESIZE), n;
	unsigned int *word = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned int there = 0;
	int error;

	if (word == MAP_FAILED || munmap(word, page))
		return UNKNOWN;
	error = error_of(ways[0], word);
	for (n = 0; n < WAYS; n++) {
		printf("way %d: error %d\n", ways[n], error_of(ways[n], word));
		if (error_of(ways[n], word) != error || error_of(ways[n], &there))
			return UNKNOWN;
	}
	return error == ENOTBLK ? PATCHED : error == EFAULT ? PLAIN : UNKNOWN;
}
