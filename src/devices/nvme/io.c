/*
 * NVMe: the memory of commands (PRPs, 4.3), and what they do with the namespace (6). Entries of lists are read once; each list's last one leads to the next list, which begins a page.
 */
#include "devices/nvme/nvme.h"

#include <errno.h>

enum { FLUSH = 0x00, WRITE = 0x01, READ = 0x02, WRITE_ZEROES = 0x08, MANAGE = 0x09 };
#define FUA	     BIT(30) /* in word 12 */
#define DEALLOCATE   BIT(2)  /* in word 11 */
#define RANGE_SIZE   16u
#define PAGE_OFFSET  (NVME_PAGE - 1)
#define LIST_ENTRIES (NVME_PAGE / 8)

/* ---- memory ---- */

static bool add(struct nvme_command *c, uint64_t address, uint32_t size, bool to_memory)
{
	return !mem_dma_map(c->nvme->pci.device.bus->mem, gpa(address), size, to_memory, c->iov, &c->pieces,
			    NVME_PIECES);
}

/* `size` bytes, more than a page, in whole pages that a list says. */
static unsigned map_list(struct nvme_command *c, uint64_t list, uint32_t size, bool to_memory)
{
	struct guest_mem *mem = c->nvme->pci.device.bus->mem;

	while (size) {
		uint32_t room = (uint32_t)(NVME_PAGE - (list & PAGE_OFFSET)) / 8;
		uint32_t wanted = (uint32_t)(align_up(size, NVME_PAGE) / NVME_PAGE), count = MIN(room, wanted);
		uint8_t entries[NVME_PAGE];
		bool goes_on = wanted > room;

		if (list & 7)
			return NVME_INVALID_OFFSET;
		if (mem_read(mem, gpa(list), entries, (size_t)count * 8))
			return NVME_DATA_TRANSFER;
		for (uint32_t n = 0; n < count - goes_on; n++) {
			uint64_t page = load_le64(entries + (size_t)8 * n);
			uint32_t part = MIN(size, NVME_PAGE);

			if (page & PAGE_OFFSET)
				return NVME_INVALID_OFFSET;
			if (!add(c, page, part, to_memory))
				return NVME_DATA_TRANSFER;
			size -= part;
		}
		list = goes_on ? load_le64(entries + (size_t)8 * (count - 1)) : 0;
		if (list & PAGE_OFFSET)
			return NVME_INVALID_OFFSET;
	}
	return NVME_OK;
}

/* The command's memory as pieces of the host's; at most NVME_TRANSFER_MOST bytes. */
static unsigned map(struct nvme_command *c, uint32_t size, bool to_memory)
{
	uint64_t first = nvme_prp1(c), second = nvme_prp2(c);
	uint32_t part = MIN(size, (uint32_t)(NVME_PAGE - (first & PAGE_OFFSET)));

	c->pieces = 0;
	if (first & 3)
		return NVME_INVALID_OFFSET;
	if (!add(c, first, part, to_memory))
		return NVME_DATA_TRANSFER;
	size -= part;
	if (size > NVME_PAGE)
		return map_list(c, second, size, to_memory);
	if (size && second & PAGE_OFFSET)
		return NVME_INVALID_OFFSET;
	return size && !add(c, second, size, to_memory) ? NVME_DATA_TRANSFER : NVME_OK;
}

static void written(struct nvme_command *c)
{
	for (unsigned n = 0; n < c->pieces; n++)
		mem_dma_written(c->nvme->pci.device.bus->mem, c->iov[n].iov_base, c->iov[n].iov_len);
}

unsigned nvme_copy(struct nvme_command *c, void *data, uint32_t size, bool to_memory)
{
	unsigned status = map(c, size, to_memory);

	if (status)
		return status;
	for (unsigned n = 0; n < c->pieces; n++) {
		memcpy(to_memory ? c->iov[n].iov_base : data, to_memory ? data : c->iov[n].iov_base, c->iov[n].iov_len);
		data = (uint8_t *)data + c->iov[n].iov_len;
	}
	if (to_memory)
		written(c);
	return NVME_OK;
}

/* ---- commands ---- */

static unsigned ask(struct nvme_command *c, enum block_op op, uint64_t sector, uint64_t sectors)
{
	c->block.op = op;
	c->block.offset = sector * NVME_SECTOR;
	c->block.size = sectors * NVME_SECTOR;
	c->block.iov = c->iov;
	c->block.iov_count = op == BLOCK_READ || op == BLOCK_WRITE ? (int)c->pieces : 0;
	/* A cache that is off keeps nothing. */
	c->block.fua = (op == BLOCK_WRITE || op == BLOCK_WRITE_ZEROES) &&
		       (nvme_word(c, 12) & FUA || !c->nvme->features[NVME_FEATURE_CACHE]);
	c->block.may_unmap = false;
	return NVME_LATER;
}

