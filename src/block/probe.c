/*
 * What the first bytes of a file say of its format.
 */
#define _GNU_SOURCE
#include "block/private.h"

static const struct magic {
	const char *bytes;
	uint8_t length;
} dangerous[] = {
	/* Formats that name other files, of any program that asks the first bytes. */
	{ "QFI\xfb", 4 },		  /* qcow, qcow2 */
	{ "QED\0", 4 },			  /* QED */
	{ "KDMV", 4 },			  /* VMDK */
	{ "COWD", 4 },			  /* VMDK 3 */
	{ "# Disk DescriptorFile", 21 },  /* VMDK's description */
	{ "vhdxfile", 8 },		  /* VHDX */
	{ "conectix", 8 },		  /* VHD */
	{ "WithoutFreeSpace", 16 },	  /* Parallels */
	{ "WithouFreSpacExt", 16 },	  /* Parallels */
	{ "Bochs Virtual HD Image", 22 }, /* Bochs */
};

static bool begins(const uint8_t *head, size_t size, const struct magic *m)
{
	return size >= m->length && !memcmp(head, m->bytes, m->length);
}

const char *probe_format(const uint8_t *head, size_t size)
{
	return begins(head, size, &dangerous[0]) ? "qcow2" : "raw";
}

/* Descriptions are text, and lines of comment and white space may be before what identifies them. */
static bool looks_like_description(const uint8_t *head, size_t size)
{
	static const char word[] = "version=";
	const char *text = (const char *)head;

	return size && (head[0] == '#' || head[0] == ' ' || head[0] == '\n' || head[0] == '\r' || head[0] == 'v') &&
	       memmem(text, size, word, sizeof(word) - 1);
}

bool probe_is_dangerous(const uint8_t *head, size_t size)
{
	for (size_t n = 0; n < ARRAY_SIZE(dangerous); n++)
		if (begins(head, size, &dangerous[n]))
			return true;
	return looks_like_description(head, size);
}
