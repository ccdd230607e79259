/*
 * How a vCPU reaches memory: page walks and the TLB, accesses by linear address, operands and segments.
 */
#ifndef DOPPEL_CPU_ACCESS_H
#define DOPPEL_CPU_ACCESS_H

#include "cpu/vcpu.h"

/* ---- paging.c ---- */

struct page_walk {
	gpa_t page;	/* guest physical address of the 4 KiB page */
	unsigned shift; /* 12, 21, 22, 30: size of the mapping */
	bool user, writable, executable, dirty, global;
};

/*
 * Walk the guest's tables for one access, set accessed and dirty bits, check rights. user: as CPL 3; for supervisor
 * accesses ac says whether SMAP lets user pages pass. 0, or -1 with *fault filled (#PF, or #GP/#SS for a non-canonical address:
 * fault->vector GP, error 0).
 */
int cpu_walk(struct vcpu *, gva_t, enum access, bool user, bool ac, struct page_walk *, struct fault *);
/* The same for a debugger: no rights, no accessed bits, no faults; 0 or -1. */
int cpu_translate_debug(struct vcpu *, gva_t, gpa_t *);

/*
 * TLB maintenance. All act on this vCPU's TLB only. v->address_space changes whenever a fetch translation of the current
 * address space may have changed: engines may cache linear address -> code under (address_space, mode_key) and need not be
 * told more; under (global_space, mode_key) where v->fetched_global says so. Data translations may change under the same number (INVLPG of a page that was never fetched from). An asid is
 * used again after TLB_ASIDS flushes.
 */
void cpu_tlb_flush(struct vcpu *);	       /* everything */
void cpu_tlb_flush_page(struct vcpu *, gva_t); /* INVLPG */
void cpu_tlb_switch(struct vcpu *, bool keep); /* after CR3 changed; keep: PCID no-flush bit */
/*
 * Drop write entries for this guest physical page. direct: of which kind there may be any, as in mem_page.direct: those of one slot of
 * the TLB, those of the engine (tlb_hooks), or all.
 */
void cpu_tlb_protect(struct vcpu *, gpa_t page, uint16_t direct);
#define DIRECT_TLB(slot) ((uint16_t)(1 + (slot)))
#define DIRECT_ENGINE	 (MEM_DIRECT_ANY - 1)

/*
 * Instruction fetch: guest physical address of the byte at linear address a under the current CPL, or raises #PF/#GP. The page
 * is RAM or ROM iff *host is not NULL, then it is the host address of that byte.
 */
gpa_t cpu_fetch_translate(struct vcpu *, gva_t a, uint8_t **host);
/* May this number be that of the current address space, now or again? */
bool cpu_space_is_alive(const struct vcpu *, uint64_t space);

/* ---- access.c: guest memory accesses by linear address. size 1, 2, 4, 8 ---- */

/*
 * Slow paths: TLB miss, page crossing, devices, code pages. Raise #PF. ss: report a non-canonical address as #SS(0), not
 * #GP(0). These take the current view (cpl, AC).
 */
uint64_t cpu_load_slow(struct vcpu *, uint64_t lin, unsigned size, bool ss);
void cpu_store_slow(struct vcpu *, uint64_t lin, uint64_t value, unsigned size, bool ss);
/*
 * Enter the page of an access into the current view's TLB, for an engine that looks into it by itself. True: it is there now and was not
 * before. False: the slow paths must do the access (a device, ROM or code to be written, two pages, not canonical). Raises #PF.
 */
bool cpu_tlb_fill(struct vcpu *, uint64_t lin, bool write);
/* The same where it needs no accessed or dirty bit to be set and raises nothing; else false. Keeps to general registers (engine/bt/fast.c). */
bool cpu_tlb_fill_marked(struct vcpu *, uint64_t lin, bool write);
/*
 * Before an engine decodes code from [addr, addr + len), which lies in this page: marks it as code, and if it was not, makes
 * every vCPU (through env->exclusive) drop its direct write entries. Returns the generation to keep with the decoded code.
 */
uint32_t cpu_code_begin(struct vcpu *, struct mem_page *, gpa_t addr, size_t len);
/* Raise what a store would raise, write nothing: the first half of a read-modify-write or a restartable push. */
void cpu_probe_write(struct vcpu *, uint64_t lin, unsigned size, bool ss);
/*
 * Host pointer for a read-modify-write of [lin, lin+size), write rights checked and dirty bit set, good until the vCPU's next access; NULL
 * when part of it is a device or ROM, or holds code, or when it is in two pages and the host does not show them side by side: then use
 * load/store_slow (and cpu_exclusive for a locked one).
 */
void *cpu_rmw_map(struct vcpu *, uint64_t lin, unsigned size, bool ss);
/*
 * env->exclusive for functions that may raise: what fn raises is raised again when the others run. Until the section begins they
 * may unmap what this vCPU has looked at before, so even what was probed may fault.
 */
void cpu_exclusive(struct vcpu *, void (*fn)(struct vcpu *, void *), void *arg);
/*
 * #AC(0) if the processor checks alignment now and the address is no multiple of `alignment`, a power of two. The accesses above
 * check that of their size themselves, what follows does not. SDM vol. 3A 6.15: CPL 3, CR0.AM, RFLAGS.AC. An address that is
 * not canonical is left to the access, which faults.
 */
