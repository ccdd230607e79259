/*
 * The local APIC: reset, priorities, inter-processor interrupts, errors, its timer in three modes, x2APIC and the ways into and
 * out of it.
 */
#include "lib/board.h"

#include <errno.h>
#include <sched.h>

#define TIMER_LVT  0x320
#define LINT0	   0x350
#define LVT_ERR	   0x370
#define INITIAL	   0x380
#define CURRENT	   0x390
#define DIVIDE	   0x3e0
#define SVR	   0xf0
#define ESR	   0x280
#define ICR	   0x300
#define ICR_HIGH   0x310
#define MASKED	   0x10000
#define APIC_BASE  0x1b
#define DEADLINE   0x6e0
#define X2(offset) (0x800 + ((offset) >> 4))

static int setup(void **state)
{
	struct board *b = board_create(BOARD_CPUS);

	for (unsigned i = 0; i < BOARD_CPUS; i++)
		lapic_wr(b, i, SVR, 0x1ff);
	*state = b;
	return 0;
}

static struct lapic *apic(struct board *b, unsigned cpu) { return irq_lapic(b->bus, cpu); }
static int take(struct board *b, unsigned cpu) { return lapic_take(apic(b, cpu)); }
static void eoi(struct board *b, unsigned cpu) { lapic_wr(b, cpu, 0xb0, 0); }

static uint64_t rdmsr(struct board *b, unsigned cpu, uint32_t msr)
{
	uint64_t value = 0;

	assert_int_equal(lapic_msr_read(apic(b, cpu), msr, &value), 0);
	return value;
}

static void wrmsr(struct board *b, unsigned cpu, uint32_t msr, uint64_t value)
{
	assert_int_equal(lapic_msr_write(apic(b, cpu), msr, value), 0);
}

static void wrmsr_faults(struct board *b, unsigned cpu, uint32_t msr, uint64_t value)
{
	assert_int_equal(lapic_msr_write(apic(b, cpu), msr, value), -1);
}

static void send(struct board *b, unsigned from, uint8_t to, uint32_t icr)
{
	lapic_wr(b, from, ICR_HIGH, (uint32_t)to << 24);
	lapic_wr(b, from, ICR, icr);
}

static void after_power_on(void **state)
{
	struct board *b = *state;

	bus_reset(b->bus);
	assert_int_equal(rdmsr(b, 0, APIC_BASE), 0xfee00900);
	assert_int_equal(rdmsr(b, 1, APIC_BASE), 0xfee00800);
	assert_int_equal(lapic_rd(b, 1, 0x20), 1 << 24);
	assert_int_equal(lapic_rd(b, 1, 0x30), 0x50014);
	assert_int_equal(lapic_rd(b, 1, SVR), 0xff);
	assert_int_equal(lapic_rd(b, 1, LINT0), MASKED);
	assert_int_equal(lapic_rd(b, 1, 0xe0), 0xffffffff);
	/* What a firmware leaves on the boot processor. */
	assert_int_equal(lapic_rd(b, 0, SVR), 0x1ff);
	assert_int_equal(lapic_rd(b, 0, LINT0), 0x700);
	assert_int_equal(lapic_rd(b, 0, 0x360), 0x400);
	assert_true(lapic_claims(apic(b, 0), gpa(0xfee00fff)));
	assert_false(lapic_claims(apic(b, 0), gpa(0xfee01000)));
}

static void init_keeps_the_base_only(void **state)
{
	struct board *b = *state;

	wrmsr(b, 1, APIC_BASE, 0xfee00c00);
	wrmsr(b, 1, X2(0x80), 0x30);
	lapic_reset(apic(b, 1), true);
	assert_int_equal(rdmsr(b, 1, APIC_BASE), 0xfee00c00);
	assert_int_equal(rdmsr(b, 1, X2(0x80)), 0);
	assert_int_equal(rdmsr(b, 1, X2(SVR)), 0xff);
	assert_int_equal(rdmsr(b, 1, X2(0xd0)), 2);
}

