/*
 * The host's mappings in windows: made, protected and given back so that a host that has no more of them is no harm.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, MAP_POPULATE, syscall */
#include "engine/bt/window_private.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *host_pointer(uint64_t at) { return (void *)(uintptr_t)at; }

/*
 * The system call itself: mmap() of a sanitizer keeps a shadow of everything it maps, here of half a terabyte a window. Nothing but
 * translated code ever uses these addresses.
 */
static int host_mmap(uint64_t at, uint64_t size, int protection, int flags, int fd, uint64_t offset)
{
	return syscall(SYS_mmap, at, size, protection, flags, fd, offset) == -1 ? -errno : 0;
}

uint64_t windows_reserve(uint64_t size)
{
	long at = syscall(SYS_mmap, 0, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return at == -1 ? 0 : (uint64_t)at;
}

void windows_release(uint64_t at, uint64_t size)
{
	if (at)
		syscall(SYS_munmap, at, size);
}

/* Each is one mapping, whatever is beside it: shared ones with memory of their own do not become one. */
bool spares_take(struct bt_windows *w)
{
	while (w->spare_count < SPARE_MAPPINGS) {
		long at = syscall(SYS_mmap, 0, PAGE_SIZE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (at == -1)
			return false;
		w->spare[w->spare_count++] = (uint64_t)at;
	}
	return true;
}

static bool spare_give(struct bt_windows *w)
{
	return w->spare_count && !syscall(SYS_munmap, w->spare[--w->spare_count], PAGE_SIZE);
}

void spares_release(struct bt_windows *w)
{
	while (spare_give(w))
		continue;
}

bool windows_open_page(struct bt_windows *w, uint64_t at)
{
	do {
		if (!mprotect(host_pointer(at), PAGE_SIZE, PROT_READ | PROT_WRITE))
			return true;
	} while (spare_give(w));
	return false;
}

int windows_host_reserve(uint64_t at, uint64_t size)
{
	return host_mmap(at, size, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static struct window *window_around(struct bt_windows *w, uint64_t at)
{
	return &w->window[(at - w->first) / (WINDOW_SIZE + WINDOW_GUARD)];
}

/*
 * Give addresses of a window back to the reservation. What was there may not be used any more, whatever happens; but the host gives a
 * process so many mappings, others may have taken the last ones (or its limit became lower), and a piece in the middle of a mapping
 * takes two more. So there are some to spare. When these do not help, taking all rights away does as well, which needs no further
 * mapping where nothing is cut: last of all for the whole window, at whose ends there never were any rights. What is left of it then
 * is seen to later.
 */
void windows_host_unmap(struct bt_windows *w, uint64_t at, uint64_t size)
{
	struct window *window = window_around(w, at);

	w->host_calls++;
	do {
		if (!windows_host_reserve(at, size))
			return;
	} while (spare_give(w));
	BUG_ON(mprotect(host_pointer(at), size, PROT_NONE) &&
	       mprotect(host_pointer(window->base), WINDOW_SIZE, PROT_NONE));
	window->unclean = w->unclean = true;
}

int windows_host_map(struct bt_windows *w, uint64_t at, uint64_t size, uint64_t offset, bool writable, bool populate)
{
	const struct memory *memory = mem_memory_of(w->mem, offset >> PAGE_SHIFT);
	int rc = host_mmap(at, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
			   MAP_FIXED | MAP_SHARED | MAP_NORESERVE | (populate ? MAP_POPULATE : 0), memory->file.fd,
			   offset - (memory->first << PAGE_SHIFT));

	w->host_calls++;
	if (rc)
		windows_host_unmap(w, at, size);
	return rc;
}

bool windows_host_protect(struct bt_windows *w, uint64_t at, uint64_t size)
{
	w->host_calls++;
	if (!mprotect(host_pointer(at), size, PROT_READ))
		return true;
	windows_host_unmap(w, at, size);
	return false;
}