static uint64_t first_sector(const struct nvme_command *c) { return load_le64(c->entry + 40); }
static uint32_t sectors_of(const struct nvme_command *c) { return (nvme_word(c, 12) & 0xffff) + 1; }

static unsigned move(struct nvme_command *c, enum block_op op)
{
	struct nvme *nvme = c->nvme;
	uint32_t count = sectors_of(c);
	unsigned status;

	if (op != BLOCK_WRITE_ZEROES && count > NVME_TRANSFER_MOST / NVME_SECTOR)
		return NVME_INVALID_FIELD | NVME_DO_NOT_RETRY;
	if (!range_ok(first_sector(c), count, nvme->sectors))
		return NVME_LBA_RANGE | NVME_DO_NOT_RETRY;
	if (op != BLOCK_READ && nvme->info->readonly)
		return NVME_READ_ONLY | NVME_DO_NOT_RETRY;
	if (op == BLOCK_READ) {
		nvme->reads++;
		nvme->bytes_read += (uint64_t)count * NVME_SECTOR;
	} else {
		nvme->writes++;
		nvme->bytes_written += (uint64_t)count * NVME_SECTOR;
	}
	status = op == BLOCK_WRITE_ZEROES ? NVME_OK : map(c, count * NVME_SECTOR, op == BLOCK_READ);
	return status ? status | NVME_DO_NOT_RETRY : ask(c, op, first_sector(c), count);
}

/* The next range that is something. */
static unsigned next_range(struct nvme_command *c)
{
	while (c->range < c->range_count) {
		const uint8_t *range = c->ranges + (size_t)RANGE_SIZE * c->range++;
		uint64_t sector = load_le64(range + 8);
		uint32_t count = load_le32(range + 4);

		if (!range_ok(sector, count, c->nvme->sectors))
			return NVME_LBA_RANGE | NVME_DO_NOT_RETRY;
		if (count)
			return ask(c, BLOCK_DISCARD, sector, count);
	}
	return NVME_OK;
}

static unsigned manage(struct nvme_command *c)
{
	unsigned status;

	if (!c->nvme->info->can_discard)
		return c->nvme->info->readonly ? NVME_READ_ONLY | NVME_DO_NOT_RETRY
					       : NVME_INVALID_OPCODE | NVME_DO_NOT_RETRY;
	c->range = 0;
	c->range_count = (nvme_word(c, 10) & 0xff) + 1;
	status = nvme_copy(c, c->ranges, c->range_count * RANGE_SIZE, false);
	if (status)
		return status | NVME_DO_NOT_RETRY;
	/* The others are advice. */
	return nvme_word(c, 11) & DEALLOCATE ? next_range(c) : NVME_OK;
}

unsigned nvme_io(struct nvme_command *c)
{
	uint32_t namespace = nvme_namespace(c);
	uint8_t opcode = nvme_opcode(c);

	if (namespace != 1 && (opcode != FLUSH || namespace != NVME_ALL))
		return NVME_INVALID_NAMESPACE | NVME_DO_NOT_RETRY;
	switch (opcode) {
	case FLUSH: return ask(c, BLOCK_FLUSH, 0, 0);
	case WRITE: return move(c, BLOCK_WRITE);
	case READ: return move(c, BLOCK_READ);
	case WRITE_ZEROES: return move(c, BLOCK_WRITE_ZEROES);
	case MANAGE: return manage(c);
	default: return NVME_INVALID_OPCODE | NVME_DO_NOT_RETRY;
	}
}

static unsigned status_of(const struct block_request *r)
{
	switch (r->result) {
	case 0: return NVME_OK;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG: return NVME_CAPACITY;
	case -EPERM: return NVME_READ_ONLY | NVME_DO_NOT_RETRY;
	default: return r->op == BLOCK_READ ? NVME_UNREADABLE : r->op == BLOCK_FLUSH ? NVME_INTERNAL : NVME_WRITE_FAULT;
	}
}

void nvme_io_done(struct nvme_command *c)
{
	unsigned status = status_of(&c->block);

	if (c->block.op == BLOCK_READ)
		written(c);
	if (!status && c->block.op == BLOCK_DISCARD && !c->dropped)
		status = next_range(c);
	if (status != NVME_LATER)
		nvme_end(c, status);
}
