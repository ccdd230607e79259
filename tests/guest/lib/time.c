/*
 * Waiting, by the ACPI power-management timer: the one clock of a PC that needs no set-up and has a known frequency.
 */
#include "guest.h"

#define FADT_PM_TIMER 76 /* PM_TMR_BLK */

static u16 port;

bool pm_timer_init(void)
{
	u64 fadt = acpi_table("FACP");

	port = fadt ? (u16) * (u32 *)(fadt + FADT_PM_TIMER) : 0;
	return port;
}

u32 pm_timer(void)
{
	if (!port && !pm_timer_init())
		die("no PM timer in the ACPI tables");
	return in32(port) & 0xffffff;
}

/*
 * Where time is a count of instructions it takes many for a delay, and PAUSE gives the turn to another processor, which is slow:
 * so a PAUSE only once in a while.
 */
static void wait_a_little(void)
{
	u64 count = 1000;

	asm volatile("1: loop 1b; pause" : "+c"(count)::"memory");
}

bool wait_for(volatile u32 *flag, u64 us)
{
	u64 ticks = us * PM_TIMER_HZ / 1000000 + 1, passed = 0;
	u32 last = pm_timer();

	while (passed < ticks && !*flag) {
		u32 now = pm_timer();

		passed += (now - last) & 0xffffff;
		last = now;
		wait_a_little();
	}
	return *flag;
}

void delay_us(u64 us)
{
	u32 never = 0;

	wait_for(&never, us);
}

static u64 loop_time(void)
{
	u64 start = read_tsc(), count = 1000;

	asm volatile("1: loop 1b" : "+c"(count));
	return read_tsc() - start;
}

bool time_is_exact(void)
{
	u64 first = loop_time();
	bool exact = true;

	for (unsigned n = 0; n < 10; n++)
		exact &= loop_time() == first;
	return exact;
}
