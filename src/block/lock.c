/*
 * Who opens an image for what, told to others: locks on single bytes, of open file descriptions (fcntl(2)), with the meaning that QEMU's
 * file driver gives them, so that doppel, qemu-img and QEMU see each other. Byte 100 + n is locked, shared, by who does what bit n says
 * to the file, byte 200 + n by who allows no other to do it. After locking its own, everybody looks whether there is anybody whom it does not go with.
 */
#define _GNU_SOURCE
#include "block/private.h"

#include <errno.h>
#include <fcntl.h>

#define LOCK_DONE   100 /* QEMU: RAW_LOCK_PERM_BASE */
#define LOCK_DENIED 200 /* QEMU: RAW_LOCK_SHARED_BASE */

#define DOES_READ   BIT(0) /* and what it reads must be consistent */
#define DOES_WRITE  BIT(1)
#define DOES_RESIZE BIT(3)

#define LOCK_BITS 5

static const char *const deeds[LOCK_BITS] = { "read", "write", "write unchanged data to", "resize", "rearrange" };

/* The host or its file system knows no such locks. */
static bool no_locks_here(int code) { return code == EINVAL || code == ENOLCK || code == ENOSYS || code == EOPNOTSUPP; }

static int lock_byte(int fd, int byte)
{
	struct flock lock = { .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_type = F_RDLCK };

	return fcntl(fd, F_OFD_SETLK, &lock) ? -errno : 0;
}

/* Has somebody else locked it? */
static bool byte_is_locked(int fd, int byte)
{
	struct flock lock = { .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_type = F_WRLCK };

	return !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

static int lock_bits(int fd, int base, unsigned mask)
{
	int rc = 0;

	for (int n = 0; n < LOCK_BITS && !rc; n++)
		if (mask & BIT(n))
			rc = lock_byte(fd, base + n);
	return rc;
}

int file_lock(int fd, const char *path, bool readonly, struct error *err)
{
	unsigned done = readonly ? DOES_READ : DOES_READ | DOES_WRITE | DOES_RESIZE;
	unsigned denied = DOES_WRITE | DOES_RESIZE;
	int rc = lock_bits(fd, LOCK_DONE, done);

	if (!rc)
		rc = lock_bits(fd, LOCK_DENIED, denied);
	if (rc && no_locks_here(-rc)) {
		log_warning("'%s': no locks on its file system: nothing keeps others from writing to it", path);
		return 0;
	}
	if (rc)
		return error_set_errno(err, -rc, "cannot lock '%s'", path);
	for (int n = 0; n < LOCK_BITS; n++) {
		if ((done & BIT(n)) && byte_is_locked(fd, LOCK_DENIED + n))
			return error_set(err, EBUSY, "'%s' is in use by another program, which lets nobody else %s it",
					 path, deeds[n]);
		if ((denied & BIT(n)) && byte_is_locked(fd, LOCK_DONE + n))
			return error_set(err, EBUSY, "'%s' is in use by another program, which may %s it", path,
					 deeds[n]);
	}
	return 0;
}
