/*
 * What a case begins with: a processor in one of its modes, as it might be in the middle of anything, and stacks and data that lead
 * somewhere. Then, at times, changed to something that only a hostile snapshot could hold, as far as the state's reader lets it pass.
 */
#include "step.h"

#include "cpu/private.h"

#define HIGH_HALF 0xffff800000000000ull

static bool is_long(const struct plan *p) { return p->mode == LONG || p->mode == COMPATIBILITY; }
static bool uses_paragraphs(const struct plan *p) { return p->mode == REAL || p->mode == V86; }

/* ---- numbers ---- */

uint16_t any_selector(struct plan *p)
{
	struct choices *c = p->choices;

	if (uses_paragraphs(p) && !choose_one_in(c, 4)) {
		static const uint16_t paragraphs[] = { CODE >> 4, DATA >> 4, STACKS >> 4, 0, 0xf000, 0xffff, 0xa000 };

		return paragraphs[choose_below(c, ARRAY_SIZE(paragraphs))];
	}
	switch (choose_below(c, 12)) {
	case 0: return (uint16_t)choose_below(c, 4);
	case 1: return (uint16_t)(choose_below(c, LDT_SLOTS) << 3 | 4 | choose_below(c, 4));
	case 2: return (uint16_t)choose(c);
	case 3: return (uint16_t)((SLOT_CODE_0 + choose_below(c, 7)) << 3 | choose_below(c, 4));
	default: return (uint16_t)(choose_below(c, GDT_SLOTS) << 3 | choose_below(c, 4));
	}
}

uint16_t any_target(struct plan *p)
{
	static const uint8_t slots[] = { SLOT_CODE_0,	 SLOT_CODE_MIDDLE, SLOT_CODE_3,		 SLOT_CODE_CONFORMING,
					 SLOT_CALL_GATE, SLOT_CALL_GATE,   SLOT_CALL_GATE_INNER, SLOT_TASK_GATE,
					 SLOT_TSS,	 SLOT_TSS + 2,	   SLOT_TSS + 4,	 SLOT_TSS + 6 };

	if (uses_paragraphs(p) || choose_one_in(p->choices, 6))
		return any_selector(p);
	return (uint16_t)(slots[choose_below(p->choices, ARRAY_SIZE(slots))] << 3 |
			  (choose_one_in(p->choices, 3) ? choose_below(p->choices, 4) : p->cpl));
}

uint64_t any_code_offset(struct plan *p)
{
	struct choices *c = p->choices;
	uint64_t at = p->start_count ? p->starts[choose_below(c, p->start_count)] : 0;

	if (choose_one_in(c, 32))
		return choose(c);
	return uses_paragraphs(p) && !choose_one_in(c, 4) ? at : CODE + at;
}

uint64_t any_address(struct plan *p)
{
	static const uint64_t edges[] = { 0xffff,	  0x10000,	  0xffffffff,	     0x100000000, 0x80000000,
					  0x7fffffffffff, 0x800000000000, HIGH_HALF,	     UINT64_MAX,  0x400000,
					  0x200000,	  0x40000000,	  0xffffffff80000000 };
	struct choices *c = p->choices;
	uint64_t at;

	switch (choose_below(c, 10)) {
	case 0: at = edges[choose_below(c, ARRAY_SIZE(edges))] - choose_below(c, 16) + choose_below(c, 8); break;
	case 1: at = STACK(choose_below(c, 4)) + 0xf00; break;
	case 2: at = TABLES + choose_below(c, 8) * PAGE_SIZE + 8 * choose_below(c, 4); break;
	case 3: at = GDT + choose_below(c, 0x3000); break;
	case 4: at = 0xa0000 + choose_below(c, 0x1000); break;
	default: at = DATA + choose_below(c, DATA_SIZE); break;
	}
	if (choose_one_in(c, 4))
		at |= PAGE_SIZE - 1 - choose_below(c, 8);
	if (is_long(p) && choose_one_in(c, 6))
		at |= HIGH_HALF;
	return uses_paragraphs(p) ? at & 0xffff : at;
}

static uint64_t any_canonical(struct plan *p)
{
	uint64_t address = choose_one_in(p->choices, 4) ? any_address(p) : any_code_offset(p);

	return (uint64_t)sign_extend(address, 48);
}

