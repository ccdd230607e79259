/*
 * The tables that a processor reads by itself. Most of what is in them is as a system would have it, so that it leads somewhere;
 * some is not.
 */
#include "step.h"

#define TYPE_TSS_16	    1u
#define TYPE_LDT	    2u
#define TYPE_CALL_GATE_16   4u
#define TYPE_TASK_GATE	    5u
#define TYPE_INTERRUPT_GATE 6u
#define TYPE_TRAP_GATE	    7u
#define TYPE_32		    8u /* added to those of TSSs, call, interrupt and trap gates */
#define TYPE_BUSY	    2u

static bool in_long_mode_case(const struct plan *p) { return p->mode == LONG || p->mode == COMPATIBILITY; }

static uint64_t get(const struct plan *p, uint64_t at) { return load_le64(p->image + at); }
static void put(struct plan *p, uint64_t at, uint64_t value) { store_le64(p->image + at, value); }

/* ---- descriptors ---- */

static uint64_t segment(uint32_t base, uint32_t limit, uint16_t attr)
{
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xff) << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(attr >> 12) << 52 | (uint64_t)(base >> 24) << 56;
}

static uint64_t gate(uint16_t selector, uint32_t offset, unsigned type, unsigned dpl, unsigned count)
{
	return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)count << 32 |
	       (uint64_t)(ATTR_P | dpl << ATTR_DPL_SHIFT | type) << 40 | (uint64_t)(offset >> 16) << 48;
}

static uint16_t level(unsigned dpl) { return (uint16_t)(dpl << ATTR_DPL_SHIFT); }

/* D or L of code segments: mostly that of the case's mode. */
static uint16_t code_size(struct plan *p)
{
	static const uint16_t sizes[] = { 0, ATTR_DB, ATTR_L, ATTR_L | ATTR_DB };

	if (choose_one_in(p->choices, 8))
		return sizes[choose_below(p->choices, ARRAY_SIZE(sizes))];
	switch (p->mode) {
	case LONG: return choose_one_in(p->choices, 4) ? ATTR_DB : ATTR_L;
	case COMPATIBILITY: return choose_one_in(p->choices, 3) ? ATTR_L : ATTR_DB;
	case PROTECTED_16: return choose_one_in(p->choices, 4) ? ATTR_DB : 0;
	default: return choose_one_in(p->choices, 4) ? 0 : ATTR_DB;
	}
}

/* Base and limit: flat, or around where something is. */
static uint64_t place(struct plan *p, uint32_t at, uint16_t attr)
{
	switch (choose_below(p->choices, 20)) {
	case 0: return segment(at & ~0xfffu, 0x3fff, attr);
	case 1: return segment(at & ~0xfffu, (uint32_t)any_number(p) & 0xffff, attr);
	case 2: return segment((uint32_t)any_number(p), (uint32_t)any_number(p) & 0xfffff, attr | ATTR_G);
	case 3: return segment(0, 0xfffff, attr);
	case 4: return segment(at & ~0xfffu, 0xffff, attr);
	default: return segment(0, 0xfffff, attr | ATTR_G);
	}
}

static uint64_t code_descriptor(struct plan *p, unsigned dpl, bool conforming)
{
	return place(p, CODE,
		     (uint16_t)(ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITABLE | level(dpl) | code_size(p) |
				(conforming ? ATTR_EXPAND_DOWN : 0)));
}

static uint64_t data_descriptor(struct plan *p, unsigned dpl)
{
	uint16_t attr = (uint16_t)(ATTR_P | ATTR_S | ATTR_WRITABLE | level(dpl));

	if (!choose_one_in(p->choices, p->mode == PROTECTED_16 ? 3 : 8))
		attr |= ATTR_DB;
	if (choose_one_in(p->choices, 24))
		attr |= ATTR_EXPAND_DOWN;
	if (choose_one_in(p->choices, 12))
		attr &= (uint16_t)~ATTR_WRITABLE;
	return place(p, choose_one_in(p->choices, 2) ? DATA : STACKS, attr);
}

