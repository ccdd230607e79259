/*
 * Memory that has a file descriptor: guest RAM, and memory for generated code that is mapped twice.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int host_memory_create(struct host_memory *memory, const char *name, size_t size, struct error *err)
{
	int rc;

	memory->base = NULL;
	memory->size = size;
	memory->fd = memfd_create(name, MFD_CLOEXEC);
	if (memory->fd < 0)
		return error_set_errno(err, errno, "cannot create memory '%s'", name);
	if (ftruncate(memory->fd, (off_t)size)) {
		rc = error_set_errno(err, errno, "cannot give memory '%s' its size of %zu bytes", name, size);
		goto fail;
	}
	memory->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory->fd, 0);
	if (memory->base == MAP_FAILED) {
		memory->base = NULL;
		rc = error_set_errno(err, errno, "cannot map %zu bytes for memory '%s'", size, name);
		goto fail;
	}
	return 0;
fail:
	close(memory->fd);
	memory->fd = -1;
	return rc;
}

void host_memory_destroy(struct host_memory *memory)
{
	if (!memory->base)
		return;
	munmap(memory->base, memory->size);
	close(memory->fd);
	memory->base = NULL;
	memory->fd = -1;
}

int host_code_create(struct host_code *code, size_t size, struct error *err)
{
	int rc = host_memory_create(&code->memory, "code", size, err);

	code->exec = NULL;
	if (rc)
		return rc;
	code->exec = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_NORESERVE, code->memory.fd, 0);
	if (code->exec == MAP_FAILED) {
		code->exec = NULL;
		rc = error_set_errno(err, errno, "cannot map %zu bytes of executable memory", size);
		host_memory_destroy(&code->memory);
	}
	return rc;
}

void host_code_discard(struct host_code *code)
{
	fallocate(code->memory.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)code->memory.size);
}

void host_code_destroy(struct host_code *code)
{
	if (code->exec)
		munmap(code->exec, code->memory.size);
	code->exec = NULL;
	host_memory_destroy(&code->memory);
}
