/*
 * The local APIC's registers as the CPU reaches them: the xAPIC page, the x2APIC MSRs, IA32_APIC_BASE and IA32_TSC_DEADLINE.
 * Only the CPU's own thread comes here.
 */
#include "bus/lapic.h"

#define VERSION		 (0x14 | (LVT_COUNT - 1) << 16)
#define MSR_APIC_BASE	 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC	 0x800

/* Bits that software may write, by enum lvt: vector, mode, polarity, trigger, mask, timer mode. */
static const uint32_t lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,	[LVT_ERROR] = 0x100ff,
};

static void mask_lvt(struct lapic *lapic)
{
	for (unsigned i = 0; i < LVT_COUNT; i++)
		lapic_put(lapic->lvt[i], lapic->lvt[i] | LVT_MASKED);
}

/* ---- what both ways of access share: 0, or -1 when there is no such register ---- */

static int read_register(struct lapic *lapic, unsigned reg, uint32_t *value)
{
	switch (reg) {
	case LAPIC_ID: *value = lapic_x2(lapic) ? lapic->id : lapic->id << 24; return 0;
	case LAPIC_VERSION: *value = VERSION; return 0;
	case LAPIC_TPR: *value = lapic->tpr; return 0;
	case LAPIC_PPR: *value = lapic_ppr(lapic); return 0;
	case LAPIC_LDR: *value = lapic_logical_id(lapic); return 0;
	case LAPIC_SVR: *value = lapic->svr; return 0;
	case LAPIC_ISR ... LAPIC_ISR + 7: *value = lapic_get(lapic->isr[reg - LAPIC_ISR]); return 0;
	case LAPIC_TMR ... LAPIC_TMR + 7: *value = lapic_get(lapic->tmr[reg - LAPIC_TMR]); return 0;
	case LAPIC_IRR ... LAPIC_IRR + 7: *value = lapic_get(lapic->irr[reg - LAPIC_IRR]); return 0;
	case LAPIC_ESR: *value = lapic->esr; return 0;
	case LAPIC_ICR_LOW: *value = lapic->icr_low; return 0;
	case LAPIC_LVT ... LAPIC_LVT + LVT_COUNT - 1: *value = lapic_get(lapic->lvt[reg - LAPIC_LVT]); return 0;
	case LAPIC_TIMER_INITIAL: *value = lapic->timer_initial; return 0;
	case LAPIC_TIMER_CURRENT: *value = lapic_timer_current(lapic); return 0;
	case LAPIC_TIMER_DIVIDE: *value = lapic->timer_divide; return 0;
	default: return -1;
	}
}

static void write_svr(struct lapic *lapic, uint32_t value)
{
	lapic_put(lapic->svr, value & 0x3ff);
	if (!(value & SVR_ENABLE))
		mask_lvt(lapic);
}

static void write_lvt(struct lapic *lapic, enum lvt n, uint32_t value)
{
	value &= lvt_writable[n];
	/* While the APIC is software-disabled the mask bits cannot be cleared (11.4.7.2). */
	if (!(lapic->svr & SVR_ENABLE))
		value |= LVT_MASKED;
	if (n == LVT_TIMER)
		lapic_timer_set_lvt(lapic, value);
	else
		lapic_put(lapic->lvt[n], value);
	if (n == LVT_LINT0)
		lapic_notify(lapic);
}

static int write_register(struct lapic *lapic, unsigned reg, uint32_t value)
{
	switch (reg) {
	case LAPIC_TPR:
		lapic_put(lapic->tpr, value & 0xff);
		lapic_notify(lapic);
		return 0;
	case LAPIC_EOI: lapic_eoi(lapic); return 0;
	case LAPIC_SVR: write_svr(lapic, value); return 0;
	case LAPIC_ESR: lapic->esr = __atomic_exchange_n(&lapic->errors, 0, __ATOMIC_SEQ_CST); return 0;
	case LAPIC_LVT ... LAPIC_LVT + LVT_COUNT - 1: write_lvt(lapic, reg - LAPIC_LVT, value); return 0;
	case LAPIC_TIMER_INITIAL: lapic_timer_set_initial(lapic, value); return 0;
	case LAPIC_TIMER_DIVIDE: lapic_timer_set_divide(lapic, value); return 0;
	default: return -1;
	}
}

/* ---- xAPIC (11.4.1) ---- */

