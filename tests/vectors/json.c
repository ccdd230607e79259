/*
 * Vectors in JSON: a list of objects with name, bytes, initial and final {regs, ram}, idx. Of the final state there is only what
 * changed. The folder's metadata.json names the processor and which flags each opcode leaves undefined.
 */
#include "vectors.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

static uint32_t number(const json_t *object) { return (uint32_t)json_integer_value(object); }

static const char *const register_names[] = {
#define _(name, at_16, at_32) #name,
	VECTOR_REGISTERS(_)
#undef _
};

static void read_state(const json_t *object, struct vector_state *s)
{
	const json_t *regs = json_object_get(object, "regs"), *ram = json_object_get(object, "ram"), *item;
	size_t n;

	for (unsigned r = 0; r < VECTOR_REGISTER_COUNT; r++) {
		item = json_object_get(regs, register_names[r]);
		if (item)
			s->reg[r] = number(item);
	}
	json_array_foreach(ram, n, item) if (s->memory_count < MEMORY_MAX) s->memory[s->memory_count++] =
		(struct memory_byte){ number(json_array_get(item, 0)), (uint8_t)number(json_array_get(item, 1)) };
}

/* Undefined flags: of the opcode, or of the instruction that ModRM's digit chooses. */
static uint32_t flags_mask(const json_t *opcodes, const struct test_vector *v)
{
	struct opcode op = vector_opcode(v);
	const json_t *entry, *digit;
	char key[8];

	snprintf(key, sizeof(key), "%02X", op.code);
	entry = json_object_get(opcodes, key);
	snprintf(key, sizeof(key), "%u", op.modrm >> 3 & 7);
	digit = json_object_get(json_object_get(entry, "reg"), key);
	if (digit)
		entry = digit;
	entry = json_object_get(entry, "flags-mask");
	return entry ? number(entry) : UINT16_MAX;
}

static void read_vector(const json_t *object, const json_t *opcodes, struct test_vector *v)
{
	const json_t *bytes = json_object_get(object, "bytes"), *item, *exception;
	const char *name = json_string_value(json_object_get(object, "name"));
	size_t n;

	memset(v, 0, offsetof(struct test_vector, before));
	memset(v->before.reg, 0, sizeof(v->before.reg));
	v->index = number(json_object_get(object, "idx"));
	snprintf(v->name, sizeof(v->name), "%s", name ? name : "");
	json_array_foreach(bytes, n, item) if (v->length < BYTES_MAX) v->bytes[v->length++] = (uint8_t)number(item);
	v->before.memory_count = v->after.memory_count = 0;
	read_state(json_object_get(object, "initial"), &v->before);
	memcpy(v->after.reg, v->before.reg, sizeof(v->after.reg));
	read_state(json_object_get(object, "final"), &v->after);
	memset(v->mask, 0xff, sizeof(v->mask));
	v->mask[V_flags] = flags_mask(opcodes, v);
	exception = json_object_get(object, "exception");
	v->exception = exception ? (int)number(json_object_get(exception, "number")) : -1;
	v->flags_address = number(json_object_get(exception, "flag_address"));
}

static enum processor processor_of(const json_t *metadata)
{
	const char *cpu = json_string_value(json_object_get(metadata, "cpu"));

	return cpu && strstr(cpu, "386") ? CPU_80386 : cpu && strstr(cpu, "286") ? CPU_80286 : CPU_8086;
}

static json_t *load_metadata(const char *path)
{
	const char *slash = strrchr(path, '/');
	char name[4096];

	snprintf(name, sizeof(name), "%.*smetadata.json", slash ? (int)(slash + 1 - path) : 0, path);
	return json_load_file(name, 0, NULL);
}

int json_read(const char *path, const uint8_t *data, size_t size, vector_fn *fn, void *opaque, struct error *err)
{
	static struct test_vector v;
	json_error_t why;
	json_t *list = json_loadb((const char *)data, size, 0, &why), *metadata, *item;
	int ret = 0;
	size_t n;

	if (!json_is_array(list)) {
		json_decref(list);
		return error_set(err, EINVAL, "%s: line %d: %s; expected a list of vectors in JSON", path, why.line,
				 why.text);
	}
	metadata = load_metadata(path);
	json_array_foreach(list, n, item)
	{
		read_vector(item, json_object_get(metadata, "opcodes"), &v);
		ret = fn(opaque, processor_of(metadata), &v);
		if (ret)
			break;
	}
	json_decref(metadata);
	json_decref(list);
	return ret;
}
