/*
 * vectors: single instructions with the registers and memory before and after, recorded on real processors: the 8086, 8088, 80286 and 80386
 * sets of the SingleStepTests project. Each is carried out in real mode by one of our engines and compared. What those processors do
 * otherwise than today's is left out, each with its reason (differences.c).
 *
 * Formats: JSON (json.c), as the 8086's are published, and MOO (moo.c), a binary one; either may be compressed by gzip. metadata.c: what
 * a set says of all its files.
 */
#ifndef DOPPEL_VECTORS_H
#define DOPPEL_VECTORS_H

#include "base/base.h"
#include "state/state.h"

enum processor { CPU_8086, CPU_80286, CPU_80386 }; /* an 8088 is an 8086 */

/* (name in JSON, its place in MOO with 16 and with 32 bits: -1 none) */
/* clang-format off */
#define VECTOR_REGISTERS(_)                                                                                            \
	_(ax, 0, 2) _(bx, 1, 3) _(cx, 2, 4) _(dx, 3, 5) _(cs, 4, 10) _(ss, 5, 15) _(ds, 6, 11) _(es, 7, 12)            \
	_(sp, 8, 9) _(bp, 9, 8) _(si, 10, 6) _(di, 11, 7) _(ip, 12, 16) _(flags, 13, 17)                               \
	_(fs, -1, 13) _(gs, -1, 14) _(cr0, -1, 0) _(cr3, -1, 1) _(dr6, -1, 18) _(dr7, -1, 19)
/* clang-format on */

enum vector_register {
#define _(name, at_16, at_32) V_##name,
	VECTOR_REGISTERS(_)
#undef _
		VECTOR_REGISTER_COUNT
};

#define NAME_SIZE  80
#define BYTES_MAX  32
#define MEMORY_MAX 2048

struct memory_byte {
	uint32_t address;
	uint8_t value;
};

struct vector_state {
	uint32_t reg[VECTOR_REGISTER_COUNT];
	struct memory_byte memory[MEMORY_MAX];
	unsigned memory_count;
};

struct test_vector {
	unsigned index;
	char name[NAME_SIZE];
	uint8_t bytes[BYTES_MAX]; /* of the instruction */
	unsigned length;
	struct vector_state before, after;    /* after: complete, what does not change is as before */
	uint32_t mask[VECTOR_REGISTER_COUNT]; /* bits that are defined after it */
	int exception;			      /* -1: none that is known of */
	uint32_t flags_address;		      /* of the flags that it pushed; only with an exception */
};

/* Called for each vector of a file; not 0 ends the reading and is returned. */
typedef int vector_fn(void *opaque, enum processor, struct test_vector *);

/* A file of either format; 0, what fn returned, or -errno with a sentence. */
int vectors_read(const char *path, vector_fn *fn, void *opaque, struct error *);

/* metadata.c: what stands beside a file; all of these may be given NULL, or one without anything in it. */
struct metadata;
struct metadata *metadata_load(const char *path_of_file);
void metadata_free(struct metadata *);
enum processor metadata_processor(const struct metadata *);
enum processor processor_named(const char *);
/* Takes the flags that the instruction leaves undefined out of the vector's mask. */
void metadata_mask(const struct metadata *, struct test_vector *);

/* json.c, moo.c: the same for a whole file in memory. */
int json_read(const char *path, const struct metadata *, const uint8_t *data, size_t size, vector_fn *fn, void *opaque,
	      struct error *);
int moo_read(const struct metadata *, const uint8_t *data, size_t size, vector_fn *fn, void *opaque, struct error *);
/* Writes what was read as MOO, so that one set of samples tests both. */
struct moo_writer {
	FILE *out;
	unsigned count;
	bool no_masks;
};
int moo_write(void *opaque, enum processor, struct test_vector *);
void moo_write_end(struct moo_writer *, enum processor);

/* run.c */
struct runner;
struct runner *runner_create(const char *engine, struct error *);
void runner_destroy(struct runner *);
/* NULL: as it should be; else what is not. *exception: the last one raised, -1 none. */
const char *runner_run(struct runner *, enum processor, const struct test_vector *, int *exception);

/* differences.c: NULL, or why this one is not for us. The second is asked when it came out otherwise. */
const char *difference_before(enum processor, const struct test_vector *);
const char *difference_after(enum processor, const struct test_vector *, int exception);
/* Opcode behind the prefixes, 0x0f00 added to those of two bytes; the ModRM byte behind it. Which prefixes there are. */
struct opcode {
	unsigned code;
	uint8_t modrm;
	bool lock, repeat;
	unsigned prefixes;
};
struct opcode vector_opcode(const struct test_vector *);

#endif
