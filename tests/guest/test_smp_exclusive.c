/*
 * Processors that keep stopping each other get on nevertheless, all of them: locked instructions that an emulator has to stop everybody
 * for (across pages, on code, CMPXCHG16B), code that is changed, interprocessor interrupts and NMIs without end. Nothing here is
 * timed; who starves never comes to the end of its work, and the run is given up by its caller.
 */
#include "guest.h"

#define WORK 300 /* things done by each processor, of each kind */

static u8 shared[3][4096] __attribute__((aligned(4096)));
static volatile u64 done[MAX_CPUS], others;
static volatile u32 finished;

/* Across pages; on a page with code, where plain stores are slow, too. */
static void lock_across(u64 cpu)
{
	asm volatile("lock addq $1, %0" : "+m"(*(u64 *)&shared[1][4096 - 4])::"memory");
	done[cpu]++;
}

static void lock_on_code(u64 cpu)
{
	asm volatile("lock addq $1, %0" : "+m"(*(u64 *)&shared[0][64 * (1 + cpu)])::"memory");
	((void (*)(void))shared[0])();
	done[cpu]++;
}

/* This processor's own instruction, which all others have on their page of code. */
static void change_code(u64 cpu)
{
	u8 *code = &shared[0][1024 + 64 * cpu];

	code[0] = 0xb8; /* mov $n, %eax; ret */
	*(volatile u32 *)(code + 1) = (u32)done[cpu];
	code[5] = 0xc3;
	asm volatile("cpuid" : : "a"(0), "c"(0) : "ebx", "edx", "memory");
	if (((u32(*)(void))code)() == (u32)done[cpu])
		done[cpu]++;
}

static void interrupt_all(u64 cpu)
{
	apic_ipi(0, ICR_NMI | ICR_ASSERT | ICR_OTHERS);
	done[cpu]++;
}

static void compute(u64 cpu)
{
	for (volatile u32 n = 0; n < 20; n++)
		;
	done[cpu]++;
}

static void on_nmi(struct frame *f)
{
	(void)f;
	others++;
}

typedef void job_fn(u64 cpu);
static job_fn *jobs[MAX_CPUS];

/* Does its own work, then goes on with it until all others have done theirs. */
static void work(u64 cpu)
{
	while (done[cpu] < WORK)
		jobs[cpu](cpu);
	__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
	while (finished < cpus_online())
		jobs[cpu](cpu);
}

static void run_jobs(job_fn *first, job_fn *rest, const char *name)
{
	finished = 0;
	for (unsigned n = 0; n < cpus_online(); n++) {
		done[n] = 0;
		jobs[n] = n ? rest : first;
	}
	smp_run_all(work);
	for (unsigned n = 0; n < cpus_online(); n++)
		if (done[n] < WORK) {
			check(false, "%s: cpu %u did %lu of %u", name, n, done[n], WORK);
			return;
		}
	check(true, "%s", name);
}

void guest(void)
{
	shared[0][0] = shared[1][0] = 0xc3;
	((void (*)(void))shared[1])();
	set_handler(EXC_NMI, on_nmi);
	if (smp_start() < 2)
		return;
	run_jobs(compute, lock_across, "3A 8.1.2: one computes, others lock across pages");
	run_jobs(lock_across, lock_across, "3A 8.1.2: all lock across pages");
	run_jobs(compute, lock_on_code, "3A 8.1.2: one computes, others lock on code");
	run_jobs(lock_across, change_code, "3A 8.1.3: one locks across pages, others change code");
	run_jobs(change_code, change_code, "3A 8.1.3: all change code");
	run_jobs(compute, interrupt_all, "3A 6.7: one computes under NMIs without end");
	run_jobs(interrupt_all, lock_on_code, "3A 6.7: one sends NMIs, others lock on code");
}