/* Anything may be wrong with it. */
static uint64_t perhaps_wrong(struct plan *p, uint64_t descriptor)
{
	if (!choose_one_in(p->choices, 24))
		return descriptor;
	return choose_one_in(p->choices, 4) ? choose(p->choices) : descriptor ^ BIT(40 + choose_below(p->choices, 16));
}

static void put_descriptor(struct plan *p, unsigned slot, uint64_t descriptor)
{
	put(p, GDT + 8 * slot, perhaps_wrong(p, descriptor));
}

/* With the upper half of long mode. */
static void put_system(struct plan *p, unsigned slot, uint64_t descriptor)
{
	put_descriptor(p, slot, descriptor);
	put(p, GDT + 8 * (slot + 1), in_long_mode_case(p) && !choose_one_in(p->choices, 16) ? 0 : choose(p->choices));
}

static uint16_t any_code_selector(struct plan *p)
{
	static const uint8_t slots[] = { SLOT_CODE_0,	   SLOT_CODE_0,		 SLOT_CODE_0,
					 SLOT_CODE_MIDDLE, SLOT_CODE_CONFORMING, SLOT_CODE_3 };

	if (choose_one_in(p->choices, 32))
		return any_selector(p);
	if (!choose_one_in(p->choices, 8))
		return 8 * SLOT_CODE_0;
	return (uint16_t)(slots[choose_below(p->choices, ARRAY_SIZE(slots))] * 8 + choose_below(p->choices, 4));
}

static uint64_t any_gate(struct plan *p, unsigned type, unsigned dpl)
{
	bool wide = in_long_mode_case(p) || !choose_one_in(p->choices, 3);

	if (type == TYPE_TASK_GATE)
		return gate((uint16_t)(8 * (SLOT_TSS + 2 * (1 + choose_below(p->choices, TSS_COUNT - 1)))), 0, type,
			    dpl, 0);
	return gate(any_code_selector(p), (uint32_t)any_code_offset(p), type + (wide ? TYPE_32 : 0), dpl,
		    type == TYPE_CALL_GATE_16 ? choose_below(p->choices, 4) * choose_below(p->choices, 8) : 0);
}

/* The last is for 16-bit tasks where there are such. */
static unsigned tss_type(const struct plan *p, unsigned n)
{
	if (in_long_mode_case(p))
		return TYPE_TSS_16 + TYPE_32;
	return n == TSS_COUNT - 1 || (p->mode == PROTECTED_16 && n == 0) ? TYPE_TSS_16 : TYPE_TSS_16 + TYPE_32;
}

static void make_gdt(struct plan *p)
{
	put_descriptor(p, SLOT_CODE_0, code_descriptor(p, 0, false));
	put_descriptor(p, SLOT_DATA_0, data_descriptor(p, 0));
	put_descriptor(p, SLOT_CODE_3, code_descriptor(p, 3, false));
	put_descriptor(p, SLOT_DATA_3, data_descriptor(p, 3));
	put_descriptor(p, SLOT_CODE_MIDDLE, code_descriptor(p, 1 + choose_below(p->choices, 2), false));
	put_descriptor(p, SLOT_DATA_MIDDLE, data_descriptor(p, 1 + choose_below(p->choices, 2)));
	put_descriptor(p, SLOT_CODE_CONFORMING, code_descriptor(p, choose_below(p->choices, 4), true));
	for (unsigned n = 0; n < TSS_COUNT; n++) {
		bool busy = n == 0 || choose_one_in(p->choices, 4);
		unsigned type = tss_type(p, n) + (busy ? TYPE_BUSY : 0);

		put_system(p, SLOT_TSS + 2 * n,
			   segment(TSS(n), choose_one_in(p->choices, 8) ? choose_below(p->choices, 0x110) : 0x3ff,
				   (uint16_t)(ATTR_P | level(3 * choose_below(p->choices, 2)) | type)));
	}
	put_system(p, SLOT_LDT, segment(LDT, 8 * LDT_SLOTS - 1, ATTR_P | TYPE_LDT));
	put_system(p, SLOT_CALL_GATE, any_gate(p, TYPE_CALL_GATE_16, 3));
	put_system(p, SLOT_CALL_GATE_INNER, any_gate(p, TYPE_CALL_GATE_16, choose_below(p->choices, 4)));
	put_system(p, SLOT_TASK_GATE, any_gate(p, TYPE_TASK_GATE, 3));
	for (unsigned slot = SLOT_ANY; slot < GDT_SLOTS; slot++)
		put_descriptor(p, slot,
			       choose_one_in(p->choices, 4)
				       ? any_gate(p, 4 + choose_below(p->choices, 4), choose_below(p->choices, 4))
				       : data_descriptor(p, choose_below(p->choices, 4)));
}