static void highest_priority_first_and_nesting(void **state)
{
	struct board *b = *state;

	send(b, 1, 0, 0x41);
	send(b, 1, 0, 0x52);
	send(b, 1, 0, 0x51);
	assert_int_equal(take(b, 0), 0x52);
	assert_int_equal(lapic_rd(b, 0, 0xa0), 0x50); /* PPR */
	assert_int_equal(take(b, 0), -1);
	send(b, 1, 0, 0x60);
	assert_int_equal(take(b, 0), 0x60);
	eoi(b, 0);
	assert_int_equal(take(b, 0), -1);
	b->cpus[0].interrupts = 0;
	eoi(b, 0);
	assert_int_equal(b->cpus[0].interrupts, 1); /* told that 0x51 can come now */
	assert_int_equal(take(b, 0), 0x51);
	eoi(b, 0);
	assert_int_equal(take(b, 0), 0x41);
	eoi(b, 0);
	eoi(b, 0); /* nothing in service: no effect */
	assert_int_equal(take(b, 0), -1);
}

static void task_priority_holds_back(void **state)
{
	struct board *b = *state;

	lapic_set_tpr(apic(b, 0), 5);
	assert_int_equal(lapic_rd(b, 0, 0x80), 0x50);
	send(b, 1, 0, 0x5f);
	assert_false(lapic_pending(apic(b, 0)));
	assert_int_equal(take(b, 0), -1);
	b->cpus[0].interrupts = 0;
	lapic_wr(b, 0, 0x80, 0x4f);
	assert_int_equal(b->cpus[0].interrupts, 1);
	assert_int_equal(lapic_tpr(apic(b, 0)), 4);
	assert_true(lapic_pending(apic(b, 0)));
	assert_int_equal(take(b, 0), 0x5f);
}

static void ipi_shorthands(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 1, ICR, 1 << 18 | 0x41);
	lapic_wr(b, 1, ICR, 2 << 18 | 0x51);
	lapic_wr(b, 1, ICR, 3 << 18 | 0x61);
	assert_int_equal(take(b, 0), 0x61);
	assert_int_equal(take(b, 1), 0x51);
	eoi(b, 1);
	assert_int_equal(take(b, 1), 0x41);
	eoi(b, 0);
	assert_int_equal(take(b, 0), 0x51);
	lapic_wr(b, 1, ICR, 3 << 18 | 4 << 8); /* NMI to the others */
	assert_int_equal(b->cpus[1].nmis, 0);
	assert_int_equal(b->cpus[3].nmis, 1);
}

static void starting_a_cpu(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 1, SVR, 0xff); /* INIT and SIPI come to a software-disabled APIC too */
	send(b, 0, 1, 0xc500);
	assert_int_equal(b->cpus[1].inits, 1);
	send(b, 0, 1, 0x8500); /* de-assert: nothing */
	assert_int_equal(b->cpus[1].inits, 1);
	send(b, 0, 1, 0x0699);
	assert_int_equal(b->cpus[1].sipis, 1);
	assert_int_equal(b->cpus[1].sipi_vector, 0x99);
	assert_int_equal(b->cpus[2].inits + b->cpus[2].sipis, 0);
	assert_int_equal(lapic_rd(b, 0, ICR) & 0x1000, 0); /* delivered */
}

static void software_disabled_takes_no_interrupts(void **state)
{
	struct board *b = *state;

	send(b, 0, 1, 0x41);
	lapic_wr(b, 1, SVR, 0xff);
	send(b, 0, 1, 0x51);
	assert_int_equal(take(b, 1), 0x41); /* what was pending stays so */
	assert_int_equal(take(b, 1), -1);
	lapic_wr(b, 1, LINT0, 0x700);
	assert_int_equal(lapic_rd(b, 1, LINT0), MASKED | 0x700);
	lapic_wr(b, 1, SVR, 0x1ff);
	assert_int_equal(lapic_rd(b, 1, LINT0), MASKED | 0x700); /* enabling unmasks nothing */
}

