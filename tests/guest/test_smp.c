/*
 * Several processors, SDM vol. 3A chapters 8 and 9: their start, atomic instructions, the memory ordering that x86 promises,
 * interrupts between them, shootdown of translations.
 */
#include "guest.h"

#define T      0x8000000000ull
#define PAGE   4096ull
#define B      0x70
#define C      0x80
#define ROUNDS 3000

/* ---- starting (9.4) ---- */

static u64 features_of[MAX_CPUS], boot_flag_of[MAX_CPUS], number_of[MAX_CPUS];

static void look(u64 cpu)
{
	features_of[cpu] = (u64)cpuid(1, 0).c << 32 | cpuid(1, 0).d;
	boot_flag_of[cpu] = read_msr(MSR_APIC_BASE) & BIT(8);
	number_of[cpu] = this_cpu();
}

static void test_start(void)
{
	bool same = true, numbers = true, boot = true, ids = true;

	check(cpus_online() > 1, "3A 9.4.4: INIT and SIPI have started %u processors", cpus_online() - 1);
	smp_run_all(look);
	for (unsigned n = 0; n < cpus_online(); n++) {
		/* APIC ID (in EBX) aside, all are alike. */
		same &= features_of[n] == features_of[0];
		numbers &= number_of[n] == n;
		boot &= !boot_flag_of[n] == (n != 0);
		for (unsigned i = 0; i < n; i++)
			ids &= apic_id_of(i) != apic_id_of(n);
	}
	check(same, "2 CPUID: the same features everywhere");
	check(numbers, "3A 9.4: each runs what it is given");
	check(boot, "3A 9.4.1: one is the boot processor");
	check(ids, "3A 11.4.6: APIC IDs differ");
	if (!has_monitor()) {
		extern const u8 do_monitor[], do_mwait[];
		struct trap t = KERNEL(do_monitor, .rax = (u64)features_of);

		check_fault(&t, EXC_UD, 0, "2 MONITOR: #UD");
		t = KERNEL(do_mwait);
		check_fault(&t, EXC_UD, 0, "2 MWAIT: #UD");
	}
}
CODE(do_monitor, "xor %ecx, %ecx; xor %edx, %edx; monitor")
CODE(do_mwait, "xor %ecx, %ecx; mwait")

/* ---- a gate at which all meet, so that they really run side by side ---- */

static volatile u32 arrived, generation;

static void meet(void)
{
	u32 now = generation;

	if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == cpus_online()) {
		arrived = 0;
		__atomic_fetch_add(&generation, 1, __ATOMIC_SEQ_CST);
	} else {
		while (generation == now)
			cpu_pause();
	}
}

/* ---- atomic increments (8.1) ---- */

static struct {
	u64 aligned;
	u8 line[120];
	u64 wide[2];
	u8 more[256];
} sums __attribute__((aligned(128)));
static u8 pages[2 * PAGE] __attribute__((aligned(4096)));
static u64 *target; /* of the run in progress */

static void add_up(u64 unused_cpu)
{
	(void)unused_cpu;
	meet();
	for (u32 n = 0; n < ROUNDS; n++)
		asm volatile("lock addq $1, %0" : "+m"(*target)::"memory");
}

static void exchange_add(u64 unused_cpu)
{
	(void)unused_cpu;
	meet();
	for (u32 n = 0; n < ROUNDS; n++) {
		u64 one = 1;

		asm volatile("lock xaddq %1, %0" : "+m"(*target), "+r"(one)::"memory");
	}
}

static void compare_exchange(u64 unused_cpu)
{
	(void)unused_cpu;
	meet();
	for (u32 n = 0; n < ROUNDS; n++) {
		u64 old = *(volatile u64 *)target;
		bool done;

		do
			asm volatile("lock cmpxchgq %3, %1"
				     : "=@ccz"(done), "+m"(*target), "+a"(old)
				     : "r"(old + 1)
				     : "memory");
		while (!done);
	}
}

static void compare_exchange_8b(u64 unused_cpu)
{
	(void)unused_cpu;
	meet();
	for (u32 n = 0; n < ROUNDS; n++) {
		u64 old = *(volatile u64 *)target;
		u32 low = (u32)old, high = (u32)(old >> 32);
		bool done;

		do {
			u64 new = ((u64)high << 32 | low) + 1;

			asm volatile("lock cmpxchg8b %1"
				     : "=@ccz"(done), "+m"(*target), "+a"(low), "+d"(high)
				     : "b"((u32) new), "c"((u32)(new >> 32))
				     : "memory");
		} while (!done);
	}
}

