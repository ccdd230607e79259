/*
 * metadata.json, which a set has beside its files, of either format: the processor, and which flags each opcode leaves undefined.
 */
#include "vectors.h"

#include "cpu/cpu.h"

#include <jansson.h>
#include <string.h>

struct metadata {
	json_t *json;
};

struct metadata *metadata_load(const char *path)
{
	const char *slash = strrchr(path, '/');
	struct metadata *m = calloc(1, sizeof(*m));
	char name[4096];

	snprintf(name, sizeof(name), "%.*smetadata.json", slash ? (int)(slash + 1 - path) : 0, path);
	if (m)
		m->json = json_load_file(name, 0, NULL);
	return m;
}

void metadata_free(struct metadata *m)
{
	if (m)
		json_decref(m->json);
	free(m);
}

enum processor processor_named(const char *name)
{
	return strstr(name, "386") ? CPU_80386 : strstr(name, "286") ? CPU_80286 : CPU_8086;
}

enum processor metadata_processor(const struct metadata *m)
{
	const char *cpu = m ? json_string_value(json_object_get(m->json, "cpu")) : NULL;

	return cpu ? processor_named(cpu) : CPU_8086;
}

static bool divides(const struct opcode *op) { return (op->code & 0xfffe) == 0xf6 && (op->modrm >> 3 & 6) == 6; }

/* Of the opcode, or of the instruction that ModRM's digit chooses. */
void metadata_mask(const struct metadata *m, struct test_vector *v)
{
	struct opcode op = vector_opcode(v);
	const json_t *entry, *digit;
	char key[8];

	snprintf(key, sizeof(key), op.code > 0xff ? "%04X" : "%02X", op.code);
	entry = m ? json_object_get(json_object_get(m->json, "opcodes"), key) : NULL;
	snprintf(key, sizeof(key), "%u", op.modrm >> 3 & 7);
	digit = json_object_get(json_object_get(entry, "reg"), key);
	if (digit)
		entry = digit;
	entry = json_object_get(entry, "flags-mask");
	if (entry)
		v->mask[V_flags] &= (uint32_t)json_integer_value(entry) | ~(uint32_t)UINT16_MAX;
	if (divides(&op)) /* SDM vol. 2, whatever the set says */
		v->mask[V_flags] &= ~(uint32_t)FLAGS_STATUS;
}