static void errors_are_latched_and_interrupt(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 0, LVT_ERR, 0xfe);
	lapic_wr(b, 0, ICR, 1 << 18 | 0x0f); /* illegal vector */
	assert_int_equal(take(b, 0), 0xfe);
	assert_int_equal(lapic_rd(b, 0, ESR), 0);
	lapic_wr(b, 0, ESR, 0);
	assert_int_equal(lapic_rd(b, 0, ESR), 0x20);
	lapic_wr(b, 0, ESR, 0);
	assert_int_equal(lapic_rd(b, 0, ESR), 0);
	lapic_rd(b, 0, 0x2f0); /* no such register */
	lapic_wr(b, 0, 0x000, 1);
	irq_msi(b->bus, 0xfee00000, 0x05);
	lapic_wr(b, 0, ESR, 0);
	assert_int_equal(lapic_rd(b, 0, ESR), 0xc0);
	lapic_wr(b, 0, LVT_ERR, 0x01); /* an error vector that is illegal itself */
	irq_msi(b->bus, 0xfee00000, 0x05);
	assert_int_equal(lapic_rd(b, 0, 0x200), 0);
}

static void narrow_and_wide_accesses(void **state)
{
	struct board *b = *state;

	assert_int_equal(lapic_mmio_read(apic(b, 0), 0x30, 1), 0x14);
	assert_int_equal(lapic_mmio_read(apic(b, 0), 0x32, 2), 0x05);
	assert_int_equal(lapic_mmio_read(apic(b, 0), 0x34, 4), 0);
	assert_int_equal(lapic_mmio_read(apic(b, 0), 0x30, 8), 0x50014);
	lapic_mmio_write(apic(b, 0), 0x80, 1, 0x30);
	lapic_mmio_write(apic(b, 0), 0x84, 4, 0x30);
	assert_int_equal(lapic_rd(b, 0, 0x80), 0);
}

static void the_8259_through_lint0(void **state)
{
	struct board *b = *state;
	struct irq_line line = board_line(b, 3);

	board_pic_init(b);
	lapic_wr(b, 0, LINT0, MASKED | 0x700);
	irq_set(&line, true);
	assert_int_equal(take(b, 0), -1);
	b->cpus[0].interrupts = 0;
	lapic_wr(b, 0, LINT0, 0x700);
	assert_int_equal(b->cpus[0].interrupts, 1);
	assert_int_equal(take(b, 0), 0x23);
	assert_int_equal(lapic_rd(b, 0, 0x110), 0); /* not in the APIC's ISR */
	irq_set(&line, false);
	outb(b, 0x20, 0x20);
	wrmsr(b, 2, APIC_BASE, 0xfee00000); /* globally disabled: LINT0 is INTR */
	lapic_wr(b, 0, LINT0, MASKED);
	irq_set(&line, true);
	assert_int_equal(take(b, 0), -1);
	assert_int_equal(take(b, 2), 0x23);
}

static void one_shot_timer(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 0, DIVIDE, 0x3); /* by 16 */
	lapic_wr(b, 0, TIMER_LVT, 0xec);
	lapic_wr(b, 0, INITIAL, 1000);
	board_run(b, 8000);
	assert_int_equal(lapic_rd(b, 0, CURRENT), 500);
	assert_int_equal(take(b, 0), -1);
	board_run(b, 7999);
	assert_int_equal(take(b, 0), -1);
	board_run(b, 1);
	assert_int_equal(take(b, 0), 0xec);
	assert_int_equal(lapic_rd(b, 0, CURRENT), 0);
	eoi(b, 0);
	board_run(b, 100000);
	assert_int_equal(take(b, 0), -1);
	lapic_wr(b, 0, INITIAL, 1000);
	lapic_wr(b, 0, INITIAL, 0); /* stops it */
	board_run(b, 100000);
	assert_int_equal(take(b, 0), -1);
	assert_true(clock_next_deadline(b->clock) == VTIME_NEVER);
}