static void compare_exchange_16b(u64 unused_cpu)
{
	(void)unused_cpu;
	meet();
	for (u32 n = 0; n < ROUNDS; n++) {
		u64 low = ((volatile u64 *)target)[0], high = ((volatile u64 *)target)[1];
		bool done;

		do
			asm volatile("lock cmpxchg16b %1"
				     : "=@ccz"(done), "+m"(*(u64(*)[2])target), "+a"(low), "+d"(high)
				     : "b"(low + 1), "c"(high - 1)
				     : "memory");
		while (!done);
	}
}

/* A lock of one byte by XCHG, which locks without being told, around an increment that is not atomic. */
static volatile u8 lock_byte;

static void exchange_lock(u64 unused_cpu)
{
	(void)unused_cpu;
	meet();
	for (u32 n = 0; n < ROUNDS / 10; n++) {
		u8 taken = 1;

		for (;;) {
			asm volatile("xchgb %0, %1" : "+q"(taken), "+m"(lock_byte)::"memory");
			if (!taken)
				break;
			cpu_pause();
		}
		*(volatile u64 *)target = *(volatile u64 *)target + 1;
		asm volatile("" ::: "memory");
		lock_byte = 0;
	}
}

static void test_bits(u64 unused_cpu)
{
	u64 mine = unused_cpu * 7;
	u8 was;

	meet();
	for (u32 n = 0; n < ROUNDS; n++) {
		asm volatile("lock btcq %2, %0; setc %1" : "+m"(*target), "=q"(was) : "r"(mine) : "memory");
		if (was != (n & 1))
			((volatile u64 *)target)[1] = 1;
	}
}

static void add_bytes(u64 cpu)
{
	meet();
	for (u32 n = 0; n < ROUNDS; n++)
		((volatile u8 *)target)[cpu] = (u8)(((volatile u8 *)target)[cpu] + 1);
}

static void sum_is(void (*fn)(u64), u64 *where, u64 each, const char *name)
{
	target = where;
	memset(where, 0, 8);
	smp_run_all(fn);
	check_equal(*where, each * cpus_online(), "3A 8.1.2: %s", name);
}

static void test_atomics(void)
{
	u64 *across_line = (u64 *)((u8 *)&sums + 61), *across_page = (u64 *)(pages + PAGE - 3);

	sum_is(add_up, &sums.aligned, ROUNDS, "LOCK ADD");
	sum_is(add_up, (u64 *)((u8 *)&sums + 1), ROUNDS, "LOCK ADD, misaligned");
	sum_is(add_up, across_line, ROUNDS, "LOCK ADD, across cache lines");
	sum_is(add_up, across_page, ROUNDS, "LOCK ADD, across pages");
	sum_is(exchange_add, &sums.aligned, ROUNDS, "LOCK XADD");
	sum_is(exchange_add, across_page, ROUNDS, "LOCK XADD, across pages");
	sum_is(compare_exchange, &sums.aligned, ROUNDS, "LOCK CMPXCHG");
	sum_is(compare_exchange, across_line, ROUNDS, "LOCK CMPXCHG, across cache lines");
	sum_is(compare_exchange, across_page, ROUNDS, "LOCK CMPXCHG, across pages");
	sum_is(compare_exchange_8b, &sums.aligned, ROUNDS, "LOCK CMPXCHG8B");
	sum_is(compare_exchange_8b, across_line, ROUNDS, "LOCK CMPXCHG8B, across cache lines");
	sum_is(exchange_lock, &sums.aligned, ROUNDS / 10, "XCHG as a lock");
	if (has_cx16()) {
		sums.wide[1] = 0;
		sum_is(compare_exchange_16b, sums.wide, ROUNDS, "LOCK CMPXCHG16B");
		check_equal(-sums.wide[1], (u64)ROUNDS * cpus_online(), "3A 8.1.2: both of its halves");
	}
	target = sums.wide;
	sums.wide[0] = sums.wide[1] = 0;
	smp_run_all(test_bits);
	check(sums.wide[0] == 0 && sums.wide[1] == 0, "3A 8.1.2: LOCK BTC: each its own bit of one word");
	sums.wide[0] = 0;
	smp_run_all(add_bytes);
	bool good = true;
	for (unsigned n = 0; n < cpus_online(); n++)
		good &= ((u8 *)sums.wide)[n] == (u8)ROUNDS;
	check(good, "3A 8.1.1: writes of neighbouring bytes do not disturb each other");
}

