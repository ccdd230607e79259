/*
 * Encoding of AML terms and resource descriptors. Lengths take a fixed three bytes, whatever their value: the standard allows it
 * and nothing then has to be moved when a term is closed.
 */
#include "boot/aml.h"

#define SEGMENT 4 /* characters of a name segment */

/* Opcodes of what has a length or a name. */
#define OP_NAME		      0x08
#define OP_DUAL_NAME	      0x2e
#define OP_MULTI_NAME	      0x2f
#define OP_SCOPE	      0x10
#define OP_BUFFER	      0x11
#define OP_PACKAGE	      0x12
#define OP_METHOD	      0x14
#define OP_EXTENDED	      0x5b
#define OP_IF		      0xa0
#define OP_CREATE_DWORD_FIELD 0x8a
#define EXT_REGION	      0x80
#define EXT_FIELD	      0x81
#define EXT_DEVICE	      0x82
#define EXT_PROCESSOR	      0x83
#define PREFIX_BYTE	      0x0a
#define PREFIX_WORD	      0x0b
#define PREFIX_DWORD	      0x0c
#define PREFIX_STRING	      0x0d
#define METHOD_SERIALIZED     0x08

void aml_byte(struct aml *aml, unsigned value)
{
	BUG_ON(aml->size >= aml->capacity);
	aml->data[aml->size++] = (uint8_t)value;
}

void aml_word(struct aml *aml, unsigned value)
{
	aml_byte(aml, value);
	aml_byte(aml, value >> 8);
}

void aml_dword(struct aml *aml, uint32_t value)
{
	aml_word(aml, value & 0xffff);
	aml_word(aml, value >> 16);
}

void aml_path(struct aml *aml, const char *path)
{
	size_t segments;

	if (*path == '\\') {
		aml_byte(aml, '\\');
		path++;
	}
	segments = (strlen(path) + 1) / (SEGMENT + 1);
	BUG_ON(!segments || strlen(path) != segments * (SEGMENT + 1) - 1);
	if (segments == 2) {
		aml_byte(aml, OP_DUAL_NAME);
	} else if (segments > 2) {
		aml_byte(aml, OP_MULTI_NAME);
		aml_byte(aml, (unsigned)segments);
	}
	for (; *path; path++)
		if (*path != '.')
			aml_byte(aml, (unsigned char)*path);
}

void aml_integer(struct aml *aml, uint32_t value)
{
	if (value <= 1) {
		aml_byte(aml, value ? AML_ONE : AML_ZERO);
	} else if (value <= 0xff) {
		aml_byte(aml, PREFIX_BYTE);
		aml_byte(aml, value);
	} else if (value <= 0xffff) {
		aml_byte(aml, PREFIX_WORD);
		aml_word(aml, value);
	} else {
		aml_byte(aml, PREFIX_DWORD);
		aml_dword(aml, value);
	}
}

void aml_name(struct aml *aml, const char *path)
{
	aml_byte(aml, OP_NAME);
	aml_path(aml, path);
}

void aml_name_integer(struct aml *aml, const char *path, uint32_t value)
{
	aml_name(aml, path);
	aml_integer(aml, value);
}

void aml_name_string(struct aml *aml, const char *path, const char *string)
{
	aml_name(aml, path);
	aml_byte(aml, PREFIX_STRING);
	do
		aml_byte(aml, (unsigned char)*string);
	while (*string++);
}

static unsigned hex_digit(char c) { return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10); }

/* Three letters of five bits and four hexadecimal digits, big-endian. */
void aml_name_eisa_id(struct aml *aml, const char *path, const char *id)
{
	unsigned letters = (id[0] - 0x40u) << 10 | (id[1] - 0x40u) << 5 | (id[2] - 0x40u);

	aml_name(aml, path);
	aml_byte(aml, PREFIX_DWORD);
	aml_byte(aml, letters >> 8);
	aml_byte(aml, letters);
	aml_byte(aml, hex_digit(id[3]) << 4 | hex_digit(id[4]));
	aml_byte(aml, hex_digit(id[5]) << 4 | hex_digit(id[6]));
}

/* ---- terms with a length ---- */

static size_t begin(struct aml *aml)
{
	size_t place = aml->size;

	for (unsigned i = 0; i < 3; i++)
		aml_byte(aml, 0);
	return place;
}

void aml_end(struct aml *aml, size_t place)
{
	size_t length = aml->size - place; /* counts itself */

	aml->data[place] = (uint8_t)(0x80 | (length & 0xf));
	aml->data[place + 1] = (uint8_t)(length >> 4);
	aml->data[place + 2] = (uint8_t)(length >> 12);
}

size_t aml_scope(struct aml *aml, const char *path)
{
	size_t place;

	aml_byte(aml, OP_SCOPE);
	place = begin(aml);
	aml_path(aml, path);
	return place;
}

size_t aml_device(struct aml *aml, const char *name)
{
	size_t place;

	aml_byte(aml, OP_EXTENDED);
	aml_byte(aml, EXT_DEVICE);
	place = begin(aml);
	aml_path(aml, name);
	return place;
}

/* All serialized: some create named objects, which must not happen twice at a time. */
size_t aml_method(struct aml *aml, const char *name, unsigned arguments)
{
	size_t place;

	aml_byte(aml, OP_METHOD);
	place = begin(aml);
	aml_path(aml, name);
	aml_byte(aml, arguments | METHOD_SERIALIZED);
	return place;
}

size_t aml_package(struct aml *aml, unsigned elements)
{
	size_t place;

	BUG_ON(elements > 0xff);
	aml_byte(aml, OP_PACKAGE);
	place = begin(aml);
	aml_byte(aml, elements);
	return place;
}