static inline void cpu_check_alignment(struct vcpu *v, uint64_t lin, unsigned alignment)
{
	if (unlikely(lin & (alignment - 1)) && v->cpl == 3 && (v->s.rflags & FLAG_AC) && (v->s.cr0 & CR0_AM) &&
	    is_canonical(lin))
		cpu_raise_error(v, EXC_AC, 0);
}
/* Copies of any length, page by page, all pages checked before the first byte is written. Raise #PF. */
void cpu_load_bytes(struct vcpu *, uint64_t lin, void *, unsigned len, bool ss);
void cpu_store_bytes(struct vcpu *, uint64_t lin, const void *, unsigned len, bool ss);
/* Implicit supervisor accesses (descriptor tables, TSS, IDT, stacks of new privilege levels): CPL and AC do not matter. */
uint64_t cpu_system_load(struct vcpu *, uint64_t lin, unsigned size);
void cpu_system_store(struct vcpu *, uint64_t lin, uint64_t value, unsigned size);

static inline struct tlb_entry *tlb_slot(struct vcpu *v, uint64_t lin)
{
	return &v->tlb[(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
}

/* One host access: x86 keeps naturally aligned ones whole, as the guest expects. */
static inline uint64_t host_load(const void *p, unsigned size)
{
	switch (size) {
	case 1: return *(const volatile uint8_t *)p;
	case 2: return *(const volatile u16_any *)p;
	case 4: return *(const volatile u32_any *)p;
	default: return *(const volatile u64_any *)p;
	}
}

static inline void host_store(void *p, uint64_t value, unsigned size)
{
	switch (size) {
	case 1: *(volatile uint8_t *)p = (uint8_t)value; break;
	case 2: *(volatile u16_any *)p = (uint16_t)value; break;
	case 4: *(volatile u32_any *)p = (uint32_t)value; break;
	default: *(volatile u64_any *)p = value; break;
	}
}

static inline __attribute__((always_inline)) uint64_t cpu_load(struct vcpu *v, uint64_t lin, unsigned size, bool ss)
{
	const struct tlb_entry *e = tlb_slot(v, lin);
	if (likely(e->read_tag == (((lin + size - 1) & PAGE_MASK) | v->asid)))
		return host_load((const void *)(lin + e->addend), size);
	return cpu_load_slow(v, lin, size, ss);
}

static inline __attribute__((always_inline)) void cpu_store(struct vcpu *v, uint64_t lin, uint64_t value, unsigned size,
							    bool ss)
{
	const struct tlb_entry *e = tlb_slot(v, lin);
	if (likely(e->write_tag == (((lin + size - 1) & PAGE_MASK) | v->asid)))
		host_store((void *)(lin + e->addend), value, size);
	else
		cpu_store_slow(v, lin, value, size, ss);
}

static inline __attribute__((always_inline)) void *cpu_rmw(struct vcpu *v, uint64_t lin, unsigned size, bool ss)
{
	const struct tlb_entry *e = tlb_slot(v, lin);
	if (likely(e->write_tag == (((lin + size - 1) & PAGE_MASK) | v->asid)))
		return (void *)(lin + e->addend);
	return cpu_rmw_map(v, lin, size, ss);
}

/* ---- segment.c ---- */

static inline uint64_t insn_disp(const struct insn *i)
{
	return (uint64_t)(int64_t)i->disp + (i->flags & INSN_FAR_IP ? BIT(32) : 0);
}

/* Effective address (offset) of the memory operand, before segmentation, truncated to addrsize. */
static inline uint64_t cpu_ea(const struct vcpu *v, const struct insn *i)
{
	uint64_t ea = REG64(v, i->base) + (REG64(v, i->index) << i->scale) + insn_disp(i);
	if (unlikely(i->addrsize != 8))
		ea = i->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
	return ea;
}

/*
 * Linear address of an operand of `size` bytes at seg:offset: adds the base, checks limit, type and (64-bit mode) nothing
 * more: canonicality is found by the access. Raises #GP(0) or #SS(0).
 */
uint64_t cpu_linear(struct vcpu *, enum seg, uint64_t offset, unsigned size, enum access);
/*
 * #GP(0) for a memory operand that must be aligned and is not. To be asked before cpu_operand(): the manuals do not say which is
 * found first, and processors find this before a stack segment's limit (#SS).
 */
void cpu_check_aligned(struct vcpu *, const struct insn *, unsigned alignment);

/* Linear address of the memory operand of an instruction. */
static inline __attribute__((always_inline)) uint64_t cpu_operand(struct vcpu *v, const struct insn *i, unsigned size,
								  enum access access)
{
	if (likely(i->ea_flat))
		return REG64(v, i->base) + (REG64(v, i->index) << i->scale) + (uint64_t)(int64_t)i->disp;
	return cpu_linear(v, i->seg, cpu_ea(v, i), size, access);
}

/* Of the part of it that begins `delta` bytes in: each access of several wraps at the address size by itself. */
static inline uint64_t cpu_operand_part(struct vcpu *v, const struct insn *i, unsigned delta, unsigned size,
					enum access access)
{
	uint64_t ea = cpu_ea(v, i) + delta;

	if (i->addrsize != 8)
		ea = i->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
	return i->ea_flat ? ea : cpu_linear(v, i->seg, ea, size, access);
}

/* Load a data segment register or SS with a selector, with all of the manual's checks (real, V86 and protected mode). */
void cpu_load_segment(struct vcpu *, enum seg, uint16_t selector);
/* Stack pushes and pops of `size` bytes with segment checks; rsp is written after the access succeeded. */
void cpu_push(struct vcpu *, uint64_t value, unsigned size);
uint64_t cpu_pop(struct vcpu *, unsigned size);
/* Set rip for a near transfer: truncated to size, #GP(0) if beyond the limit or not canonical (before rip changes). */
void cpu_jump(struct vcpu *, uint64_t target, unsigned opsize);

#endif
