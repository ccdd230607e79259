/*
 * What surrounds a vCPU: the events that are posted to it, what it asks of the machine, and of its engine.
 */
#ifndef DOPPEL_CPU_ENV_H
#define DOPPEL_CPU_ENV_H

#include "base/base.h"

/* Reasons to leave the fast path, set from any thread; polled by engines between blocks. */
#define EVENT_INTERRUPT BIT(0) /* ask the environment for an interrupt */
#define EVENT_NMI	BIT(1)
#define EVENT_INIT	BIT(2)
#define EVENT_SIPI	BIT(3)
#define EVENT_EXIT	BIT(4) /* return EXIT_KICK from run() */
#define EVENT_EXCLUSIVE                                                                                                \
	BIT(5) /* another thread wants every vCPU stopped: return EXIT_KICK, but not before something was executed */
#define EVENT_STEP   BIT(6)  /* shadow, TF, debug trap: next instruction runs alone */
#define EVENT_HALTED BIT(7)  /* activity is not CPU_RUNNING */
#define EVENT_CODE   BIT(8)  /* this vCPU wrote to code: the engine looks whether its current block is still good */
#define EVENT_NMI_2  BIT(9)  /* vcpu_post()'s: an NMI came while EVENT_NMI was set */
#define EVENT_STOP   BIT(10) /* vcpu.stop.kind: return EXIT_DEBUG from run() */
#define EVENT_NMIS   (EVENT_NMI | EVENT_NMI_2)
#define EVENTS_SAVED (EVENT_NMIS | EVENT_INIT | EVENT_SIPI) /* the others follow from the state, or are the monitor's */

struct vcpu;

/* What a vCPU asks of the machine around it. Every function but exclusive is called in the vCPU's own thread. */
struct vcpu_env {
	uint32_t (*pio_read)(struct vcpu *, uint16_t port, unsigned size);
	void (*pio_write)(struct vcpu *, uint16_t port, unsigned size, uint32_t value);
	uint64_t (*mmio_read)(struct vcpu *, gpa_t, unsigned size); /* size 1, 2, 4, 8, not crossing a page */
	void (*mmio_write)(struct vcpu *, gpa_t, unsigned size, uint64_t value);
	/* Highest-priority interrupt that the local APIC (or the 8259 through it) would deliver now: its vector, and it is
	 * then in service; -1 none. */
	int (*interrupt_take)(struct vcpu *);
	bool (*interrupt_pending)(struct vcpu *);
	uint8_t (*tpr_read)(struct vcpu *); /* CR8 */
	void (*tpr_write)(struct vcpu *, uint8_t);
	/*
	 * CR0.NE = 0: the processor asserts or releases FERR# (SDM vol. 1 D.2.1). Is IGNNE# asserted? May be NULL: both pins are
	 * left open.
	 */
	bool (*fpu_error)(struct vcpu *, bool asserted);
	/* x2APIC registers 0x800..0x8ff, IA32_APIC_BASE 0x1b, IA32_TSC_DEADLINE 0x6e0: 0, or -1 for #GP(0). */
	int (*apic_msr_read)(struct vcpu *, uint32_t msr, uint64_t *value);
	int (*apic_msr_write)(struct vcpu *, uint32_t msr, uint64_t value);
	/*
	 * Run fn with every vCPU stopped, but that of the calling thread: between instructions, or where it waits for a section of its own or
	 * for a device. Any thread; fn does not raise. Cheap when there is one vCPU.
	 */
	void (*exclusive)(struct vcpu *, void (*fn)(struct vcpu *, void *), void *arg);
	/* Around a section in which devices are accessed. NULL: nothing to do. */
	void (*devices_lock)(struct vcpu *, bool lock);
	/* PAUSE in a loop: let others run (virtual time hands the turn over). May be NULL. */
	void (*pause)(struct vcpu *);
	/*
	 * CLOCK_VIRTUAL: bring the clock up to date with the instructions executed (vcpu_hooks.sync_icount). Called before cpu/ itself reads
	 * the clock (RDTSC, the paravirtual clock). NULL: nothing to do, the clock moves by itself.
	 */
	void (*time_sync)(struct vcpu *);
};

/*
 * What cpu/ tells the engine of a vCPU, and asks it: one table, which an engine declares (engine_ops.hooks). Any may be NULL: then there is
 * nothing to do. In the vCPU's own thread, if nothing else is said.
 */
struct vcpu_hooks {
	/*
	 * Code in [gpa, gpa + len), inside one page, has changed. For each vCPU of the machine, in an exclusive section, by the thread that
	 * wrote; this vCPU may be in the middle of the instruction that did, or of one that waits for a device. Returns the chunks of the
	 * page in which code lives on (mem_chunks()) though the page's generation has changed; *hit: some was forgotten.
	 */
	uint64_t (*code_written)(struct vcpu *, gpa_t, size_t len, bool *hit);
	/*
	 * A device access of the instruction that runs made something pending, which is to be looked at behind it and not only at
	 * the end of a block.
	 */
	void (*events_posted)(struct vcpu *);
	/* Make s.icount exact in the middle of a block. The environment calls it before it looks at icount. */
	void (*sync_icount)(struct vcpu *);
	/*
	 * For an engine that keeps translations of its own (bt's windows): called by paging.c after each change of this vCPU's TLB. What
	 * each allows to go on being used is what the architecture allows.
	 */
	void (*tlb_flush)(struct vcpu *); /* everything, global pages too */
	/* INVLPG: this page in the current PCID, global or not; a whole large page */
	void (*tlb_flush_page)(struct vcpu *, gva_t);
	void (*tlb_switched)(struct vcpu *,
			     bool keep); /* CR3 was written; keep: nothing of the new PCID became invalid */
	/* INVPCID of another or the current PCID's non-global pages */
	void (*tlb_flush_pcid)(struct vcpu *, uint16_t pcid);
	/* This physical page now holds code: no write may go unnoticed. In an exclusive section. */
	void (*tlb_protect)(struct vcpu *, gpa_t page);
	/* An entry of the TLB lets this page be written, or the access at hand writes it without one. */
	void (*tlb_writable)(struct vcpu *, gpa_t page);
};
/* Of a vCPU without an engine. */
extern const struct vcpu_hooks vcpu_no_hooks;

#endif
