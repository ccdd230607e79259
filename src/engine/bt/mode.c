/*
 * Modes: what of the processor's state translated code depends on, and what code of a mode is entered and left by. Compiled for general
 * registers only (Makefile): fast.c calls it.
 */
#include "engine/bt/runtime.h"

/* Of a segment that is neither plain nor wide every access is compared with its limit: limits.c. */
enum segment_kind { SEGMENT_CHECKED, SEGMENT_PLAIN, SEGMENT_WIDE };

/*
 * A segment is plain if nothing about an access of any kind has to be looked at: writable data without a limit, or (CS, which
 * nobody writes through) readable code. Wide: writable, and all 16-bit offsets are below its limit.
 */
static enum segment_kind protected_kind(const struct vcpu *v, enum seg seg)
{
	const uint16_t mask = ATTR_P | ATTR_S | ATTR_WRITABLE | ATTR_CODE | (seg == CS ? 0 : ATTR_EXPAND_DOWN);
	const uint16_t type = ATTR_P | ATTR_S | ATTR_WRITABLE | (seg == CS ? ATTR_CODE : 0);

	if ((v->s.seg_attr[seg] & mask) != type)
		return SEGMENT_CHECKED;
	return v->s.seg_limit[seg] == UINT32_MAX	    ? SEGMENT_PLAIN
	       : seg != CS && v->s.seg_limit[seg] >= 0xffff ? SEGMENT_WIDE
							    : SEGMENT_CHECKED;
}

/*
 * Where rights do not count. Such a segment is as loading it left it, so that loading it again changes its base alone: that of
 * protected mode that was null, and whatever virtual-8086 mode does not have, are not.
 */
static enum segment_kind real_kind(const struct vcpu *v, enum seg seg)
{
	const uint16_t virtual_8086 = ATTR_P | ATTR_DPL | ATTR_S | ATTR_WRITABLE | ATTR_ACCESSED;
	uint16_t attr = v->s.seg_attr[seg];

	if (v->s.rflags & FLAG_VM)
		return v->s.seg_limit[seg] == 0xffff && attr == virtual_8086 ? SEGMENT_WIDE : SEGMENT_CHECKED;
	if (!(attr & ATTR_P) || (attr & (ATTR_S | ATTR_CODE | ATTR_EXPAND_DOWN)) == (ATTR_S | ATTR_EXPAND_DOWN))
		return SEGMENT_CHECKED;
	return v->s.seg_limit[seg] == UINT32_MAX ? SEGMENT_PLAIN
	       : v->s.seg_limit[seg] >= 0xffff	 ? SEGMENT_WIDE
						 : SEGMENT_CHECKED;
}

static uint32_t segments_key(const struct vcpu *v)
{
	const uint32_t flat = BIT(ES) | BIT(CS) | BIT(SS) | BIT(DS);
	uint32_t kinds[SEGMENT_WIDE + 1] = { 0 }, based = 0;
	bool protected = in_protected_mode(v);

	for (enum seg seg = v->flat ? FS : ES; seg <= GS; seg++)
		kinds[protected ? protected_kind(v, seg) : real_kind(v, seg)] |= 1u << seg;
	if (v->flat)
		kinds[SEGMENT_PLAIN] |= flat;
	else if (!protected)
		based = flat;
	else
		for (enum seg seg = ES; seg <= DS; seg++)
			based |= (uint32_t)(v->s.seg_base[seg] != 0) << seg;
	return kinds[SEGMENT_PLAIN] << BT_KEY_PLAIN_SHIFT | kinds[SEGMENT_WIDE] << BT_KEY_WIDE_SHIFT |
	       based << BT_KEY_BASED_SHIFT;
}

/* Besides cpu/'s mode: may the guest use its floating-point units, or must each such instruction be looked at? */
uint32_t bt_key(const struct vcpu *v)
{
	bool x87 = !(v->s.cr0 & (CR0_EM | CR0_TS)) && !v->x87_watch;
	bool sse = !(v->s.cr0 & (CR0_EM | CR0_TS)) && (v->s.cr4 & CR4_OSFXSR);
	bool avx = sse && (v->s.cr4 & CR4_OSXSAVE) && (v->s.xcr0 & (XCR0_SSE | XCR0_AVX)) == (XCR0_SSE | XCR0_AVX);

	bool tlb = v->code_mode != MODE_16 &&
		   (bt_of(v)->options.tlb == BT_TLB_ALL || (v->cpl == 3 && bt_space_is_young(bt_of(v))));
	bool anywhere = v->code_mode == MODE_64 && v->cpl == 3 && v->s.rip < BT_ANYWHERE_LIMIT &&
			(tlb || (v->s.rip >= BT_ANYWHERE_START && !bt_space_is_old(bt_of(v))));

	/* Of CS, blocks have the base and limit themselves. */
	return (v->mode_key & ~(uint32_t)(MODE_KEY_BASE_0 | MODE_KEY_NO_LIMIT)) |
	       (v->code_mode == MODE_64 ? 0 : segments_key(v)) | (tlb ? BT_KEY_TLB : 0) |
	       (v->s.rflags & FLAG_DF ? BT_KEY_DF : 0) | (anywhere ? BT_KEY_ANYWHERE : 0) |
	       (v->cpl && (v->s.cr4 & CR4_TSD) ? BT_KEY_NO_TSC : 0) | (x87 ? BT_KEY_X87 : 0) | (sse ? BT_KEY_SSE : 0) |
	       (avx ? BT_KEY_AVX : 0);
}

/* Windows and their page tables are made for whole addresses: with the A20 gate closed the interpreter runs. */
bool bt_is_translated_mode(const struct vcpu *v)
{
	return (v->code_mode != MODE_16 || v->s.rip <= 0xffff) && v->mem->address_lines == UINT64_MAX;
}

bool bt_choose_glue(struct vcpu *v)
{
	struct bt_cpu *bt = bt_of(v);
	uint64_t base = bt_wanted_gs_base(v);

	bt->glue = bt->glues[v->code_mode != MODE_64];
	bt_frame(v)->exit_glue = (void *)bt->glue->exit;
	bt_frame(v)->miss_glue = (void *)bt->glue->miss;
	bt_frame(v)->fast_glue = (void *)bt->glue->fast;
	bt_frame(v)->reload_glue = (void *)bt->glue->reload;
	if (v->code_mode != MODE_64)
		bt_limits_update(v);
	if (base == bt->gs_base)
		return true;
	if (!bt->has_wrgsbase)
		return false;
	__asm__ volatile("wrgsbase %0" : : "r"(base));
	bt->gs_base = base;
	return true;
}
