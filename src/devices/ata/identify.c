/*
 * IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ACS-3, 7.12 and 7.13; words that older systems look at: ATA-1 to ATA/ATAPI-7).
 */
#include "devices/ata/ata.h"

#define CYLINDERS_MOST 16383u /* what old systems take for "larger than CHS can say" */
#define NARROW_MOST    0x0fffffffu

static void put(uint8_t *data, unsigned word, unsigned value) { store_le16(data + (size_t)2 * word, (uint16_t)value); }

/* Characters of a word the other way round, padded by spaces. */
static void put_text(uint8_t *data, unsigned word, const char *text, unsigned size)
{
	size_t length = strlen(text);

	for (unsigned n = 0; n < size; n++)
		data[2 * word + (n ^ 1)] = n < length ? (uint8_t)text[n] : ' ';
}

/* What both kinds have in common: names, transfer modes. */
static void put_common(const struct ata_drive *d, const char *model, uint8_t *data)
{
	unsigned kind = d->mode >> 3, mode = d->mode & 7;

	put_text(data, 10, d->serial, 20);
	put_text(data, 23, "1", 8);
	put_text(data, 27, model, 40);
	put(data, 53, 7); /* words 54 to 58, 64 to 70 and 88 mean something */
	put(data, 63, 0x07 | (kind == 4 ? 0x100u << mode : 0));
	put(data, 64, 3);
	for (unsigned word = 65; word <= 68; word++)
		put(data, word, 120);
	put(data, 80, 0x01f0); /* ATA/ATAPI-4 to ATA8 */
	put(data, 88, 0x3f | (kind == 8 ? 0x100u << mode : 0));
	if (d->queues)
		put(data, 76, 0x000e); /* generations 1 to 3 of Serial ATA, which has no word 93 */
	else
		put(data, 93, 0x600b); /* 80 conductors */
}

/* Cylinders of a geometry, as far as a word can tell. */
static uint64_t cylinders(const struct ata_drive *d, unsigned heads, unsigned track)
{
	return track ? MIN(d->sectors / (heads * track), 65535) : 0;
}

static void put_geometry(const struct ata_drive *d, uint8_t *data)
{
	uint64_t now = cylinders(d, d->heads, d->track);

	put(data, 1, (unsigned)MIN(cylinders(d, 16, 63), CYLINDERS_MOST));
	put(data, 3, 16);
	put(data, 4, 63 * ATA_SECTOR);
	put(data, 5, ATA_SECTOR);
	put(data, 6, 63);
	put(data, 54, (unsigned)now);
	put(data, 55, d->heads);
	put(data, 56, d->track);
	store_le32(data + 2 * 57, (uint32_t)(now * d->heads * d->track));
	store_le32(data + 2 * 60, (uint32_t)MIN(d->sectors, NARROW_MOST));
	store_le64(data + 2 * 100, d->sectors);
}

static void put_disk(const struct ata_drive *d, uint8_t *data)
{
	unsigned ratio = d->info->physical_size / ATA_SECTOR;

	put(data, 0, 0x0040);
	put_geometry(d, data);
	put(data, 20, 3); /* a buffer, of 256 sectors */
	put(data, 21, 256);
	put(data, 22, 4);
	put(data, 47, 0x8000 | ATA_MULTIPLE_MOST);
	put(data, 48, 1); /* 32-bit accesses of the data register */
	put(data, 49, 0x0f00);
	put(data, 50, 0x4000);
	put(data, 51, 0x0200);
	put(data, 52, 0x0200);
	put(data, 59, d->multiple ? 0x100u | d->multiple : 0);
	/* SMART, power management, write cache, look-ahead; 48-bit addresses, FLUSH CACHE and its EXT; FUA, logs */
	put(data, 82, 0x0069);
	put(data, 83, 0x7400);
	put(data, 84, 0x4060);
	put(data, 85, 0x0008 | (d->smart ? 1 : 0) | (d->cached ? 0x20 : 0) | (d->ahead ? 0x40 : 0));
	put(data, 86, 0x3400);
	put(data, 87, 0x4060);
	put(data, 106, ratio > 1 ? 0x6000u | (unsigned)__builtin_ctz(ratio) : 0x4000);
	put(data, 119, 0x4000);
	put(data, 120, 0x4000);
	if (d->info->can_discard) {
		put(data, 105, ATA_TRIM_BLOCKS);
		put(data, 169, 1);
	}
	put(data, 217, 1); /* nothing turns */
	if (d->queues) {
		put(data, 75, 31);
		put(data, 76, 0x010e); /* and queued commands */
	}
}

static void put_cd(uint8_t *data)
{
	put(data, 0, 0x85c0); /* a CD-ROM, removable, DRQ within 50 us, packets of 12 bytes */
	put(data, 49, 0x0f00);
	put(data, 71, 30); /* us, until a packet is taken; until BSY ends behind SERVICE */
	put(data, 72, 30);
	put(data, 82, 0x0210); /* DEVICE RESET; packets */
	put(data, 83, 0x4000);
	put(data, 84, 0x4000);
	put(data, 85, 0x0210);
	put(data, 87, 0x4000);
}

void ata_identify(const struct ata_drive *d, uint8_t data[ATA_SECTOR])
{
	uint8_t sum = 0xa5;

	memset(data, 0, ATA_SECTOR);
	put_common(d, ata_is_cd(d) ? "DOPPEL CD-ROM" : "DOPPEL DISK", data);
	if (ata_is_cd(d))
		put_cd(data);
	else
		put_disk(d, data);
	/* Signature and checksum: ACS-3, 7.12.7.88 */
	data[510] = 0xa5;
	for (unsigned n = 0; n < 510; n++)
		sum += data[n];
	data[511] = (uint8_t)-sum;
}
