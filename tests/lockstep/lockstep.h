/*
 * lockstep: a guest twice, side by side under virtual time: one machine run by the reference engine (interp), the other by the engine that is
 * tested (bt). Both run the same number of instructions, then all registers are compared, and the memory that the reference wrote; all of
 * the memory now and then, and at the end. A difference is looked for again from the start, in smaller and smaller steps, until it is
 * known which instruction makes it (search.c).
 */
#ifndef DOPPEL_LOCKSTEP_H
#define DOPPEL_LOCKSTEP_H

#include "cpu/cpu.h"
#include "engine/engine.h"

enum { REFERENCE, TESTED, SIDES };

#define MAX_CPUS  64
#define MAX_PAGES 16

/*
 * How a run goes. Positions count instructions that the whole machine executed since it was switched on. The same plan gives the same
 * positions of comparisons, as long as both engines are right.
 */
struct plan {
	const char *engine;	   /* of the tested side */
	uint64_t step;		   /* instructions between comparisons, up to: */
	uint64_t fine_from;	   /* from there on: */
	uint64_t fine_step;	   /* 0: about a block */
	uint64_t end;		   /* the run ends here at the latest */
	uint64_t whole_every;	   /* instructions between comparisons of all memory */
	uint64_t watch[MAX_PAGES]; /* pages of memory to compare at every step */
	unsigned watch_count;
	uint64_t accessed_from,
		accessed_to; /* physical addresses of page tables whose accessed bits may differ; to 0: none */
	bool quiet;	     /* say nothing while there is no difference */
	uint64_t inject_at;  /* proof that a difference is found: one is made here; 0: none */
};

#define CODE_BYTES 512

/* What a run has found: at `from` both sides were the same, at `to` they are not. */
struct difference {
	bool found;
	uint64_t from, to;
	unsigned cpu; /* which ran in between */
	enum code_mode mode;
	struct cpu_model model;
	struct cpu_state before, after[SIDES];
	uint8_t code[CODE_BYTES]; /* at `before`'s RIP, if it can be read */
	unsigned code_len;
	uint64_t page[MAX_PAGES]; /* physical addresses of pages that differ */
	unsigned page_count;
	char text[2048]; /* what differs, a line each */
};

/* ---- compare.c: both sides, at a position ---- */

uint64_t machine_position(struct vcpu *const *cpus, unsigned count);

struct comparison;
struct comparison *comparison_create(const struct plan *, struct difference *);
void comparison_destroy(struct comparison *);
/*
 * Both sides have stopped and these vCPUs are about to run. Returns how many instructions they may, 0: the run is over, because
 * something differs or the plan says so.
 */
uint64_t comparison_step(struct comparison *, struct vcpu *const about_to_run[SIDES]);
/* Both have ended by themselves, or one has. */
void comparison_end(struct comparison *, const bool ended[SIDES], const int status[SIDES]);
struct comparison_counts {
	uint64_t steps, instructions, pages, wholes;
};
struct comparison_counts comparison_counts(const struct comparison *);

/* ---- what is run: from the start, each time the same ---- */

struct subject {
	/* As the plan says; what it finds. False: it could not be run, and has said why. */
	bool (*run)(struct subject *, const struct plan *, struct difference *, struct comparison_counts *);
};

/* pair.c: two machines */
struct machine_config;
struct pair {
	struct subject subject;
	const struct machine_config *config; /* but for the engine, serial ports and observer, which are the pair's */
	const char *reference;		     /* engine */
	const char *serial; /* NULL, or where the first serial ports' output is kept: <serial>.0 and .1 */
};
void pair_init(struct pair *);

/* ---- search.c ---- */

/* True if both sides are the same to the end. Otherwise the difference is narrowed down and printed. */
bool search(struct subject *, const struct plan *, struct comparison_counts *);

/* ---- report.c ---- */

void report(const struct difference *);

#endif
