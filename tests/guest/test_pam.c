/*
 * The host bridge's PAM registers (82441FX data sheet, 3.2.18): between 768 KiB and 1 MiB reads and writes go to RAM, or to what is on the bus, each
 * as a field says; for data, for code and on every processor. On the bus is the BIOS's ROM in the last 4 KiB, and elsewhere nobody. And
 * SMRAM (3.2.22): RAM where the video adapter's window is.
 */
#include "guest.h"

#define PAM0	    0x59
#define SMRAM	    0x72
#define READ	    1
#define WRITE	    2
#define DATA	    0xc8000 /* PAM2, low */
#define CODE_AT	    0xd0000 /* PAM3, low */
#define TABLES	    0xd8000 /* PAM4, low */
#define ROM	    0xff000 /* PAM0, high */
#define START	    (ROM + 0xff0)
#define FAR_JUMP    0xea
#define ROUNDS	    200
#define SEEN_ROUNDS 50

static u8 config(u8 at)
{
	asm volatile("outl %0, %1" ::"a"(0x80000000u | (at & 0xfc)), "Nd"((u16)0xcf8));
	return in8(0xcfc + (at & 3));
}

static void set_config(u8 at, u8 value)
{
	asm volatile("outl %0, %1" ::"a"(0x80000000u | (at & 0xfc)), "Nd"((u16)0xcf8));
	out8((u16)(0xcfc + (at & 3)), value);
}

/* The field of an address, without touching its neighbour. */
static void set_field(u32 address, u8 how)
{
	unsigned field = address >= 0xf0000 ? 1 : 2 + (address - 0xc0000) / 0x4000;
	u8 at = (u8)(PAM0 + field / 2), shift = field % 2 * 4;

	set_config(at, (u8)((config(at) & ~(0xf << shift)) | how << shift));
}

static volatile u32 *word(u64 at)
{
	asm("" : "+r"(at));
	return (volatile u32 *)at;
}

static void test_ways(void)
{
	volatile u32 *at = word(DATA);

	set_field(DATA, READ | WRITE);
	*at = 0x11111111;
	check_equal(*at, 0x11111111, "3.2.18: RE, WE: RAM");
	set_field(DATA, READ);
	*at = 0x22222222;
	check_equal(*at, 0x11111111, "3.2.18: RE: a write does not reach RAM");
	asm volatile("lock addl $1, %0" : "+m"(*at));
	check_equal(*at, 0x11111111, "3.2.18: RE: nor does a locked one");
	set_field(DATA, WRITE);
	*at = 0x33333333;
	check_equal(*at, 0xffffffff, "3.2.18: WE: reads are the bus's");
	*word(DATA + 0x3ffe) = 0x44445555; /* half of it in the next field, which is RAM */
	set_field(DATA, 0);
	*at = 0x66666666;
	check_equal(*at, 0xffffffff, "3.2.18: neither: nothing is there");
	set_field(DATA, READ | WRITE);
	check_equal(*at, 0x33333333, "3.2.18: what was written with WE alone is in RAM");
	check_equal(*word(DATA + 0x3ffe), 0x44445555, "3.2.18: of two fields each half where it goes");
	check_equal(config(PAM0 + 2), 0x33, "PAM2 reads as it was written");
}

/* As a BIOS does it: copy the ROM to the RAM behind it, change something there, and seal it. */
static void test_shadow(void)
{
	u8 rom = *(volatile u8 *)word(START);

	check_equal(rom, FAR_JUMP, "as firmware leaves it: the reset vector's jump");
	*word(START) = 0;
	check_equal(*(volatile u8 *)word(START), FAR_JUMP, "as firmware leaves it: read only");
	set_field(ROM, 0);
	check_equal(*(volatile u8 *)word(START), FAR_JUMP, "the ROM has the same");
	check_equal(*word(0xf0000), 0xffffffff, "below it is nothing");
	set_field(ROM, WRITE);
	for (u32 n = 0; n < 0x1000; n += 4)
		*word(ROM + n) = *word(ROM + n);
	*(volatile u8 *)word(START + 8) = 0x5a;
	asm volatile("lock incb %0" : "+m"(*(volatile u8 *)word(START + 9)));
	u8 before = *(volatile u8 *)word(START + 9);
	check(*(volatile u8 *)word(START + 8) != 0x5a, "3.2.18: WE: reads are the ROM's");
	set_field(ROM, READ);
	check_equal(*(volatile u8 *)word(START), FAR_JUMP, "3.2.18: RE: the copy");
	check_equal(*(volatile u8 *)word(START + 8), 0x5a, "3.2.18: RE: what was changed in it");
	check_equal(*(volatile u8 *)word(START + 9), (u8)(before + 1),
		    "3.2.18: a locked instruction read the ROM and wrote RAM");
}

