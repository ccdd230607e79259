/*
 * Interrupt controllers as the tests drive them.
 */
#include "guest.h"

#define APIC_PAGE   0xfee00000ull
#define IOAPIC_PAGE 0xfec00000ull

static bool x2apic(void) { return read_msr(MSR_APIC_BASE) & BIT(10); }

u32 apic_read(unsigned reg)
{
	if (x2apic())
		return (u32)read_msr(MSR_X2APIC + reg);
	return *(volatile u32 *)(APIC_PAGE + reg * 16);
}

void apic_write(unsigned reg, u32 value)
{
	if (x2apic())
		write_msr(MSR_X2APIC + reg, value);
	else
		*(volatile u32 *)(APIC_PAGE + reg * 16) = value;
}

void apic_ipi(u32 destination, u32 command)
{
	if (x2apic()) {
		write_msr(MSR_X2APIC + APIC_ICR, (u64)destination << 32 | command);
		return;
	}
	apic_write(APIC_ICR_HIGH, destination << 24);
	apic_write(APIC_ICR, command);
	while (apic_read(APIC_ICR) & BIT(12)) /* delivery status */
		cpu_pause();
}

bool apic_bit(unsigned first_register, u8 vector) { return apic_read(first_register + vector / 32) >> vector % 32 & 1; }

void apic_init(void)
{
	apic_write(APIC_SVR, 0x1ff);
	apic_write(APIC_TPR, 0);
	for (unsigned reg = APIC_LVT_TIMER; reg <= APIC_LVT_ERROR; reg++)
		apic_write(reg, LVT_MASKED);
	for (unsigned n = 0; n < 256; n++)
		apic_eoi();
}

u32 ioapic_read(unsigned reg)
{
	*(volatile u32 *)IOAPIC_PAGE = reg;
	return *(volatile u32 *)(IOAPIC_PAGE + 0x10);
}

void ioapic_write(unsigned reg, u32 value)
{
	*(volatile u32 *)IOAPIC_PAGE = reg;
	*(volatile u32 *)(IOAPIC_PAGE + 0x10) = value;
}

void ioapic_route(unsigned pin, u64 entry)
{
	ioapic_write(0x10 + 2 * pin, LVT_MASKED);
	ioapic_write(0x11 + 2 * pin, (u32)(entry >> 32));
	ioapic_write(0x10 + 2 * pin, (u32)entry);
}

void pic_mask(u16 mask)
{
	out8(0x21, (u8)mask);
	out8(0xa1, (u8)(mask >> 8));
}

void pic_init(void)
{
	static const struct {
		u16 port;
		u8 value;
	} sequence[] = {
		{ 0x20, 0x11 }, { 0xa0, 0x11 }, { 0x21, 0x20 }, { 0xa1, 0x28 }, /* ICW1, ICW2: vectors */
		{ 0x21, 0x04 }, { 0xa1, 0x02 }, { 0x21, 0x01 }, { 0xa1, 0x01 }, /* cascade, 8086 mode */
	};

	for (unsigned n = 0; n < ARRAY_SIZE(sequence); n++)
		out8(sequence[n].port, sequence[n].value);
	pic_mask(0xffff);
}