size_t aml_if(struct aml *aml)
{
	aml_byte(aml, OP_IF);
	return begin(aml);
}

void aml_processor(struct aml *aml, const char *name, unsigned id)
{
	size_t place;

	aml_byte(aml, OP_EXTENDED);
	aml_byte(aml, EXT_PROCESSOR);
	place = begin(aml);
	aml_path(aml, name);
	aml_byte(aml, id);
	aml_dword(aml, 0); /* no P_BLK */
	aml_byte(aml, 0);
	aml_end(aml, place);
}

void aml_region(struct aml *aml, const char *name, enum aml_region_space space, uint32_t offset, uint32_t size)
{
	aml_byte(aml, OP_EXTENDED);
	aml_byte(aml, EXT_REGION);
	aml_path(aml, name);
	aml_byte(aml, space);
	aml_integer(aml, offset);
	aml_integer(aml, size);
}

void aml_byte_fields(struct aml *aml, const char *region, const char *const names[], unsigned count)
{
	size_t place;

	aml_byte(aml, OP_EXTENDED);
	aml_byte(aml, EXT_FIELD);
	place = begin(aml);
	aml_path(aml, region);
	aml_byte(aml, 0x01); /* byte accesses, no lock, other bits preserved */
	for (unsigned i = 0; i < count; i++) {
		aml_path(aml, names[i]);
		aml_byte(aml, 8); /* bits, in the one-byte form of a length */
	}
	aml_end(aml, place);
}

void aml_create_dword_field(struct aml *aml, const char *source, unsigned offset, const char *name)
{
	aml_byte(aml, OP_CREATE_DWORD_FIELD);
	if (source)
		aml_path(aml, source);
	else
		aml_byte(aml, AML_ARG0);
	aml_integer(aml, offset);
	aml_path(aml, name);
}

/* ---- resource templates ---- */

/* General flags of address space descriptors: fixed minimum and maximum, positive decode. */
#define WINDOW_FIXED 0x0c

size_t aml_resources(struct aml *aml)
{
	size_t place;

	aml_byte(aml, OP_BUFFER);
	place = begin(aml);
	aml_byte(aml, PREFIX_WORD); /* the buffer's size, filled in at the end */
	aml_word(aml, 0);
	return place;
}

void aml_resources_end(struct aml *aml, size_t place)
{
	size_t contents = place + 6;

	aml_byte(aml, 0x79); /* end tag, */
	aml_byte(aml, 0);    /* no checksum */
	store_le16(aml->data + place + 4, (uint16_t)(aml->size - contents));
	aml_end(aml, place);
}

void aml_resource_io(struct aml *aml, unsigned first, unsigned length)
{
	aml_byte(aml, 0x47);
	aml_byte(aml, 1); /* decodes 16 bits */
	aml_word(aml, first);
	aml_word(aml, first);
	aml_byte(aml, 1);
	aml_byte(aml, length);
}

void aml_resource_irq(struct aml *aml, unsigned irq)
{
	aml_byte(aml, 0x22);
	aml_word(aml, 1u << irq);
}

void aml_resource_interrupts(struct aml *aml, const uint32_t *interrupts, unsigned count)
{
	aml_byte(aml, 0x89);
	aml_word(aml, 2 + 4 * count);
	aml_byte(aml, 0x09); /* consumer, level, active high, shared */
	aml_byte(aml, count);
	for (unsigned i = 0; i < count; i++)
		aml_dword(aml, interrupts[i]);
}

void aml_resource_memory(struct aml *aml, uint32_t first, uint32_t length)
{
	aml_byte(aml, 0x86);
	aml_word(aml, 9);
	aml_byte(aml, 1);
	aml_dword(aml, first);
	aml_dword(aml, length);
}

static void word_window(struct aml *aml, unsigned type, unsigned type_flags, unsigned first, unsigned last)
{
	aml_byte(aml, 0x88);
	aml_word(aml, 13);
	aml_byte(aml, type);
	aml_byte(aml, WINDOW_FIXED);
	aml_byte(aml, type_flags);
	aml_word(aml, 0);
	aml_word(aml, first);
	aml_word(aml, last);
	aml_word(aml, 0);
	aml_word(aml, last - first + 1);
}

void aml_resource_bus_numbers(struct aml *aml, unsigned first, unsigned last) { word_window(aml, 2, 0, first, last); }

void aml_resource_io_window(struct aml *aml, unsigned first, unsigned last)
{
	word_window(aml, 1, 3 /* ISA and other addresses */, first, last);
}

static void quad(struct aml *aml, uint64_t value)
{
	aml_dword(aml, (uint32_t)value);
	aml_dword(aml, (uint32_t)(value >> 32));
}

void aml_resource_wide_window(struct aml *aml, uint64_t first, uint64_t last)
{
	aml_byte(aml, 0x8a);
	aml_word(aml, 43);
	aml_byte(aml, 0);
	aml_byte(aml, WINDOW_FIXED);
	aml_byte(aml, 1); /* read and write */
	quad(aml, 0);
	quad(aml, first);
	quad(aml, last);
	quad(aml, 0);
	quad(aml, last - first + 1);
}

void aml_resource_memory_window(struct aml *aml, uint32_t first, uint32_t last, bool cacheable)
{
	aml_byte(aml, 0x87);
	aml_word(aml, 23);
	aml_byte(aml, 0);
	aml_byte(aml, WINDOW_FIXED);
	aml_byte(aml, cacheable ? 3 : 1); /* read and write */
	aml_dword(aml, 0);
	aml_dword(aml, first);
	aml_dword(aml, last);
	aml_dword(aml, 0);
	aml_dword(aml, last - first + 1);
}
