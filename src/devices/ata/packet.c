/*
 * Packet commands (ATA/ATAPI-7, 6.20): SCSI's, for a CD drive. What reads many blocks is done in pieces, each as a command of its own, so that no more memory is
 * needed than for one, and a machine can be saved between two. Sense data are kept until they are asked for.
 */
#include "devices/ata/ata.h"

#define READ_10		0x28
#define READ_12		0xa8
#define READ_CD		0xbe
#define REQUEST_SENSE	0x03
#define SENSE_SIZE	18u
#define INVALID_IN_CDB	0x24
#define ILLEGAL_REQUEST 5

static bool reads_blocks(const uint8_t *cdb)
{
	return cdb[0] == READ_10 || cdb[0] == READ_12 || (cdb[0] == READ_CD && cdb[9] == 0x10);
}

unsigned ata_packet_begin(struct ata_packet *p)
{
	const uint8_t *cdb = p->cdb;

	p->lba = p->blocks = 0;
	if (reads_blocks(cdb)) {
		p->lba = load_be32(cdb + 2);
		p->blocks = cdb[0] == READ_10	? load_be16(cdb + 7)
			    : cdb[0] == READ_12 ? load_be32(cdb + 6)
						: load_be32(cdb + 5) & 0xffffff;
	}
	switch (cdb[0]) {
	case 0x15: return cdb[4];	      /* MODE SELECT (6) */
	case 0x55: return load_be16(cdb + 7); /* and (10) */
	default: return 0;
	}
}

/* The same command for fewer blocks. */
static void set_blocks(uint8_t *cdb, uint32_t lba, uint32_t blocks)
{
	store_be32(cdb + 2, lba);
	if (cdb[0] == READ_10) {
		store_be16(cdb + 7, (uint16_t)blocks);
	} else if (cdb[0] == READ_12) {
		store_be32(cdb + 6, blocks);
	} else {
		cdb[6] = (uint8_t)(blocks >> 16);
		store_be16(cdb + 7, (uint16_t)blocks);
	}
}

void ata_packet_piece(struct ata_drive *d, const struct ata_packet *p, struct scsi_command *c, uint32_t most)
{
	c->target = d->cd;
	memcpy(c->cdb, p->cdb, SCSI_CDB_SIZE);
	if (p->blocks)
		set_blocks(c->cdb, p->lba, MIN(p->blocks, most / SCSI_CD_BLOCK));
}

static void keep_sense(struct ata_drive *d, const struct scsi_command *c)
{
	memset(d->sense, 0, SENSE_SIZE);
	if (c->overrun) {
		/* It wanted more than fits a transfer of this kind. */
		d->sense[0] = 0x70;
		d->sense[2] = ILLEGAL_REQUEST;
		d->sense[7] = SENSE_SIZE - 8;
		d->sense[12] = INVALID_IN_CDB;
		return;
	}
	memcpy(d->sense, c->sense, MIN(c->sense_size, SENSE_SIZE));
}

bool ata_packet_done(struct ata_drive *d, struct ata_packet *p, const struct scsi_command *c, struct ata_task *task)
{
	uint32_t blocks = (uint32_t)(c->moved / SCSI_CD_BLOCK);

	ata_end(task, 0);
	if (c->status == SCSI_GOOD && !c->overrun) {
		p->lba += p->blocks ? blocks : 0;
		p->blocks -= MIN(blocks, p->blocks);
		return true;
	}
	keep_sense(d, c);
	/* A key of descriptor format data is elsewhere. */
	task->error = (uint8_t)((d->sense[0] == 0x72 ? d->sense[1] : d->sense[2]) << 4 | ATA_ABRT);
	task->status |= ATA_ERR;
	p->blocks = 0;
	return false;
}

bool ata_packet_sense(struct ata_drive *d, const struct ata_packet *p, uint8_t data[18], uint32_t *size)
{
	if (p->cdb[0] != REQUEST_SENSE) {
		/* What was not asked for is gone with the next command. */
		memset(d->sense, 0, SENSE_SIZE);
		return false;
	}
	if (!d->sense[0])
		return false;
	memcpy(data, d->sense, SENSE_SIZE);
	*size = MIN(p->cdb[4], SENSE_SIZE);
	memset(d->sense, 0, SENSE_SIZE);
	return true;
}
