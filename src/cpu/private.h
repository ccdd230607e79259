/*
 * What the files of cpu/ share with each other and with nobody else.
 */
#ifndef DOPPEL_CPU_PRIVATE_H
#define DOPPEL_CPU_PRIVATE_H

#include "cpu/cpu.h"

/*
 * Null SS in 64-bit mode: seg_attr is just the new CPL in ATTR_DPL (P clear), because CPL is SS.DPL (cpu_update_mode).
 */

/* ---- state.c ---- */

#define RFLAGS_VALID                                                                                                   \
	(FLAGS_STATUS | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC | FLAG_VIF |   \
	 FLAG_VIP | FLAG_ID)
#define RFLAGS_ONE BIT(1) /* always set */

/* seg_attr of all segments of virtual-8086 mode; what is never set in any */
#define ATTR_VIRTUAL_8086 (ATTR_P | ATTR_DPL | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED)
#define ATTR_NONE	  0x0f00

/* Load a segment register of real or virtual-8086 mode: base = selector * 16; CS, SS and all attributes as those modes have them. */
void cpu_set_real_segment(struct vcpu *, enum seg, uint16_t selector);

/* ---- valid.c ---- */

/* state_desc.loaded of the processor. */
int cpu_state_loaded(void *, uint16_t version, struct error *);
int cpu_pending_loaded(void *, uint16_t version, struct error *);

/* ---- event.c: raising ---- */

_Noreturn void cpu_raise_fault(struct vcpu *, struct fault);

/* Where raising goes, put aside while somebody catches by v->fault_jmp on the way. */
struct landing {
	jmp_buf fault_jmp;
	void **fast_catch;
};

static inline void landing_put_aside(struct vcpu *v, struct landing *outer)
{
	memcpy(&outer->fault_jmp, &v->fault_jmp, sizeof(outer->fault_jmp));
	outer->fast_catch = v->fast_catch;
	v->fast_catch = NULL;
}

static inline void landing_put_back(struct vcpu *v, const struct landing *outer)
{
	memcpy(&v->fault_jmp, &outer->fault_jmp, sizeof(outer->fault_jmp));
	v->fast_catch = outer->fast_catch;
}

/* ---- paging.c ---- */

/* PAE paging: read the four PDPTEs that cr3 points to and keep them; #GP(0), and nothing changed, for reserved bits. */
void cpu_load_pdptes(struct vcpu *, uint64_t cr3);
/* INVPCID of one context: drop everything tagged with this PCID. */
void cpu_tlb_flush_pcid(struct vcpu *, uint16_t pcid);

/* ---- decode.c ---- */

bool cpu_is_legacy_prefix(uint8_t);

/* ---- access.c ---- */

/* After a store through a host pointer that no TLB write entry allowed: invalidates decoded code, tells the engine. */
void cpu_note_write(struct vcpu *, gpa_t, unsigned size);
/* guest_mem.code_changed */
uint64_t cpu_code_changed(void *vcpu, gpa_t, size_t len);
/* A record of the processor's own, in RAM. -EFAULT: a part of it is not in RAM; what was before that part is written. */
int cpu_write_physical(struct vcpu *, gpa_t, const void *, unsigned size);
/*
 * DR6 bits of the enabled breakpoints of these kinds (bits by enum break_kind) that `size` bytes (at least one) from address on touch, SDM
 * vol. 3B 17.2.5. They do not wrap.
 */
uint64_t cpu_matching_breakpoints(const struct vcpu *, uint64_t address, unsigned size, unsigned kinds);

/* ---- debug.c ---- */

/* R/W0 to R/W3 of DR7 */
enum break_kind { BREAK_EXECUTE, BREAK_WRITE, BREAK_PORT, BREAK_ACCESS };
/* After an access to a port: debug traps come when the instruction is done. */
void cpu_note_port_breakpoints(struct vcpu *, uint16_t port, unsigned size);

/* ---- event.c ---- */

