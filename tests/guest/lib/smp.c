/*
 * Starting further processors (SDM vol. 3A 9.4.4) and giving them work.
 */
#include "private.h"

#define TRAMPOLINE_PAGE 0x8000
#define LONG_TIME	20000000 /* us */

extern const u8 trampoline[], trampoline_end[], trampoline_cr3[];
extern u32 ap_next;

static struct mailbox {
	void (*volatile fn)(u64);
	volatile u64 argument;
	volatile u32 idle;
	u32 apic_id;
} boxes[MAX_CPUS];
static volatile u32 online = 1;

unsigned cpus_online(void) { return online; }
u32 apic_id_of(unsigned cpu) { return boxes[cpu].apic_id; }

static u32 own_apic_id(void)
{
	u32 id = apic_read(APIC_ID);

	return read_msr(MSR_APIC_BASE) & BIT(10) ? id : id >> 24;
}

void ap_start(unsigned number)
{
	struct mailbox *box = &boxes[number];

	cpu_init(number);
	apic_init();
	box->apic_id = own_apic_id();
	box->idle = 1;
	__atomic_fetch_add(&online, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		while (!box->fn)
			cpu_pause();
		box->fn(box->argument);
		box->fn = NULL;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		box->idle = 1;
	}
}

/* Enabled local APICs in the MADT. */
static unsigned count_processors(void)
{
	u64 madt = acpi_table("APIC"), at = madt + 44, end;
	unsigned count = 0;

	if (!madt)
		die("no MADT");
	end = madt + *(u32 *)(madt + 4);
	while (at + 2 <= end && ((u8 *)at)[1]) {
		count += ((u8 *)at)[0] == 0 && (*(u32 *)(at + 4) & 1);
		at += ((u8 *)at)[1];
	}
	return count;
}

unsigned smp_start(void)
{
	unsigned wanted = count_processors();
	u32 cr3 = (u32)read_cr3();

	if (wanted > MAX_CPUS)
		die("%u processors", wanted);
	boxes[0].apic_id = own_apic_id();
	memcpy((void *)TRAMPOLINE_PAGE, trampoline, (size_t)(trampoline_end - trampoline));
	memcpy((u8 *)TRAMPOLINE_PAGE + (trampoline_cr3 - trampoline), &cr3, 4);
	apic_ipi(0, ICR_INIT | ICR_ASSERT | ICR_OTHERS);
	delay_us(1000);
	apic_ipi(0, ICR_SIPI | ICR_ASSERT | ICR_OTHERS | TRAMPOLINE_PAGE >> 12);
	for (unsigned n = 0; n < LONG_TIME / 1000 && online < wanted; n++)
		delay_us(1000);
	return online;
}

void smp_send_sipi(unsigned cpu) { apic_ipi(boxes[cpu].apic_id, ICR_SIPI | ICR_ASSERT | TRAMPOLINE_PAGE >> 12); }

void smp_run(unsigned cpu, void (*fn)(u64), u64 argument)
{
	boxes[cpu].idle = 0;
	boxes[cpu].argument = argument;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	boxes[cpu].fn = fn;
}

void smp_wait(unsigned cpu)
{
	if (!wait_for(&boxes[cpu].idle, LONG_TIME))
		die("cpu %u does not come back", cpu);
}

void smp_run_all(void (*fn)(u64))
{
	for (unsigned n = 1; n < online; n++)
		smp_run(n, fn, n);
	fn(0);
	for (unsigned n = 1; n < online; n++)
		smp_wait(n);
}
