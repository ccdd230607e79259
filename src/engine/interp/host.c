/*
 * host: MMX, SSE, AVX and x87 instructions, executed by the host's own instruction. Decoding gives each one a record,
 * shared by all instructions that differ in their addresses only; it has a stub of host code (host_stub.c) and what must
 * hold before it may run. Vector registers are in v->s.vec between instructions; x87, MMX and MXCSR are live in the host.
 */
#define _GNU_SOURCE /* REG_RIP */
#include "engine/interp/host_exec.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

#define CODE_SIZE_MAX (2u << 20)

enum unit { UNIT_X87, UNIT_MMX, UNIT_SSE, UNIT_AVX };

struct host_record {
	host_stub_fn *stub; /* NULL: a free slot */
	/* The common case in one test: nothing in cr0_bad set, everything needed set, nothing watched. */
	uint32_t cr0_bad, cr4_needed;
	uint8_t xcr0_needed;
	uint8_t watch; /* X87_PENDING: a pending exception is reported first */
	uint8_t unit;  /* enum unit */
	bool always_check;
	uint8_t mem_size;
	uint8_t align_mask;
	bool mem_written;
	bool control; /* x87 control instruction: may change what is watched, sets no pointers */
	bool initial; /* FNINIT: clears them */
	struct host_key key;
};

struct host_exec {
	struct host_code code;
	size_t code_used;
	unsigned count, most; /* stubs: there are, there may be */
	uint64_t epoch;	      /* see interp_host_epoch() */
	bool refused;	      /* the host did not execute something: was said */
	uint32_t mask;
	struct host_record records[]; /* mask + 1 of them, a third more than `most`: open addressing by key */
};

/* ---- the host's exceptions ---- */

/* The vCPU that this thread runs: a signal handler has no other way to learn it. */
static _Thread_local struct vcpu *thread_vcpu;