static void make_ldt(struct plan *p)
{
	for (unsigned slot = 0; slot < LDT_SLOTS; slot++) {
		unsigned dpl = choose_below(p->choices, 4);
		uint64_t d = choose_one_in(p->choices, 3) ? code_descriptor(p, dpl, choose_one_in(p->choices, 3))
							  : data_descriptor(p, dpl);

		put(p, LDT + 8 * slot, perhaps_wrong(p, d));
	}
}

/* ---- interrupts ---- */

static uint64_t any_interrupt_gate(struct plan *p)
{
	unsigned dpl = choose_one_in(p->choices, 2) ? 3 : 0;
	unsigned type = choose_one_in(p->choices, 2) ? TYPE_INTERRUPT_GATE : TYPE_TRAP_GATE;

	if (!in_long_mode_case(p) && choose_one_in(p->choices, 12))
		type = TYPE_TASK_GATE;
	return perhaps_wrong(p, any_gate(p, type, dpl));
}

static void make_idt(struct plan *p)
{
	unsigned size = in_long_mode_case(p) ? 16 : 8;

	if (p->mode == REAL) {
		for (unsigned vector = 0; vector < 256; vector++)
			store_le32(p->image + 4 * vector, CODE >> 4 << 16 | (uint32_t)(any_code_offset(p) & 0xffff));
		return;
	}
	for (unsigned vector = 0; vector < 256; vector++) {
		uint64_t g = any_interrupt_gate(p);

		/* Interrupt stack table; elsewhere not looked at. */
		if (size == 16 && choose_one_in(p->choices, 4))
			g |= (uint64_t)choose_below(p->choices, 8) << 32;
		put(p, IDT + size * vector, g);
		if (size == 16)
			put(p, IDT + 16 * vector + 8, choose_one_in(p->choices, 32) ? choose(p->choices) : 0);
	}
}

/* ---- tasks ---- */

static uint16_t stack_selector(struct plan *p, unsigned cpl)
{
	static const uint8_t slots[] = { SLOT_DATA_0, SLOT_DATA_MIDDLE, SLOT_DATA_MIDDLE, SLOT_DATA_3 };

	return choose_one_in(p->choices, 16) ? any_selector(p) : (uint16_t)(8 * slots[cpl] + cpl);
}

static void put16(struct plan *p, uint64_t at, uint64_t value) { store_le16(p->image + at, (uint16_t)value); }
static void put32(struct plan *p, uint64_t at, uint64_t value) { store_le32(p->image + at, (uint32_t)value); }

/* Registers of a task of 16 or 32 bits, at `at` with fields of `width` bytes: flags, general registers, segments. */
static void put_task_registers(struct plan *p, uint64_t at, unsigned width, bool v86)
{
	unsigned cpl = choose_one_in(p->choices, 3) ? 3 : 0;
	const uint16_t selectors[6] = { any_selector(p),	(uint16_t)(8 * (cpl ? SLOT_CODE_3 : SLOT_CODE_0) + cpl),
					stack_selector(p, cpl), stack_selector(p, cpl),
					any_selector(p),	0 };
	uint64_t flags = choose(p->choices) & 0x4ed5;

	if (v86)
		flags |= FLAG_VM;
	put32(p, at, any_code_offset(p));
	(width == 4 ? put32 : put16)(p, at + width, flags | 2);
	for (unsigned n = 0; n < 8; n++)
		(width == 4 ? put32 : put16)(p, at + (2 + n) * width, n == RSP ? STACK(cpl) + 0xf00 : any_number(p));
	for (unsigned n = 0; n < (width == 4 ? 6 : 4); n++)
		put16(p, at + (10 + n) * width, v86 ? CODE >> 4 : selectors[n]);
	put16(p, at + (width == 4 ? 16 : 14) * width, choose_one_in(p->choices, 3) ? 8 * SLOT_LDT : 0);
}

