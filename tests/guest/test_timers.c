/*
 * The clocks of a PC against each other: PM timer, TSC, interval timer (8254), real-time clock (MC146818), local APIC timer.
 * A host that is busy may take any processor away at any time, so a measurement that is off is made again.
 */
#include "guest.h"

#define B	    0x70
#define PIC_TIMER   0x20
#define PIC_RTC	    0x28
#define LONG	    3000000 /* us */
#define TRIES	    10
#define MSR_TSC_AUX 0xc0000103

/* ---- measuring ---- */

static volatile u32 taken;

/* PM timer ticks between two readings less than 4 s apart. */
static u32 since(u32 start) { return (pm_timer() - start) & 0xffffff; }

static bool near(u64 got, u64 wanted, unsigned percent)
{
	return got * 100 >= wanted * (100 - percent) && got * 100 <= wanted * (100 + percent);
}

/*
 * measure() is a duration (or a rate that a busy host makes no larger) that should be `wanted`, or comes near it once in several
 * times. Timers of a host that has no processor free come late, which makes what is measured longer, seldom shorter.
 */
static void check_measure(u64 (*measure)(void), u64 wanted, unsigned percent, const char *name)
{
	u64 got = 0, early = 0;

	for (unsigned n = 0; n < TRIES; n++) {
		got = measure();
		if (near(got, wanted, percent)) {
			check(true, "%s", name);
			return;
		}
		/* Ticks that a busy host let come late are followed at once by those that are due. Virtual time is exact. */
		early += got < wanted / 2;
	}
	if (early < TRIES && !time_is_exact()) {
		skip(name, "the host is busy");
		return;
	}
	check(false, "%s", name);
	print("# measured %lu, expected %lu\n", got, wanted);
}

static u64 tsc_hz;

static u64 measure_tsc(void)
{
	u32 start = pm_timer();
	u64 tsc = read_tsc();

	delay_us(5000);
	tsc = read_tsc() - tsc;
	return tsc * PM_TIMER_HZ / since(start);
}

/* ---- TSC and PM timer ---- */

static void test_tsc(void)
{
	struct cpuid crystal = cpuid(0x15, 0);
	u64 last = read_tsc();
	bool good = true;

	tsc_hz = measure_tsc();
	check(tsc_hz > 100000000, "2 RDTSC: %lu MHz", tsc_hz / 1000000);
	check_measure(measure_tsc, tsc_hz, 2, "2 RDTSC: at a constant rate against the PM timer");
	if (cpuid(0, 0).a >= 0x15 && crystal.a && crystal.c)
		check_measure(measure_tsc, (u64)crystal.c * crystal.b / crystal.a, 2,
			      "2 CPUID: leaf 0x15 says that rate");
	else
		skip("2 CPUID: leaf 0x15", "not offered");
	for (unsigned n = 0; n < 10000; n++) {
		u64 now = read_tsc();

		good &= now > last;
		last = now;
	}
	check(good, "3B 17.17: the TSC only rises");
	u32 pm = pm_timer();
	good = true;
	for (unsigned n = 0; n < 10000; n++) {
		u32 now = pm_timer();

		good &= ((now - pm) & 0xffffff) < 0x800000;
		pm = now;
	}
	check(good, "ACPI 4.8.2.1: nor does the PM timer go back");
}

CODE(do_rdtscp, "rdtscp")

static void test_tsc_registers(void)
{
	struct trap t;
	u64 before, after, adjust;

	write_msr(MSR_TSC_AUX, 0x1234);
	t = USER_MODE(do_rdtscp);
	check(t.vector == END_VECTOR && t.rcx == 0x1234, "2 RDTSCP: IA32_TSC_AUX");
	write_msr(MSR_TSC, BIT(40));
	after = read_tsc();
	check(after >= BIT(40) && after < BIT(40) + tsc_hz, "3B 17.17.3: the TSC can be written");
	write_msr(MSR_TSC, 0);
	if (!(cpuid(7, 0).b & 2)) {
		skip("3B 17.17.3: IA32_TSC_ADJUST", "not offered");
		return;
	}
	adjust = read_msr(MSR_TSC_ADJUST);
	before = read_tsc();
	write_msr(MSR_TSC_ADJUST, adjust + BIT(42));
	after = read_tsc();
	check(after - before >= BIT(42) && after - before < BIT(42) + tsc_hz,
	      "3B 17.17.3: IA32_TSC_ADJUST moves the TSC");
	before = read_tsc();
	write_msr(MSR_TSC, before + BIT(43));
	check(adjust + BIT(42) + BIT(43) - read_msr(MSR_TSC_ADJUST) < tsc_hz,
	      "3B 17.17.3: and is moved by writing the TSC");
	write_msr(MSR_TSC_ADJUST, adjust);
}

/* ---- 8254 ---- */

#define PIT_CONTROL 0x43
#define GATE_PORT   0x61

