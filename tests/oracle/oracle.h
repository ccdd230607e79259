/*
 * oracle: every instruction that user mode can execute, executed twice: by the host's processor (native.c) and by an engine
 * (guest.c), from the same state and with the same memory at the same addresses; then compared (compare.c). What there is to
 * execute comes out of the encoding space itself (forms.c), operands out of a seed (cases.c).
 */
#ifndef DOPPEL_ORACLE_H
#define DOPPEL_ORACLE_H

#include "cpu/cpu.h"
#include "engine/engine.h"

/* ---- the memory that both sides have ---- */

/* Areas of pages at the same linear addresses on both sides; nothing else below 4 GiB is mapped. */
#define CODE_AREA  0x10000000ull /* not present, two pages of code, not present */
#define DATA_AREA  0x20000000ull /* not present, two pages to write, one to read only, not present */
#define STACK_AREA 0x30000000ull /* not present, one page, not present */
#define CODE	   (CODE_AREA + PAGE_SIZE)
#define DATA	   (DATA_AREA + PAGE_SIZE)
#define READ_ONLY  (DATA + 2 * PAGE_SIZE)
#define STACK	   (STACK_AREA + PAGE_SIZE)
#define CODE_SIZE  (2 * PAGE_SIZE)
#define DATA_SIZE  (3 * PAGE_SIZE)
#define STACK_SIZE PAGE_SIZE

/* All of CODE that is not the instruction: HLT, which user mode may not, whatever the code segment. Arriving there ends a case. */
#define FILLER 0xf4

/* Where sequences have images of a kind, so that one is loaded that was stored: FXSAVE's hold what the processor has of MXCSR, see compare.c. */
enum {
	IMAGE_X87_16 = DATA + 0x300,
	IMAGE_X87_32 = DATA + 0x400,
	IMAGE_MXCSR = DATA + 0x600,
	IMAGE_XSAVE = DATA + 0x800
};

/* Where one side sees those areas. */
struct areas {
	uint8_t *code, *data, *stack;
};

/* ---- what user mode sees of the processor ---- */

struct user_state {
	uint64_t gpr[16], rip, rflags;
	uint64_t fs_base, gs_base;
	uint16_t sel[6]; /* enum seg */
	uint32_t mxcsr;
	uint64_t vec[16][4]; /* as cpu_state.vec */
	uint16_t fcw, fsw, fop;
	uint8_t tags; /* one bit a physical register: in use */
	uint64_t fip, fdp;
	uint16_t fcs, fds; /* the engine's: 64-bit frames have none; what instructions store of them is compared */
	uint64_t st_mantissa[8];
	uint16_t st_exponent[8];
};

/* How a case ended: vector -1 behind the instruction, at whatever place it went to. */
struct outcome {
	struct user_state s;
	int vector;
	uint32_t error;
	uint64_t cr2; /* of a page fault */
};

/* ---- segments.c ---- */

/* Entries of the LDT that both sides have. */
#define LDT_SIZE 33

struct segment {
	uint32_t base, limit; /* in bytes */
	uint16_t attr;	      /* ATTR_*; 0: no segment of user mode */
};
/* Of Linux's GDT, or of the LDT. */
struct segment segment_of(uint16_t selector);
/* The same as 8 bytes of a descriptor table. */
uint64_t segment_descriptor(uint16_t selector);
#define SEL_CODE_32 0x23 /* Linux's GDT, arch/x86/include/asm/segment.h */
#define SEL_CODE_16 7	 /* the first of segments.c */
/* Have this process' LDT made, and see what this host has. Once, before a guest is made. */
void segments_install(void);
/* Is there code of this mode, and for 16 bits the LDT? */
bool segments_of_mode(enum code_mode);
/* Is 64 KiB from its base on this area, or all of the linear addresses? */
bool segment_holds(const struct segment *, uint64_t area);

/* ---- native.c ---- */