/* Locked across two pages with one of them code: what is a slow path anywhere. */
static void test_locked_code(void)
{
	static const u8 code[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
	u8 *at = pages + PAGE - 3;

	memcpy(at, code, sizeof(code));
	((void (*)(void))(u64)at)();
	target = (u64 *)(at + 1);
	memset(at + 1, 0, 8);
	smp_run_all(add_up);
	check_equal(*(u32 *)(at + 1), ROUNDS * cpus_online(),
		    "3A 8.1.2: LOCK ADD to the immediate of an instruction over two pages");
}

/* ---- ordering (8.2.3): litmus tests with two processors ---- */

static volatile u64 x __attribute__((aligned(128))), y __attribute__((aligned(128)));
static volatile u64 r1 __attribute__((aligned(128))), r2;
static u32 forbidden, relaxed;
enum {
	MESSAGE_PASSING,
	LOAD_BUFFERING,
	STORE_BUFFERING,
	STORE_BUFFERING_FENCED,
	STORE_BUFFERING_LOCKED,
	OWN_STORE
} litmus;
#define LITMUS_ROUNDS 1000

static volatile u32 round_started, round_done;

static void litmus_side(unsigned side)
{
	volatile u64 *mine = side ? &y : &x, *other = side ? &x : &y, *result = side ? &r2 : &r1;
	u64 value, dummy = 1;

	switch (litmus) {
	case MESSAGE_PASSING:
		if (side == 0) {
			asm volatile("movq $1, %0; movq $1, %1" : "=m"(x), "=m"(y)::"memory");
		} else {
			asm volatile("movq %2, %0; movq %3, %1"
				     : "=&r"(dummy), "=&r"(value)
				     : "m"(y), "m"(x)
				     : "memory");
			r1 = dummy;
			r2 = value;
		}
		break;
	case LOAD_BUFFERING:
		asm volatile("movq %2, %0; movq $1, %1" : "=&r"(value), "=m"(*mine) : "m"(*other) : "memory");
		*result = value;
		break;
	case STORE_BUFFERING:
		asm volatile("movq $1, %1; movq %2, %0" : "=&r"(value), "=m"(*mine) : "m"(*other) : "memory");
		*result = value;
		break;
	case STORE_BUFFERING_FENCED:
		asm volatile("movq $1, %1; mfence; movq %2, %0" : "=&r"(value), "=m"(*mine) : "m"(*other) : "memory");
		*result = value;
		break;
	case STORE_BUFFERING_LOCKED:
		asm volatile("xchgq %3, %1; movq %2, %0"
			     : "=&r"(value), "+m"(*mine)
			     : "m"(*other), "r"(dummy)
			     : "memory");
		*result = value;
		break;
	case OWN_STORE:
		asm volatile("movq $1, %1; movq %1, %0" : "=&r"(value), "=m"(*mine)::"memory");
		*result = value;
		break;
	}
}

static void litmus_other(u64 unused_cpu)
{
	(void)unused_cpu;
	for (u32 n = 1; n <= LITMUS_ROUNDS; n++) {
		while (round_started != n)
			cpu_pause();
		litmus_side(1);
		round_done = n;
	}
}

static void run_litmus(unsigned kind)
{
	litmus = kind;
	forbidden = relaxed = 0;
	round_started = round_done = 0;
	smp_run(1, litmus_other, 0);
	for (u32 n = 1; n <= LITMUS_ROUNDS; n++) {
		x = y = 0;
		asm volatile("mfence" ::: "memory");
		round_started = n;
		litmus_side(0);
		while (round_done != n)
			cpu_pause();
		switch (litmus) {
		case MESSAGE_PASSING: forbidden += r1 == 1 && r2 == 0; break;
		case LOAD_BUFFERING: forbidden += r1 == 1 && r2 == 1; break;
		case STORE_BUFFERING: relaxed += r1 == 0 && r2 == 0; break;
		case OWN_STORE: forbidden += r1 != 1 || r2 != 1; break;
		default: forbidden += r1 == 0 && r2 == 0; break;
		}
	}
	smp_wait(1);
}

static void test_ordering(void)
{
	run_litmus(MESSAGE_PASSING);
	check_equal(forbidden, 0, "3A 8.2.3.2: neither loads nor stores are reordered among themselves");
	run_litmus(LOAD_BUFFERING);
	check_equal(forbidden, 0, "3A 8.2.3.3: stores are not reordered with earlier loads");
	run_litmus(STORE_BUFFERING);
	check(true, "3A 8.2.3.4: loads may pass earlier stores: seen %s", relaxed ? "here" : "never here");
	run_litmus(STORE_BUFFERING_FENCED);
	check_equal(forbidden, 0, "3A 8.2.5: not over MFENCE");
	run_litmus(STORE_BUFFERING_LOCKED);
	check_equal(forbidden, 0, "3A 8.2.3.9: nor over a locked instruction");
	run_litmus(OWN_STORE);
	check_equal(forbidden, 0, "3A 8.2.3.5: a processor sees its own stores");
}

/* An aligned quadword is never seen half-written (8.1.1). */
static volatile u32 torn, stop;

static void write_patterns(u64 unused_cpu)
{
	(void)unused_cpu;
	for (u64 n = 0; !stop; n++)
		x = n & 1 ? 0 : ~0ull;
}

static void test_tearing(void)
{
	stop = torn = 0;
	smp_run(1, write_patterns, 0);
	for (u32 n = 0; n < 20000; n++) {
		u64 value = x;

		torn += value != 0 && value != ~0ull && value != 1;
		if (n % 1000 == 0)
			cpu_pause();
	}
	stop = 1;
	smp_wait(1);
	check_equal(torn, 0, "3A 8.1.1: aligned quadwords are read and written whole");
}

/* ---- one time for all (3B 17.17.1) ---- */

static volatile u64 stamp;

/* RDTSC alone may be executed before loads that come first, or after later ones. */
static u64 ordered_tsc(void)
{
	u64 now;

	asm volatile("lfence" ::: "memory");
	now = read_tsc();
	asm volatile("lfence" ::: "memory");
	return now;
}

static void answer_with_tsc(u64 unused_cpu)
{
	(void)unused_cpu;
	for (u32 n = 1; n <= 200; n++) {
		while (round_started != n)
			cpu_pause();
		forbidden += ordered_tsc() < stamp;
		stamp = ordered_tsc();
		round_done = n;
	}
}

static void test_tsc(void)
{
	forbidden = round_started = round_done = 0;
	smp_run(1, answer_with_tsc, 0);
	for (u32 n = 1; n <= 200; n++) {
		stamp = ordered_tsc();
		round_started = n;
		while (round_done != n)
			cpu_pause();
		forbidden += ordered_tsc() < stamp;
	}
	smp_wait(1);
	check_equal(forbidden, 0, "3B 17.17.1: the TSCs of two processors never disagree about what was first");
}

/* ---- interrupts between processors ---- */

static volatile u32 ipis[MAX_CPUS], order_good;

static void count_ipi(struct frame *f)
{
	(void)f;
	__atomic_fetch_add(&ipis[this_cpu()], 1, __ATOMIC_SEQ_CST);
	apic_eoi();
}

static void listen(u64 unused_cpu)
{
	(void)unused_cpu;
	interrupts_on();
	while (!stop)
		cpu_pause();
	interrupts_off();
}

static void sleep_listening(u64 unused_cpu)
{
	(void)unused_cpu;
	while (!stop)
		asm volatile("sti; hlt; cli" ::: "memory");
}

static void start_listening(void (*fn)(u64))
{
	stop = 0;
	for (unsigned n = 0; n < MAX_CPUS; n++)
		ipis[n] = 0;
	for (unsigned n = 1; n < cpus_online(); n++)
		smp_run(n, fn, 0);
}

static void wait_ipis(unsigned cpu, u32 count)
{
	for (unsigned n = 0; n < 20000 && ipis[cpu] < count; n++)
		delay_us(100);
}

static void end_listening(void)
{
	stop = 1;
	apic_ipi(0, ICR_OTHERS | C); /* wakes those that sleep */
	for (unsigned n = 1; n < cpus_online(); n++)
		smp_wait(n);
}

static void test_ipis(void)
{
	unsigned others = cpus_online() - 1;
	bool good = true;

	set_handler(B, count_ipi);
	set_handler(C, count_ipi);
	start_listening(listen);
	for (unsigned n = 1; n <= others; n++) {
		apic_ipi(apic_id_of(n), B);
		wait_ipis(n, 1);
		for (unsigned i = 1; i <= others; i++)
			good &= ipis[i] == (i <= n);
	}
	check(good, "3A 11.6.1: an IPI to one processor is taken by it alone");
	apic_ipi(0, ICR_OTHERS | B);
	for (unsigned n = 1; n <= others; n++) {
		wait_ipis(n, 2);
		good &= ipis[n] == 2;
	}
	check(good && ipis[0] == 0, "3A 11.6.1: to all but itself");
	apic_ipi(0, ICR_ALL | B);
	for (unsigned n = 1; n <= others; n++)
		wait_ipis(n, 3);
	interrupts_on();
	wait_ipis(0, 1);
	interrupts_off();
	for (unsigned n = 1; n <= others; n++)
		good &= ipis[n] == 3;
	check(good && ipis[0] == 1, "3A 11.6.1: to all");
	end_listening();

	start_listening(sleep_listening);
	for (u32 round = 1; round <= 50; round++) {
		for (unsigned n = 1; n <= others; n++)
			apic_ipi(apic_id_of(n), B);
		for (unsigned n = 1; n <= others; n++) {
			wait_ipis(n, round);
			good &= ipis[n] >= round;
		}
	}
	check(good, "2 HLT: IPIs wake sleeping processors, 50 times");
	end_listening();
}

static volatile u32 nmis;

static void count_nmi(struct frame *f)
{
	(void)f;
	__atomic_fetch_add(&nmis, 1, __ATOMIC_SEQ_CST);
}

static void spin_closed(u64 unused_cpu)
{
	(void)unused_cpu;
	while (!stop)
		cpu_pause();
}

static void test_nmi(void)
{
	set_handler(EXC_NMI, count_nmi);
	start_listening(spin_closed);
	apic_ipi(0, ICR_OTHERS | ICR_NMI | ICR_ASSERT);
	for (unsigned n = 0; n < 20000 && nmis < cpus_online() - 1; n++)
		delay_us(100);
	check_equal(nmis, cpus_online() - 1, "3A 11.6.1: NMIs reach processors that take no interrupts");
	stop = 1;
	for (unsigned n = 1; n < cpus_online(); n++)
		smp_wait(n);
	set_handler(EXC_NMI, NULL);
}

/* ---- stopping one again ---- */

static volatile u32 forever_count;

static void count_forever(u64 unused_cpu)
{
	(void)unused_cpu;
	for (;;)
		forever_count++;
}

static void test_init(void)
{
	unsigned last = cpus_online() - 1;
	u32 before = 0;

	smp_run(last, count_forever, 0);
	while (!forever_count)
		cpu_pause();
	apic_ipi(apic_id_of(last), ICR_INIT | ICR_ASSERT);
	for (unsigned n = 0; n < 1000 && before != forever_count; n++) { /* it may take its time */
		before = forever_count;
		delay_us(1000);
	}
	check(before && forever_count == before, "3A 9.1: INIT stops a processor");

	/* It waits for a SIPI now, and comes up as one more; those that run ignore SIPIs. */
	unsigned online = cpus_online();

	for (unsigned n = 1; n < last; n++)
		smp_send_sipi(n);
	smp_send_sipi(last);
	for (unsigned n = 0; n < 20000 && cpus_online() == online; n++)
		delay_us(100);
	delay_us(1000);
	check_equal(cpus_online(), online + 1, "3A 9.4.4: a SIPI starts it again, and none that runs");
	check_equal(apic_id_of(online), apic_id_of(last), "3A 9.4.4: it is the same");
	smp_run(online, look, online);
	smp_wait(online);
	check(number_of[online] == online, "3A 9.4.4: and works");
}

/* ---- shootdown (4.10.5) ---- */

static volatile u32 shot, wrong;
static u64 *frame_a, *frame_b;

static void shoot(struct frame *f)
{
	(void)f;
	invlpg(T);
	__atomic_fetch_add(&shot, 1, __ATOMIC_SEQ_CST);
	apic_eoi();
}

static volatile u32 epoch; /* even: frame a is mapped; odd: frame b; 1000 and more: in between */

static void read_mapped(u64 unused_cpu)
{
	(void)unused_cpu;
	interrupts_on();
	while (!stop) {
		u32 before = epoch;
		u64 value = *(volatile u64 *)T;

		if (before == epoch && before < 1000 && value != (before & 1) + 1)
			wrong++;
	}
	interrupts_off();
}

static void test_shootdown(void)
{
	set_handler(B, shoot);
	frame_a = frame_alloc();
	frame_b = frame_alloc();
	*frame_a = 1;
	*frame_b = 2;
	map_page(T, (u64)frame_a, PTE_P | PTE_W);
	start_listening(read_mapped);
	for (u32 n = 1; n <= 100; n++) {
		epoch = 1000 + n;
		*entry_of(T, 1) = (u64)(n & 1 ? frame_b : frame_a) | PTE_P | PTE_W;
		invlpg(T);
		shot = 0;
		apic_ipi(0, ICR_OTHERS | B);
		while (shot != cpus_online() - 1)
			cpu_pause();
		epoch = n;
		for (unsigned i = 0; i < 20; i++)
			cpu_pause();
	}
	end_listening();
	check_equal(wrong, 0, "3A 4.10.5: after a shootdown nobody sees the old page");
}

/*
 * Locked instructions, of the kinds that an emulator has to stop everybody for, on pages that come and go: each is done or
 * faults, and is repeated by the handler's return.
 */
static volatile u32 lock_faults;

static void retry(struct frame *f)
{
	(void)f;
	lock_faults++;
}

static u64 locked_done[2] __attribute__((aligned(16)));

static void lock_in_holes(u64 unused_cpu)
{
	u64 *across = (u64 *)(T + PAGE - 4), *code = (u64 *)(T + 0x100), *wide = (u64 *)(T + PAGE + 0x40);

	(void)unused_cpu;
	locked_done[0] = 0;
	while (!stop) {
		u64 low = 0, high = 0;

		asm volatile("lock addq $1, %0" : "+m"(*across)::"memory");
		asm volatile("lock addq $1, %0" : "+m"(*code)::"memory");
		if (has_cx16())
			asm volatile("lock cmpxchg16b %0"
				     : "+m"(*(u64(*)[2])wide), "+a"(low), "+d"(high)
				     : "b"(0ull), "c"(0ull)
				     : "memory", "cc");
		((volatile u64 *)locked_done)[0]++;
	}
}

static void test_locked_faults(void)
{
	u64 entries[2];
	u64 frame = (u64)frame_alloc(), second = (u64)frame_alloc();

	*(u8 *)frame = 0xc3; /* code on the page, so that it is one with code */
	((u8 *)second)[0] = 0xc3;
	entries[0] = frame | PTE_P | PTE_W | PTE_A | PTE_D;
	entries[1] = second | PTE_P | PTE_W | PTE_A | PTE_D;
	map_page(T, entries[0], 0);
	map_page(T + PAGE, entries[1], 0);
	((void (*)(void))T)();
	((void (*)(void))(T + PAGE))();
	volatile u64 *table = entry_of(T, 1);

	set_handler(EXC_PF, retry);
	lock_faults = 0;
	stop = 0;
	smp_run(1, lock_in_holes, 0);
	while (!((volatile u64 *)locked_done)[0])
		cpu_pause();
	for (u32 n = 0; n < 5000 && (n < 2000 || lock_faults < 100); n++) {
		u32 which = n % 8 == 0;

		table[which] = 0;
		((void (*)(void))frame)(); /* keeps it a page with code */
		if (n % 16 == 0)
			cpu_pause();
		table[which] = entries[which];
		if (n % 4 == 0)
			cpu_pause();
	}
	stop = 1;
	smp_wait(1);
	set_handler(EXC_PF, NULL);
	check(locked_done[0] > 0, "3A 8.1.2: locked instructions on pages that come and go");
	check_equal(*(u64 *)(frame + 0x100), locked_done[0], "3A 8.1.2: each is done once");
	map_page(T, entries[0], 0);
	map_page(T + PAGE, entries[1], 0);
	check_equal(*(u32 *)(T + PAGE - 4), locked_done[0], "3A 8.1.2: over the boundary, too");
}

/* Accessed and dirty bits are set by locked cycles: a processor that clears others in the same entry loses none (4.8). */
static void test_dirty_race(void)
{
	bool good = true;

	for (unsigned n = 0; n < 100; n++) {
		u64 *entry = entry_of(T, 1), old;

		*entry = (u64)frame_a | PTE_P | PTE_W;
		flush_tlb();
		old = __atomic_exchange_n(entry, (u64)frame_a | PTE_P | PTE_W, __ATOMIC_SEQ_CST);
		good &= (old & ~(PTE_A | PTE_D)) == ((u64)frame_a | PTE_P | PTE_W);
		*(volatile u64 *)T = 5;
		good &= (*entry & PTE_D) != 0;
	}
	check(good, "3A 4.8: dirty bits and exchanges of entries");
}

void guest(void)
{
	smp_start();
	test_start();
	if (cpus_online() < 2)
		return;
	test_atomics();
	test_locked_code();
	test_ordering();
	test_tearing();
	test_tsc();
	test_ipis();
	test_nmi();
	test_shootdown();
	test_dirty_race();
	test_locked_faults();
	test_init();
}