static void divide_register_changes_the_rest(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 0, DIVIDE, 0xb); /* by 1 */
	lapic_wr(b, 0, TIMER_LVT, 0xec);
	lapic_wr(b, 0, INITIAL, 20000);
	board_run(b, 10000);
	lapic_wr(b, 0, DIVIDE, 0x0); /* by 2 */
	assert_int_equal(lapic_rd(b, 0, DIVIDE), 0);
	assert_int_equal(lapic_rd(b, 0, CURRENT), 10000);
	board_run(b, 19999);
	assert_int_equal(take(b, 0), -1);
	board_run(b, 1);
	assert_int_equal(take(b, 0), 0xec);
}

static void periodic_timer(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 0, DIVIDE, 0xb);
	lapic_wr(b, 0, TIMER_LVT, 0x200ec);
	lapic_wr(b, 0, INITIAL, 50000);
	for (unsigned i = 0; i < 5; i++) {
		board_run(b, 49999);
		assert_int_equal(take(b, 0), -1);
		assert_int_equal(lapic_rd(b, 0, CURRENT), 1);
		board_run(b, 1);
		assert_int_equal(take(b, 0), 0xec);
		eoi(b, 0);
	}
	lapic_wr(b, 0, TIMER_LVT, 0x300ec); /* masked: counts on */
	board_run(b, 60000);
	assert_int_equal(take(b, 0), -1);
	assert_int_equal(lapic_rd(b, 0, CURRENT), 40000);
}

/* Only a write of the initial count starts the timer; a count in progress outlives a change of the mode. */
static void timer_changes_between_one_shot_and_periodic(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 0, DIVIDE, 0xb);
	lapic_wr(b, 0, TIMER_LVT, 0xec);
	lapic_wr(b, 0, INITIAL, 50000);
	board_run(b, 50000);
	assert_int_equal(take(b, 0), 0xec);
	eoi(b, 0);
	lapic_wr(b, 0, TIMER_LVT, 0x200ec); /* over: stays so */
	assert_int_equal(lapic_rd(b, 0, CURRENT), 0);
	lapic_wr(b, 0, DIVIDE, 0x0);
	board_run(b, 220000);
	assert_int_equal(lapic_rd(b, 0, CURRENT), 0);
	assert_int_equal(take(b, 0), -1);
	assert_true(clock_next_deadline(b->clock) == VTIME_NEVER);

	lapic_wr(b, 0, DIVIDE, 0xb);
	lapic_wr(b, 0, INITIAL, 50000);
	board_run(b, 50000);
	assert_int_equal(take(b, 0), 0xec);
	eoi(b, 0);
	board_run(b, 10000);
	lapic_wr(b, 0, TIMER_LVT, 0xec); /* the second period becomes the last */
	assert_int_equal(lapic_rd(b, 0, CURRENT), 40000);
	board_run(b, 39999);
	assert_int_equal(take(b, 0), -1);
	assert_int_equal(lapic_rd(b, 0, CURRENT), 1);
	board_run(b, 1);
	assert_int_equal(take(b, 0), 0xec);
	assert_int_equal(lapic_rd(b, 0, CURRENT), 0);
	eoi(b, 0);
	board_run(b, 100000);
	assert_int_equal(take(b, 0), -1);

	lapic_wr(b, 0, INITIAL, 50000);
	board_run(b, 10000);
	lapic_wr(b, 0, TIMER_LVT, 0x200ec); /* the count becomes the first period */
	assert_int_equal(lapic_rd(b, 0, CURRENT), 40000);
	for (unsigned i = 0; i < 3; i++) {
		board_run(b, i ? 49999 : 39999);
		assert_int_equal(take(b, 0), -1);
		board_run(b, 1);
		assert_int_equal(take(b, 0), 0xec);
		eoi(b, 0);
	}
}

/* A one-shot that is due, though nobody has run the clock yet, is over when its mode changes. */
static void timer_that_is_due_expires_in_its_mode(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 0, DIVIDE, 0xb);
	lapic_wr(b, 0, TIMER_LVT, 0xec);
	lapic_wr(b, 0, INITIAL, 50000);
	clock_set(b->clock, clock_now(b->clock) + 50000);
	lapic_wr(b, 0, TIMER_LVT, 0x200ed);
	assert_int_equal(lapic_rd(b, 0, CURRENT), 0);
	assert_int_equal(take(b, 0), 0xec);
	eoi(b, 0);
	board_run(b, 200000);
	assert_int_equal(take(b, 0), -1);
}