static uint64_t any_register_number(struct choices *c)
{
	static const uint32_t msrs[] = { 0x10,	     0x1b,	 0x3a,	     0x3b,	 0x48,	     0x8b,
					 0xfe,	     0x10a,	 0x174,	     0x175,	 0x176,	     0x179,
					 0x17a,	     0x1a0,	 0x1d9,	     0x200,	 0x20f,	     0x250,
					 0x258,	     0x26f,	 0x277,	     0x2ff,	 0x6e0,	     0x800,
					 0x830,	     0x8ff,	 0x4b564d00, 0x4b564d01, 0x4b564d05, 0x11,
					 0x12,	     0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
					 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0010015, 0xc001001f };

	return msrs[choose_below(c, ARRAY_SIZE(msrs))];
}

/* Of CPUID. */
static uint64_t any_leaf(struct choices *c)
{
	static const uint32_t bases[] = { 0, 0, 0x40000000, 0x80000000 };

	return bases[choose_below(c, ARRAY_SIZE(bases))] + choose_below(c, 0x21);
}

/* What a control register might be next. */
static uint64_t any_control(struct plan *p)
{
	static const uint64_t changes[] = { CR0_PE, CR0_PG, CR0_PE | CR0_PG, CR0_WP, CR0_TS, CR0_EM, CR0_AM };
	struct choices *c = p->choices;

	switch (choose_below(c, 6)) {
	case 0: return p->state.cr4 ^ BIT(choose_below(c, 22));
	case 1: return p->state.efer ^ (choose_one_in(c, 2) ? EFER_LME : EFER_NXE);
	case 2: return TABLES + choose_below(c, 2) * 8 * PAGE_SIZE + choose_below(c, 4) + choose_below(c, 2) * BIT(63);
	default: return p->state.cr0 ^ changes[choose_below(c, ARRAY_SIZE(changes))];
	}
}

uint64_t any_number(struct plan *p)
{
	struct choices *c = p->choices;

	switch (choose_below(c, 16)) {
	case 0: return 0;
	case 1: return choose_below(c, 256);
	case 2: return choose(c);
	case 3: return (uint64_t)0 - choose_below(c, 256);
	case 4:
	case 5: return any_selector(p);
	case 6: return any_code_offset(p);
	case 7: return any_register_number(c);
	case 8: return any_control(p);
	case 9: return choose_one_in(c, 2) ? choose(c) & 0x3fffff : BIT(choose_below(c, 64));
	case 10: return any_target(p);
	default: return any_address(p);
	}
}

/* ---- memory ---- */

/* What far returns and IRET find: offset, selector, flags, stack, selectors of virtual-8086 mode. */
static void put_frame(struct plan *p, uint64_t at, unsigned width)
{
	unsigned cpl = choose_one_in(p->choices, 2) ? p->cpl : 3;
	uint16_t code = (uint16_t)(8 * (cpl == 3 ? SLOT_CODE_3 : cpl ? SLOT_CODE_MIDDLE : SLOT_CODE_0) + cpl);
	uint16_t data = (uint16_t)(8 * (cpl == 3 ? SLOT_DATA_3 : cpl ? SLOT_DATA_MIDDLE : SLOT_DATA_0) + cpl);
	bool error_code = choose_one_in(p->choices, 4), by_paragraphs = uses_paragraphs(p);
	uint64_t flags = choose(p->choices) & 0x3f7fd7, values[10];
	unsigned n = 0;

	if (!choose_one_in(p->choices, 6))
		flags &= ~(FLAG_VM | FLAG_NT | FLAG_TF);
	if (error_code)
		values[n++] = any_number(p);
	values[n++] = any_code_offset(p);
	values[n++] = choose_one_in(p->choices, 8) ? any_selector(p) : by_paragraphs ? CODE >> 4 : code;
	values[n++] = flags | 2;
	values[n++] = STACK(cpl) + 0xf00;
	values[n++] = choose_one_in(p->choices, 8) ? any_selector(p) : data;
	while (n < ARRAY_SIZE(values))
		values[n++] = any_selector(p);
	for (unsigned k = 0; k < n; k++)
		memcpy(p->image + at + k * width, &values[k], width);
}

