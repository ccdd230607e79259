/*
 * Packets of GDB's remote serial protocol: "$", data, "#", two digits of the sum of what is between. In data, "}" stands before a byte of which bit 5 is
 * the other way. Nothing here knows of machines.
 */
#include "gdb/private.h"

#define ESCAPE	  '}'
#define INTERRUPT 3

/* In place; an escape at the end stands for nothing. */
static size_t unescape(uint8_t *data, size_t size)
{
	size_t to = 0;

	for (size_t from = 0; from < size; from++)
		if (data[from] != ESCAPE)
			data[to++] = data[from];
		else if (++from < size)
			data[to++] = data[from] ^ 0x20;
	return to;
}

static enum packet_result between(struct packet_reader *r, uint8_t byte)
{
	if (byte == INTERRUPT)
		return PACKET_INTERRUPT;
	if (byte == '-')
		return PACKET_NAK;
	if (byte == '$') {
		r->state = IN_DATA;
		r->size = r->sum = 0;
	}
	return PACKET_MORE;
}

static enum packet_result in_data(struct packet_reader *r, uint8_t byte)
{
	if (byte == '#') {
		r->state = IN_CHECKSUM;
		r->digit_count = 0;
		return PACKET_MORE;
	}
	if (byte == '$') /* the one before lost its end */
		return between(r, byte);
	if (r->size == PACKET_MOST)
		return PACKET_TOO_LONG;
	r->data[r->size++] = byte;
	r->sum += byte;
	return PACKET_MORE;
}

static enum packet_result in_checksum(struct packet_reader *r, uint8_t byte)
{
	uint8_t sum;

	r->digits[r->digit_count++] = (char)byte;
	if (r->digit_count < 2)
		return PACKET_MORE;
	r->state = BETWEEN;
	if (!parse_hex_bytes(r->digits, 2, &sum, 1) || sum != r->sum)
		return PACKET_BAD;
	r->size = unescape(r->data, r->size);
	r->data[r->size] = 0;
	return PACKET_WHOLE;
}

enum packet_result packet_next(struct packet_reader *r, const uint8_t *bytes, size_t size, size_t *used)
{
	enum packet_result result = PACKET_MORE;

	while (*used < size && result == PACKET_MORE) {
		uint8_t byte = bytes[(*used)++];

		switch (r->state) {
		case BETWEEN: result = between(r, byte); break;
		case IN_DATA: result = in_data(r, byte); break;
		case IN_CHECKSUM: result = in_checksum(r, byte); break;
		}
	}
	return result;
}

bool packet_add(struct bytes *out, const void *data, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t *at = bytes_extend(out, 2 * size + 4), *begin = at, sum = 0;

	if (!at)
		return false;
	*at++ = '$';
	for (size_t n = 0; n < size; n++) {
		uint8_t byte = ((const uint8_t *)data)[n];

		if (byte == '#' || byte == '$' || byte == ESCAPE || byte == '*') {
			*at++ = ESCAPE;
			byte ^= 0x20;
		}
		*at++ = byte;
	}
	for (const uint8_t *p = begin + 1; p < at; p++)
		sum += *p;
	*at++ = '#';
	*at++ = (uint8_t)digits[sum >> 4];
	*at++ = (uint8_t)digits[sum & 15];
	out->size -= 2 * size + 4 - (size_t)(at - begin);
	return true;
}

void reply_bytes(struct reply *reply, const void *data, size_t size)
{
	size = MIN(size, sizeof(reply->data) - reply->size);
	memcpy(reply->data + reply->size, data, size);
	reply->size += size;
}

void reply_text(struct reply *reply, const char *format, ...)
{
	char text[256];
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	reply_bytes(reply, text, MIN((size_t)MAX(size, 0), sizeof(text) - 1));
}

void reply_hex(struct reply *reply, const void *data, size_t size)
{
	for (size_t n = 0; n < size; n++)
		reply_text(reply, "%02x", ((const uint8_t *)data)[n]);
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool parse_hex(const char **at, uint64_t *value)
{
	const char *begin = *at;

	*value = 0;
	for (; digit(**at) >= 0; (*at)++) {
		if (*value >> 60)
			return false;
		*value = *value << 4 | (unsigned)digit(**at);
	}
	return *at != begin;
}

bool parse_hex_bytes(const char *text, size_t text_size, uint8_t *bytes, size_t size)
{
	if (text_size != 2 * size)
		return false;
	for (size_t n = 0; n < size; n++) {
		int high = digit(text[2 * n]), low = digit(text[2 * n + 1]);

		if (high < 0 || low < 0)
			return false;
		bytes[n] = (uint8_t)(high << 4 | low);
	}
	return true;
}
