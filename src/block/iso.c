/*
 * A disc of some files (ECMA-119, ISO 9660), with names as they are by Rock Ridge (RRIP 1.12, for Linux and BSD) and by Joliet (for Windows). The same files make the same
 * bytes: it has no date.
 */
#include "block/private.h"

#include <errno.h>
#include <stdlib.h>

#define SECTOR	   2048u
#define FILES_MOST 8u
#define NAME_MOST  24u /* characters */
#define SIZE_MOST  (64u << 20)

/* Sectors */
enum {
	PRIMARY = 16,
	JOLIET,
	TERMINATOR,
	PATHS, /* primary and Joliet, little and big-endian */
	ROOT = PATHS + 4,
	JOLIET_ROOT,
	FIRST_FILE,
};

#define RECORD_SIZE 33u /* of a directory, without the name */
#define PATHS_SIZE  10u /* of the root alone */
#define DIRECTORY   0x02

/* ---- numbers in both orders ---- */

static void put_both16(uint8_t *to, uint16_t value)
{
	store_le16(to, value);
	store_be16(to + 2, value);
}

static void put_both32(uint8_t *to, uint32_t value)
{
	store_le32(to, value);
	store_be32(to + 4, value);
}

/* Of text, without what ends it. */
static void put_bytes(uint8_t *to, const void *bytes, size_t size) { memcpy(to, bytes, size); }

/* ---- names ---- */

/* ECMA-119 7.5: capital letters, digits, underscores; version 1. Returns the length. */
static unsigned put_plain_name(uint8_t *to, const char *name)
{
	unsigned n = 0;

	for (; name[n]; n++) {
		bool small = name[n] >= 'a' && name[n] <= 'z';
		bool good = (name[n] >= 'A' && name[n] <= 'Z') || (name[n] >= '0' && name[n] <= '9');

		to[n] = (uint8_t)(small ? name[n] - 'a' + 'A' : good ? name[n] : '_');
	}
	put_bytes(to + n, ".;1", 3);
	return n + 3;
}

/* UCS-2, big-endian. */
static unsigned put_wide(uint8_t *to, const char *text)
{
	unsigned n = 0;

	for (; text[n]; n++)
		store_be16(to + 2 * n, (uint8_t)text[n]);
	return 2 * n;
}

static unsigned put_joliet_name(uint8_t *to, const char *name)
{
	unsigned size = put_wide(to, name);

	return size + put_wide(to + size, ";1");
}

/* ---- directories: 9.1 ---- */

/* Its name is there already, `name_size` bytes. Returns where what follows the name goes. */
static uint8_t *put_record(uint8_t *to, unsigned name_size, uint32_t sector, uint32_t size, uint8_t flags)
{
	put_both32(to + 2, sector);
	put_both32(to + 10, size);
	to[18] = 70; /* 1 January 1970 */
	to[19] = to[20] = 1;
	to[25] = flags;
	put_both16(to + 28, 1);
	to[32] = (uint8_t)name_size;
	return to + RECORD_SIZE + name_size + !(name_size & 1);
}

static uint8_t *end_record(uint8_t *record, uint8_t *end)
{
	end += (end - record) & 1;
	record[0] = (uint8_t)(end - record);
	return end;
}

/* RRIP 4.1.1: who may do what, and how many names it has. */
static uint8_t *put_mode(uint8_t *to, uint32_t mode, uint32_t links)
{
	put_bytes(to, "PX\44\1", 4);
	put_both32(to + 4, mode);
	put_both32(to + 12, links);
	memset(to + 20, 0, 16); /* root's */
	return to + 36;
}

static uint8_t *put_rock_ridge_name(uint8_t *to, const char *name)
{
	size_t size = strlen(name);

	put_bytes(to, "NM\0\1\0", 5);
	to[2] = (uint8_t)(5 + size);
	put_bytes(to + 5, name, size);
	return to + 5 + size;
}

/* The directory itself: SUSP's indicator, and which extension is used. */
static uint8_t *put_self(uint8_t *to, uint32_t sector, bool rock_ridge)
{
	uint8_t *at;

	to[RECORD_SIZE] = 0;
	at = put_record(to, 1, sector, SECTOR, DIRECTORY);
	if (rock_ridge) {
		put_bytes(at, "SP\7\1\xbe\xef\0", 7);
		at = put_mode(at + 7, 040555, 2);
		put_bytes(at, "ER\x12\1\x0a\0\0\1RRIP_1991A", 18);
		at += 18;
	}
	return end_record(to, at);
}

static uint8_t *put_parent(uint8_t *to, uint32_t sector, bool rock_ridge)
{
	uint8_t *at;

	to[RECORD_SIZE] = 1;
	at = put_record(to, 1, sector, SECTOR, DIRECTORY);
	return end_record(to, rock_ridge ? put_mode(at, 040555, 2) : at);
}

