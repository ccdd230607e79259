/*
 * Guest memory for devices that have the host's kernel read and write it (preadv(), sendmsg()): host addresses, instead of copies.
 *
 * Such a device may wait for a disk, so it must not keep anybody from changing the map: it is not counted as a reader of it. It need not be, because
 * what an address was of stays mapped in the host: RAM for the machine's life, another memory at least until the devices are paused (bus.h), behind
 * which they use none of these addresses. A map that changes under a request is seen by the next one, as on hardware.
 *
 * Where a written page is in the map is looked up when the write is noted: what shows it by then is where engines have decoded from. A page
 * that nothing shows any more has no code: mem_commit() saw to that.
 */
#include "mem/private.h"

#include <errno.h>

/* One more piece, or a longer last one. False: there is no room. */
static bool add_piece(struct iovec *iov, unsigned *count, unsigned room, uint8_t *host, size_t len)
{
	if (*count && (uint8_t *)iov[*count - 1].iov_base + iov[*count - 1].iov_len == host) {
		iov[*count - 1].iov_len += len;
		return true;
	}
	if (*count == room)
		return false;
	iov[(*count)++] = (struct iovec){ host, len };
	return true;
}

static int map_pieces(struct guest_mem *mem, gpa_t at, size_t len, bool write, struct iovec *iov, unsigned *count,
		      unsigned room)
{
	while (len) {
		const struct mem_region *region = mem_find(mem, at);
		uint8_t *host = !region ? NULL : write ? region->write_host : region->host;
		size_t part;

		if (!host)
			return -EFAULT;
		part = map_part(mem, region, at, len);
		if (!add_piece(iov, count, room, host + (at.v - region->start), part))
			return -E2BIG;
		at.v += part;
		len -= part;
	}
	return 0;
}

int mem_dma_map(struct guest_mem *mem, gpa_t at, size_t len, bool write, struct iovec *iov, unsigned *count,
		unsigned room)
{
	int rc;

	if (!range_ok(at.v, len, UINT64_MAX))
		return -EFAULT;
	map_enter(mem);
	rc = map_pieces(mem, at, len, write, iov, count, room);
	map_leave(mem);
	return rc;
}

/* ---- behind a write ---- */

static struct mem_page *record_of(struct guest_mem *mem, const uint8_t *host)
{
	const struct memory *memory;

	list_for_each (memory, &mem->memories, node)
		if ((size_t)(host - memory->file.base) < memory->file.size)
			break;
	BUG_ON(&memory->node == &mem->memories);
	return &mem->pages[memory->first + ((uint64_t)(host - memory->file.base) >> PAGE_SHIFT)];
}

/* Where the map shows it. */
static bool address_of(struct guest_mem *mem, const uint8_t *host, gpa_t *at)
{
	const struct mem_map *map;
	bool found = false;

	map_enter(mem);
	map = atomic_load_explicit(&mem->map, memory_order_acquire);
	for (unsigned n = 0; !found && n < map->count; n++) {
		const struct mem_region *region = &map->regions[n];

		found = region->host && (size_t)(host - region->host) < region->size;
		if (found)
			*at = gpa(region->start + (uint64_t)(host - region->host));
	}
	map_leave(mem);
	return found;
}

/* In one page. */
static void note_part(struct guest_mem *mem, const uint8_t *host, size_t len)
{
	struct mem_page *page = record_of(mem, host);
	gpa_t at;

	if (mem_is_logging(mem))
		mem_mark_dirty(mem, page);
	if ((atomic_load(&page->code_chunks) || atomic_load(&page->changing)) && address_of(mem, host, &at))
		code_forget(mem, page, at, len);
}

void mem_dma_written(struct guest_mem *mem, const void *host, size_t len)
{
	const uint8_t *at = host;

	atomic_thread_fence(memory_order_seq_cst); /* as in mem_change_begin(), once for all pages */
	while (len) {
		size_t part = MIN(len, PAGE_SIZE - ((uintptr_t)at & (PAGE_SIZE - 1)));

		note_part(mem, at, part);
		at += part;
		len -= part;
	}
}

void mem_dma_discard(struct guest_mem *mem, const struct iovec *piece)
{
	const struct host_memory *ram = &mem->ram.file;
	size_t offset = (size_t)((const uint8_t *)piece->iov_base - ram->base), start, end;

	if (offset >= ram->size)
		return;
	start = align_up(offset, PAGE_SIZE);
	end = align_down(offset + piece->iov_len, PAGE_SIZE);
	if (start >= end)
		return;
	host_memory_clear(ram, start, end - start);
	mem_dma_written(mem, ram->base + start, end - start);
}