bool lapic_claims(struct lapic *lapic, gpa_t address)
{
	uint64_t base = lapic->apic_base;

	return (base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN &&
	       (address.v & PAGE_MASK) == (base & APIC_BASE_ADDRESS);
}

static uint32_t xapic_read(struct lapic *lapic, unsigned reg)
{
	uint32_t value = 0;

	switch (reg) {
	case LAPIC_DFR: return lapic->dfr;
	case LAPIC_ICR_HIGH: return lapic->icr_high;
	case LAPIC_EOI: /* write-only */
	case LAPIC_APR: /* Pentium's arbitration, gone since */
	case LAPIC_RRD: return 0;
	}
	if (read_register(lapic, reg, &value))
		lapic_error(lapic, ESR_REGISTER);
	return value;
}

static void xapic_write(struct lapic *lapic, unsigned reg, uint32_t value)
{
	switch (reg) {
	case LAPIC_ID: /* read-only on processors of this kind */ return;
	case LAPIC_LDR: lapic_put(lapic->ldr, value & 0xff000000); return;
	case LAPIC_DFR: lapic_put(lapic->dfr, value | 0x0fffffff); return;
	case LAPIC_ICR_HIGH: lapic->icr_high = value & 0xff000000; return;
	case LAPIC_ICR_LOW:
		lapic->icr_low = value & 0xccfff;
		lapic_send(lapic, (uint64_t)lapic->icr_high << 32 | lapic->icr_low);
		return;
	}
	if (write_register(lapic, reg, value))
		lapic_error(lapic, ESR_REGISTER);
}

/*
 * Registers are 32 bits wide at multiples of 16; the manual leaves all but aligned 32-bit accesses undefined: here, reads give
 * the bytes in place with zeroes after the fourth, narrower or misaligned writes are dropped.
 */
uint64_t lapic_mmio_read(struct lapic *lapic, uint64_t offset, unsigned size)
{
	unsigned byte = offset & 0xf;
	uint64_t value;

	if (byte >= 4)
		return 0;
	value = xapic_read(lapic, (offset & 0xfff) >> 4) >> (8 * byte);
	return size < 4 ? value & (BIT(8 * size) - 1) : value;
}

void lapic_mmio_write(struct lapic *lapic, uint64_t offset, unsigned size, uint64_t value)
{
	if (size >= 4 && !(offset & 0xf))
		xapic_write(lapic, (offset & 0xfff) >> 4, (uint32_t)value);
}

/* ---- x2APIC (11.12) ---- */

static int x2apic_read(struct lapic *lapic, unsigned reg, uint64_t *value)
{
	uint32_t low;

	if (reg == LAPIC_ICR_LOW) {
		*value = (uint64_t)lapic->icr_high << 32 | lapic->icr_low;
		return 0;
	}
	if (read_register(lapic, reg, &low))
		return -1;
	*value = low;
	return 0;
}

/* Reserved bits and non-zero values for EOI and ESR are #GP, unlike in xAPIC mode. */
static uint64_t x2apic_writable(unsigned reg)
{
	switch (reg) {
	case LAPIC_TPR:
	case LAPIC_SELF_IPI: return 0xff;
	case LAPIC_EOI:
	case LAPIC_ESR: return 0;
	case LAPIC_SVR: return 0x3ff;
	case LAPIC_ICR_LOW: return 0xffffffff000ccfff;
	case LAPIC_LVT ... LAPIC_LVT + LVT_COUNT - 1: return lvt_writable[reg - LAPIC_LVT] | BIT(12) | BIT(14);
	case LAPIC_TIMER_DIVIDE: return 0xb;
	default: return UINT32_MAX;
	}
}

static int x2apic_write(struct lapic *lapic, unsigned reg, uint64_t value)
{
	if (value & ~x2apic_writable(reg))
		return -1;
	switch (reg) {
	case LAPIC_ICR_LOW:
		lapic->icr_low = (uint32_t)value & 0xccfff;
		lapic->icr_high = (uint32_t)(value >> 32);
		lapic_send(lapic, value);
		return 0;
	case LAPIC_SELF_IPI: lapic_send(lapic, SHORTHAND_SELF << 18 | value); return 0;
	}
	return write_register(lapic, reg, (uint32_t)value);
}

/* ---- IA32_APIC_BASE (11.4.4, 11.12.5) ---- */

static int write_apic_base(struct lapic *lapic, uint64_t value)
{
	uint64_t old = lapic->apic_base;
	bool was_on = old & APIC_BASE_EN, on = value & APIC_BASE_EN;
	bool was_x2 = old & APIC_BASE_EXTD, x2 = value & APIC_BASE_EXTD;

	if (value & ~(APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN | APIC_BASE_ADDRESS))
		return -1;
	/* Figure 11-27: x2APIC is entered from xAPIC and left to disabled only. */
	if (x2 && (!on || !was_on))
		return -1;
	if (was_x2 && on && !x2)
		return -1;
	if (was_on && !on) {
		lapic_reset(lapic, true); /* what it held is lost */
		lapic->apic_base = old;
	}
	if (x2 && !was_x2)
		lapic->icr_high = 0;
	/* Whether this is the boot processor is wired, not written. */
	lapic_put(lapic->apic_base, (value & ~APIC_BASE_BSP) | (old & APIC_BASE_BSP));
	lapic_notify(lapic);
	return 0;
}

int lapic_msr_read(struct lapic *lapic, uint32_t msr, uint64_t *value)
{
	switch (msr) {
	case MSR_APIC_BASE: *value = lapic->apic_base; return 0;
	case MSR_TSC_DEADLINE: *value = lapic_timer_deadline(lapic); return 0;
	}
	if (msr < MSR_X2APIC || msr > MSR_X2APIC + 0xff || !lapic_x2(lapic))
		return -1;
	return x2apic_read(lapic, msr - MSR_X2APIC, value);
}

int lapic_msr_write(struct lapic *lapic, uint32_t msr, uint64_t value)
{
	switch (msr) {
	case MSR_TSC_DEADLINE: lapic_timer_set_deadline(lapic, value); return 0;
	case MSR_APIC_BASE: return write_apic_base(lapic, value);
	}
	if (msr < MSR_X2APIC || msr > MSR_X2APIC + 0xff || !lapic_x2(lapic))
		return -1;
	return x2apic_write(lapic, msr - MSR_X2APIC, value);
}
