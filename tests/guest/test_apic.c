/*
 * The local APIC's registers and timer, SDM vol. 3A chapter 11, in xAPIC and x2APIC mode.
 */
#include "guest.h"

#define A	     0x60
#define B	     0x70
#define ERROR_VECTOR 0x90
#define BASE	     0xfee00000ull
#define BASE_EN	     BIT(11)
#define BASE_X2	     BIT(10)
#define BASE_BSP     BIT(8)
#define LONG	     2000000 /* us */

CODE(do_rdmsr, "rdmsr")
CODE(do_wrmsr, "wrmsr")

static volatile u32 taken_a, taken_b, taken_error;

static void on_a(struct frame *f)
{
	(void)f;
	taken_a++;
	apic_eoi();
}

static void on_b(struct frame *f)
{
	(void)f;
	taken_b++;
	apic_eoi();
}

static void on_error(struct frame *f)
{
	(void)f;
	taken_error++;
	apic_eoi();
}

static void window(void) { asm volatile("sti; nop; nop; nop; cli" ::: "memory"); }

static bool arrives(void)
{
	taken_a = 0;
	window();
	return taken_a == 1;
}

static bool waits_for(volatile u32 *count, u32 wanted, u64 us)
{
	interrupts_on();
	for (u64 n = 0; n < us / 50 && *count < wanted; n++)
		delay_us(50);
	interrupts_off();
	return *count >= wanted;
}

/* ---- registers of both modes ---- */

static void test_registers(const char *mode)
{
	u32 version = apic_read(APIC_VERSION);

	check((version & 0xff) >= 0x10 && (version >> 16 & 0xff) >= 4, "3A 11.4.8: version and local vectors, %s",
	      mode);
	for (unsigned tpr = 0; tpr < 256; tpr += 0x33) {
		apic_write(APIC_TPR, tpr);
		if (apic_read(APIC_TPR) != tpr || read_cr8() != tpr >> 4 || apic_read(APIC_PPR) != tpr)
			check(false, "3A 11.8.3: TPR 0x%x", tpr);
	}
	apic_write(APIC_TPR, 0);
	check(apic_read(APIC_TPR) == 0 && read_cr8() == 0, "3A 11.8.3: TPR, PPR and CR8, %s", mode);

	for (unsigned reg = APIC_LVT_TIMER; reg <= APIC_LVT_ERROR; reg++) {
		if (reg == APIC_LVT_THERMAL)
			continue; /* not everywhere */
		apic_write(reg, LVT_MASKED | 0xab);
		if (apic_read(reg) != (LVT_MASKED | 0xab))
			check(false, "3A 11.5.1: LVT register 0x%x keeps mask and vector", reg);
	}
	apic_write(APIC_LVT_TIMER, B);
	apic_write(APIC_SVR, 0x0ff);
	check(apic_read(APIC_LVT_TIMER) & LVT_MASKED, "3A 11.4.7.2: software-disabled: local vectors are masked, %s",
	      mode);
	apic_write(APIC_LVT_TIMER, B);
	check(apic_read(APIC_LVT_TIMER) & LVT_MASKED, "3A 11.4.7.2: and stay so, %s", mode);
	apic_write(APIC_SVR, 0x1ff);
	check(apic_read(APIC_SVR) == 0x1ff, "3A 11.9: SVR, %s", mode);
	apic_init();
}

