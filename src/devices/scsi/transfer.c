/*
 * Commands that move blocks, or say something of a range of them (SBC-3, 5).
 */
#include "devices/scsi/target.h"

#include <stdlib.h>

#define CHUNK (256u << 10) /* bytes that are compared, or written, at once; a multiple of any block size */

/* ---- which blocks ---- */

struct extent {
	uint64_t first, count;
	unsigned count_byte; /* in the CDB */
};

/* By the group of the operation code, SPC-4, 4.3 */
static struct extent extent_of(const uint8_t *cdb)
{
	switch (cdb[0] >> 5) {
	case 0: return (struct extent){ load_be32(cdb) & 0x1fffff, cdb[4] ? cdb[4] : 256, 4 };
	case 4: return (struct extent){ load_be64(cdb + 2), load_be32(cdb + 10), 10 };
	case 5: return (struct extent){ load_be32(cdb + 2), load_be32(cdb + 6), 6 };
	default: return (struct extent){ load_be32(cdb + 2), load_be16(cdb + 7), 7 };
	}
}

static bool is_inside(struct scsi_command *c, uint64_t first, uint64_t count)
{
	if (first < c->target->blocks && range_ok(first, count, c->target->blocks))
		return true;
	scsi_fail(c, SENSE_OUT_OF_RANGE);
	return false;
}

static bool may_write(struct scsi_command *c)
{
	if (c->target->info->readonly)
		scsi_fail(c, SENSE_WRITE_PROTECTED);
	return !c->target->info->readonly;
}

/* ---- one request ---- */

static void only_outcome(struct scsi_command *c)
{
	if (c->block.result)
		scsi_fail_block(c, c->block.result);
}

static void ask(struct scsi_command *c, enum block_op op, uint64_t offset, uint64_t size,
		void (*next)(struct scsi_command *))
{
	c->block.op = op;
	c->block.offset = offset;
	c->block.size = size;
	c->next = next;
}

/* What is behind `size` bytes is no part of it. */
static void trim(struct scsi_data *data, uint64_t size)
{
	int n = 0;

	for (; size; n++) {
		data->iov[n].iov_len = MIN(size, data->iov[n].iov_len);
		size -= data->iov[n].iov_len;
	}
	data->count = n;
}

static void transfer(struct scsi_command *c, enum block_op op, struct scsi_data *data)
{
	struct extent e = extent_of(c->cdb);
	uint64_t size = e.count * c->target->block_size;

	if (!is_inside(c, e.first, e.count))
		return;
	if (size > data->size) {
		c->overrun = true;
		return;
	}
	if (!size)
		return;
	trim(data, size);
	c->block.iov = data->iov;
	c->block.iov_count = data->count;
	c->moved = size;
	ask(c, op, e.first * c->target->block_size, size, only_outcome);
}

void scsi_read(struct scsi_command *c) { transfer(c, BLOCK_READ, &c->in); }

void scsi_write(struct scsi_command *c)
{
	bool fua = c->cdb[0] >> 5 && c->cdb[1] & 0x08; /* not of WRITE (6) */

	if (!may_write(c))
		return;
	c->block.fua = fua || !c->target->cached;
	transfer(c, BLOCK_WRITE, &c->out);
}

void scsi_synchronize_cache(struct scsi_command *c)
{
	struct extent e = extent_of(c->cdb);

	if (is_inside(c, e.first, e.count))
		ask(c, BLOCK_FLUSH, 0, 0, only_outcome);
}

/* ---- many requests of a chunk each, from c->at on up to c->count, in bytes from the first block on ---- */

static bool new_buffer(struct scsi_command *c, size_t size)
{
	c->buffer = malloc(size);
	if (!c->buffer)
		scsi_fail(c, SENSE_INTERNAL_FAILURE);
	return c->buffer;
}

static void ask_chunk(struct scsi_command *c, enum block_op op, void (*next)(struct scsi_command *))
{
	uint64_t size = MIN(c->count - c->at, CHUNK);

	c->piece = (struct iovec){ c->buffer, size };
	c->block.iov = &c->piece;
	c->block.iov_count = 1;
	ask(c, op, extent_of(c->cdb).first * c->target->block_size + c->at, size, next);
}

static void compare(struct scsi_command *c)
{
	const uint8_t *disk = c->buffer, *data = c->buffer + CHUNK;
	size_t size = c->block.size, n = 0;

	if (c->block.result) {
		scsi_fail_block(c, c->block.result);
		return;
	}
	if (!scsi_fetch(c, c->at, c->buffer + CHUNK, size))
		return;
	if (memcmp(disk, data, size) != 0) {
		while (disk[n] == data[n])
			n++;
		scsi_fail_with(c, SENSE_MISCOMPARE, c->at + n);
		return;
	}
	c->at += size;
	if (c->at < c->count)
		ask_chunk(c, BLOCK_READ, compare);
}

/* BYTCHK 0 asks whether blocks can be read: the host would say that when they are. */
void scsi_verify(struct scsi_command *c)
{
	struct extent e = extent_of(c->cdb);
	unsigned check = c->cdb[1] >> 1 & 3;

	if (check > 1) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 1, 2);
		return;
	}
	if (!is_inside(c, e.first, e.count) || !check || !e.count)
		return;
	c->count = e.count * c->target->block_size;
	if (c->count > c->out.size)
		c->overrun = true;
	else if (new_buffer(c, (size_t)2 * CHUNK))
		ask_chunk(c, BLOCK_READ, compare);
}

