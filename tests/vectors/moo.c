/*
 * Vectors in MOO ("Machine Opcode Operation"), version 1: chunks of a four-letter name, a length and a payload, which may hold chunks. One
 * "MOO " with the processor's name, masks of undefined bits ("RMSK" with 16, "RM32" with 32 bits a register), then a "TEST" for each
 * vector: "NAME", "BYTS", "INIT" and "FINA" with "REGS" or "RG32", "RAM ", and masks of their own; "EXCP". Others are skipped. A set
 * without masks in its files has them in its metadata.json.
 */
#include "vectors.h"

#include <errno.h>
#include <string.h>

struct chunk {
	char type[5];
	const uint8_t *data;
	size_t size;
};

static const int8_t places_16[] = {
#define _(name, at_16, at_32) at_16,
	VECTOR_REGISTERS(_)
#undef _
};
static const int8_t places_32[] = {
#define _(name, at_16, at_32) at_32,
	VECTOR_REGISTERS(_)
#undef _
};

/* The chunk at *at, which moves behind it; false at the end or where it does not fit. */
static bool next_chunk(const uint8_t *data, size_t size, size_t *at, struct chunk *c)
{
	if (!range_ok(*at, 8, size))
		return false;
	memcpy(c->type, data + *at, 4);
	c->type[4] = 0;
	c->size = load_le32(data + *at + 4);
	c->data = data + *at + 8;
	if (!range_ok(*at + 8, c->size, size))
		return false;
	*at += 8 + c->size;
	return true;
}

static bool is(const struct chunk *c, const char *type) { return !strcmp(c->type, type); }

/* Values of those registers whose bit is set, in order. */
static void read_registers(const struct chunk *c, bool wide, uint32_t reg[VECTOR_REGISTER_COUNT])
{
	const int8_t *places = wide ? places_32 : places_16;
	size_t width = wide ? 4 : 2, at = width;
	uint32_t present;

	if (c->size < width)
		return;
	present = wide ? load_le32(c->data) : load_le16(c->data);
	for (int place = 0; place < 20; place++) {
		if (!(present & BIT(place)) || !range_ok(at, width, c->size))
			continue;
		for (unsigned r = 0; r < VECTOR_REGISTER_COUNT; r++)
			if (places[r] == place)
				reg[r] = wide ? load_le32(c->data + at) : load_le16(c->data + at);
		at += width;
	}
}

static bool read_masks(const struct chunk *c, uint32_t mask[VECTOR_REGISTER_COUNT])
{
	if (is(c, "RMSK"))
		read_registers(c, false, mask);
	else if (is(c, "RM32"))
		read_registers(c, true, mask);
	else
		return false;
	return true;
}

static void read_memory(const struct chunk *c, struct vector_state *s)
{
	unsigned count = c->size < 4 ? 0 : load_le32(c->data);

	for (unsigned n = 0; n < count && n < MEMORY_MAX && range_ok(4 + 5 * (size_t)n, 5, c->size); n++)
		s->memory[s->memory_count++] =
			(struct memory_byte){ load_le32(c->data + 4 + 5 * n), c->data[8 + 5 * n] };
}

static void read_state(const struct chunk *state, struct vector_state *s, uint32_t mask[VECTOR_REGISTER_COUNT])
{
	struct chunk c;
	size_t at = 0;

	while (next_chunk(state->data, state->size, &at, &c)) {
		if (is(&c, "REGS"))
			read_registers(&c, false, s->reg);
		else if (is(&c, "RG32"))
			read_registers(&c, true, s->reg);
		else if (is(&c, "RAM "))
			read_memory(&c, s);
		else
			read_masks(&c, mask);
	}
}

/* Text and bytes have a length of their own in front. */
static unsigned counted(const struct chunk *c, void *to, unsigned room)
{
	unsigned count = c->size < 4 ? 0 : load_le32(c->data);

	count = (unsigned)MIN(MIN(count, room), c->size < 4 ? 0 : c->size - 4);
	memcpy(to, c->data + 4, count);
	return count;
}

static void read_test(const struct chunk *test, const uint32_t mask[VECTOR_REGISTER_COUNT], struct test_vector *v)
{
	struct chunk c;
	size_t at = 4;

	memset(v, 0, offsetof(struct test_vector, before));
	memset(v->before.reg, 0, sizeof(v->before.reg));
	v->before.memory_count = v->after.memory_count = 0;
	memcpy(v->mask, mask, sizeof(v->mask));
	v->exception = -1;
	v->index = test->size < 4 ? 0 : load_le32(test->data);
	while (next_chunk(test->data, test->size, &at, &c)) {
		if (is(&c, "NAME")) {
			v->name[counted(&c, v->name, NAME_SIZE - 1)] = 0;
		} else if (is(&c, "BYTS")) {
			v->length = counted(&c, v->bytes, BYTES_MAX);
		} else if (is(&c, "INIT")) {
			read_state(&c, &v->before, v->mask);
			memcpy(v->after.reg, v->before.reg, sizeof(v->after.reg));
		} else if (is(&c, "FINA")) {
			read_state(&c, &v->after, v->mask);
		} else if (is(&c, "EXCP") && c.size >= 5) {
			v->exception = c.data[0];
			v->flags_address = load_le32(c.data + 1);
		}
	}
}