static void test_requests(const char *mode)
{
	u32 id = apic_id_of(0);
	bool x2 = read_msr(MSR_APIC_BASE) & BASE_X2;

	apic_ipi(0, ICR_SELF | A);
	check(apic_bit(APIC_IRR, A) && !apic_bit(APIC_ISR, A) && !apic_bit(APIC_TMR, A),
	      "3A 11.8.4: a request is in the IRR, %s", mode);
	check(arrives() && !apic_bit(APIC_IRR, A), "3A 11.6.1: to itself by shorthand, %s", mode);
	apic_ipi(0, ICR_ALL | A);
	check(arrives(), "3A 11.6.1: to all by shorthand, %s", mode);
	apic_ipi(id, A);
	check(arrives(), "3A 11.6.2.1: by physical ID, %s", mode);
	apic_ipi(id + 7, A);
	check(!arrives(), "3A 11.6.2.1: not by another's, %s", mode);
	apic_ipi(x2 ? 0xffffffff : 0xff, A);
	check(arrives(), "3A 11.6.2.1: to all by destination, %s", mode);
	if (x2) {
		check_equal(apic_read(APIC_LDR), (id >> 4) << 16 | 1u << (id & 15),
			    "3A 11.12.10.2: the logical ID is derived");
		apic_ipi(apic_read(APIC_LDR), ICR_LOGICAL | A);
		check(arrives(), "3A 11.12.10.2: by logical ID, %s", mode);
		apic_ipi(apic_read(APIC_LDR) ^ 3, ICR_LOGICAL | A);
		check(!arrives(), "3A 11.12.10.2: not by another's");
		write_msr(MSR_X2APIC + APIC_SELF_IPI, A);
		check(arrives(), "3A 11.12.11: SELF IPI");
	} else {
		apic_write(APIC_DFR, 0xffffffff);
		apic_write(APIC_LDR, 0x24000000);
		apic_ipi(0x04, ICR_LOGICAL | A);
		check(arrives(), "3A 11.6.2.2: by logical ID, flat");
		apic_ipi(0x18, ICR_LOGICAL | A);
		check(!arrives(), "3A 11.6.2.2: not without its bits");
		apic_write(APIC_DFR, 0x0fffffff);
		apic_ipi(0x26, ICR_LOGICAL | A);
		check(arrives(), "3A 11.6.2.2: cluster 2, bit 2");
		apic_ipi(0x34, ICR_LOGICAL | A);
		check(!arrives(), "3A 11.6.2.2: not another cluster");
		apic_write(APIC_DFR, 0xffffffff);
	}
	apic_ipi(id, 1 << 8 | A);
	check(arrives(), "3A 11.6.1: lowest priority, %s", mode);

	/* Software-disabled: fixed interrupts are not accepted. */
	apic_write(APIC_SVR, 0x0ff);
	apic_ipi(0, ICR_SELF | A);
	apic_write(APIC_SVR, 0x1ff);
	check(!arrives(), "3A 11.4.7.2: software-disabled: fixed interrupts are ignored, %s", mode);
	apic_eoi();
	check(true, "3A 11.8.5: EOI with nothing in service, %s", mode);
}

static void test_errors(const char *mode)
{
	set_handler(ERROR_VECTOR, on_error);
	taken_error = 0;
	apic_write(APIC_LVT_ERROR, ERROR_VECTOR);
	apic_write(APIC_ESR, 0);
	apic_write(APIC_ESR, 0);
	check_equal(apic_read(APIC_ESR), 0, "3A 11.5.3: no errors, %s", mode);
	apic_ipi(0, ICR_SELF | 5);
	window();
	apic_write(APIC_ESR, 0);
	check(apic_read(APIC_ESR) & (BIT(5) | BIT(6)), "3A 11.5.3: an illegal vector, %s", mode);
	check(taken_error >= 1, "3A 11.5.3: the error interrupt, %s", mode);
	apic_write(APIC_ESR, 0);
	apic_write(APIC_ESR, 0);
	check_equal(apic_read(APIC_ESR), 0, "3A 11.5.3: writing it clears it, %s", mode);
	apic_write(APIC_LVT_ERROR, LVT_MASKED);
	set_handler(ERROR_VECTOR, NULL);
}

/* ---- the timer (11.5.4) ---- */

/* Ticks of the counter in a millisecond, at a divider. */
static u64 rate(u32 divide_code)
{
	u32 start, end, from, to;

	apic_write(APIC_TIMER_DIVIDE, divide_code);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	apic_write(APIC_TIMER_INITIAL, 0xffffffff);
	from = pm_timer();
	start = apic_read(APIC_TIMER_CURRENT);
	delay_us(3000);
	to = pm_timer();
	end = apic_read(APIC_TIMER_CURRENT);
	apic_write(APIC_TIMER_INITIAL, 0);
	return (u64)(start - end) * (PM_TIMER_HZ / 1000) / ((to - from) & 0xffffff);
}