static void make_tss(struct plan *p, unsigned n)
{
	uint64_t at = TSS(n);

	for (unsigned field = 0; field < 0x400; field += 8)
		put(p, at + field, field >= 0x68 && choose_one_in(p->choices, 2) ? choose(p->choices) : 0);
	put16(p, at, 8 * (SLOT_TSS + 2 * choose_below(p->choices, TSS_COUNT)));
	if (in_long_mode_case(p)) {
		for (unsigned field = 0; field < 11; field++) /* RSP0 to 2, a gap, IST1 to 7 */
			put(p, at + 4 + 8 * field,
			    choose_one_in(p->choices, 16) ? any_number(p)
							  : STACK(field % 4) + 0xf00 - choose_below(p->choices, 16));
	} else if (tss_type(p, n) == TYPE_TSS_16) {
		for (unsigned cpl = 0; cpl < 3; cpl++)
			put32(p, at + 2 + 4 * cpl,
			      (STACK(cpl) & 0xffff) + 0xf00 + ((uint32_t)stack_selector(p, cpl) << 16));
		put_task_registers(p, at + 14, 2, false);
	} else {
		for (unsigned cpl = 0; cpl < 3; cpl++)
			put(p, at + 4 + 8 * cpl, STACK(cpl) + 0xf00 + ((uint64_t)stack_selector(p, cpl) << 32));
		put32(p, at + 28, choose_one_in(p->choices, 4) ? TABLES + 8 * PAGE_SIZE : TABLES);
		put_task_registers(p, at + 32, 4, choose_one_in(p->choices, 4));
		put16(p, at + 100, choose_one_in(p->choices, 8));
	}
	put16(p, at + 102, choose_one_in(p->choices, 4) ? any_number(p) : 0x88);
}

/* ---- page tables ---- */

static uint64_t table(unsigned n) { return (TABLES + n * PAGE_SIZE) | PTE_P | PTE_W | PTE_U; }

static uint64_t rights(struct plan *p, uint64_t of)
{
	for (unsigned k = choose_one_in(p->choices, 8) ? 1 + choose_below(p->choices, 2) : 0; k; k--)
		switch (choose_below(p->choices, 8)) {
		case 0: of &= ~PTE_P; break;
		case 1: of &= ~PTE_W; break;
		case 2: of &= ~PTE_U; break;
		case 3: of |= PTE_G; break;
		case 4: of |= p->paging == PAGING_32 ? 0 : PTE_NX; break;
		case 5: of |= p->paging == PAGING_32 ? PTE_G : BIT(40 + choose_below(p->choices, 23)); break;
		default: of |= PTE_A | PTE_D; break;
		}
	return of;
}

static void put_entry(struct plan *p, unsigned page, unsigned index, uint64_t entry)
{
	if (p->paging == PAGING_32)
		store_le32(p->image + TABLES + page * PAGE_SIZE + 4 * index, (uint32_t)entry);
	else
		put(p, TABLES + page * PAGE_SIZE + 8 * index, entry);
}

/* The first megabyte where it is; what only the kernel uses may be closed to user code. */
static void put_low_pages(struct plan *p, unsigned page)
{
	bool closed = choose_one_in(p->choices, 3);

	for (unsigned n = 0; n < RAM_SIZE / PAGE_SIZE; n++) {
		uint64_t at = n * PAGE_SIZE;
		bool system = at < STACK(3) || (at >= IMAGE_SIZE && choose_one_in(p->choices, 8));

		put_entry(p, page, n, rights(p, at | PTE_P | PTE_W | (closed && system ? 0 : PTE_U)));
	}
}