/* Continued at instead of the stub, with its argument. The vector registers are as before the instruction: not stored. */
static _Noreturn void raise_simd_exception(struct vcpu *v)
{
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vzeroupper");
	cpu_raise(v, v->s.cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}

static _Noreturn void raise_x87_exception(struct vcpu *v)
{
	cpu_fpu_watch(v);
	cpu_fpu_report(v);
	__builtin_unreachable(); /* with IGNNE# nothing is pending while a stub runs */
}

void interp_host_refuse(struct vcpu *v, const struct insn *i)
{
	char bytes[3 * sizeof(i->bytes) + 1] = "";

	for (unsigned n = 0; n < i->len; n++)
		sprintf(bytes + 3 * n, " %02x", i->bytes[n]);
	if (!interp_vcpu(v)->host_exec->refused)
		log_warning("cpu %u: this host's processor does not execute%s, which the CPU model has: an undefined "
			    "instruction for the guest, as others may be",
			    v->index, bytes);
	interp_vcpu(v)->host_exec->refused = true;
	cpu_raise(v, EXC_UD);
}

static _Noreturn void refuse_stub(struct vcpu *v)
{
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vzeroupper");
	interp_host_refuse(v, v->current);
}

static bool in_stub(const struct vcpu *v, uint64_t pc)
{
	const struct host_exec *e = interp_vcpu(v)->host_exec;

	return e && pc - (uint64_t)e->code.exec < e->code.size;
}

/* MXCSR with its new exception bits is in the frame, and comes back when the handler returns. */
static void on_exception(int sig, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	struct vcpu *v = thread_vcpu;
	bool x87 = registers[REG_TRAPNO] == EXC_MF;

	if (!v || !in_stub(v, (uint64_t)registers[REG_RIP]) || info->si_code <= 0) { /* or somebody sent it */
		host_signal_end(sig);
		return;
	}
	registers[REG_RDI] = (greg_t)v;
	registers[REG_RIP] = (greg_t)(sig == SIGILL ? refuse_stub : x87 ? raise_x87_exception : raise_simd_exception);
}

static void install_handlers(void)
{
	struct sigaction action = { .sa_sigaction = on_exception, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	sigemptyset(&action.sa_mask);
	sigaction(SIGFPE, &action, NULL);
	sigaction(SIGILL, &action, NULL);
}

/* ---- life ---- */

int interp_host_init(struct vcpu *v, struct error *err)
{
	unsigned most = engine_options_of(v)->stubs, records = 1;
	struct host_exec *e;
	size_t size;
	int ret;

	while (records / 4 * 3 < most)
		records *= 2;
	size = sizeof(*e) + records * sizeof(e->records[0]);
	e = calloc(1, size);
	if (!e)
		return error_set(err, ENOMEM, "no memory for the records of host instructions (%zu bytes)", size);
	e->most = most;
	e->mask = records - 1;
	e->epoch = 1;
	ret = host_code_create(&e->code, align_up(MIN(most * HOST_STUB_MAX, CODE_SIZE_MAX), PAGE_SIZE), err);
	if (ret) {
		free(e);
		return ret;
	}
	install_handlers(); /* for the whole process; doing it again changes nothing */
	interp_vcpu(v)->host_exec = e;
	return 0;
}

void interp_host_destroy(struct vcpu *v)
{
	if (!interp_vcpu(v)->host_exec)
		return;
	if (thread_vcpu == v)
		thread_vcpu = NULL;
	host_code_destroy(&interp_vcpu(v)->host_exec->code);
	free(interp_vcpu(v)->host_exec);
	interp_vcpu(v)->host_exec = NULL;
}

void interp_host_enter(struct vcpu *v) { thread_vcpu = v; }

void interp_host_leave(struct vcpu *v)
{
	(void)v;
	thread_vcpu = NULL;
}

/* ---- room ---- */

bool interp_host_has_room(const struct vcpu *v, unsigned stubs)
{
	const struct host_exec *e = interp_vcpu(v)->host_exec;

	return e->most - e->count >= stubs && (e->code.size - e->code_used) / HOST_STUB_MAX >= stubs;
}

uint64_t interp_host_epoch(const struct vcpu *v) { return interp_vcpu(v)->host_exec->epoch; }

void interp_host_reset(struct vcpu *v)
{
	struct host_exec *e = interp_vcpu(v)->host_exec;

	memset(e->records, 0, (e->mask + 1) * sizeof(e->records[0]));
	e->code_used = e->count = 0;
	e->epoch++;
}

/* ---- records ---- */

static enum unit unit_of(const struct insn_host *h)
{
	if (h->x87)
		return UNIT_X87;
	if (h->vex)
		return UNIT_AVX;
	/* Instructions between XMM and MMX registers follow SSE's rules, SDM vol. 2 table 2-21 and after. */
	return h->mmx && !(h->vec_read | h->vec_written) ? UNIT_MMX : UNIT_SSE;
}

static void fill_record(struct host_record *r, const struct insn_host *h)
{
	static const struct {
		uint32_t cr0_bad, cr4_needed;
		uint8_t xcr0_needed;
	} units[] = {
		[UNIT_X87] = { CR0_EM | CR0_TS, 0, 0 },
		[UNIT_MMX] = { CR0_EM | CR0_TS, 0, 0 },
		[UNIT_SSE] = { CR0_EM | CR0_TS, CR4_OSFXSR, 0 },
		[UNIT_AVX] = { CR0_TS, CR4_OSXSAVE, XCR0_SSE | XCR0_AVX },
	};

	r->unit = (uint8_t)unit_of(h);
	r->cr0_bad = units[r->unit].cr0_bad;
	r->cr4_needed = units[r->unit].cr4_needed;
	r->xcr0_needed = units[r->unit].xcr0_needed;
	r->always_check = r->unit == UNIT_AVX && r->key.code_mode == MODE_16;
	r->watch = h->mmx || (h->x87 && h->waiting) ? X87_PENDING : 0;
	r->mem_size = h->mem_size;
	r->mem_written = h->mem_written;
	r->align_mask = h->mem_align ? h->mem_align - 1 : 0;
	r->control = h->control;
	r->initial = h->initial;
}

static uint32_t key_hash(const struct host_key *key)
{
	const uint8_t *p = (const uint8_t *)key;
	uint32_t hash = 2166136261u;

	for (size_t n = 0; n < sizeof(*key); n++)
		hash = (hash ^ p[n]) * 16777619u;
	return hash;
}

void interp_host_prepare(struct vcpu *v, struct insn *i, const struct insn_host *h)
{
	struct host_exec *e = interp_vcpu(v)->host_exec;
	struct host_record *r;
	struct host_key key;
	uint8_t *code;

	host_key_make(&key, v, i, h);
	for (uint32_t n = key_hash(&key);; n++) {
		r = &e->records[n & e->mask];
		if (!r->stub)
			break;
		if (!memcmp(&r->key, &key, sizeof(key))) {
			i->aux = r;
			return;
		}
	}
	BUG_ON(!interp_host_has_room(v, 1));
	r->key = key;
	fill_record(r, h);
	code = e->code.write + e->code_used;
	r->stub = (host_stub_fn *)(e->code.exec + e->code_used);
	e->code_used = align_up((uint64_t)(host_stub_emit(code, &key, h) - e->code.write), 16);
	e->count++;
	i->aux = r;
}

/* ---- running ---- */

/* Raises what stands in the way, if anything does; else the unit is live. */
static __attribute__((noinline)) void check_unit(struct vcpu *v, const struct host_record *r)
{
	switch (r->unit) {
	case UNIT_X87: cpu_fpu_check_x87(v, r->watch); return;
	case UNIT_MMX: cpu_fpu_check_mmx(v); return;
	case UNIT_AVX: cpu_fpu_check_avx(v); return;
	default:
		cpu_fpu_check_sse(v);
		if (v->x87_watch & r->watch)
			cpu_fpu_report(v);
	}
}

/* What #AC asks of an operand, SDM vol. 3A table 6-7. 32 bytes are two operands of 16, as on AMD's processors. */
static unsigned natural_alignment(unsigned size) { return size == 10 ? 8 : MIN(size, 16); }

/* The stub, or where IGNNE# has a waiting instruction go on with an exception pending, without the host's knowing of it. */
static inline void call_stub(struct vcpu *v, const struct host_record *r, void *operand)
{
	uint16_t hidden = r->watch ? cpu_fpu_hide_pending(v) : 0;

	r->stub(v, operand);
	cpu_fpu_show_pending(hidden);
}

/* The operand is not in one writable (or readable) page of RAM: work on a copy. Nothing is changed if it faults. */
static __attribute__((noinline)) void run_on_copy(struct vcpu *v, const struct insn *i, const struct host_record *r,
						  uint64_t address)
{
	uint8_t copy[64] __attribute__((aligned(64)));
	uint64_t last = address + r->mem_size - 1;
	bool ss = i->seg == SS;

	cpu_check_alignment(v, address, natural_alignment(r->mem_size));
	if (r->mem_written) {
		cpu_probe_write(v, address, 1, ss);
		if ((address ^ last) & PAGE_MASK)
			cpu_probe_write(v, last & PAGE_MASK, 1, ss);
		/* An x87 store that meets an unmasked exception stores nothing. */
		if (r->unit == UNIT_X87 && (v->x87_watch & X87_UNMASKED))
			cpu_load_bytes(v, address, copy, r->mem_size, ss);
	} else {
		cpu_load_bytes(v, address, copy, r->mem_size, ss);
	}
	call_stub(v, r, copy);
	if (r->mem_written)
		cpu_store_bytes(v, address, copy, r->mem_size, ss);
}

static inline void run_stub(struct vcpu *v, const struct insn *i, const struct host_record *r)
{
	const struct tlb_entry *entry;
	uint64_t address, tag;

	if (!r->mem_size) {
		call_stub(v, r, NULL);
		return;
	}
	if (r->align_mask)
		cpu_check_aligned(v, i, r->align_mask + 1u);
	address = cpu_operand(v, i, r->mem_size, r->mem_written ? ACCESS_WRITE : ACCESS_READ);
	entry = tlb_slot(v, address);
	tag = ((address + r->mem_size - 1) & PAGE_MASK) | v->asid;
	if (likely((r->mem_written ? entry->write_tag : entry->read_tag) == tag))
		call_stub(v, r, (void *)(address + entry->addend));
	else
		run_on_copy(v, i, r, address);
}

static __attribute__((noinline)) void run_x87(struct vcpu *v, const struct insn *i, const struct host_record *r)
{
	run_stub(v, i, r);
	if (!r->control)
		cpu_fpu_note(v, i, r->mem_size ? cpu_ea(v, i) : 0);
	else if (r->initial)
		cpu_fpu_clear_pointers(v);
	if (r->control || v->x87_watch)
		cpu_fpu_watch(v);
}

void interp_host_run(struct vcpu *v, const struct insn *i)
{
	const struct host_record *r = i->aux;

	if (unlikely((v->s.cr0 & r->cr0_bad) | (~v->s.cr4 & r->cr4_needed) | (~v->s.xcr0 & r->xcr0_needed) |
		     (unsigned)(v->x87_watch & r->watch) | !v->fpu_live | r->always_check))
		check_unit(v, r);
	if (r->unit == UNIT_X87)
		run_x87(v, i, r);
	else
		run_stub(v, i, r);
}