#define DR6_B	     0xfull
#define DR6_BD	     BIT(13)
#define DR6_BS	     BIT(14)		       /* single step */
#define DR6_BT	     BIT(15)		       /* task switch */
#define DR6_PENDING  (DR6_B | DR6_BS | DR6_BT) /* in pending_debug */
#define DR6_WRITABLE (DR6_PENDING | DR6_BD)
#define DR6_ONES     0xffff0ff0u
#define DR7_ENABLES  0xffull	 /* L0, G0 ... L3, G3 */
#define DR7_GD	     BIT(13)	 /* general detect */
#define DR7_WRITABLE 0xffff23ffu /* without RTM */
#define DR7_ONES     0x400u

/*
 * A #DB for these reasons is about to be delivered, and for those that were pending: what a load of SS held back comes with it. DR6
 * gets B0 to B3 anew, the other bits are collected (SDM vol. 3B 17.2.3, APM vol. 2 13.1.1.3).
 */
void cpu_report_debug(struct vcpu *, uint64_t dr6);

#define DEBUGCTL_LBR BIT(0) /* nothing is recorded */
#define DEBUGCTL_BTF BIT(1) /* single step on branches; a debug exception clears both (SDM vol. 3B 17.4) */

/* ---- deliver.c: delivery through the IDT ---- */

enum delivery_kind {
	DELIVERY_EXCEPTION, /* found by the processor; INT1 too: no gate privilege check */
	DELIVERY_EXTERNAL,  /* external interrupt, NMI */
	DELIVERY_SOFTWARE,  /* INT n, INT3, INTO: the gate's DPL is checked; errors on the way have EXT = 0 */
};