struct place {
	uint32_t sector, size;
};

static void put_directory(uint8_t *image, uint32_t sector, bool joliet, const struct block_iso_file *files,
			  const struct place *places, unsigned count)
{
	uint8_t *at = image + (size_t)sector * SECTOR;

	at = put_self(at, sector, !joliet);
	at = put_parent(at, sector, !joliet);
	for (unsigned n = 0; n < count; n++) {
		const char *name = files[n].name;
		unsigned size =
			joliet ? put_joliet_name(at + RECORD_SIZE, name) : put_plain_name(at + RECORD_SIZE, name);
		uint8_t *end = put_record(at, size, places[n].sector, places[n].size, 0);

		if (!joliet)
			end = put_rock_ridge_name(put_mode(end, 0100444, 1), name);
		at = end_record(at, end);
	}
}

/* ---- volume descriptors: 8.4, 8.5 ---- */

static void put_spaces(uint8_t *to, size_t size, bool wide)
{
	for (size_t n = 0; n < size; n++)
		to[n] = wide && !(n & 1) ? 0 : ' ';
}

static void put_volume(uint8_t *image, bool joliet, const char *volume, uint32_t sectors)
{
	uint8_t *d = image + (size_t)(joliet ? JOLIET : PRIMARY) * SECTOR;
	uint32_t paths = PATHS + (joliet ? 2 : 0), root = joliet ? JOLIET_ROOT : ROOT;

	put_bytes(d, joliet ? "\2CD001\1" : "\1CD001\1", 7);
	put_spaces(d + 8, 64, joliet);
	if (joliet)
		put_wide(d + 40, volume);
	else
		put_bytes(d + 40, volume, strlen(volume));
	put_both32(d + 80, sectors);
	if (joliet)
		put_bytes(d + 88, "%/E", 3); /* UCS-2, level 3 */
	put_both16(d + 120, 1);
	put_both16(d + 124, 1);
	put_both16(d + 128, SECTOR);
	put_both32(d + 132, PATHS_SIZE);
	store_le32(d + 140, paths);
	store_be32(d + 148, paths + 1);
	d[156 + RECORD_SIZE] = 0;
	end_record(d + 156, put_record(d + 156, 1, root, SECTOR, DIRECTORY));
	put_spaces(d + 190, 623, joliet);
	for (unsigned n = 0; n < 4; n++)
		put_bytes(d + 813 + (size_t)17 * n, "0000000000000000", 16); /* dates that are not given */
	d[881] = 1;
	d = image + (size_t)paths * SECTOR;
	for (unsigned n = 0; n < 2; n++, d += SECTOR) {
		d[0] = 1;
		store_le32(d + 2, n ? __builtin_bswap32(root) : root);
		d[n ? 7 : 6] = 1;
	}
}

static uint32_t place_files(const struct block_iso_file *files, struct place *places, unsigned count)
{
	uint32_t sector = FIRST_FILE;

	for (unsigned n = 0; n < count; n++) {
		BUG_ON(strlen(files[n].name) > NAME_MOST || (n && strcmp(files[n - 1].name, files[n].name) >= 0));
		places[n] = (struct place){ sector, (uint32_t)files[n].size };
		sector += (uint32_t)(align_up(files[n].size, SECTOR) / SECTOR);
	}
	return sector;
}

void *block_make_iso(const char *volume, const struct block_iso_file *files, unsigned count, size_t *size,
		     struct error *err)
{
	struct place places[FILES_MOST] = { 0 };
	uint32_t sectors;
	uint8_t *image;

	BUG_ON(count > FILES_MOST || strlen(volume) > 16);
	for (unsigned n = 0; n < count; n++)
		if (files[n].size > SIZE_MOST) {
			error_set(err, EFBIG, "'%s' has %zu bytes; expected at most %u", files[n].name, files[n].size,
				  SIZE_MOST);
			return NULL;
		}
	sectors = place_files(files, places, count);
	image = calloc(sectors, SECTOR);
	if (!image) {
		error_set_errno(err, ENOMEM, "a disc of %u sectors", sectors);
		return NULL;
	}
	put_volume(image, false, volume, sectors);
	put_volume(image, true, volume, sectors);
	put_bytes(image + (size_t)TERMINATOR * SECTOR, "\377CD001\1", 7);
	put_directory(image, ROOT, false, files, places, count);
	put_directory(image, JOLIET_ROOT, true, files, places, count);
	for (unsigned n = 0; n < count; n++)
		if (files[n].size)
			put_bytes(image + (size_t)places[n].sector * SECTOR, files[n].data, files[n].size);
	*size = (size_t)sectors * SECTOR;
	return image;
}
