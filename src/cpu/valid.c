/*
 * What a loaded state may be: a snapshot may come from anywhere, and the rest of cpu/ counts on what is refused here. Combinations
 * that a processor cannot get into but that harm nothing pass.
 */
#include "cpu/segment.h"

#include <errno.h>

/* (name, field, bits that may be set, bits that are always set) */
/* clang-format off */
#define REGISTER_BITS(_)                                                                                               \
	_("CR0", cr0, CR0_KNOWN, CR0_ET)                                                                               \
	_("CR3", cr3, CPU_PHYS_MASK, 0)                                                                                \
	_("CR4", cr4, CR4_KNOWN, 0)                                                                                    \
	_("EFER", efer, EFER_KNOWN, 0)                                                                                 \
	_("RFLAGS", rflags, RFLAGS_VALID | RFLAGS_ONE, RFLAGS_ONE)                                                     \
	_("DR6", dr[6], DR6_WRITABLE | DR6_ONES, DR6_ONES)                                                             \
	_("DR7", dr[7], DR7_WRITABLE | DR7_ONES, DR7_ONES)                                                             \
	_("the debug exception to come", pending_debug, DR6_PENDING, 0)
#define CANONICAL_REGISTERS(_)                                                                                         \
	_("GDTR's base", gdtr_base) _("IDTR's base", idtr_base) _("LSTAR", msr_lstar) _("CSTAR", msr_cstar)            \
	_("KERNEL_GS_BASE", msr_kernel_gs_base) _("SYSENTER_ESP", msr_sysenter_esp)                                    \
	_("SYSENTER_EIP", msr_sysenter_eip)
/* clang-format on */

static const struct register_bits {
	const char *name;
	size_t offset;
	uint64_t may, must;
} register_bits[] = {
#define _(name, field, may, must) { name, offsetof(struct cpu_state, field), may, must },
	REGISTER_BITS(_)
#undef _
};

static int check_bits(const struct cpu_state *s, struct error *err)
{
	for (const struct register_bits *r = register_bits; r < register_bits + ARRAY_SIZE(register_bits); r++) {
		uint64_t value = *(const uint64_t *)((const char *)s + r->offset);

		if ((value & ~r->may) || (value & r->must) != r->must)
			return error_set(err, EINVAL, "cpu: %s is %#lx; expected no bits but %#lx, and %#lx set",
					 r->name, value, r->may, r->must);
	}
	return 0;
}

static int check_modes(const struct cpu_state *s, struct error *err)
{
	if ((s->cr0 & CR0_PG) && !(s->cr0 & CR0_PE))
		return error_set(err, EINVAL, "cpu: CR0 is %#lx; paging needs protected mode", s->cr0);
	if ((s->cr0 & CR0_NW) && !(s->cr0 & CR0_CD))
		return error_set(err, EINVAL, "cpu: CR0 is %#lx; NW needs CD", s->cr0);
	if (!!(s->efer & EFER_LMA) != ((s->efer & EFER_LME) && (s->cr0 & CR0_PG)))
		return error_set(err, EINVAL, "cpu: EFER is %#lx with CR0 %#lx; LMA must be LME and paging", s->efer,
				 s->cr0);
	if ((s->efer & EFER_LMA) && !(s->cr4 & CR4_PAE))
		return error_set(err, EINVAL, "cpu: CR4 is %#lx; long mode needs PAE", s->cr4);
	if ((s->cr4 & CR4_PCIDE) && !(s->efer & EFER_LMA))
		return error_set(err, EINVAL, "cpu: CR4 is %#lx; there are no PCIDs outside long mode", s->cr4);
	if ((s->rflags & FLAG_VM) && ((s->efer & EFER_LMA) || !(s->cr0 & CR0_PE)))
		return error_set(err, EINVAL,
				 "cpu: RFLAGS is %#lx; virtual-8086 mode is a kind of legacy protected mode",
				 s->rflags);
	if (s->activity == CPU_WAIT_SIPI && (s->cr0 & CR0_PE))
		return error_set(err, EINVAL, "cpu: CR0 is %#lx; a processor that waits for a SIPI is in real mode",
				 s->cr0);
	if (!(s->xcr0 & XCR0_X87) || (s->xcr0 & ~(XCR0_X87 | XCR0_SSE | XCR0_AVX)) ||
	    ((s->xcr0 & XCR0_AVX) && !(s->xcr0 & XCR0_SSE)))
		return error_set(err, EINVAL, "cpu: XCR0 is %#lx; expected 1, 3 or 7", s->xcr0);
	return 0;
}