/* A period of a nanosecond must not keep the monitor busy for ever. */
static void shortest_period_is_bounded(void **state)
{
	struct board *b = *state;
	unsigned runs = 0;

	lapic_wr(b, 0, DIVIDE, 0xb);
	lapic_wr(b, 0, TIMER_LVT, 0x200ec);
	lapic_wr(b, 0, INITIAL, 1);
	while (clock_next_deadline(b->clock) <= 1000000) {
		clock_set(b->clock, clock_next_deadline(b->clock));
		clock_run(b->clock);
		runs++;
	}
	assert_in_range(runs, 10, 200);
}

/* A TSC of 2.6 GHz: the timer counts its third, and no expiry comes before its tick or drifts from it. */
static void timer_at_another_rate(void **state)
{
	struct board *b = *state;
	uint64_t crystal, tsc, expiries = 0;

	assert_int_equal(clock_set_tsc_hz(b->clock, 2596123000, NULL), 0);
	crystal = clock_crystal_hz(b->clock);
	board_run(b, 12345);
	lapic_wr(b, 0, DIVIDE, 0xb);
	lapic_wr(b, 0, TIMER_LVT, 0x200ec);
	lapic_wr(b, 0, INITIAL, 1000003);
	for (vtime_t start = clock_now(b->clock); clock_next_deadline(b->clock) < start + 3000000000;) {
		clock_set(b->clock, clock_next_deadline(b->clock));
		expiries++;
		assert_int_equal(clock_now(b->clock) - start, clock_crystal_ns(b->clock, expiries * 1000003));
		clock_run(b->clock);
		assert_int_equal(take(b, 0), 0xec);
		eoi(b, 0);
	}
	assert_int_equal(expiries, 3 * crystal / 1000003);

	b->cpus[0].tsc_offset = 77777;
	lapic_wr(b, 0, TIMER_LVT, 0x400ec);
	for (unsigned n = 0; n < 1000; n++) {
		tsc = clock_tsc(b->clock) + 77777 + 1000 + n;
		wrmsr(b, 0, DEADLINE, tsc);
		board_run_until(b, clock_next_deadline(b->clock) - 1);
		assert_true(clock_tsc(b->clock) + 77777 < tsc);
		assert_int_equal(take(b, 0), -1);
		board_run(b, 1);
		assert_true(clock_tsc(b->clock) + 77777 - tsc < 3);
		assert_int_equal(take(b, 0), 0xec);
		eoi(b, 0);
	}
}

static void load(struct device *device, const struct writer *record)
{
	struct reader reader = { record->data, record->size, 0 };

	assert_int_equal(state_load(device->ops->state, device->instance, device, &reader, NULL), 0);
	device->ops->attach(device);
}

/* A saved timer counts on; one that a record lets begin in the future begins now. */
static void timer_records(void **state)
{
	struct board *b = *state;
	struct device *device = (struct device *)apic(b, 1);
	struct writer writer = { 0 }, early = { 0 };

	lapic_wr(b, 1, DIVIDE, 0xb);
	lapic_wr(b, 1, TIMER_LVT, 0x200ec);
	assert_int_equal(state_save(device->ops->state, device->instance, device, &early), 0);
	board_run(b, 1000);
	lapic_wr(b, 1, INITIAL, 100000);
	assert_int_equal(state_save(device->ops->state, device->instance, device, &writer), 0);
	board_run(b, 150000);
	assert_int_equal(take(b, 1), 0xec);
	eoi(b, 1);
	load(device, &early);
	board_run(b, 120000);
	assert_int_equal(take(b, 1), -1);
	load(device, &writer);
	assert_int_equal(lapic_rd(b, 1, CURRENT), 30000);

	/* The same record in a machine that has not come so far. */
	struct board *young = board_create(2);

	load((struct device *)irq_lapic(young->bus, 1), &writer);
	assert_int_equal(lapic_rd(young, 1, CURRENT), 100000);
	board_destroy(young);
	writer_free(&writer);
	writer_free(&early);
}