static void pit_write(unsigned channel, u8 mode, u16 count)
{
	out8(PIT_CONTROL, (u8)(channel << 6 | 0x30 | mode << 1));
	out8(0x40 + channel, (u8)count);
	out8(0x40 + channel, (u8)(count >> 8));
}

static u16 pit_read(unsigned channel)
{
	u8 low;

	out8(PIT_CONTROL, (u8)(channel << 6)); /* latch */
	low = in8(0x40 + channel);
	return (u16)(low | in8(0x40 + channel) << 8);
}

/* Channel 2 through its gate, as kernels calibrate the TSC: PM timer ticks for 5 ms. */
static u64 measure_channel_2(void)
{
	u32 start;

	out8(GATE_PORT, in8(GATE_PORT) & ~3);
	pit_write(2, 0, PIT_HZ / 200);
	start = pm_timer();
	out8(GATE_PORT, (u8)((in8(GATE_PORT) & ~2) | 1));
	while (!(in8(GATE_PORT) & 0x20) && since(start) < PM_TIMER_HZ)
		cpu_pause();
	return since(start);
}

/* 2000 is what the counter falls by in as many PIT ticks. */
static u64 measure_count(void)
{
	u16 first = pit_read(2);
	u32 start = pm_timer();

	while (since(start) < 6000)
		cpu_pause();
	return (u16)(first - pit_read(2)) * 6000ull / since(start);
}

static void count_pic(struct frame *f)
{
	taken++;
	if (f->vector >= PIC_RTC)
		out8(0xa0, 0x20);
	out8(0x20, 0x20);
}

static void count_rtc(struct frame *f)
{
	out8(0x70, 0x0c);
	in8(0x71); /* register C: or there is no next one */
	count_pic(f);
}

static void count_apic(struct frame *f)
{
	(void)f;
	taken++;
	apic_eoi();
}

static bool wait_taken(u32 count, u64 us)
{
	interrupts_on();
	for (u64 n = 0; n < us / 20 && taken < count; n++)
		delay_us(20);
	interrupts_off();
	return taken >= count;
}

/* PM timer ticks from the first to the 11th interrupt. */
static u64 measure_interrupts(void)
{
	u32 start;

	taken = 0;
	if (!wait_taken(1, LONG))
		return 0;
	taken = 0;
	start = pm_timer();
	if (!wait_taken(10, LONG))
		return 0;
	return since(start);
}

/* How much of the time channel 2's output is high, in percent. */
static u64 measure_high(u8 mode)
{
	u64 high = 0, all = 0;
	u32 start;

	pit_write(2, mode, 1000);
	for (start = pm_timer(); since(start) < PM_TIMER_HZ / 200; all++)
		high += in8(GATE_PORT) >> 5 & 1;
	return high * 100 / all;
}

static u64 measure_high_mode_2(void) { return measure_high(2); }

static u64 measure_high_mode_3(void) { return measure_high(3); }

static void test_pit(void)
{
	u8 status, count_low;

	check_measure(measure_channel_2, PM_TIMER_HZ / 200, 3, "8254: channel 2, mode 0: 5 ms");
	pit_write(2, 0, 0x4000);
	out8(GATE_PORT, (u8)((in8(GATE_PORT) & ~3) | 1));
	check(!(in8(GATE_PORT) & 0x20), "8254: mode 0: the output is low while it counts");
	pit_write(2, 2, 0);
	check_measure(measure_count, 2000, 3, "8254: mode 2: counts at 1.193182 MHz");
	out8(GATE_PORT, in8(GATE_PORT) & ~1);
	u16 stopped = pit_read(2);
	delay_us(200);
	check_equal(pit_read(2), stopped, "8254: the gate low stops it");
	out8(GATE_PORT, in8(GATE_PORT) | 1);

	check_measure(measure_high_mode_2, 100, 25, "8254: mode 2: the output is nearly always high");
	check_measure(measure_high_mode_3, 50, 25, "8254: mode 3: the output is high half of the time");
	pit_write(2, 3, 0x1000);
	out8(PIT_CONTROL, 0xc8); /* read-back: count and status of channel 2 */
	status = in8(0x42);
	count_low = in8(0x42);
	check((status & 0x3f) == 0x36, "8254: read-back gives mode and access");
	(void)count_low;
	in8(0x42);
	out8(PIT_CONTROL, 0x80); /* latch twice: the first stays */
	delay_us(50);
	out8(PIT_CONTROL, 0x80);
	u16 latched = (u16)(in8(0x42) | in8(0x42) << 8);
	check(latched != 0 && latched <= 0x1000, "8254: a latched count");
	out8(PIT_CONTROL, 0x80 | 0x10); /* low byte only */
	out8(0x42, 0x80);
	check(in8(0x42) <= 0x80, "8254: access to the low byte only");

	set_handler(PIC_TIMER, count_pic);
	apic_write(APIC_LVT_LINT0, 7 << 8);
	pic_mask(0xfffe);
	pit_write(0, 2, PIT_HZ / 1000);
	check_measure(measure_interrupts, PM_TIMER_HZ / 100, 5, "8254: channel 0, mode 2: 10 interrupts in 10 ms");
	pit_write(0, 3, PIT_HZ / 2000);
	check_measure(measure_interrupts, PM_TIMER_HZ / 200, 8, "8254: mode 3: 10 in 5 ms");
	pit_write(0, 0, 0xffff);
	pic_mask(0xffff);
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
	pic_init();
}

