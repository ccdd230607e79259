/*
 * What the files of cpu/ share with each other and with nobody else.
 */
#ifndef DOPPEL_CPU_PRIVATE_H
#define DOPPEL_CPU_PRIVATE_H

#include "cpu/cpu.h"

/* MAXPHYADDR: what CPUID 0x80000008 says, page walks and MTRR masks check. */
#define CPU_PHYS_BITS 40
#define CPU_PHYS_MASK (BIT(CPU_PHYS_BITS) - 1)

static inline bool is_canonical(uint64_t a) { return (uint64_t)sign_extend(a, 48) == a; }

/*
 * Null SS in 64-bit mode: seg_attr is just the new CPL in ATTR_DPL (P clear), because CPL is SS.DPL (cpu_update_mode).
 */

/* ---- state.c ---- */

/* Load a segment register of real or virtual-8086 mode: base = selector * 16; CS, SS and all attributes as those modes have them. */
void cpu_set_real_segment(struct vcpu *, enum seg, uint16_t selector);

/* ---- paging.c ---- */

/* PAE paging: read the four PDPTEs that cr3 points to and keep them; #GP(0), and nothing changed, for reserved bits. */
void cpu_load_pdptes(struct vcpu *, uint64_t cr3);
/* INVPCID of one context: drop everything tagged with this PCID. */
void cpu_tlb_flush_pcid(struct vcpu *, uint16_t pcid);

/* ---- access.c ---- */

/* After a store through a host pointer that no TLB write entry allowed: invalidates decoded code, tells the engine. */
void cpu_note_write(struct vcpu *, gpa_t, unsigned size);

/* ---- event.c: delivery through the IDT ---- */

enum delivery_kind {
	DELIVERY_EXCEPTION, /* found by the processor; INT1 too: no gate privilege check */
	DELIVERY_EXTERNAL,  /* external interrupt, NMI */
	DELIVERY_SOFTWARE,  /* INT n, INT3, INTO: the gate's DPL is checked; errors on the way have EXT = 0 */
};

struct delivery {
	uint8_t vector;
	uint8_t kind;	     /* enum delivery_kind */
	bool has_error;
	bool resume;	     /* RF in the pushed flags is 1: fault-class exceptions */
	uint32_t error;
	uint64_t return_rip; /* pushed */
};

/*
 * Go through the interrupt vector table or the IDT in every mode. On return CS:RIP, SS:RSP and RFLAGS are the handler's. Raises
 * (#GP, #NP, #TS, #SS, #PF) with no register written: the caller of an INT n just lets that happen, s.rip being that of
 * the instruction. INT n of virtual-8086 mode: the caller has checked IOPL.
 */
void cpu_deliver(struct vcpu *, const struct delivery *);
/* IRET (also a failed one, as the manual says) unblocks NMI: sets s.nmi_blocked = 0 and has a waiting one looked at. */
void cpu_unblock_nmi(struct vcpu *);

/* ---- far.c ---- */

enum task_switch_kind { TASK_SWITCH_JMP, TASK_SWITCH_CALL, TASK_SWITCH_IRET, TASK_SWITCH_GATE };

/*
 * SDM vol. 3A 7.3. s.rip stays that of the instruction until the switch commits; next_rip is what the old task's TSS gets.
 * TASK_SWITCH_GATE: through an interrupt's task gate, error pushed on the new stack if has_error; software: raised faults
 * have EXT = 0, like those of the other kinds.
 */
void cpu_task_switch(struct vcpu *, uint16_t selector, enum task_switch_kind, uint64_t next_rip, bool has_error,
		     uint32_t error, bool software);

#endif