static bool is_64_bit_code(const struct cpu_state *s) { return (s->efer & EFER_LMA) && (s->seg_attr[CS] & ATTR_L); }

/* Loading them with anything else raises #GP(0). */
static const struct address_register {
	const char *name;
	size_t offset;
} address_registers[] = {
#define _(name, field) { name, offsetof(struct cpu_state, field) },
	CANONICAL_REGISTERS(_)
#undef _
};

/* Outside 64-bit mode addresses have 32 bits. RIP may lie just behind the end of the lower half. */
static int check_addresses(const struct cpu_state *s, struct error *err)
{
	bool wide = is_64_bit_code(s);

	if (wide ? !is_canonical(s->rip) && !is_canonical(s->rip - 15) : s->rip > UINT32_MAX)
		return error_set(err, EINVAL, "cpu: RIP is %#lx; expected %s", s->rip,
				 wide ? "a canonical address" : "32 bits outside 64-bit mode");
	for (unsigned n = RAX; n <= RDI; n++)
		if (!wide && s->gpr[n] > UINT32_MAX)
			return error_set(err, EINVAL, "cpu: register %u is %#lx; expected 32 bits outside 64-bit mode",
					 n, s->gpr[n]);
	for (const struct address_register *a = address_registers;
	     a < address_registers + ARRAY_SIZE(address_registers); a++) {
		uint64_t value = *(const uint64_t *)((const char *)s + a->offset);

		if (!is_canonical(value))
			return error_set(err, EINVAL, "cpu: %s is %#lx; expected a canonical address", a->name, value);
	}
	return 0;
}

static int check_segment(const struct cpu_state *s, enum seg seg, struct error *err)
{
	uint64_t base = s->seg_base[seg];
	uint16_t attr = s->seg_attr[seg];

	if (seg == ES || seg == CS || seg == SS || seg == DS ? base > UINT32_MAX : !is_canonical(base))
		return error_set(err, EINVAL, "cpu: the base of segment register %u is %#lx; expected %s", seg, base,
				 seg <= DS ? "32 bits" : "a canonical address");
	if (attr & ATTR_NONE)
		return error_set(err, EINVAL,
				 "cpu: the attributes of segment register %u are %#x; expected no bits but %#x", seg,
				 attr, (uint16_t)~ATTR_NONE);
	if ((s->rflags & FLAG_VM) && seg <= GS &&
	    (base != (uint64_t)s->seg_sel[seg] << 4 || s->seg_limit[seg] != 0xffff || attr != ATTR_VIRTUAL_8086))
		return error_set(err, EINVAL,
				 "cpu: segment register %u has base %#lx, limit %#x, attributes %#x; expected "
				 "those of virtual-8086 mode for selector %#x",
				 seg, base, s->seg_limit[seg], attr, s->seg_sel[seg]);
	return 0;
}

int cpu_state_offered(const struct vcpu *v, const struct cpu_state *s, struct error *err)
{
	if (s->cr4 & ~cpu_cr4_offered(v))
		return error_set(err, EINVAL, "cpu: CR4 is %#lx; the CPU model offers %#lx", s->cr4,
				 cpu_cr4_offered(v));
	if ((s->xcr0 & XCR0_AVX) && !has_feature(v, FEATURE_AVX))
		return error_set(err, EINVAL, "cpu: XCR0 is %#lx; the CPU model offers no AVX", s->xcr0);
	return 0;
}

int cpu_pending_loaded(void *object, uint16_t version, struct error *err)
{
	const struct cpu_pending *p = object;

	(void)version;
	if (p->events & ~EVENTS_SAVED)
		return error_set(err, EINVAL, "vcpu: events are %#x; expected no bits but %#lx", p->events,
				 (unsigned long)EVENTS_SAVED);
	return 0;
}

int cpu_state_loaded(void *object, uint16_t version, struct error *err)
{
	const struct cpu_state *s = object;
	int ret = check_bits(s, err);

	(void)version;
	if (!ret)
		ret = check_modes(s, err);
	if (!ret)
		ret = check_addresses(s, err);
	for (enum seg seg = ES; !ret && seg < SEG_COUNT; seg++)
		ret = check_segment(s, seg, err);
	return ret;
}
