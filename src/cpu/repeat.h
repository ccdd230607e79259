/*
 * What string instructions and string I/O share: the index registers, their operands, and the REP prefixes. Private to cpu/.
 */
#ifndef DOPPEL_CPU_REPEAT_H
#define DOPPEL_CPU_REPEAT_H

#include "cpu/private.h"

/* Register operands by byte offset. */
enum { OFF_RAX = 8 * RAX, OFF_RCX = 8 * RCX, OFF_RDX = 8 * RDX, OFF_RSI = 8 * RSI, OFF_RDI = 8 * RDI };

/* What ends a long repetition early: somebody waits for the next instruction boundary. */
#define REPEAT_STOP_EVENTS (EVENT_INTERRUPT | EVENT_NMIS | EVENT_INIT | EVENT_EXIT | EVENT_EXCLUSIVE | EVENT_STOP)

static inline uint64_t string_linear(struct vcpu *v, enum seg seg, uint64_t offset, unsigned size, enum access access)
{
	if (likely(v->code_mode == MODE_64 && seg != FS && seg != GS))
		return offset;
	return cpu_linear(v, seg, offset, size, access);
}

/* Move an index register by n elements in the direction of DF. */
static inline void string_advance(struct vcpu *v, const struct insn *i, unsigned off, uint64_t n)
{
	uint64_t bytes = n * i->opsize;
	uint64_t value = cpu_reg(v, off, i->addrsize);

	cpu_set_reg(v, off, i->addrsize, v->s.rflags & FLAG_DF ? value - bytes : value + bytes);
}

static inline uint64_t string_load(struct vcpu *v, const struct insn *i, enum seg seg, unsigned off)
{
	uint64_t lin = string_linear(v, seg, cpu_reg(v, off, i->addrsize), i->opsize, ACCESS_READ);

	return cpu_load(v, lin, i->opsize, seg == SS);
}

/*
 * Carries out 1..max elements, moves the index registers past them and returns how many; *stop: the condition of REPE or
 * REPNE ended the repetition. Raises only before its first element changed anything.
 */
typedef uint64_t string_step_fn(struct vcpu *, const struct insn *, uint64_t max, bool *stop);

/* After each step all registers are right, so that the instruction can be left there, by a fault or for an event, and resumed. */
static inline __attribute__((always_inline)) void string_repeat(struct vcpu *v, const struct insn *i,
								string_step_fn *step)
{
	bool stop = false;

	if (!(i->flags & (INSN_REP | INSN_REPNE))) {
		step(v, i, 1, &stop);
		return;
	}
	/* Single-step traps and those of data breakpoints come after each element, SDM vol. 3B 17.3.1.2 and 17.3.1.4. */
	bool trap = (v->s.rflags & FLAG_TF) || v->stop.step,
	     alone = trap || (v->s.dr[7] & DR7_ENABLES) || (v->stops && v->stops->watch_count);

	v->repeating = false;
	for (;;) {
		uint64_t count = cpu_reg(v, OFF_RCX, i->addrsize);
		if (!count)
			return;
		uint64_t n = step(v, i, alone ? 1 : count, &stop);
		cpu_set_reg(v, OFF_RCX, i->addrsize, count - n);
		if (stop || n == count)
			return;
		if (trap || v->s.pending_debug ||
		    atomic_load_explicit(&v->events, memory_order_relaxed) & REPEAT_STOP_EVENTS) {
			v->restart = v->repeating = true;
			return;
		}
	}
}

#endif
