/*
 * Guests that count ticks keep time: no interrupt of a periodic timer is lost because the host was late, as long as the guest takes
 * them. Late ones come later, so that what is counted never runs ahead of the time, and catches up with it. What is late because
 * the guest itself had interrupts disabled nobody can tell from the rest; but with virtual time nothing is late, and ticks are lost
 * as on hardware.
 */
#include "guest.h"

#define PIC_TIMER   0x20
#define VECTOR	    0x51
#define LATE_US	    20000
#define DURATION_US 400000
#define PATIENCE_US 4000000

static volatile u32 taken;
static bool exact;

static void count_pic(struct frame *f)
{
	(void)f;
	taken++;
	out8(0x20, 0x20);
}

static void count_apic(struct frame *f)
{
	(void)f;
	taken++;
	apic_eoi();
}

/* The PM timer has 24 bits: looked at often enough it tells all time. */
static u32 last_pm;
static u64 pm_ticks;

static void start_time(void)
{
	last_pm = pm_timer();
	pm_ticks = 0;
}

static u64 elapsed_us(void)
{
	u32 now = pm_timer();

	pm_ticks += (now - last_pm) & 0xffffff;
	last_pm = now;
	return pm_ticks * 1000000 / PM_TIMER_HZ;
}

/* So that the host takes the processor away; where time is exact nothing does, and what is waited for comes after HLT. */
static void use_time(void)
{
	if (exact)
		asm volatile("hlt");
	else
		for (volatile unsigned n = 0; n < 1000; n++)
			;
}

/* start() makes interrupts come at a rate of `mhz` thousandths of a hertz. */
static void check_ticks(const char *name, void (*start)(void), u64 mhz)
{
	u64 us, ahead = 0, wanted, late = 0;

	start_time();
	start();
	taken = 0;
	delay_us(LATE_US);
	interrupts_on();
	do {
		u32 had = taken;

		us = elapsed_us();
		ahead += had > us * mhz / 1000000000 + 2;
		use_time();
	} while (us < DURATION_US);
	late = exact ? LATE_US * mhz / 1000000000 : 0;
	wanted = us * mhz / 1000000000 - 1 - late;
	print("# %s: %u of %lu after %lu us\n", name, taken, wanted, us);
	while (taken < wanted && elapsed_us() < PATIENCE_US)
		use_time();
	interrupts_off();
	check(taken >= wanted, "%s: no tick is lost", name);
	check(!ahead, "%s: none comes before its time", name);
	if (exact)
		check(taken < wanted + 6, "%s: but while interrupts are disabled", name);
}

#define PIT_COUNT ((PIT_HZ + 500) / 1000)
#define PIT_MHZ	  (PIT_HZ * 1000ull / PIT_COUNT)

static void pit_start(void)
{
	out8(0x43, 0x34);
	out8(0x40, (u8)PIT_COUNT);
	out8(0x40, (u8)(PIT_COUNT >> 8));
}

static void pit_stop(void) { out8(0x43, 0x30); }

static void test_pit(void)
{
	set_handler(PIC_TIMER, count_pic);
	apic_write(APIC_LVT_LINT0, 7 << 8);
	pic_mask(0xfffe);
	check_ticks("8254 and 8259", pit_start, PIT_MHZ);
	pit_stop();
	pic_mask(0xffff);
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
	pic_init();

	set_handler(VECTOR, count_apic);
	ioapic_route(2, VECTOR);
	check_ticks("8254 and IOAPIC", pit_start, PIT_MHZ);
	pit_stop();
	ioapic_route(2, BIT(16));
}

static u64 apic_hz;

static void apic_timer_start(void) { apic_write(APIC_TIMER_INITIAL, (u32)(apic_hz / 1000)); }

static void test_apic_timer(void)
{
	apic_hz = cpuid(0x40000010, 0).b * 1000ull;

	if (!apic_hz) {
		skip("local APIC's timer", "no leaf says how fast it is");
		return;
	}
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR | LVT_PERIODIC);
	check_ticks("local APIC's timer", apic_timer_start, apic_hz * 1000 / (apic_hz / 1000));
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

void guest(void)
{
	exact = time_is_exact();
	pm_timer(); /* the first time it is looked for */
	test_pit();
	test_apic_timer();
}