struct native;
/* One a process. After the engines were created: it takes their signal handlers' place, and calls them for what is not its. */
struct native *native_create(struct error *);
const struct areas *native_areas(struct native *);
/* Selectors and flags that user mode starts with: flat segments, as far as there are some. */
void native_start_state(struct native *, enum code_mode, struct user_state *);
/* What of this host is not the same everywhere. */
struct host_traits {
	bool bases; /* FS and GS bases can be set */
	bool ldt;   /* there are the segments of segments.c */
	bool fip, fdp,
		fop; /* these x87 pointers are kept also while no exception is pending: AMD's have none, Intel's some */
	bool sees_fop, sees_fdp,
		sees_selectors; /* FNSTENV stores FOP; FDP; FCS and FDS, though no exception is pending */
	bool pvm; /* a software hypervisor: user mode cannot be entered with an RSP that is not canonical, and more */
	bool aligns_vectors; /* #AC of MOVUPS whose operand is at a multiple of 8 only */
	bool pushes_zeros;   /* PUSH of a segment register writes as many bytes as it moves the stack pointer */
	uint32_t mxcsr_mask; /* beyond 0xffff: AMD's misaligned SSE mode, which no model offers */
	uint64_t xcr0;	     /* components that XSAVE would save */
};
struct host_traits native_traits(struct native *);
void native_run(struct native *, const struct user_state *, struct outcome *);

/* ---- guest.c ---- */

enum run_mode {
	RUN_BUDGET, /* one instruction at a time, by the budget */
	RUN_BLOCK,  /* until something stops it: what follows the instruction does */
	RUN_TRAP,   /* RFLAGS.TF */
	RUN_MODES
};

struct guest;
struct guest *guest_create(const char *engine, struct error *);
const struct cpu_model *guest_model(const struct guest *);
const struct areas *guest_areas(struct guest *);
/* The code area was written. */
void guest_code_changed(struct guest *);
/* Prints what the translator did, if that is the engine. False: it did nothing. */
bool guest_report_translation(const struct guest *);
/* Code of `len` bytes. -EIO when the engine itself fails. */
int guest_run(struct guest *, const struct user_state *, unsigned len, enum run_mode, struct outcome *, struct error *);

/* Linear address of an offset in a segment; 64-bit code has no bases but those of FS and GS. */
static inline uint64_t linear_of(const struct user_state *s, enum seg seg, uint64_t offset)
{
	uint64_t base = seg == FS ? s->fs_base : seg == GS ? s->gs_base : segment_of(s->sel[seg]).base;

	return segment_of(s->sel[CS]).attr & ATTR_L ? (seg >= FS ? base + offset : offset) : (uint32_t)(base + offset);
}

/* Bytes of code at this address, NULL outside of the code area. */
static inline const uint8_t *code_at(const struct areas *a, uint64_t linear)
{
	return linear - CODE < CODE_SIZE ? a->code + (linear - CODE) : NULL;
}

/*
 * Both sides go on behind the instruction until something stops them. When that is not the instruction itself, it is the
 * filler, or the absence of code where a branch went, or the end of the code segment: then the case has no fault of its own.
 */
static inline void outcome_settle(struct outcome *o, const struct areas *a, uint64_t start)
{
	uint64_t at = linear_of(&o->s, CS, o->s.rip);
	const uint8_t *code = code_at(a, at);
	bool filler = o->vector == EXC_GP && code && *code == FILLER;
	bool absent = o->vector == EXC_PF && o->cr2 == at && !code;
	bool beyond = o->vector == EXC_GP && !(segment_of(o->s.sel[CS]).attr & ATTR_L) &&
		      o->s.rip > segment_of(o->s.sel[CS]).limit;

	if (o->s.rip != start && (filler || absent || beyond)) {
		o->vector = -1;
		o->s.rflags &= ~FLAG_RF;
	}
}

/* ---- random numbers ---- */

struct rng {
	uint64_t state;
};

/* SplitMix64 */
static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}
/* 0 .. n-1 */
static inline unsigned rng_below(struct rng *r, unsigned n) { return (unsigned)((rng_next(r) >> 32) * n >> 32); }
static inline bool rng_one_in(struct rng *r, unsigned n) { return rng_below(r, n) == 0; }

