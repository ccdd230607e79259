/*
 * The local APIC's state and registers, shared by lapic.c (interrupts), lapic_timer.c (its timer) and lapic_regs.c (register
 * accesses). Section numbers are those of SDM vol. 3A, chapter 11 "Advanced programmable interrupt controller".
 *
 * Threads: IRR, TMR and the error bits are set by any thread. Everything else is written by the CPU's own thread (or while it
 * is stopped), and read by others for destination matching and arbitration: hence the atomic accessors. The timer's fields
 * have timer_lock, because the timer fires in the thread that runs the clock.
 */
#ifndef DOPPEL_BUS_LAPIC_H
#define DOPPEL_BUS_LAPIC_H

#include "bus/private.h"

/* Register offsets >> 4: what x2APIC's MSR numbers add to 0x800 (table 11-6). */
enum lapic_register {
	LAPIC_ID = 0x02,
	LAPIC_VERSION = 0x03,
	LAPIC_TPR = 0x08,
	LAPIC_APR = 0x09,
	LAPIC_PPR = 0x0a,
	LAPIC_EOI = 0x0b,
	LAPIC_RRD = 0x0c,
	LAPIC_LDR = 0x0d,
	LAPIC_DFR = 0x0e,
	LAPIC_SVR = 0x0f,
	LAPIC_ISR = 0x10, /* 8 registers, as TMR and IRR */
	LAPIC_TMR = 0x18,
	LAPIC_IRR = 0x20,
	LAPIC_ESR = 0x28,
	LAPIC_ICR_LOW = 0x30,
	LAPIC_ICR_HIGH = 0x31,
	LAPIC_LVT = 0x32, /* 6 registers, enum lvt */
	LAPIC_TIMER_INITIAL = 0x38,
	LAPIC_TIMER_CURRENT = 0x39,
	LAPIC_TIMER_DIVIDE = 0x3e,
	LAPIC_SELF_IPI = 0x3f,
};

/* The local vector table in the order of its registers. */
enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define LVT_MASKED	  BIT(16)
#define LVT_MODE(lvt)	  bits(lvt, 10, 8)
#define SVR_ENABLE	  BIT(8)
#define APIC_BASE_BSP	  BIT(8)
#define APIC_BASE_EXTD	  BIT(10)
#define APIC_BASE_EN	  BIT(11)
#define APIC_BASE_ADDRESS bits(~0ull, 51, 12) << 12

/* Error status register, 11.5.3 */
#define ESR_SEND_ILLEGAL    BIT(5)
#define ESR_RECEIVE_ILLEGAL BIT(6)
#define ESR_REGISTER	    BIT(7)

enum timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };
#define TIMER_MODE(lvt) bits(lvt, 18, 17)

#define LAPIC_STATE(_, T)                                                                                              \
	_(T, uint64_t, apic_base, 1, 1, 0xfee00000 | APIC_BASE_EN, 0xffffffffffd00)                                    \
	_(T, uint32_t, tpr, 1, 2, 0, 0xff)                                                                             \
	_(T, uint32_t, ldr, 1, 3, 0, UINT32_MAX)                                                                       \
	_(T, uint32_t, dfr, 1, 4, UINT32_MAX, UINT32_MAX)                                                              \
	_(T, uint32_t, svr, 1, 5, 0xff, 0x3ff)                                                                         \
	_(T, uint32_t, isr, 8, 6, 0, UINT32_MAX)                                                                       \
	_(T, uint32_t, tmr, 8, 7, 0, UINT32_MAX)                                                                       \
	_(T, uint32_t, irr, 8, 8, 0, UINT32_MAX)                                                                       \
	_(T, uint32_t, esr, 1, 9, 0, 0xff)     /* as last latched by a write */                                        \
	_(T, uint32_t, errors, 1, 10, 0, 0xff) /* since then */                                                        \
	_(T, uint32_t, icr_low, 1, 11, 0, UINT32_MAX)                                                                  \
	_(T, uint32_t, icr_high, 1, 12, 0, UINT32_MAX)                                                                 \
	_(T, uint32_t, lvt, 6, 13, LVT_MASKED, UINT32_MAX)                                                             \
	_(T, uint32_t, timer_initial, 1, 14, 0, UINT32_MAX)                                                            \
	_(T, uint32_t, timer_divide, 1, 15, 0, 0xb)                                                                    \
	_(T, uint64_t, timer_start, 1, 16, 0, UINT64_MAX)	   /* vtime at which the count was the initial one */  \
	_(T, uint64_t, timer_next, 1, 17, VTIME_NEVER, UINT64_MAX) /* vtime at which the timer fires */                \
	_(T, uint64_t, tsc_deadline, 1, 18, 0, UINT64_MAX)                                                             \
	_(T, bool, extint, 1, 19, 0, 1)		   /* an ExtINT message came: the next INTA goes to the 8259 */        \
	_(T, uint32_t, owed, 1, 20, 0, TICKS_MOST) /* expiries of the periodic timer not delivered yet */              \
	_(T, uint32_t, masked, 1, 21, 0, TICKS_MOST)

struct lapic {
	struct device device;
	STATE_FIELDS(LAPIC_STATE)
	uint32_t id; /* initial APIC ID: the CPU's index */
	struct irq_chip *chip;
	const struct lapic_ops *ops;
	void *cpu;
	pthread_mutex_t timer_lock;
	struct timer timer;
};

#define lapic_get(field)	__atomic_load_n(&(field), __ATOMIC_RELAXED)
#define lapic_put(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELAXED)

static inline bool lapic_x2(const struct lapic *lapic) { return lapic_get(lapic->apic_base) & APIC_BASE_EXTD; }

static inline bool lapic_hardware_enabled(const struct lapic *lapic)
{
	return lapic_get(lapic->apic_base) & APIC_BASE_EN;
}

/* x2APIC: cluster in bits 31:16, one bit of the cluster in 15:0 (11.12.10.2). */
static inline uint32_t lapic_logical_id(const struct lapic *lapic)
{
	return lapic_x2(lapic) ? (lapic->id >> 4) << 16 | 1u << (lapic->id & 15) : lapic_get(lapic->ldr);
}

/* Something that was held back may be deliverable now. */
static inline void lapic_notify(struct lapic *lapic)
{
	if (lapic_pending(lapic))
		lapic->ops->interrupt(lapic->cpu);
}

/* lapic.c */
void lapic_error(struct lapic *, uint32_t bit);
void lapic_local_interrupt(struct lapic *, enum lvt);
void lapic_eoi(struct lapic *);
void lapic_send(struct lapic *, uint64_t icr);

/* lapic_timer.c; the CPU's thread */
void lapic_timer_init(struct lapic *);
int lapic_timer_loaded(struct lapic *, struct error *);
void lapic_timer_attach(struct lapic *);
uint32_t lapic_timer_current(struct lapic *);
void lapic_timer_taken(struct lapic *); /* the CPU has taken an interrupt while expiries are owed */
void lapic_timer_set_initial(struct lapic *, uint32_t);
void lapic_timer_set_divide(struct lapic *, uint32_t);
void lapic_timer_set_lvt(struct lapic *, uint32_t);
uint64_t lapic_timer_deadline(struct lapic *);
void lapic_timer_set_deadline(struct lapic *, uint64_t tsc);

#endif
