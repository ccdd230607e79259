/*
 * isolation: attacks the translator as a hostile guest would. The same hostile code, registers and page tables run under engine bt and
 * under the interpreter (world.c); what the guest then is must be the same, and nothing but the guest may have changed: watch.c looks at
 * every fault of translated code and, on some runs, at every single access that it makes, check.c at the translator's records.
 *
 * A session is a pair of worlds and a few dozen rounds; which is decided by choices, from a seed (isolation.c) or from the bytes of a
 * fuzzer (tests/fuzz/fuzz_isolation.c). A finding is printed and ends the process by abort().
 */
#ifndef DOPPEL_ISOLATION_H
#define DOPPEL_ISOLATION_H

#include "cpu/cpu.h"
#include "engine/engine.h"
#include "lib/choices.h"

/* ---- world.c: a machine of one vCPU and RAM ---- */

#define RAM_SIZE  (4ull << 20)
#define DEVICE	  0xa0000u /* 128 KiB without RAM: every access is counted */
#define SYSTEM	  0x1000u  /* physical: descriptor tables, handlers, stacks */
#define TABLES	  0x10000u /* physical: page tables */
#define TABLE_MAX 64u
#define CODE	  0x60000u /* physical */
#define CODE_SIZE 0x4000u
#define DATA	  0xc0000u /* physical */
#define DATA_SIZE 0x20000u
#define LARGE	  0x200000u /* physical: what large pages map */

/* Where SYSTEM is in every address space, for CPL 0 only. */
#define SYSTEM_LIN 0xffff810000000000ull

struct world {
	const char *name; /* of the engine, with its options */
	struct engine engine;
	struct cpu_model model;
	struct trace trace;
	struct guest_mem *mem;
	struct clock *clock;
	struct vcpu *v, *peers[1];
	const struct engine_ops *ops;
	struct cpu_state start; /* what rounds have in common */
	uint64_t device_hash;	/* of all device accesses, in their order */
};

/* The clock stands still, whatever it is; under CLOCK_VIRTUAL engines count instructions. */
struct world *world_create(const char *engine, enum clock_kind, struct error *);
void world_destroy(struct world *);
/* Guest physical memory, as a device would write it. */
void world_write(struct world *, uint64_t at, const void *, size_t);

/* Descriptor tables and handlers, as at first. */
void world_fill_system(struct world *);
/* What the handlers of exceptions do: halt, or go on `skip` bytes behind the faulting instruction's start, so many times. */
enum handlers { HANDLERS_HALT, HANDLERS_SKIP };
void world_set_handlers(struct world *, enum handlers, unsigned skip, uint64_t times);

/* ---- tables.c: hostile page tables ---- */

struct page_tables {
	uint64_t entry[TABLE_MAX][512];
	unsigned used; /* tables; the first is the top */
	bool open;     /* the guest may reach its tables: results may then depend on when entries are read */
};

struct spot {
	uint64_t lin;
	unsigned pages;
};
extern const struct spot spots[];
extern const unsigned spot_count;
#define CODE_SPOTS 4u
/* The first ones are used more often, so that what changes there is noticed. */
#define FAVOURITE_SPOTS 7u

void tables_make(struct page_tables *, struct choices *, bool open);
/* Some entries become something else. */
void tables_change(struct page_tables *, struct choices *);

/* ---- generate.c: hostile code and registers ---- */

struct generator {
	struct choices *choices;
	const struct cpu_model *model;
	bool kernel; /* code for CPL 0; else for CPL 3 */
	bool code32; /* of compatibility mode */
	bool code16; /* the same, with 16-bit segments */
	/* Host addresses that are none of the guest's business; first that of the stack for signals. */
	const uint64_t *secrets;
	unsigned secret_count;
};

/* An address that is likely to hurt. */
uint64_t hostile_address(struct generator *);
/* All of the code pages. entry: where to start. */
void generate_code(struct generator *, uint8_t code[CODE_SIZE], unsigned *entry);
/* General registers, flags, segments, vector and x87 registers; the rest stays. */
void generate_registers(struct generator *, struct cpu_state *);

/* ---- watch.c: signals of translated code ---- */

/* Looks at faults of this vCPU's translated code from now on. */
void watch_begin(struct vcpu *);
void watch_end(void);
/*
 * Before each run: look at every instruction, too? Stop it after so many milliseconds; a finding if it should have ended by itself.
 */
void watch_run(bool every_instruction, unsigned milliseconds, bool ends);
/* After it. */
void watch_stop(void);
/* Are address spaces new to the translator, which then does not make windows for user mode? Before the vCPU runs. */
void watch_young(struct vcpu *, bool young);
struct watch_counts {
	uint64_t faults, instructions, accesses;
	uint64_t translated; /* guest instructions, and how often C entered translated code */
	uint64_t entered;
};
struct watch_counts watch_counts(void);
/* Addresses of the monitor's own. Returns how many. */
unsigned watch_secrets(struct vcpu *, uint64_t *secrets, unsigned max);

/* ---- check.c: the translator's own records ---- */

/* NULL, or what is wrong with them. */
const char *check_records(struct vcpu *);

/* ---- session.c ---- */

struct session_counts {
	uint64_t rounds, compared, endless, halted, shut_down;
};
struct session_options {
	unsigned rounds;
	unsigned step;	    /* percent of rounds in which every instruction is looked at */
	const char *trace;  /* NULL, or where to write what happens */
	const char *engine; /* NULL: one of some */
	const char *interp; /* NULL: the interpreter without options */
};
/* name: what a finding calls it. */
void session_run(struct choices *, const char *name, const struct session_options *, struct session_counts *);

/* Says what was found, where, and ends the process. */
_Noreturn void found(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line that found() prints as well; kept until the next one with the same number. */
void found_context(unsigned line, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