/* Being descheduled between two readings may spoil one measurement, not ten. */
static bool ratio_is(u32 code_1, u32 code_2, u64 wanted)
{
	u64 first = 0, second = 0;

	for (unsigned n = 0; n < 10; n++) {
		first = rate(code_1);
		second = rate(code_2) * wanted;
		if (second && first * 100 / second >= 95 && first * 100 / second <= 105)
			return true;
	}
	print("# rates %lu and %lu\n", first, second);
	return false;
}

static u32 ticks; /* of the timer, divided by 1, in a millisecond */

static void test_timer(const char *mode)
{
	u32 first, second;

	ticks = (u32)rate(0xb);
	check(ticks > 1000, "3A 11.5.4: the timer counts, %s: %u a millisecond", mode, ticks);
	check(ratio_is(0xb, 0x3, 16), "3A 11.5.4: divided by 16, %s", mode);
	check(ratio_is(0xb, 0xa, 128), "3A 11.5.4: divided by 128, %s", mode);

	set_handler(B, on_b);
	apic_write(APIC_TIMER_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, B);
	taken_b = 0;
	apic_write(APIC_TIMER_INITIAL, ticks / 2);
	check(apic_read(APIC_TIMER_INITIAL) == ticks / 2, "3A 11.5.4: the initial count can be read, %s", mode);
	check(waits_for(&taken_b, 1, LONG), "3A 11.5.4: one-shot, %s", mode);
	check(!waits_for(&taken_b, 2, 3000) && apic_read(APIC_TIMER_CURRENT) == 0,
	      "3A 11.5.4: once, and the count stays 0, %s", mode);
	apic_write(APIC_LVT_TIMER, B | LVT_PERIODIC);
	check(!waits_for(&taken_b, 2, 3000) && apic_read(APIC_TIMER_CURRENT) == 0,
	      "3A 11.5.4: nor does periodic mode start it again, %s", mode);
	apic_write(APIC_LVT_TIMER, B);
	/* On a busy host it may be too late. */
	for (unsigned n = 0; n < 20 && (n == 0 || apic_bit(APIC_IRR, B)); n++) {
		window();
		apic_write(APIC_TIMER_INITIAL, ticks);
		apic_write(APIC_TIMER_INITIAL, 0);
	}
	taken_b = 0;
	check(!waits_for(&taken_b, 1, 3000), "3A 11.5.4: an initial count of 0 stops it, %s", mode);
	apic_write(APIC_LVT_TIMER, B | LVT_MASKED);
	apic_write(APIC_TIMER_INITIAL, ticks / 4);
	check(!waits_for(&taken_b, 1, 2000) && !apic_bit(APIC_IRR, B), "3A 11.5.1: masked, it is lost, %s", mode);

	apic_write(APIC_LVT_TIMER, B | LVT_PERIODIC);
	apic_write(APIC_TIMER_INITIAL, ticks / 4);
	check(waits_for(&taken_b, 8, LONG), "3A 11.5.4: periodic, %s", mode);
	first = apic_read(APIC_TIMER_CURRENT);
	check(first > 0 && first <= ticks / 4, "3A 11.5.4: the count goes on from the initial one, %s", mode);
	apic_write(APIC_LVT_TIMER, LVT_MASKED | LVT_PERIODIC);
	second = taken_b;
	check(!waits_for(&taken_b, second + 2, 3000), "3A 11.5.1: masked, %s", mode);
	apic_write(APIC_TIMER_INITIAL, 0);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	set_handler(B, NULL);
}