/* ---- the real-time clock ---- */

static u8 cmos_read(u8 reg)
{
	out8(0x70, reg);
	return in8(0x71);
}

static void cmos_write(u8 reg, u8 value)
{
	out8(0x70, reg);
	out8(0x71, value);
}

static u8 binary(u8 bcd) { return (u8)((bcd >> 4) * 10 + (bcd & 15)); }

static void test_rtc(void)
{
	u8 a = cmos_read(0x0a), b = cmos_read(0x0b), kept;

	check(b & 2, "MC146818: 24 hours");
	check(!(b & 4), "MC146818: BCD");
	for (unsigned n = 0; n < 100 && (cmos_read(0x0a) & 0x80); n++)
		delay_us(100); /* update in progress */
	check(binary(cmos_read(0)) < 60 && binary(cmos_read(2)) < 60 && binary(cmos_read(4)) < 24 &&
		      binary(cmos_read(7)) - 1u < 31 && binary(cmos_read(8)) - 1u < 12,
	      "MC146818: a date");
	check(cmos_read(0x0d) & 0x80, "MC146818: valid RAM and time");
	kept = cmos_read(0x50);
	cmos_write(0x50, 0x5a);
	check(cmos_read(0x50) == 0x5a, "MC146818: its RAM");
	cmos_write(0x50, kept);

	set_handler(PIC_RTC, count_rtc);
	apic_write(APIC_LVT_LINT0, 7 << 8);
	pic_mask((u16) ~(BIT(8) | BIT(2)));
	cmos_write(0x0a, (a & 0x70) | 6); /* 1,024 Hz */
	cmos_read(0x0c);
	cmos_write(0x0b, b | 0x40);
	check_measure(measure_interrupts, PM_TIMER_HZ * 10ull / 1024, 5, "MC146818: periodic interrupts at 1,024 Hz");
	cmos_write(0x0a, (a & 0x70) | 4);
	check_measure(measure_interrupts, PM_TIMER_HZ * 10ull / 4096, 8, "MC146818: and at 4,096 Hz");
	set_handler(PIC_RTC, count_pic); /* does not read register C */
	taken = 0;
	wait_taken(1, LONG);
	taken = 0;
	check(!wait_taken(2, 5000), "MC146818: none before register C is read");
	check((cmos_read(0x0c) & 0xc0) == 0xc0, "MC146818: which says what it was");
	cmos_write(0x0b, b);
	cmos_write(0x0a, a);
	cmos_read(0x0c);
	pic_mask(0xffff);
	apic_write(APIC_LVT_LINT0, LVT_MASKED);
	pic_init();
}

/* ---- the local APIC's, and HLT ---- */

static void test_apic_timer(void)
{
	u32 start, end;
	u64 hz;

	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	apic_write(APIC_TIMER_INITIAL, 0xffffffff);
	start = pm_timer();
	delay_us(5000);
	end = apic_read(APIC_TIMER_CURRENT);
	hz = (u64)(0xffffffff - end) * PM_TIMER_HZ / since(start);
	set_handler(B, count_apic);
	apic_write(APIC_LVT_TIMER, B | LVT_PERIODIC);
	apic_write(APIC_TIMER_INITIAL, (u32)(hz / 1000));
	check_measure(measure_interrupts, PM_TIMER_HZ / 100, 5,
		      "3A 11.5.4: 10 periods of 1 ms of the local APIC's timer");
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
}

/* TSC ticks per PM timer tick times 1000, over a sleep. */
static u64 measure_sleep(void)
{
	u32 start = pm_timer();
	u64 tsc = read_tsc();

	apic_write(APIC_TIMER_INITIAL, 5000000);
	asm volatile("sti; hlt; cli" ::: "memory");
	tsc = read_tsc() - tsc;
	return tsc * 1000 / since(start);
}

static void test_sleep(void)
{
	apic_write(APIC_LVT_TIMER, B);
	check_measure(measure_sleep, tsc_hz * 1000 / PM_TIMER_HZ, 2, "3B 17.17.1: the TSC goes on in HLT");
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	set_handler(B, NULL);
}

void guest(void)
{
	test_tsc();
	test_tsc_registers();
	test_pit();
	test_rtc();
	test_apic_timer();
	test_sleep();
}
