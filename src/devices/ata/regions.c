/*
 * The guest memory that a transfer goes to or comes from, region by region as a table in that memory says: as pieces of the host's, or copied.
 */
#include "devices/ata/ata.h"

#include <errno.h>

#define PART_MOST 65536u /* bytes, of ATA_PIECES_OF_REGION pieces at most */

/* So that something of a region is left; false: there is none. */
static bool find_region(struct ata_regions *r)
{
	while (!r->left && !r->last && !r->failed)
		r->failed = !r->fetch(r);
	return !r->failed && r->left;
}

static void take_region(struct ata_regions *r, uint32_t size)
{
	r->at += size;
	r->left -= size;
}

/* Adds what the next `size` bytes of regions are in host memory. -EAGAIN: there are fewer, or too many pieces; -EFAULT: no memory. */
static int map_bytes(struct ata_regions *r, struct ata_pieces *p, uint32_t size, bool to_memory)
{
	while (size) {
		uint32_t part;

		if (!find_region(r) || p->count + ATA_PIECES_OF_REGION > p->room)
			return r->failed ? -EFAULT : -EAGAIN;
		part = MIN(MIN(size, r->left), PART_MOST);
		if (mem_dma_map(r->mem, gpa(r->at), part, to_memory, p->iov, &p->count, p->room))
			return -EFAULT;
		take_region(r, part);
		size -= part;
	}
	return 0;
}

uint32_t ata_map_blocks(struct ata_regions *r, struct ata_pieces *p, uint32_t block, uint32_t most, bool to_memory)
{
	uint32_t done = 0;

	p->count = 0;
	while (done < most && (find_region(r) || !done)) {
		struct ata_regions before = *r;
		unsigned count = p->count;
		struct iovec piece = count ? p->iov[count - 1] : (struct iovec){ 0 };
		uint32_t size = (uint32_t)MAX(align_down(MIN(MIN(r->left, most - done), PART_MOST), block), block);
		int rc = map_bytes(r, p, size, to_memory);

		if (!rc) {
			done += size;
			continue;
		}
		/* What was found of this block is found again, with the rest of it. */
		*r = before;
		r->failed = rc == -EFAULT;
		p->count = count;
		if (count)
			p->iov[count - 1] = piece;
		break;
	}
	return done;
}

uint32_t ata_copy_regions(struct ata_regions *r, uint8_t *data, uint32_t size, bool to_memory)
{
	uint32_t done = 0;

	while (done < size && find_region(r)) {
		uint32_t part = MIN(size - done, r->left);

		r->failed = to_memory ? mem_write(r->mem, gpa(r->at), data + done, part)
				      : mem_read(r->mem, gpa(r->at), data + done, part);
		if (r->failed)
			break;
		take_region(r, part);
		done += part;
	}
	return done;
}

void ata_pieces_written(struct guest_mem *mem, const struct ata_pieces *p)
{
	for (unsigned n = 0; n < p->count; n++)
		mem_dma_written(mem, p->iov[n].iov_base, p->iov[n].iov_len);
}