static unsigned take_all(struct board *b, unsigned cpu, int vector)
{
	unsigned n = 0;

	for (; take(b, cpu) == vector; n++)
		eoi(b, cpu);
	return n;
}

static void late_expiries_come_later(void **state)
{
	struct board *b = *state;

	b->bus->reinject = true;
	lapic_wr(b, 1, DIVIDE, 0xb);
	lapic_wr(b, 1, TIMER_LVT, 0x200ec);
	lapic_wr(b, 1, INITIAL, 100000);
	clock_set(b->clock, 1050000); /* the clock's thread is late */
	clock_run(b->clock);
	assert_int_equal(take_all(b, 1, 0xec), 10);
	board_run_until(b, 1999999); /* the CPU is */
	assert_int_equal(take_all(b, 1, 0xec), 9);
	board_run_until(b, 2250000); /* both are */
	clock_set(b->clock, 2500000);
	assert_int_equal(take_all(b, 1, 0xec), 6);
	clock_run(b->clock);
	assert_int_equal(take_all(b, 1, 0xec), 0);
	assert_int_equal(b->bus->ticks.late, b->bus->ticks.reinjected);
	assert_int_equal(b->bus->ticks.given_up, 0);
	/* There is a bound. */
	clock_set(b->clock, clock_now(b->clock) + 100000ull * (TICKS_MOST + 1000));
	clock_run(b->clock);
	assert_int_equal(take_all(b, 1, 0xec), TICKS_MOST + 1); /* one was in IRR */
	assert_int_equal(b->bus->ticks.given_up, 999);
	/* Masked, and programmed anew, it owes nothing. */
	board_run(b, 1000000);
	lapic_wr(b, 1, TIMER_LVT, 0x300ec);
	board_run(b, 100000 * (TICKS_MASKED + 2));
	lapic_wr(b, 1, TIMER_LVT, 0x200ec);
	assert_int_equal(take_all(b, 1, 0xec), 1);
	board_run(b, 1000000);
	lapic_wr(b, 1, INITIAL, 100000);
	assert_int_equal(take_all(b, 1, 0xec), 1);
	/* Virtual time has no late ones. */
	b->bus->reinject = false;
	board_run(b, 1000000);
	assert_int_equal(take_all(b, 1, 0xec), 1);
}

static void tsc_deadline_timer(void **state)
{
	struct board *b = *state;

	b->cpus[0].tsc_offset = 1000000;
	wrmsr(b, 0, DEADLINE, 5000000); /* ignored in the other modes */
	assert_int_equal(rdmsr(b, 0, DEADLINE), 0);
	lapic_wr(b, 0, TIMER_LVT, 0x400ec);
	wrmsr(b, 0, DEADLINE, 5000000);
	assert_int_equal(rdmsr(b, 0, DEADLINE), 5000000);
	lapic_wr(b, 0, INITIAL, 100); /* ignored */
	assert_int_equal(lapic_rd(b, 0, INITIAL), 0);
	board_run_until(b, 3999999);
	assert_int_equal(take(b, 0), -1);
	board_run_until(b, 4000000);
	assert_int_equal(take(b, 0), 0xec);
	assert_int_equal(rdmsr(b, 0, DEADLINE), 0);
	eoi(b, 0);
	wrmsr(b, 0, DEADLINE, 1); /* long past: at once */
	assert_int_equal(take(b, 0), 0xec);
	eoi(b, 0);
	wrmsr(b, 0, DEADLINE, 9000000);
	wrmsr(b, 0, DEADLINE, 0); /* disarms */
	board_run_until(b, 10000000);
	assert_int_equal(take(b, 0), -1);
}