static void make_memory(struct plan *p)
{
	static const uint8_t widths[] = { 2, 4, 8 };
	bool wide = p->mode >= PROTECTED_32;

	for (unsigned level = 0; level < 4; level++)
		for (unsigned at = 0xe80; at < 0x1000 - 0x50; at += 0x20)
			put_frame(p, STACK(level) + at,
				  widths[choose_one_in(p->choices, 4) ? choose_below(p->choices, 3)
					 : p->mode == LONG	      ? 2
					 : p->mode >= PROTECTED_32    ? 1
								      : 0]);
	/* Everywhere in data: numbers and far pointers. */
	for (unsigned at = DATA; at < DATA + DATA_SIZE; at += 0x40)
		store_le64(p->image + at, choose_one_in(p->choices, 4)
						  ? any_code_offset(p) | (uint64_t)any_target(p) << (wide ? 32 : 16)
						  : any_number(p));
}

/* ---- control registers ---- */

static bool offers(const struct plan *p, enum cpu_feature f) { return p->model->features[f]; }

/* (bit, feature, one in so many) */
#define CR4_CHOICES(_)                                                                                                 \
	_(CR4_VME, VME, 2)                                                                                             \
	_(CR4_PVI, VME, 2)                                                                                             \
	_(CR4_TSD, TSC, 4)                                                                                             \
	_(CR4_DE, DE, 2)                                                                                               \
	_(CR4_PSE, PSE, 2)                                                                                             \
	_(CR4_PGE, PGE, 2)                                                                                             \
	_(CR4_OSXMMEXCPT, SSE, 2)                                                                                      \
	_(CR4_UMIP, UMIP, 3)                                                                                           \
	_(CR4_FSGSBASE, FSGSBASE, 2)                                                                                   \
	_(CR4_SMEP, SMEP, 4)                                                                                           \
	_(CR4_SMAP, SMAP, 4)

