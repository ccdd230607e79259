/*
 * Vectors in JSON: a list of objects with name, bytes, initial and final {regs, ram}, idx. Of the final state there is only what
 * changed. What they have in common the folder's metadata.json says.
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

static void read_vector(const json_t *object, const struct metadata *metadata, struct test_vector *v)
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
	metadata_mask(metadata, v);
	exception = json_object_get(object, "exception");
	v->exception = exception ? (int)number(json_object_get(exception, "number")) : -1;
	v->flags_address = number(json_object_get(exception, "flag_address"));
}

int json_read(const char *path, const struct metadata *metadata, const uint8_t *data, size_t size, vector_fn *fn,
	      void *opaque, struct error *err)
{
	static struct test_vector v;
	json_error_t why;
	json_t *list = json_loadb((const char *)data, size, 0, &why), *item;
	int ret = 0;
	size_t n;

	if (!json_is_array(list)) {
		json_decref(list);
		return error_set(err, EINVAL, "%s: line %d: %s; expected a list of vectors in JSON", path, why.line,
				 why.text);
	}
	json_array_foreach(list, n, item)
	{
		read_vector(item, metadata, &v);
		ret = fn(opaque, metadata_processor(metadata), &v);
		if (ret)
			break;
	}
	json_decref(list);
	return ret;
}