static void test_deadline(const char *mode)
{
	u64 now, per_ms;

	if (!has_tsc_deadline()) {
		skip("3A 11.5.4.1: TSC-deadline mode", "not offered");
		return;
	}
	now = read_tsc();
	delay_us(1000);
	per_ms = read_tsc() - now;
	set_handler(B, on_b);
	taken_b = 0;
	write_msr(MSR_TSC_DEADLINE, read_tsc());
	check(read_msr(MSR_TSC_DEADLINE) == 0 && !waits_for(&taken_b, 1, 2000),
	      "3A 11.5.4.1: in another mode writes to IA32_TSC_DEADLINE are ignored, %s", mode);
	apic_write(APIC_LVT_TIMER, B | LVT_TSC_DEADLINE);
	apic_write(APIC_TIMER_INITIAL, 1000);
	check(!waits_for(&taken_b, 1, 2000) && apic_read(APIC_TIMER_CURRENT) == 0,
	      "3A 11.5.4.1: nor does the initial count anything, %s", mode);
	u64 deadline = read_tsc() + per_ms;
	write_msr(MSR_TSC_DEADLINE, deadline);
	interrupts_on();
	while (!taken_b && read_tsc() < deadline + 2000 * per_ms)
		cpu_pause();
	now = read_tsc();
	interrupts_off();
	check(taken_b == 1 && now >= deadline, "3A 11.5.4.1: the interrupt comes at the deadline, not before, %s",
	      mode);
	check_equal(read_msr(MSR_TSC_DEADLINE), 0, "3A 11.5.4.1: and disarms it, %s", mode);
	write_msr(MSR_TSC_DEADLINE, 1);
	check(waits_for(&taken_b, 2, LONG), "3A 11.5.4.1: one that has passed: at once, %s", mode);
	for (unsigned n = 0; n < 20 && (n == 0 || apic_bit(APIC_IRR, B)); n++) {
		window();
		deadline = read_tsc() + 5 * per_ms;
		write_msr(MSR_TSC_DEADLINE, deadline);
		now = read_msr(MSR_TSC_DEADLINE);
		write_msr(MSR_TSC_DEADLINE, 0);
	}
	check_equal(now, deadline, "3A 11.5.4.1: it can be read, %s", mode);
	u32 before = taken_b;
	check(!waits_for(&taken_b, before + 1, 8000), "3A 11.5.4.1: 0 disarms it, %s", mode);
	apic_write(APIC_LVT_TIMER, LVT_MASKED);
	set_handler(B, NULL);
}

/* ---- xAPIC only ---- */

static void test_xapic(void)
{
	check_equal(read_msr(MSR_APIC_BASE), BASE | BASE_EN | BASE_BSP,
		    "3A 11.4.4: IA32_APIC_BASE of the boot processor");
	check_equal(apic_read(APIC_ID) >> 24, cpuid(1, 0).b >> 24, "3A 11.4.6: the ID is CPUID's");
	apic_write(APIC_LDR, 0x5a123456);
	check_equal(apic_read(APIC_LDR), 0x5a000000, "3A 11.6.2.2: LDR has 8 bits");
	apic_write(APIC_DFR, 0);
	check_equal(apic_read(APIC_DFR), 0x0fffffff, "3A 11.6.2.2: DFR has 4");
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_ICR_HIGH, 0x12000000);
	check_equal(apic_read(APIC_ICR_HIGH), 0x12000000, "3A 11.6.1: ICR, upper half");
	apic_ipi(7, A);
	check_equal(apic_read(APIC_ICR) & 0xfff, A, "3A 11.6.1: ICR, lower half");

	write_msr(MSR_APIC_BASE, 0xfef00000 | BASE_EN);
	check_equal(*(volatile u32 *)(0xfef00000 + APIC_VERSION * 16) & 0xff, 0x14, "3A 11.4.5: the page can be moved");
	write_msr(MSR_APIC_BASE, BASE | BASE_EN);
	check_equal(read_msr(MSR_APIC_BASE), BASE | BASE_EN | BASE_BSP, "3A 11.4.4: BSP is not written");
}

static void test_base(void)
{
	struct trap t;

	t = KERNEL(do_rdmsr, .rcx = MSR_X2APIC + APIC_VERSION);
	check_fault(&t, EXC_GP, 0, "3A 11.12.2: no x2APIC registers in xAPIC mode");
	t = KERNEL(do_wrmsr, .rcx = MSR_APIC_BASE, .rax = (u32)BASE | BASE_EN | 1);
	check_fault(&t, EXC_GP, 0, "3A 11.4.4: reserved bits of IA32_APIC_BASE");
	t = KERNEL(do_wrmsr, .rcx = MSR_APIC_BASE, .rax = (u32)BASE | BASE_EN, .rdx = 0x80000000);
	check_fault(&t, EXC_GP, 0, "3A 11.4.4: an address wider than MAXPHYADDR");
	t = KERNEL(do_wrmsr, .rcx = MSR_APIC_BASE, .rax = (u32)BASE | BASE_X2);
	check_fault(&t, EXC_GP, 0, "3A 11.12.5: x2APIC without enable");
	write_msr(MSR_APIC_BASE, BASE);
	check(!(cpuid(1, 0).d & BIT(9)), "3A 11.4.3: globally disabled: CPUID says there is none");
	if (has_x2apic()) {
		t = KERNEL(do_wrmsr, .rcx = MSR_APIC_BASE, .rax = (u32)BASE | BASE_EN | BASE_X2);
		check_fault(&t, EXC_GP, 0, "3A 11.12.5.1: from disabled straight to x2APIC");
	}
	write_msr(MSR_APIC_BASE, BASE | BASE_EN);
	check(cpuid(1, 0).d & BIT(9), "3A 11.4.3: enabled again");
	check_equal(apic_read(APIC_SVR), 0xff, "3A 11.4.7.1: as after a reset");
	apic_init();
}

