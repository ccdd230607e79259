/*
 * Memory that has a file descriptor: guest RAM; and memory for generated code, mapped twice.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* Where sysctl vm.memfd_noexec is 2, files that could be executed are refused; before Linux 6.3 that flag is unknown. */
static int create_file(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	return fd < 0 && errno == EINVAL ? memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING) : fd;
}

/* An error of ftruncate(). */
static int refuse_size(const char *name, size_t size, struct error *err)
{
	int code = errno;

	if (code == EFBIG)
		return error_set(
			err, EFBIG,
			"cannot give memory '%s' its %zu MiB: they are more than files may have here (RLIMIT_FSIZE, "
			"ulimit -f)",
			name, size >> 20);
	return error_set_errno(err, code, "cannot give memory '%s' its size of %zu bytes", name, size);
}

static int refuse_mapping(const char *name, size_t size, struct error *err)
{
	int code = errno;

	if (code == ENOMEM)
		return error_set(
			err, ENOMEM,
			"cannot map %zu MiB for memory '%s': too much for a limit on address space (RLIMIT_AS, ulimit "
			"-v), or for vm.overcommit_memory",
			size >> 20, name);
	return error_set_errno(err, code, "cannot map %zu bytes for memory '%s'", size, name);
}

int host_memory_create(struct host_memory *memory, const char *name, size_t size, struct error *err)
{
	int rc;

	memory->base = NULL;
	memory->size = size;
	memory->fd = create_file(name);
	if (memory->fd < 0)
		return error_set_errno(err, errno, "cannot create memory '%s'", name);
	if (ftruncate(memory->fd, (off_t)size)) {
		rc = refuse_size(name, size, err);
		goto fail;
	}
	/* Whoever else gets hold of it cannot take pages away. */
	(void)fcntl(memory->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
	memory->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory->fd, 0);
	if (memory->base == MAP_FAILED) {
		memory->base = NULL;
		rc = refuse_mapping(name, size, err);
		goto fail;
	}
	host_backed_add(memory->base, size, "guest memory");
	return 0;
fail:
	close(memory->fd);
	memory->fd = -1;
	return rc;
}

int host_memory_open(struct host_memory *memory, const char *name, int fd, size_t size, bool readonly,
		     struct error *err)
{
	void *base = mmap(NULL, size, readonly ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

	if (base == MAP_FAILED)
		return refuse_mapping(name, size, err);
	*memory = (struct host_memory){ .fd = fd, .base = base, .size = size };
	host_backed_add_file(base, size, name, fd);
	return 0;
}

void host_memory_destroy(struct host_memory *memory)
{
	if (!memory->base)
		return;
	host_backed_remove(memory->base);
	munmap(memory->base, memory->size);
	close(memory->fd);
	memory->base = NULL;
	memory->fd = -1;
}

int host_memory_show(const struct host_memory *memory, size_t offset, size_t size, void *at)
{
	void *shown = mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, memory->fd,
			   (off_t)offset);

	return shown == MAP_FAILED ? -errno : 0;
}

size_t host_memory_data(const struct host_memory *memory, size_t offset, size_t *size)
{
	off_t start = lseek(memory->fd, (off_t)offset, SEEK_DATA), end = -1;

	if (start < 0 && errno == ENXIO)
		return memory->size;
	if (start >= 0)
		end = lseek(memory->fd, start, SEEK_HOLE);
	if (end < 0) { /* the host cannot tell */
		start = (off_t)offset;
		end = (off_t)memory->size;
	}
	*size = (size_t)(end - start);
	return (size_t)start;
}

void host_memory_clear(const struct host_memory *memory, size_t offset, size_t size)
{
	if (fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size))
		memset(memory->base + offset, 0, size);
}

/*
 * A second view of a shared mapping: mremap(2), "if the value of old_size is zero". A memory file would do as well, but profilers
 * (perf) look for names of generated code in anonymous mappings only.
 */
static int map_executable(struct host_code *code, struct error *err)
{
	void *exec = mremap(code->write, 0, code->size, MREMAP_MAYMOVE);
	int rc;

	if (exec != MAP_FAILED && !mprotect(exec, code->size, PROT_READ | PROT_EXEC)) {
		code->exec = exec;
		return 0;
	}
	rc = error_set_errno(err, errno, "cannot map %zu bytes of executable memory", code->size);
	if (exec != MAP_FAILED)
		munmap(exec, code->size);
	return rc;
}

int host_code_create(struct host_code *code, size_t size, struct error *err)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, rc;
	void *write = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);

	*code = (struct host_code){ 0 };
	if (write == MAP_FAILED)
		return error_set_errno(err, errno, "cannot map %zu bytes for generated code", size);
	*code = (struct host_code){ .write = write, .size = size };
	rc = map_executable(code, err);
	if (rc)
		host_code_destroy(code);
	return rc;
}

int host_code_move(struct host_code *code, struct error *err)
{
	void *before = code->exec;
	int rc = map_executable(code, err);

	/* If the host refuses this, the old view stays: nothing else is there, which is all that was promised. */
	if (!rc)
		(void)mmap(before, code->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			   0);
	return rc;
}

void host_code_discard(struct host_code *code) { madvise(code->write, code->size, MADV_REMOVE); }

void host_code_destroy(struct host_code *code)
{
	if (code->exec)
		munmap(code->exec, code->size);
	if (code->write)
		munmap(code->write, code->size);
	*code = (struct host_code){ 0 };
}