/* ---- forms.c ---- */

enum opcode_map { MAP_ONE_BYTE, MAP_0F, MAP_0F38, MAP_0F3A, MAP_COUNT };

/* An encoding, complete but for what does not choose the instruction: registers, addresses, immediates. */
struct encoding {
	uint8_t prefixes[4]; /* of 66, F2, F3, F0; 0 ends */
	uint8_t map;	     /* enum opcode_map */
	uint8_t opcode;
	bool vex, w, l;
	uint8_t vex_pp;
	bool vvvv_used; /* any VEX.vvvv is right, not only 1111 */
	bool modrm, memory;
	uint8_t reg, rm;
	bool rm_fixed;
};

struct insn_form {
	char name[64];	    /* "lock add m32, r32" */
	const char *reason; /* not executed, because: */
	bool undefined; /* encodings that the model does not have: "(bad)", or a name the disassembler knows and " ?" */
	bool host_has;	/* but the host has */
	bool sequence;	/* not a form: sequences of others */
	bool x87;	/* of x87 and MMX instructions only */
	uint16_t op;
	bool host;
	struct encoding *encodings;
	unsigned encoding_count;
	uint64_t attempts, cases, faults, failures, undefined_flags;
};

struct forms {
	enum code_mode mode;
	struct insn_form *form;
	unsigned count;
	uint32_t *index; /* open addressing by name: place in form[] + 1 */
	uint64_t decoded;
};

#define FORMS_INDEX 16384u

/* All forms that the model can decode in code of a mode, by name; and one of the encodings that it cannot. */
int forms_find(struct forms *, const struct cpu_model *, enum code_mode, struct error *);
void forms_free(struct forms *);
/* The form of these bytes, or NULL. */
struct insn_form *forms_of(struct forms *, const uint8_t *bytes, size_t len);
/* Bytes of an encoding with given register numbers (0..15): a template, or a case. Returns their number. */
struct encoding_fields {
	uint8_t reg, rm, vvvv;	  /* reg and rm beyond 7 need a REX prefix or VEX */
	uint8_t mod, index, base; /* memory: base 16 none (disp32), 17 RIP-relative; index 16 none */
	uint8_t scale;
	int32_t disp;
	bool address_size; /* prefix */
	bool rex_always, short_vex, sib;
	uint8_t segment; /* override prefix, 0 none */
	uint8_t more;	 /* how often that prefix stands there besides */
};
#define ENCODED_MAX 32
size_t encode(enum code_mode, const struct encoding *, const struct encoding_fields *, uint8_t bytes[ENCODED_MAX]);

/* ---- cases.c ---- */

#define CASE_BYTES 224 /* one instruction, or a sequence of them */

struct test_case {
	struct insn_form *form, *made_for; /* the same, mostly: registers and prefixes may make another of it */
	uint8_t bytes[CASE_BYTES];
	unsigned len;
	struct insn insn;
	struct insn_host host;
	struct user_state before;
	enum code_mode code_mode;
	enum run_mode mode;
	struct host_traits traits;
};

struct cases;
struct cases *cases_create(struct forms *, const struct cpu_model *, const struct user_state *start, struct host_traits,
			   uint64_t seed);
void cases_destroy(struct cases *);
/* Before the first case, and after somebody else wrote to the code area: all of it becomes filler. */
void cases_begin(struct cases *);
/*
 * Case `number` of a form: writes both sides' memory. Which it is depends on the seed, the form's name and the number only.
 * false: there is no such case.
 */
bool cases_make(struct cases *, struct insn_form *, uint64_t number, struct test_case *, const struct areas *sides[2]);

/* ---- compare.c ---- */

/* Status flags that the manuals leave undefined after this instruction on these operands. */
uint64_t undefined_flags(const struct test_case *);

struct difference {
	bool found, undefined_flags;
	const char *left_open; /* some of it was not compared, because: */
	char text[1024];       /* a line each, "# " in front */
};
void compare(const struct test_case *, const struct outcome *native, const struct outcome *guest,
	     const struct areas *sides[2], struct difference *);

#endif