static void write_on(struct scsi_command *c)
{
	if (c->block.result) {
		scsi_fail_block(c, c->block.result);
		return;
	}
	c->at += c->block.size;
	if (c->at < c->count)
		ask_chunk(c, BLOCK_WRITE, write_on);
}

static bool is_zero(const uint8_t *block, size_t size) { return !block[0] && !memcmp(block, block + 1, size - 1); }

static void write_block_again_and_again(struct scsi_command *c)
{
	size_t block = c->target->block_size, filled = block, all = MIN(c->count, CHUNK);

	for (; filled < all; filled += MIN(filled, all - filled))
		memcpy(c->buffer + filled, c->buffer, MIN(filled, all - filled));
	ask_chunk(c, BLOCK_WRITE, write_on);
}

/* Byte 1: UNMAP bit 3, NDOB (the block is zeros, and not there) bit 0 of the longer one. */
void scsi_write_same(struct scsi_command *c)
{
	struct extent e = extent_of(c->cdb);
	size_t block = c->target->block_size;
	bool no_data = c->cdb[1] & 1, unmap = c->cdb[1] & 8;

	if (!may_write(c))
		return;
	if (unmap && !scsi_discards(c->target)) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 1, 3);
		return;
	}
	if (!e.count || e.count > SCSI_UNMAP_BLOCKS_MOST) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, e.count_byte, -1);
		return;
	}
	if (!is_inside(c, e.first, e.count) || !new_buffer(c, CHUNK))
		return;
	memset(c->buffer, 0, block);
	if (!no_data && !scsi_fetch(c, 0, c->buffer, block))
		return;
	c->count = e.count * block;
	c->block.fua = !c->target->cached;
	c->block.may_unmap = unmap;
	if (is_zero(c->buffer, block))
		ask(c, BLOCK_WRITE_ZEROES, e.first * block, c->count, only_outcome);
	else
		write_block_again_and_again(c);
}

/* ---- UNMAP: descriptors in c->buffer, of which c->at is the next one of c->count ---- */

#define UNMAP_HEADER	 8u
#define UNMAP_DESCRIPTOR 16u

static void unmap_on(struct scsi_command *c)
{
	uint64_t first, count;

	if (c->block.result) {
		scsi_fail_block(c, c->block.result);
		return;
	}
	if (c->at == c->count)
		return;
	first = load_be64(c->buffer + UNMAP_DESCRIPTOR * c->at);
	count = load_be32(c->buffer + UNMAP_DESCRIPTOR * c->at + 8);
	c->at++;
	ask(c, BLOCK_DISCARD, first * c->target->block_size, count * c->target->block_size, unmap_on);
}

static bool check_descriptors(struct scsi_command *c)
{
	for (unsigned n = 0; n < c->count; n++) {
		uint64_t first = load_be64(c->buffer + UNMAP_DESCRIPTOR * n);
		uint32_t count = load_be32(c->buffer + UNMAP_DESCRIPTOR * n + 8);

		if (count > SCSI_UNMAP_BLOCKS_MOST) {
			scsi_fail_field(c, SENSE_INVALID_PARAMETER, UNMAP_HEADER + UNMAP_DESCRIPTOR * n + 8, -1);
			return false;
		}
		if (!range_ok(first, count, c->target->blocks)) {
			scsi_fail(c, SENSE_OUT_OF_RANGE);
			return false;
		}
	}
	return true;
}

void scsi_unmap(struct scsi_command *c)
{
	unsigned length = load_be16(c->cdb + 7), size;
	uint8_t header[UNMAP_HEADER];

	if (!may_write(c) || !length)
		return;
	if (length < UNMAP_HEADER) {
		scsi_fail(c, SENSE_LIST_LENGTH);
		return;
	}
	if (!scsi_fetch(c, 0, header, UNMAP_HEADER))
		return;
	/* Descriptors that are not whole, or cut off, are none (SBC-3, 5.28.2). */
	size = MIN(load_be16(header + 2), length - UNMAP_HEADER) / UNMAP_DESCRIPTOR * UNMAP_DESCRIPTOR;
	if (size > SCSI_UNMAP_DESCRIPTORS_MOST * UNMAP_DESCRIPTOR) {
		scsi_fail_field(c, SENSE_INVALID_PARAMETER, 2, -1);
		return;
	}
	if (!size || !new_buffer(c, size) || !scsi_fetch(c, UNMAP_HEADER, c->buffer, size))
		return;
	c->count = size / UNMAP_DESCRIPTOR;
	c->block.result = 0;
	if (check_descriptors(c))
		unmap_on(c);
}

/* ---- what is there ---- */

static void read_capacity_16(struct scsi_command *c)
{
	const struct scsi_target *t = c->target;
	uint8_t data[32] = { 0 };

	store_be64(data, t->blocks - 1);
	store_be32(data + 8, t->block_size);
	data[13] = (uint8_t)__builtin_ctz(MAX(t->info->physical_size / t->block_size, 1u));
	data[14] = scsi_discards(t) ? 0x80 : 0; /* LBPME */
	scsi_reply(c, data, sizeof(data), load_be32(c->cdb + 10));
}

void scsi_read_capacity(struct scsi_command *c)
{
	const struct scsi_target *t = c->target;
	uint8_t data[8];

	if (c->cdb[0] >> 5 == 4) {
		read_capacity_16(c);
		return;
	}
	store_be32(data, (uint32_t)MIN(t->blocks - 1, UINT32_MAX));
	store_be32(data + 4, t->block_size);
	scsi_reply(c, data, sizeof(data), sizeof(data));
}

void scsi_seek(struct scsi_command *c) { is_inside(c, load_be32(c->cdb + 2), 0); }