static enum processor processor_of(const struct chunk *c)
{
	char name[5] = "";

	if (c->size >= 12)
		memcpy(name, c->data + 8, 4);
	return processor_named(name);
}

int moo_read(const struct metadata *metadata, const uint8_t *data, size_t size, vector_fn *fn, void *opaque,
	     struct error *err)
{
	uint32_t mask[VECTOR_REGISTER_COUNT];
	enum processor processor = CPU_8086;
	static struct test_vector v;
	struct chunk c;
	size_t at = 0;
	int ret = 0;

	memset(mask, 0xff, sizeof(mask));
	while (!ret && next_chunk(data, size, &at, &c)) {
		if (is(&c, "MOO ")) {
			processor = processor_of(&c);
		} else if (is(&c, "TEST")) {
			read_test(&c, mask, &v);
			metadata_mask(metadata, &v);
			ret = fn(opaque, processor, &v);
		} else {
			read_masks(&c, mask);
		}
	}
	return ret || at == size ? ret : error_set(err, EINVAL, "the chunk at %zu does not fit", at);
}

/* ---- writing ---- */

static void put_chunk(struct writer *w, const char *type, const struct writer *payload)
{
	uint8_t size[4];

	store_le32(size, (uint32_t)payload->size);
	writer_bytes(w, type, 4);
	writer_bytes(w, size, 4);
	writer_bytes(w, payload->data, payload->size);
}

static void put32(struct writer *w, uint32_t value)
{
	uint8_t bytes[4];

	store_le32(bytes, value);
	writer_bytes(w, bytes, 4);
}

static void put_counted(struct writer *w, const char *type, const void *data, unsigned size)
{
	struct writer payload = { 0 };

	put32(&payload, size);
	writer_bytes(&payload, data, size);
	put_chunk(w, type, &payload);
	writer_free(&payload);
}

static void put_registers(struct writer *w, const char *type, const uint32_t reg[VECTOR_REGISTER_COUNT])
{
	struct writer payload = { 0 };
	uint8_t bytes[2] = { 0xff, 0x3f };

	writer_bytes(&payload, bytes, 2);
	for (unsigned place = 0; place < 14; place++)
		for (unsigned r = 0; r < VECTOR_REGISTER_COUNT; r++)
			if (places_16[r] == (int)place) {
				store_le16(bytes, (uint16_t)reg[r]);
				writer_bytes(&payload, bytes, 2);
			}
	put_chunk(w, type, &payload);
	writer_free(&payload);
}

static void put_state(struct writer *w, const char *type, const struct vector_state *s, const uint32_t *mask)
{
	struct writer state = { 0 }, memory = { 0 };

	put_registers(&state, "REGS", s->reg);
	if (mask)
		put_registers(&state, "RMSK", mask);
	put32(&memory, s->memory_count);
	for (unsigned n = 0; n < s->memory_count; n++) {
		put32(&memory, s->memory[n].address);
		writer_bytes(&memory, &s->memory[n].value, 1);
	}
	put_chunk(&state, "RAM ", &memory);
	put_chunk(w, type, &state);
	writer_free(&memory);
	writer_free(&state);
}

int moo_write(void *opaque, enum processor processor, struct test_vector *v)
{
	struct moo_writer *m = opaque;
	struct writer test = { 0 }, file = { 0 }, exception = { 0 };

	(void)processor;
	put32(&test, v->index);
	put_counted(&test, "NAME", v->name, (unsigned)strlen(v->name));
	put_counted(&test, "BYTS", v->bytes, v->length);
	put_state(&test, "INIT", &v->before, NULL);
	put_state(&test, "FINA", &v->after, m->no_masks ? NULL : v->mask);
	if (v->exception >= 0) {
		writer_bytes(&exception, (uint8_t[]){ (uint8_t)v->exception }, 1);
		put32(&exception, v->flags_address);
		put_chunk(&test, "EXCP", &exception);
	}
	put_chunk(&file, "TEST", &test);
	fwrite(file.data, file.size, 1, m->out);
	m->count++;
	writer_free(&exception);
	writer_free(&test);
	writer_free(&file);
	return 0;
}

/* A header may stand anywhere before the vectors it counts; ours is written first, and its count corrected. */
void moo_write_end(struct moo_writer *m, enum processor processor)
{
	static const char *const names[] = { "8086", "C286", "386E" };
	uint8_t header[20] = "MOO \x0c\0\0\0\1\1";

	store_le32(header + 12, m->count);
	memcpy(header + 16, names[processor], 4);
	rewind(m->out);
	fwrite(header, sizeof(header), 1, m->out);
}
