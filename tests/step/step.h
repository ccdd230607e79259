/*
 * step: one processor in a random state, legal or only possible in a hostile snapshot, executes random instructions one by one, in
 * every mode. Descriptor tables, task state segments and page tables are random, but plausible enough that gates, task switches and
 * nested tasks are reached; devices answer at random, and do at random what devices can do in the middle of an instruction.
 * After each step what must be true of every processor is looked at (check.c).
 *
 * A case is decided by choices, from a seed (step.c) or from a fuzzer's bytes (tests/fuzz/fuzz_step.c). What is found is printed
 * and ends the process by abort().
 */
#ifndef DOPPEL_STEP_H
#define DOPPEL_STEP_H

#include "cpu/cpu.h"
#include "engine/engine.h"
#include "lib/choices.h"

/* ---- world.c: a processor, a megabyte of RAM, devices that answer at random ---- */

#define RAM_SIZE   (1ull << 20)
#define IMAGE_SIZE 0x20000u /* what a case fills; the rest of RAM is zero */
#define CALLS_MAX  5000u    /* of devices in one step, until it is interrupted */

struct world {
	struct engine engine;
	struct cpu_model model;
	struct trace trace;
	struct guest_mem *mem;
	struct clock *clock;
	struct vcpu *v, *peers[1];
	const struct engine_ops *ops;
	uint64_t noise; /* what devices answer is a function of this, */
	uint64_t heard; /* and of all that they were asked before */
	unsigned calls; /* of devices in this step */
	uint64_t all_calls;
	bool meddling; /* devices write to memory and raise interrupts while they are asked */
	bool others_meddle; /* other processors change page tables in exclusive sections, which differ from engine to engine */
	uint64_t time;
};

/* engine with its options. */
struct world *world_create(const char *engine, const char *model, struct error *);
void world_destroy(struct world *);
/* Everything as a case begins. */
void world_start(struct world *, const uint8_t image[IMAGE_SIZE], const struct cpu_state *, uint64_t noise,
		 bool meddling, bool others_meddle);

/* ---- where things are, by physical address ---- */

#define GDT	    0x1000u
#define GDT_SLOTS   32u
#define LDT	    0x1400u
#define LDT_SLOTS   16u
#define IDT	    0x2000u
#define TSS(n)	    (0x3000u + 0x400u * (n))
#define TSS_COUNT   4u
#define TABLES	    0x4000u
#define TABLE_PAGES 16u
#define STACKS	    0x14000u
#define STACK(n)    (STACKS + 0x1000u * (n)) /* by privilege level */
#define CODE	    0x18000u
#define CODE_SIZE   0x1000u
#define DATA	    0x1c000u
#define DATA_SIZE   0x4000u

/* ---- generate.c: what a case begins with ---- */

enum mode { REAL, V86, PROTECTED_16, PROTECTED_32, COMPATIBILITY, LONG, MODES };
enum paging { PAGING_32, PAGING_PAE, PAGING_4_LEVEL };

struct plan {
	struct choices *choices;
	const struct cpu_model *model;
	enum mode mode;
	enum paging paging; /* what the page tables are for, whether they are in use or about to be */
	bool in_pages;	    /* they are in use */
	unsigned cpl;
	bool hostile; /* as no processor could have come to be */
	struct cpu_state state;
	uint8_t image[IMAGE_SIZE];
	uint16_t starts[64]; /* offsets of instructions in CODE */
	unsigned start_count;
	uint64_t noise;
	bool meddling;
};

void plan_make(struct plan *);
/* Numbers that are likely to mean something. */
uint16_t any_selector(struct plan *);
uint16_t any_target(struct plan *); /* a selector that control may be transferred to */
uint64_t any_number(struct plan *);
uint64_t any_address(struct plan *);
uint64_t any_code_offset(struct plan *);

/* ---- tables.c: descriptor tables, task state segments, page tables ---- */

void tables_make(struct plan *);
/* What the GDT has at this selector, as a segment register would have it. */
void take_segment(struct plan *, enum seg, uint16_t selector);

/* Slots of the GDT. System descriptors have two, since they need as many in long mode. */
enum slot {
	SLOT_CODE_0 = 1,
	SLOT_DATA_0,
	SLOT_CODE_3,
	SLOT_DATA_3,
	SLOT_CODE_MIDDLE,
	SLOT_DATA_MIDDLE,
	SLOT_CODE_CONFORMING,
	SLOT_TSS = 8, /* TSS_COUNT of them; the first is the processor's */
	SLOT_LDT = SLOT_TSS + 2 * TSS_COUNT,
	SLOT_CALL_GATE = SLOT_LDT + 2,
	SLOT_CALL_GATE_INNER = SLOT_CALL_GATE + 2,
	SLOT_TASK_GATE = SLOT_CALL_GATE_INNER + 2,
	SLOT_ANY = SLOT_TASK_GATE + 2,
};

/* ---- code.c ---- */

void code_make(struct plan *);

/* ---- check.c ---- */

struct checked {
	uint64_t held;	/* bit n: the n-th thing that should be true of a processor was */
	uint64_t count; /* instructions completed */
};
void check_begin(struct world *, struct checked *);
/* After a step of so many instructions at most, and these events. Prints and ends the process if something is wrong. */
void check_step(struct world *, struct checked *, const struct plan *, int64_t budget, uint32_t events);

/* ---- case.c ---- */

struct case_counts {
	uint64_t cases, steps, instructions, calls, compared;
	uint64_t by_mode[MODES];
	uint64_t faults, interrupts, shutdowns;
};
struct case_options {
	const char *name;  /* of the case, for a finding */
	const char *first; /* the interpreter, with its options */
	const char *other; /* NULL, or a second engine that must come to the same */
	const char *trace; /* NULL, or where to write what happens, with .first and .other behind it */
};
void case_run(struct choices *, const struct case_options *, struct case_counts *);

_Noreturn void found(const char *format, ...) printf_like(1, 2);
/* A line that found() prints as well. */
void found_context(const char *format, ...) printf_like(1, 2);

#endif