/* mov $value, %eax; ret */
static void put_code(u8 value)
{
	u8 code[6] = { 0xb8, value, 0, 0, 0, 0xc3 };

	memcpy((void *)word(CODE_AT), code, sizeof(code));
}

static u32 call_code(void)
{
	u32 (*code)(void) = (u32(*)(void))(u64)word(CODE_AT);

	return code();
}

/* The same addresses have other code each time, none of which was written while it could be read. */
static void test_code(void)
{
	unsigned wrong = 0;

	for (unsigned n = 1; n <= ROUNDS; n++) {
		set_field(CODE_AT, WRITE);
		put_code((u8)n);
		set_field(CODE_AT, READ);
		wrong += call_code() != (u8)n;
		put_code(0xee);
		wrong += call_code() != (u8)n;
	}
	check_equal(wrong, 0, "3.2.18: code is what is there now, %u times", ROUNDS);
	set_field(CODE_AT, 0);
	struct trap t = KERNEL(CODE_AT);
	check_equal(t.vector, 6, "3.2.18: neither: all ones, which are no instruction");
	set_field(CODE_AT, READ | WRITE);
	check_equal(call_code(), ROUNDS & 0xff, "3.2.18: and then it is there again");
}

/* The topmost page table there: others' addresses change under it. */
static void test_page_tables(void)
{
	u64 old = read_cr3(), *tables = (u64 *)(u64)word(TABLES);
	u32 through[3];

	set_field(TABLES, READ | WRITE);
	memcpy(tables, (void *)(old & ~0xfffull), 4096);
	write_cr3((u64)tables);
	through[0] = *word(DATA);
	set_field(DATA, 0);
	through[1] = *word(DATA);
	set_field(DATA, READ | WRITE);
	through[2] = *word(DATA);
	write_cr3(old);
	check_equal(through[0], 0x33333333, "page tables in RAM of PAM: open");
	check_equal(through[1], 0xffffffff, "page tables in RAM of PAM: what they map is not there");
	check_equal(through[2], 0x33333333, "page tables in RAM of PAM: open again");
}

/* ---- another processor ---- */

static volatile u32 round, answer[MAX_CPUS], wrong_there;

/* Reads data and runs code; says which round it has seen when both are that round's. */
static void watch(u64 cpu)
{
	for (u32 now; (now = round) <= SEEN_ROUNDS;) {
		if (!now || answer[cpu] == now) {
			cpu_pause();
			continue;
		}
		if (*word(DATA) != now || call_code() != now)
			__atomic_add_fetch(&wrong_there, 1, __ATOMIC_SEQ_CST);
		answer[cpu] = now;
	}
}

static void test_processors(unsigned cpus)
{
	for (unsigned cpu = 1; cpu < cpus; cpu++)
		smp_run(cpu, watch, cpu);
	for (u32 n = 1; n <= SEEN_ROUNDS; n++) {
		set_field(DATA, WRITE);
		set_field(CODE_AT, WRITE);
		*word(DATA) = n;
		put_code((u8)n);
		set_field(DATA, READ);
		set_field(CODE_AT, READ);
		round = n;
		for (unsigned cpu = 1; cpu < cpus; cpu++)
			while (answer[cpu] != n)
				cpu_pause();
	}
	round = SEEN_ROUNDS + 1;
	for (unsigned cpu = 1; cpu < cpus; cpu++)
		smp_wait(cpu);
	check_equal(wrong_there, 0, "3.2.18: %u times on %u processors: data and code are what is there now",
		    SEEN_ROUNDS, cpus);
}

static void test_smram(void)
{
	volatile u32 *at = word(0xa8000);

	check_equal(config(SMRAM), 0x02, "3.2.22: SMRAM after a reset");
	*at = 1;
	check_equal(*at, 0xffffffff, "3.2.22: closed: nobody is there");
	set_config(SMRAM, 0x4a);
	*at = 0x12345678;
	check_equal(*at, 0x12345678, "3.2.22: D_OPEN: RAM");
	set_config(SMRAM, 0x0a);
	check_equal(*at, 0xffffffff, "3.2.22: closed again");
	set_config(SMRAM, 0x4a);
	check_equal(*at, 0x12345678, "3.2.22: D_OPEN: as it was left");
	set_config(SMRAM, 0x5a);
	check_equal(config(SMRAM), 0x1a, "3.2.22: D_LCK closes it");
	check_equal(*at, 0xffffffff, "3.2.22: locked: nobody is there");
	set_config(SMRAM, 0x42);
	check_equal(config(SMRAM), 0x1a, "3.2.22: locked: it stays as it is");
}

void guest(void)
{
	unsigned cpus = smp_start();

	test_ways();
	test_shadow();
	test_code();
	test_page_tables();
	test_smram();
	if (cpus > 1)
		test_processors(cpus);
}
