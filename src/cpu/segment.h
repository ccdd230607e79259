/*
 * Descriptors and stacks, shared by the files that load segments and transfer control: segment.c, descriptor.c, far.c,
 * gate.c, task.c, syscall.c.
 */
#ifndef DOPPEL_CPU_SEGMENT_H
#define DOPPEL_CPU_SEGMENT_H

#include "cpu/private.h"

/* Types of system descriptors, SDM vol. 3A table 3-2. In long mode 32-bit TSS and call gate types mean the 64-bit ones. */
enum system_type {
	SYSTEM_TSS_16 = 1,
	SYSTEM_LDT = 2,
	SYSTEM_TSS_16_BUSY = 3,
	SYSTEM_CALL_GATE_16 = 4,
	SYSTEM_TASK_GATE = 5,
	SYSTEM_TSS_32 = 9,
	SYSTEM_TSS_32_BUSY = 11,
	SYSTEM_CALL_GATE_32 = 12,
};
#define TSS_BUSY 0x0002 /* in the attributes of a TSS descriptor */

/* seg_attr of flat segments, as SYSCALL, SYSENTER and their returns force them; or in the DPL. */
#define ATTR_FLAT_CODE_64 (ATTR_G | ATTR_L | ATTR_P | ATTR_S | 0xb)
#define ATTR_FLAT_CODE_32 (ATTR_G | ATTR_DB | ATTR_P | ATTR_S | 0xb)
#define ATTR_FLAT_STACK	  (ATTR_G | ATTR_DB | ATTR_P | ATTR_S | 0x3)

/* A descriptor read from the GDT or an LDT. */
struct descriptor {
	uint64_t raw;	   /* the 8 bytes */
	uint64_t address;  /* linear, of the 8 bytes */
	uint64_t base;	   /* of segments: legacy 32-bit base; see cpu_widen_descriptor() */
	uint32_t limit;	   /* granularity applied */
	uint16_t attr;	   /* as seg_attr */
	uint16_t selector; /* that found it */
};

static inline bool selector_is_null(uint16_t selector) { return !(selector & ~3u); }
static inline unsigned attr_dpl(uint16_t attr) { return (attr & ATTR_DPL) >> ATTR_DPL_SHIFT; }
static inline unsigned attr_type(uint16_t attr) { return attr & ATTR_TYPE; }
static inline bool attr_is_code(uint16_t attr) { return (attr & (ATTR_S | ATTR_CODE)) == (ATTR_S | ATTR_CODE); }
static inline bool attr_is_conforming(uint16_t attr) { return attr_is_code(attr) && (attr & ATTR_EXPAND_DOWN); }
static inline bool attr_is_writable_data(uint16_t attr)
{
	return (attr & (ATTR_S | ATTR_CODE | ATTR_WRITABLE)) == (ATTR_S | ATTR_WRITABLE);
}
static inline bool attr_is_readable(uint16_t attr)
{
	return (attr & ATTR_S) && (!(attr & ATTR_CODE) || (attr & ATTR_WRITABLE));
}

/* Instructions of ring 0. */
static inline void check_privileged(struct vcpu *v)
{
	if (v->cpl)
		cpu_raise_error(v, EXC_GP, 0);
}

/* segment.c */