static void make_control(struct plan *p)
{
	struct cpu_state *s = &p->state;
	struct choices *c = p->choices;

	s->cr0 = CR0_ET | (choose(c) & (CR0_MP | CR0_NE | CR0_WP | CR0_AM | CR0_CD));
	if (choose_one_in(c, 8))
		s->cr0 |= choose(c) & (CR0_EM | CR0_TS);
	if (p->mode != REAL)
		s->cr0 |= CR0_PE;
	if (p->in_pages)
		s->cr0 |= CR0_PG;
#define _(bit, feature, in)                                                                                            \
	if (offers(p, FEATURE_##feature) && choose_one_in(c, in))                                                      \
		s->cr4 |= bit;
	CR4_CHOICES(_)
#undef _
	s->cr4 |= p->paging >= PAGING_PAE || (!p->in_pages && choose_one_in(c, 8)) ? CR4_PAE : 0;
	if (is_long(p) && offers(p, FEATURE_PCID) && choose_one_in(c, 3))
		s->cr4 |= CR4_PCIDE;
	s->cr4 |= choose_one_in(c, 8) ? 0 : CR4_OSFXSR;
	if (offers(p, FEATURE_XSAVE) && !choose_one_in(c, 4)) {
		s->cr4 |= CR4_OSXSAVE;
		s->xcr0 = XCR0_X87 | XCR0_SSE | (offers(p, FEATURE_AVX) ? XCR0_AVX : 0);
	}
	s->cr3 = TABLES + (choose_one_in(c, 4) ? 8 * PAGE_SIZE : 0);
	s->efer = choose(c) & (EFER_SCE | EFER_NXE);
	if (is_long(p))
		s->efer |= EFER_LME | EFER_LMA;
	else if (p->paging == PAGING_4_LEVEL) /* about to be entered */
		s->efer |= EFER_LME;
	for (unsigned n = 0; p->paging == PAGING_PAE && n < 4; n++)
		s->pdpte[n] = load_le64(p->image + TABLES + 8 * n);
}

/* ---- segments, stack, flags, addresses ---- */

static void make_paragraphs(struct plan *p)
{
	struct cpu_state *s = &p->state;
	bool v86 = p->mode == V86;

	for (unsigned seg = ES; seg <= GS; seg++) {
		s->seg_sel[seg] = seg == CS ? CODE >> 4 : seg == SS ? STACK(3) >> 4 : any_selector(p);
		s->seg_base[seg] = (uint64_t)s->seg_sel[seg] << 4;
		s->seg_limit[seg] = 0xffff;
		s->seg_attr[seg] = (uint16_t)(ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED | (v86 ? ATTR_DPL : 0));
		/* "Unreal": limits and sizes that protected mode left behind. */
		if (!v86 && choose_one_in(p->choices, 10)) {
			s->seg_limit[seg] = (uint32_t)any_number(p);
			s->seg_attr[seg] ^= choose(p->choices) & (ATTR_DB | ATTR_G);
		}
	}
	if (!v86)
		s->seg_attr[CS] |= ATTR_CODE;
}

static void make_selectors(struct plan *p)
{
	static const uint8_t code[] = { SLOT_CODE_0, SLOT_CODE_MIDDLE, SLOT_CODE_MIDDLE, SLOT_CODE_3 };
	static const uint8_t data[] = { SLOT_DATA_0, SLOT_DATA_MIDDLE, SLOT_DATA_MIDDLE, SLOT_DATA_3 };
	static const uint8_t others[] = { ES, DS, FS, GS };
	struct cpu_state *s = &p->state;

	take_segment(p, CS, (uint16_t)(8 * code[p->cpl] + p->cpl));
	s->seg_attr[CS] = (uint16_t)((s->seg_attr[CS] & ~(ATTR_L | ATTR_DB | ATTR_DPL)) | ATTR_P | ATTR_S | ATTR_CODE |
				     (p->mode == LONG		? ATTR_L
				      : p->mode == PROTECTED_16 ? 0
								: ATTR_DB) |
				     p->cpl << ATTR_DPL_SHIFT);
	take_segment(p, SS, (uint16_t)(8 * data[p->cpl] + p->cpl));
	s->seg_attr[SS] = (uint16_t)((s->seg_attr[SS] & ~(ATTR_DPL | ATTR_CODE)) | ATTR_P | ATTR_S | ATTR_WRITABLE |
				     p->cpl << ATTR_DPL_SHIFT);
	if (p->mode == LONG && p->cpl < 3 && choose_one_in(p->choices, 3)) {
		s->seg_sel[SS] = (uint16_t)p->cpl;
		s->seg_attr[SS] = (uint16_t)(p->cpl << ATTR_DPL_SHIFT);
	}
	for (unsigned n = 0; n < ARRAY_SIZE(others); n++) {
		if (choose_one_in(p->choices, 4)) {
			s->seg_sel[others[n]] = 0;
			s->seg_attr[others[n]] = 0;
		} else {
			take_segment(p, others[n], (uint16_t)(8 * data[choose_below(p->choices, 4)] + p->cpl));
		}
	}
}

static void make_system_segments(struct plan *p)
{
	struct cpu_state *s = &p->state;

	s->gdtr_base = GDT;
	s->gdtr_limit =
		(uint16_t)(choose_one_in(p->choices, 8) ? choose_below(p->choices, 8 * GDT_SLOTS) : 8 * GDT_SLOTS - 1);
	s->idtr_base = p->mode == REAL ? 0 : IDT;
	s->idtr_limit = (uint16_t)(choose_one_in(p->choices, 8) ? choose_below(p->choices, 0x400) : 0xfff);
	if (is_long(p) && choose_one_in(p->choices, 4)) {
		s->gdtr_base |= HIGH_HALF;
		s->idtr_base |= HIGH_HALF;
	}
	take_segment(p, TR, 8 * SLOT_TSS);
	s->seg_base[TR] = TSS(0);
	if (choose_one_in(p->choices, 3)) {
		s->seg_sel[LDTR] = 0;
		s->seg_attr[LDTR] = 0;
	} else {
		take_segment(p, LDTR, 8 * SLOT_LDT);
		s->seg_base[LDTR] = LDT;
	}
	s->msr_star = (uint64_t)(8 * SLOT_CODE_3 + 3) << 48 | (uint64_t)(8 * SLOT_CODE_0) << 32;
	s->msr_lstar = any_canonical(p);
	s->msr_cstar = any_canonical(p);
	s->msr_fmask = choose(p->choices) & 0x3ffff;
	s->msr_sysenter_cs = choose_one_in(p->choices, 4) ? any_selector(p) : 8 * SLOT_CODE_0;
	s->msr_sysenter_esp = STACK(0) + 0xf00;
	s->msr_sysenter_eip = any_canonical(p);
	s->msr_kernel_gs_base = any_canonical(p);
}

static void make_flags(struct plan *p)
{
	struct choices *c = p->choices;
	uint64_t flags =
		choose(c) & (FLAGS_STATUS | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_AC | FLAG_VIF | FLAG_VIP | FLAG_ID);

	if (choose_one_in(c, 8))
		flags |= FLAG_TF;
	if (choose_one_in(c, 4) && p->mode != V86)
		flags |= FLAG_NT;
	if (choose_one_in(c, 16))
		flags |= FLAG_RF;
	if (p->mode == V86)
		flags |= FLAG_VM;
	p->state.rflags = flags | 2;
}

static void make_registers(struct plan *p)
{
	struct cpu_state *s = &p->state;
	struct choices *c = p->choices;

	for (unsigned n = 0; n < 16; n++)
		s->gpr[n] = choose_one_in(c, 2) ? any_address(p) : any_number(p);
	if (choose_one_in(c, 4))
		s->gpr[RAX] = any_leaf(c);
	if (choose_one_in(c, 4))
		s->gpr[RCX] = any_register_number(c);
	else if (choose_one_in(c, 2)) /* else repeated string instructions fault at once, or go on for long */
		s->gpr[RCX] = choose_below(c, 64);
	if (!choose_one_in(c, 16))
		s->gpr[RSP] = (uses_paragraphs(p) ? 0 : STACK(p->cpl)) + 0xe80 + choose_below(c, 8) * 0x20;
	s->rip = any_code_offset(p);
	if (uses_paragraphs(p) && s->rip >= CODE && !choose_one_in(c, 16))
		s->rip -= CODE;
	if (p->mode == LONG && choose_one_in(c, 4))
		s->rip |= HIGH_HALF;
	if (p->mode != LONG) {
		s->rip = (uint32_t)s->rip;
		for (unsigned n = 0; n < 8; n++)
			s->gpr[n] = (uint32_t)s->gpr[n];
	} else if (!is_canonical(s->rip)) {
		s->rip = CODE;
	}
}

static void make_debug(struct plan *p)
{
	struct cpu_state *s = &p->state;
	struct choices *c = p->choices;

	s->dr[6] = DR6_ONES;
	s->dr[7] = DR7_ONES;
	for (unsigned n = 0; n < 4; n++)
		s->dr[n] = choose_one_in(c, 2) ? any_code_offset(p) : any_address(p);
	if (choose_one_in(c, 6))
		s->dr[7] |= choose(c) & DR7_WRITABLE;
}

/* SDM vol. 1 8.1.7: valid, zero, special. */
static unsigned tag(uint16_t exponent, uint64_t mantissa)
{
	exponent &= 0x7fff;
	if (!exponent && !mantissa)
		return 1;
	return exponent && exponent != 0x7fff && mantissa >> 63 ? 0 : 2;
}

/* As the unit itself would have it: with the summary bits and tags that follow from the rest. */
static void make_x87(struct plan *p)
{
	struct cpu_state *s = &p->state;
	struct choices *c = p->choices;
	unsigned top;

	s->fcw = (uint16_t)((choose(c) & 0x1f3f) | 0x40);
	s->fsw = (uint16_t)(choose(c) & 0x7f7f);
	if (s->fsw & ~s->fcw & 0x3f)
		s->fsw |= 0x8080;
	top = bits(s->fsw, 13, 11);
	s->ftw = 0;
	for (unsigned n = 0; n < 8; n++) {
		s->st_mantissa[n] = choose(c);
		s->st_exponent[n] = (uint16_t)choose(c);
		s->ftw |= (uint16_t)((choose_one_in(c, 4) ? 3 : tag(s->st_exponent[n], s->st_mantissa[n]))
				     << 2 * ((top + n) & 7));
	}
}

static void make_fpu(struct plan *p)
{
	struct cpu_state *s = &p->state;
	struct choices *c = p->choices;

	for (unsigned n = 0; n < 64; n++)
		s->vec[n] = n % 8 ? choose(c) : any_number(p);
	if (choose_one_in(c, 3))
		make_x87(p);
	if (choose_one_in(c, 3))
		s->mxcsr = choose(c) & 0xffff;
}

static void make_state_between(struct plan *p)
{
	struct cpu_state *s = &p->state;
	struct choices *c = p->choices;

	if (choose_one_in(c, 16))
		s->activity = CPU_HALTED;
	s->nmi_blocked = choose_one_in(c, 4);
	s->nmi_pending = choose_one_in(c, 16);
	s->shadow = (uint8_t)(choose_one_in(c, 8) ? choose_below(c, 3) : 0);
	if (choose_one_in(c, 16))
		s->pending_debug = choose(c) & DR6_PENDING;
}

/* ---- as no processor could have come to be ---- */

static void make_hostile(struct plan *p)
{
	struct cpu_state *s = &p->state;
	struct choices *c = p->choices;
	unsigned seg = choose_below(c, SEG_COUNT);

	switch (choose_below(c, 16)) {
	case 0: s->seg_attr[seg] = (uint16_t)choose(c); break;
	case 1: s->seg_attr[seg] ^= BIT(choose_below(c, 16)); break;
	case 2: s->seg_base[seg] = any_number(p); break;
	case 3: s->seg_limit[seg] = (uint32_t)any_number(p); break;
	case 4: s->seg_sel[seg] = any_selector(p); break;
	case 5: s->cr0 ^= BIT(choose_below(c, 32)); break;
	case 6: s->cr4 ^= BIT(choose_below(c, 32)); break;
	case 7: s->efer ^= BIT(choose_below(c, 32)); break;
	case 8: s->rflags ^= BIT(choose_below(c, 22)); break;
	case 9: s->cr3 = any_number(p); break;
	case 10: s->rip = any_number(p); break;
	case 11: s->dr[choose_below(c, 8)] = any_number(p); break;
	case 12: s->gdtr_base = any_number(p); break;
	case 13: s->idtr_base = any_number(p); break;
	case 14: s->activity = (uint8_t)choose_below(c, 4); break;
	default: s->pdpte[choose_below(c, 4)] = choose(c); break;
	}
}

/* Would a snapshot's reader take it? */
static bool is_accepted(const struct cpu_state *s)
{
	struct writer writer = { 0 };
	struct cpu_state again;
	bool accepted;

	BUG_ON(state_save(cpu_state_desc, 0, s, &writer));
	struct reader reader = { writer.data, writer.size, 0 };
	accepted = !state_load(cpu_state_desc, 0, &again, &reader, NULL);
	writer_free(&writer);
	return accepted;
}

static void add_hostility(struct plan *p)
{
	struct cpu_state sane = p->state;

	for (unsigned k = 1 + choose_below(p->choices, 3); k; k--)
		make_hostile(p);
	p->hostile = is_accepted(&p->state);
	if (!p->hostile)
		p->state = sane;
}

/* ---- the choice ---- */

static void choose_mode(struct plan *p)
{
	p->mode = choose_below(p->choices, MODES);
	p->in_pages = is_long(p) || (p->mode != REAL && !choose_one_in(p->choices, 3));
	p->paging = is_long(p)	  ? PAGING_4_LEVEL
		    : p->in_pages ? choose_below(p->choices, PAGING_4_LEVEL)
				  : choose_below(p->choices, PAGING_4_LEVEL + 1);
	p->cpl = p->mode == REAL ? 0 : p->mode == V86 ? 3 : choose_below(p->choices, 4);
	if (p->cpl && p->mode != V86 && choose_one_in(p->choices, 2))
		p->cpl = choose_one_in(p->choices, 2) ? 3 : 0;
}

void plan_make(struct plan *p)
{
	state_reset(cpu_state_desc, &p->state);
	choose_mode(p);
	code_make(p);
	tables_make(p);
	make_memory(p);
	make_control(p);
	make_system_segments(p);
	if (uses_paragraphs(p))
		make_paragraphs(p);
	else
		make_selectors(p);
	make_flags(p);
	make_registers(p);
	make_debug(p);
	make_fpu(p);
	make_state_between(p);
	BUG_ON(!is_accepted(&p->state));
	if (choose_one_in(p->choices, 6))
		add_hostility(p);
	p->noise = choose(p->choices);
	p->meddling = choose_one_in(p->choices, 3);
}
