/*
 * Loaded before the C library (LD_PRELOAD): reads, writes or syncs of a file fail, for as long as somebody wants them to.
 *
 *	FAIL_NAME	the end of the file's name
 *	FAIL_CALLS	read, write, sync: any of these words
 *	FAIL_ERRNO	a number; EIO by default
 *	FAIL_WHILE	calls fail while there is a file of this name
 *	FAIL_AFTER	but the first so many, which do not (0)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is_meant(int fd)
{
	const char *name = getenv("FAIL_NAME");
	char link[64], path[4096];
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (!name || length < (ssize_t)strlen(name))
		return false;
	path[length] = 0;
	return !strcmp(path + length - strlen(name), name);
}

static bool fails(int fd, const char *call)
{
	static _Atomic long calls;
	const char *words = getenv("FAIL_CALLS"), *file = getenv("FAIL_WHILE"), *number = getenv("FAIL_ERRNO"),
		   *after = getenv("FAIL_AFTER");

	if (!words || !strstr(words, call) || !file || access(file, F_OK) || !is_meant(fd))
		return false;
	if (after && atomic_fetch_add(&calls, 1) < atol(after))
		return false;
	errno = number ? atoi(number) : EIO;
	return true;
}

#define SHIM(type, name, word, parameters, ...)                                                                        \
	type name parameters                                                                                           \
	{                                                                                                              \
		type(*real) parameters = (type(*) parameters)dlsym(RTLD_NEXT, #name);                                  \
		return fails(fd, word) ? -1 : real(__VA_ARGS__);                                                       \
	}
SHIM(ssize_t, pread, "read", (int fd, void *to, size_t size, off_t at), fd, to, size, at)
SHIM(ssize_t, preadv, "read", (int fd, const struct iovec *to, int count, off_t at), fd, to, count, at)
SHIM(ssize_t, preadv2, "read", (int fd, const struct iovec *to, int count, off_t at, int flags), fd, to, count, at,
     flags)
SHIM(ssize_t, pwritev, "write", (int fd, const struct iovec *from, int count, off_t at), fd, from, count, at)
SHIM(int, fallocate, "write", (int fd, int mode, off_t at, off_t size), fd, mode, at, size)
SHIM(int, fdatasync, "sync", (int fd), fd)