static void deadline_follows_the_tsc(void **state)
{
	struct board *b = *state;

	lapic_wr(b, 0, TIMER_LVT, 0x400ec);
	wrmsr(b, 0, DEADLINE, 5000000);
	b->cpus[0].tsc_offset = 4000000; /* the guest wrote IA32_TSC */
	lapic_tsc_changed(apic(b, 0));
	board_run_until(b, 1000000);
	assert_int_equal(take(b, 0), 0xec);
	eoi(b, 0);
	wrmsr(b, 0, DEADLINE, 6000000);
	b->cpus[0].tsc_offset = 0;
	lapic_tsc_changed(apic(b, 0));
	board_run_until(b, 5999999);
	assert_int_equal(take(b, 0), -1);
	board_run_until(b, 6000000);
	assert_int_equal(take(b, 0), 0xec);
	eoi(b, 0);
	/* Leaving the mode disarms. */
	wrmsr(b, 0, DEADLINE, 7000000);
	lapic_wr(b, 0, TIMER_LVT, 0xec);
	lapic_wr(b, 0, TIMER_LVT, 0x400ec);
	assert_int_equal(rdmsr(b, 0, DEADLINE), 0);
	wrmsr(b, 0, DEADLINE, UINT64_MAX); /* never, without overflow */
	board_run_until(b, 8000000);
	assert_int_equal(take(b, 0), -1);
}

static void ways_between_the_modes(void **state)
{
	struct board *b = *state;
	uint64_t value;

	assert_int_equal(lapic_msr_read(apic(b, 1), X2(0x20), &value), -1); /* not in xAPIC mode */
	wrmsr_faults(b, 1, X2(0x80), 0);
	wrmsr_faults(b, 1, APIC_BASE, 0xfee00400); /* EXTD without EN */
	wrmsr_faults(b, 1, APIC_BASE, 0xfee00801); /* reserved */
	wrmsr_faults(b, 1, APIC_BASE, BIT(52) | 0xfee00800);
	wrmsr(b, 1, APIC_BASE, 0xfee00c00);
	assert_false(lapic_claims(apic(b, 1), gpa(0xfee00000)));
	wrmsr_faults(b, 1, APIC_BASE, 0xfee00800); /* x2APIC to xAPIC */
	wrmsr_faults(b, 1, APIC_BASE, 0xfee00400);
	wrmsr(b, 1, APIC_BASE, 0xfee00000);
	wrmsr_faults(b, 1, APIC_BASE, 0xfee00c00); /* disabled to x2APIC */
	wrmsr(b, 1, APIC_BASE, 0xfed00800);	   /* moved */
	assert_true(lapic_claims(apic(b, 1), gpa(0xfed00000)));
	assert_int_equal(lapic_rd(b, 1, SVR), 0xff); /* disabling lost everything */
	wrmsr(b, 1, APIC_BASE, 0xfee00900);
	assert_int_equal(rdmsr(b, 1, APIC_BASE), 0xfee00800); /* the boot processor is another */
}