/* ---- x2APIC only (11.12) ---- */

static void x2_faults(bool write, unsigned reg, u64 value, const char *what)
{
	struct trap t = write ? KERNEL(do_wrmsr, .rcx = MSR_X2APIC + reg, .rax = (u32)value, .rdx = value >> 32)
			      : KERNEL(do_rdmsr, .rcx = MSR_X2APIC + reg);

	check_fault(&t, EXC_GP, 0, "3A 11.12.1.2: x2APIC: %s", what);
}

static void test_x2apic(void)
{
	struct trap t;

	if (!has_x2apic()) {
		skip("3A 11.12: x2APIC mode", "not offered");
		return;
	}
	write_msr(MSR_APIC_BASE, BASE | BASE_EN | BASE_X2);
	apic_init();
	check_equal(read_msr(MSR_X2APIC + APIC_ID), apic_id_of(0), "3A 11.12.5.1: x2APIC ID");
	test_registers("x2APIC");
	test_requests("x2APIC");
	test_errors("x2APIC");
	test_timer("x2APIC");
	test_deadline("x2APIC");
	x2_faults(false, APIC_DFR, 0, "DFR is gone");
	x2_faults(false, APIC_ICR_HIGH, 0, "the upper ICR is gone");
	x2_faults(false, 0x00, 0, "a register that there is not");
	x2_faults(false, APIC_EOI, 0, "EOI cannot be read");
	x2_faults(false, APIC_SELF_IPI, 0, "SELF IPI cannot be read");
	x2_faults(true, APIC_ID, 1, "the ID is read-only");
	x2_faults(true, APIC_VERSION, 0, "the version is read-only");
	x2_faults(true, APIC_LDR, 1, "LDR is read-only");
	x2_faults(true, APIC_PPR, 0, "PPR is read-only");
	x2_faults(true, APIC_IRR, 0, "IRR is read-only");
	x2_faults(true, APIC_TIMER_CURRENT, 0, "the current count is read-only");
	x2_faults(true, APIC_EOI, 1, "EOI of something");
	x2_faults(true, APIC_ESR, 1, "ESR of something");
	x2_faults(true, APIC_TPR, 0x100, "reserved bits of TPR");
	x2_faults(true, APIC_TPR, BIT(32), "the upper half of TPR");
	x2_faults(true, APIC_SVR, BIT(20), "reserved bits of SVR");
	x2_faults(true, APIC_LVT_TIMER, BIT(20), "reserved bits of an LVT register");
	x2_faults(true, APIC_SELF_IPI, 0x100, "reserved bits of SELF IPI");
	t = KERNEL(do_wrmsr, .rcx = MSR_APIC_BASE, .rax = (u32)BASE | BASE_EN);
	check_fault(&t, EXC_GP, 0, "3A 11.12.5.1: from x2APIC straight to xAPIC");
	write_msr(MSR_APIC_BASE, BASE);
	write_msr(MSR_APIC_BASE, BASE | BASE_EN);
	apic_init();
	check_equal(apic_read(APIC_ID) >> 24, apic_id_of(0), "3A 11.12.5.1: back by way of disabled");
}

void guest(void)
{
	smp_start(); /* for apic_id_of() */
	set_handler(A, on_a);
	test_xapic();
	test_registers("xAPIC");
	test_requests("xAPIC");
	test_errors("xAPIC");
	test_timer("xAPIC");
	test_deadline("xAPIC");
	test_base();
	test_x2apic();
}
