/*
 * How a command answers: parameter data, and sense data in both formats (SPC-4, 4.5).
 */
#include "devices/scsi/target.h"

#include <errno.h>

#define FIXED_SIZE 18u

/* ---- sense data ---- */

struct details {
	bool has_information, has_field, in_cdb;
	uint64_t information;
	unsigned byte;
	int bit;
};

/* Sense key specific: SPC-4, 4.5.2.4.2 */
static void put_field(uint8_t to[3], const struct details *d)
{
	to[0] = 0x80 | (d->in_cdb ? 0x40 : 0) | (d->bit >= 0 ? 0x08 | (uint8_t)d->bit : 0);
	store_be16(to + 1, (uint16_t)d->byte);
}

static unsigned fixed(uint8_t *sense, enum scsi_sense_code code, const struct details *d)
{
	sense[0] = 0x70;
	if (d->has_information && d->information <= UINT32_MAX) {
		sense[0] |= 0x80;
		store_be32(sense + 3, (uint32_t)d->information);
	}
	sense[2] = (uint8_t)(code >> 16);
	sense[7] = FIXED_SIZE - 8;
	sense[12] = (uint8_t)(code >> 8);
	sense[13] = (uint8_t)code;
	if (d->has_field)
		put_field(sense + 15, d);
	return FIXED_SIZE;
}

static unsigned descriptors(uint8_t *sense, enum scsi_sense_code code, const struct details *d)
{
	unsigned size = 8;

	sense[0] = 0x72;
	sense[1] = (uint8_t)(code >> 16);
	sense[2] = (uint8_t)(code >> 8);
	sense[3] = (uint8_t)code;
	if (d->has_information) {
		sense[size + 1] = 10;
		sense[size + 2] = 0x80;
		store_be64(sense + size + 4, d->information);
		size += 12;
	}
	if (d->has_field) {
		sense[size] = 2;
		sense[size + 1] = 6;
		put_field(sense + size + 4, d);
		size += 8;
	}
	sense[7] = (uint8_t)(size - 8);
	return size;
}

static unsigned make(uint8_t sense[SCSI_SENSE_SIZE], enum scsi_sense_code code, bool as_descriptors,
		     const struct details *d)
{
	memset(sense, 0, SCSI_SENSE_SIZE);
	return as_descriptors ? descriptors(sense, code, d) : fixed(sense, code, d);
}

unsigned scsi_sense(uint8_t sense[SCSI_SENSE_SIZE], enum scsi_sense_code code, bool as_descriptors)
{
	return make(sense, code, as_descriptors, &(struct details){ 0 });
}

static void fail(struct scsi_command *c, enum scsi_sense_code code, const struct details *d)
{
	c->status = SCSI_CHECK_CONDITION;
	c->sense_size = make(c->sense, code, c->target->descriptors, d);
}

void scsi_fail(struct scsi_command *c, enum scsi_sense_code code) { fail(c, code, &(struct details){ 0 }); }

void scsi_fail_field(struct scsi_command *c, enum scsi_sense_code code, unsigned byte, int bit)
{
	fail(c, code,
	     &(struct details){ .has_field = true, .in_cdb = code == SENSE_INVALID_FIELD, .byte = byte, .bit = bit });
}

void scsi_fail_with(struct scsi_command *c, enum scsi_sense_code code, uint64_t information)
{
	fail(c, code, &(struct details){ .has_information = true, .information = information });
}

void scsi_fail_block(struct scsi_command *c, int result)
{
	switch (result) {
	case -EPERM: scsi_fail(c, SENSE_WRITE_PROTECTED); break;
	case -ENOSPC: scsi_fail(c, SENSE_NO_SPACE); break;
	case -ENOMEM: scsi_fail(c, SENSE_INTERNAL_FAILURE); break;
	default: scsi_fail(c, c->block.op == BLOCK_READ ? SENSE_READ_ERROR : SENSE_WRITE_ERROR);
	}
}

/* ---- parameter data ---- */

void scsi_reply(struct scsi_command *c, const void *data, size_t size, size_t allocated)
{
	const uint8_t *at = data;

	if (allocated > c->in.size) {
		c->overrun = true;
		return;
	}
	size = MIN(size, allocated);
	for (int n = 0; c->moved < size; n++) {
		size_t part = MIN(size - c->moved, c->in.iov[n].iov_len);

		memcpy(c->in.iov[n].iov_base, at + c->moved, part);
		c->moved += part;
	}
}

bool scsi_fetch(struct scsi_command *c, size_t offset, void *data, size_t size)
{
	size_t done = 0;

	if (!range_ok(offset, size, c->out.size)) {
		c->overrun = true;
		return false;
	}
	c->moved = MAX(c->moved, offset + size);
	for (int n = 0; done < size; n++) {
		size_t skip = MIN(offset, c->out.iov[n].iov_len), part = MIN(size - done, c->out.iov[n].iov_len - skip);

		memcpy((uint8_t *)data + done, (const uint8_t *)c->out.iov[n].iov_base + skip, part);
		offset -= skip;
		done += part;
	}
	return true;
}