/* Are [offset, offset + size) within the limit, whichever way the segment grows? */
bool cpu_segment_contains(uint16_t attr, uint32_t limit, uint32_t offset, unsigned size);
/* Read the descriptor of a selector that is not null. False when its table has no such entry. */
bool cpu_find_descriptor(struct vcpu *, uint16_t selector, struct descriptor *);
/* The same; raises `vector` with the selector as error code (and `ext`, 0 or 1, as its EXT bit) when there is no such entry. */
void cpu_read_descriptor(struct vcpu *, uint16_t selector, struct descriptor *, enum vector, uint32_t ext);
/* Long mode: the second half of a system descriptor. False when beyond the table's limit or its type field is not 0. */
bool cpu_upper_half(struct vcpu *, const struct descriptor *, uint64_t *upper);
/* Complete the base of a system segment with that. False also when the base is not canonical. Outside long mode: true. */
bool cpu_widen_descriptor(struct vcpu *, struct descriptor *);
/* Set bits of a descriptor's access byte (accessed, busy) in memory, atomically, unless they are set; clear likewise. */
void cpu_mark_descriptor(struct vcpu *, const struct descriptor *, uint8_t set);
void cpu_unmark_descriptor(struct vcpu *, const struct descriptor *, uint8_t clear);
/* Raise what a supervisor write of [lin, lin + size) would raise, size at most a page. */
void cpu_probe_system_write(struct vcpu *, uint64_t lin, unsigned size);
/* Put a checked descriptor into a segment register. The caller calls cpu_update_mode(). */
void cpu_set_segment(struct vcpu *, enum seg, uint16_t selector, const struct descriptor *);
void cpu_set_null_segment(struct vcpu *, enum seg, uint16_t selector);
/*
 * SDM vol. 3A 5.8.5.4, IRET, RET far: outer levels must not keep data segments of inner ones. v->cpl is the new level.
 */
void cpu_drop_inner_segments(struct vcpu *);
/* The checks of a stack segment for privilege level cpl; raises `vector` (#SS for a segment not present). */
void cpu_check_stack_segment(struct vcpu *, const struct descriptor *, unsigned cpl, enum vector, uint32_t ext);

/* ---- the current stack, several items at a time: rsp is written when all accesses have succeeded ---- */

static inline uint64_t stack_mask(const struct vcpu *v)
{
	return v->stack_size == 8 ? UINT64_MAX : v->stack_size == 4 ? UINT32_MAX : 0xffff;
}

static inline void set_stack_pointer(struct vcpu *v, uint64_t rsp) { cpu_set_reg(v, 8 * RSP, v->stack_size, rsp); }

static inline uint64_t stack_linear(struct vcpu *v, uint64_t offset, unsigned size, enum access access)
{
	return v->stack_size == 8 ? offset : cpu_linear(v, SS, offset & stack_mask(v), size, access);
}

static inline void stack_push(struct vcpu *v, uint64_t *rsp, uint64_t value, unsigned size)
{
	*rsp -= size;
	cpu_store(v, stack_linear(v, *rsp, size, ACCESS_WRITE), value, size, true);
}

static inline uint64_t stack_pop(struct vcpu *v, uint64_t *rsp, unsigned size)
{
	uint64_t value = cpu_load(v, stack_linear(v, *rsp, size, ACCESS_READ), size, true);

	*rsp += size;
	return value;
}

/* A load from the tables the processor itself reads: no CPL, no AC. */
static inline uint64_t table_load(struct vcpu *v, uint64_t lin)
{
	const struct tlb_entry *e = &v->tlbs[TLB_KERNEL][(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];

	if (likely(e->read_tag == (((lin + 7) & PAGE_MASK) | v->asid)))
		return host_load((const void *)(lin + e->addend), 8);
	return cpu_system_load(v, lin, 8);
}

/* ---- descriptor.c, for SMSW too ---- */

void cpu_check_umip(struct vcpu *);
void cpu_store_word(struct vcpu *, const struct insn *, uint64_t value);

/* ---- far.c, gate.c: what transfers of control share ---- */

/* Raise #GP for a code segment that is both 64-bit and 32-bit, #NP for one that is not present. */
void cpu_check_code_present(struct vcpu *, const struct descriptor *);
/* #GP(0) unless offset is one that execution in this code segment can start at. */
void cpu_check_target(struct vcpu *, const struct descriptor *, uint64_t offset);
/* Load CS with RPL = cpl and go there; updates the mode. */
void cpu_enter_code(struct vcpu *, const struct descriptor *, unsigned cpl, uint64_t offset);
/* JMP or CALL to a selector that turned out to be a system descriptor: call gate, task gate, TSS. */
void cpu_transfer_by_gate(struct vcpu *, const struct insn *, const struct descriptor *, bool call);

#endif