static void x2apic_registers(void **state)
{
	struct board *b = *state;
	uint64_t value;

	for (unsigned i = 0; i < BOARD_CPUS; i++)
		wrmsr(b, i, APIC_BASE, rdmsr(b, i, APIC_BASE) | 0xc00);
	assert_int_equal(rdmsr(b, 3, X2(0x20)), 3);
	assert_int_equal(rdmsr(b, 3, X2(0xd0)), 8);
	wrmsr_faults(b, 3, X2(0x20), 0);
	wrmsr_faults(b, 3, X2(0xd0), 0);
	wrmsr_faults(b, 3, X2(0xe0), 0); /* no DFR */
	wrmsr_faults(b, 3, X2(ICR_HIGH), 0);
	wrmsr_faults(b, 3, X2(0xb0), 1);
	wrmsr_faults(b, 3, X2(ESR), 1);
	wrmsr_faults(b, 3, X2(SVR), 0x400);
	wrmsr_faults(b, 3, X2(0x80), 0x100);
	wrmsr_faults(b, 3, X2(TIMER_LVT), 0x800);
	wrmsr_faults(b, 3, X2(CURRENT), 0);
	wrmsr_faults(b, 3, 0x8ff, 0);
	assert_int_equal(lapic_msr_read(apic(b, 3), X2(0xb0), &value), -1);
	assert_int_equal(lapic_msr_read(apic(b, 3), X2(0x3f0), &value), -1);
	wrmsr(b, 3, X2(0x3f0), 0x77); /* self-IPI */
	assert_int_equal(take(b, 3), 0x77);
	wrmsr(b, 3, X2(0xb0), 0);
	wrmsr(b, 0, X2(ICR), 2ull << 32 | 0x41);
	assert_int_equal(take(b, 2), 0x41);
	assert_int_equal(rdmsr(b, 0, X2(ICR)), 2ull << 32 | 0x41);
	wrmsr(b, 0, X2(ICR), 0xaull << 32 | 0x800 | 0x51); /* logical, cluster 0 */
	assert_int_equal(take(b, 1), 0x51);
	assert_int_equal(take(b, 3), 0x51);
	assert_int_equal(take(b, 0), -1);
	wrmsr(b, 0, X2(ICR), 0x1000aull << 32 | 0x800 | 0x61); /* cluster 1: nobody */
	assert_int_equal(take(b, 1), -1);
	wrmsr(b, 0, X2(ICR), 0xffffffffull << 32 | 0x71); /* broadcast */
	assert_int_equal(take(b, 0), 0x71);
	assert_int_equal(take(b, 1), 0x71);
	wrmsr(b, 0, X2(ICR), 0xffull << 32 | 0x81); /* an ID, no broadcast here */
	assert_int_equal(take(b, 1), -1);
	wrmsr(b, 1, X2(0xb0), 0);
	irq_msi(b->bus, 0xfee01000, 0x91); /* messages reach x2APICs by their low IDs */
	assert_int_equal(take(b, 1), 0x91);
}

/* ---- several threads ---- */

#define SENDERS	 3
#define MESSAGES 3000

struct sender {
	struct board *board;
	uint8_t vector;
	atomic_uint taken; /* how often CPU 0 took this vector */
};

/* The next one is sent when the last was taken, so that each must be seen. */
static void *send_messages(void *opaque)
{
	struct sender *sender = opaque;

	for (unsigned i = 0; i < MESSAGES; i++) {
		irq_msi(sender->board->bus, 0xfee00000, sender->vector);
		while (atomic_load(&sender->taken) == i)
			sched_yield();
	}
	return NULL;
}

static void no_interrupt_is_lost_between_threads(void **state)
{
	struct board *b = *state;
	struct sender senders[SENDERS];
	pthread_t threads[SENDERS];

	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i].board = b;
		senders[i].vector = (uint8_t)(0x41 + i); /* all in one register and priority class */
		atomic_init(&senders[i].taken, 0);
		assert_int_equal(pthread_create(&threads[i], NULL, send_messages, &senders[i]), 0);
	}
	for (unsigned count = 0; count < SENDERS * MESSAGES;) {
		int vector = take(b, 0);

		if (vector < 0) {
			sched_yield();
			continue;
		}
		assert_in_range(vector, 0x41, 0x41 + SENDERS - 1);
		eoi(b, 0);
		atomic_fetch_add(&senders[vector - 0x41].taken, 1);
		count++;
	}
	for (unsigned i = 0; i < SENDERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(take(b, 0), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(after_power_on),
		TEST(init_keeps_the_base_only),
		TEST(highest_priority_first_and_nesting),
		TEST(task_priority_holds_back),
		TEST(ipi_shorthands),
		TEST(starting_a_cpu),
		TEST(software_disabled_takes_no_interrupts),
		TEST(errors_are_latched_and_interrupt),
		TEST(narrow_and_wide_accesses),
		TEST(the_8259_through_lint0),
		TEST(one_shot_timer),
		TEST(divide_register_changes_the_rest),
		TEST(periodic_timer),
		TEST(timer_changes_between_one_shot_and_periodic),
		TEST(timer_that_is_due_expires_in_its_mode),
		TEST(timer_at_another_rate),
		TEST(late_expiries_come_later),
		TEST(timer_records),
		TEST(shortest_period_is_bounded),
		TEST(tsc_deadline_timer),
		TEST(deadline_follows_the_tsc),
		TEST(ways_between_the_modes),
		TEST(x2apic_registers),
		TEST(no_interrupt_is_lost_between_threads),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