struct delivery {
	uint8_t vector;
	uint8_t kind; /* enum delivery_kind */
	bool has_error;
	bool resume; /* RF in the pushed flags is 1: fault-class exceptions */
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
 * TASK_SWITCH_GATE: what is delivered through an interrupt's task gate, its error code pushed on the new stack; NULL for the others.
 */
void cpu_task_switch(struct vcpu *, uint16_t selector, enum task_switch_kind, uint64_t next_rip,
		     const struct delivery *);

/* ---- model.c ---- */

/* Where CPUID says each feature. */
extern const struct cpu_feature_bit {
	const char *name;
	uint32_t leaf, subleaf;
	uint8_t reg, bit; /* reg 0..3: EAX, EBX, ECX, EDX */
} cpu_feature_bits[FEATURE_COUNT];

/* ---- decode.c ---- */

/*
 * How the bytes of a decoded instruction became fields of struct insn, for those who will fill in the same from other bytes
 * (decode_cache.c). regular: but for one displacement and one immediate, which are data, the form depends on prefixes, opcode,
 * ModRM and SIB alone.
 */
struct decode_layout {
	bool regular;
	bool host_filled; /* insn_host was asked for and is described */
	uint8_t disp_offset, disp_len;
	uint8_t imm_offset, imm_len;
	bool imm_stored, imm_signed; /* in insn.imm, sign- or zero-extended */
};
/* A RIP-relative operand's address and what follows from it; offset, len, addrsize and seg are set. */
static inline void decode_ip_relative(struct insn *i, int32_t disp)
{
	int64_t from_block = (int64_t)disp + i->offset + i->len;
	bool far = from_block > INT32_MAX;

	i->base = 8 * REG_IP;
	i->disp = (int32_t)from_block;
	i->flags = (uint16_t)((i->flags & ~INSN_FAR_IP) | (far ? INSN_FAR_IP : 0));
	i->ea_flat = i->addrsize == 8 && i->seg < FS && !far;
}

/* cpu_decode() that also tells the layout. */
unsigned decode_with_layout(const struct cpu_model *, enum code_mode, const uint8_t *bytes, size_t avail,
			    unsigned block_offset, struct insn *, struct insn_host *, struct decode_layout *);

/* ---- cpuid.c ---- */

/* IA32_MISC_ENABLE: leaf 0 says 2, for systems that do not expect more (SDM vol. 4 table 2-2). */
#define MISC_ENABLE_LIMIT_CPUID BIT(22)
/* No NX: CPUID does not announce it, EFER.NXE is reserved. */
#define MISC_ENABLE_XD_DISABLE BIT(34)

/* XCR0 bits that the model offers. */
static inline uint64_t cpu_xcr0_offered(const struct vcpu *v)
{
	return XCR0_X87 | XCR0_SSE | (has_feature(v, FEATURE_AVX) ? XCR0_AVX : 0);
}

/* ---- control.c ---- */

#define CR0_KNOWN (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/* (bits, the feature that offers them) */
#define CR4_FEATURES(_)                                                                                                \
	_(CR4_VME | CR4_PVI, VME)                                                                                      \
	_(CR4_TSD, TSC)                                                                                                \
	_(CR4_DE, DE)                                                                                                  \
	_(CR4_PSE, PSE)                                                                                                \
	_(CR4_PAE, PAE)                                                                                                \
	_(CR4_MCE, MCE)                                                                                                \
	_(CR4_PGE, PGE)                                                                                                \
	_(CR4_OSFXSR, FXSR)                                                                                            \
	_(CR4_OSXMMEXCPT, SSE)                                                                                         \
	_(CR4_UMIP, UMIP)                                                                                              \
	_(CR4_FSGSBASE, FSGSBASE)                                                                                      \
	_(CR4_PCIDE, PCID)                                                                                             \
	_(CR4_OSXSAVE, XSAVE)                                                                                          \
	_(CR4_SMEP, SMEP)                                                                                              \
	_(CR4_SMAP, SMAP)

#define CR4_OR_(bits, feature) | (bits)
#define CR4_KNOWN	       (CR4_PCE CR4_FEATURES(CR4_OR_))

#define EFER_KNOWN (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_AIBRSE)

/* CR4 bits that the model offers; all others are reserved. */
uint64_t cpu_cr4_offered(const struct vcpu *);

/* ---- kvm_pv.c: Linux Documentation/virt/kvm/x86/msr.rst, cpuid.rst ---- */

#define KVM_CPUID_BASE		 0x40000000u
#define KVM_FEATURE_CLOCKSOURCE	 BIT(0)
#define KVM_FEATURE_NOP_IO_DELAY BIT(1)
#define KVM_FEATURE_CLOCKSOURCE2 BIT(3)
#define KVM_FEATURE_POLL_CONTROL BIT(12)
#define KVM_FEATURE_STABLE_CLOCK BIT(24)
/*
 * PV EOI is left out: the local APIC would have to set the guest's flag when it delivers an interrupt that nothing waits
 * behind, and take it back when something does.
 */
#define KVM_FEATURES                                                                                                   \
	(KVM_FEATURE_CLOCKSOURCE | KVM_FEATURE_NOP_IO_DELAY | KVM_FEATURE_CLOCKSOURCE2 | KVM_FEATURE_POLL_CONTROL |    \
	 KVM_FEATURE_STABLE_CLOCK)

/* Guest physical address of the wall clock record was written: fill it. */
void cpu_kvm_wall_clock_update(struct vcpu *);

/* ---- stops.c ---- */

/* Behind cpu_after_step()'s own. */
void cpu_stop_after_step(struct vcpu *);
/* An access of `kinds`, which does not wrap, was made. */
void cpu_note_watches(struct vcpu *, uint64_t lin, unsigned size, unsigned kinds);

/* cpu_walk() where it finds everything as it should be and writes nothing; else false. Long mode only. */
bool cpu_walk_marked(struct vcpu *, gva_t, enum access, bool user, bool ac, struct page_walk *);

/* 1: the upper half of the address space, which by custom is the kernel's: from 2 GiB on where addresses have 32 bits. */
static inline unsigned cpu_half(const struct vcpu *v, uint64_t lin)
{
	return in_long_mode(v) ? (unsigned)(lin >> 63) : lin >> 31 & 1;
}

/* What of a TLB entry's gpa says that it is global. */
static inline uint64_t cpu_global_tag(const struct vcpu *v, uint64_t lin, const struct page_walk *walk)
{
	return walk->global && cpu_half(v, lin) ? v->global_tag : 0;
}

/* ---- map.c ---- */

/* From now on its TLBs follow the map of physical addresses. */
void cpu_map_listen(struct vcpu *);

#endif