/* Pages at an end of the address space: of data, code, nothing, devices. */
static void put_odd_pages(struct plan *p, unsigned page)
{
	unsigned count = p->paging == PAGING_32 ? 1024 : 512;

	for (unsigned k = 0; k < 16; k++) {
		unsigned index = k < 8 ? k : count - 16 + k;
		uint64_t frame = choose_one_in(p->choices, 4) ? any_number(p) & 0xfffff000
							      : DATA + choose_below(p->choices, 4) * PAGE_SIZE;

		put_entry(p, page, index, rights(p, frame | PTE_P | PTE_W | PTE_U));
	}
}

static void make_tables_32(struct plan *p)
{
	put_entry(p, 0, 0, table(1));
	put_entry(p, 0, 1, rights(p, PTE_P | PTE_W | PTE_U | PTE_PS));
	put_entry(p, 0, 512, table(1));
	put_entry(p, 0, 1023, rights(p, table(2)));
	put_low_pages(p, 1);
	put_odd_pages(p, 2);
}

static void make_tables_pae(struct plan *p)
{
	put_entry(p, 0, 0, (table(1) & ~(PTE_W | PTE_U)));
	put_entry(p, 0, 1, (table(1) & ~(PTE_W | PTE_U)));
	put_entry(p, 0, 2, choose_one_in(p->choices, 8) ? choose(p->choices) : 0);
	put_entry(p, 0, 3, (table(2) & ~(PTE_W | PTE_U)));
	put_entry(p, 1, 0, table(3));
	put_entry(p, 1, 1, rights(p, PTE_P | PTE_W | PTE_U | PTE_PS));
	put_entry(p, 2, 511, rights(p, table(4)));
	put_low_pages(p, 3);
	put_odd_pages(p, 4);
}

static void make_tables_4_level(struct plan *p)
{
	put_entry(p, 0, 0, table(1));
	put_entry(p, 0, 256, table(1));
	put_entry(p, 0, 255, rights(p, table(2)));
	put_entry(p, 0, 511, rights(p, table(2)));
	put_entry(p, 1, 0, table(3));
	put_entry(p, 1, 1, rights(p, PTE_P | PTE_W | PTE_U | PTE_PS));
	put_entry(p, 2, 511, rights(p, table(4)));
	put_entry(p, 3, 0, table(5));
	put_entry(p, 3, 1, rights(p, PTE_P | PTE_W | PTE_U | PTE_PS));
	put_entry(p, 4, 511, rights(p, table(6)));
	put_low_pages(p, 5);
	put_odd_pages(p, 6);
}

static void make_page_tables(struct plan *p)
{
	switch (p->paging) {
	case PAGING_32: make_tables_32(p); break;
	case PAGING_PAE: make_tables_pae(p); break;
	case PAGING_4_LEVEL: make_tables_4_level(p); break;
	}
	/* Another address space, nearly the same. */
	memcpy(p->image + TABLES + 8 * PAGE_SIZE, p->image + TABLES, PAGE_SIZE);
	if (choose_one_in(p->choices, 3))
		put_entry(p, 8, choose_below(p->choices, 4), choose(p->choices));
}

void tables_make(struct plan *p)
{
	make_gdt(p);
	make_ldt(p);
	make_idt(p);
	for (unsigned n = 0; n < TSS_COUNT; n++)
		make_tss(p, n);
	make_page_tables(p);
}

void take_segment(struct plan *p, enum seg seg, uint16_t selector)
{
	uint64_t d = get(p, (selector & 4 ? LDT : GDT) + (selector & ~7u));
	struct cpu_state *s = &p->state;

	s->seg_sel[seg] = selector;
	s->seg_attr[seg] = (uint16_t)(bits(d, 47, 40) | bits(d, 55, 52) << 12);
	s->seg_base[seg] = bits(d, 39, 16) | bits(d, 63, 56) << 24;
	s->seg_limit[seg] = (uint32_t)(bits(d, 15, 0) | bits(d, 51, 48) << 16);
	if (s->seg_attr[seg] & ATTR_G)
		s->seg_limit[seg] = s->seg_limit[seg] << 12 | 0xfff;
	if (s->seg_attr[seg] & ATTR_S)
		s->seg_attr[seg] |= ATTR_ACCESSED;
}
