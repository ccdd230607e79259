/*
 * Memory that is mapped very often: the same large page at thousands of places, which then gets code; the same small pages; many sparse pages
 * in many top-level entries, each of which costs a translator's host a page table. Slow at worst.
 */
#include "guest.h"

#undef FRAME
#define FRAME	   0x2000000ull /* 2 MiB, and the same again */
#define BASE	   0xffff800000000000ull
#define FIRST_SLOT 256u
#define SLOTS	   4u
#define MANY	   17000u /* more than Linux allows, when each is cut a few times */
#define TIMES	   3000u
#define SPARSE	   8000u
#define LARGE	   (1ull << 21)
#define RIGHTS	   (PTE_P | PTE_W | PTE_A | PTE_D)

static u64 pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096)));
static u64 pt[512] __attribute__((aligned(4096)));

static volatile u8 *at(u64 offset) { return (volatile u8 *)(BASE + offset); }

/* Every GiB of every slot leads to the one page directory. */
static void map_everywhere(void)
{
	u64 *top = (u64 *)(read_cr3() & PTE_ADDRESS);

	for (unsigned n = 0; n < 512; n++)
		pdpt[n] = (u64)pd | RIGHTS;
	for (unsigned slot = 0; slot < SLOTS; slot++)
		top[FIRST_SLOT + slot] = (u64)pdpt | RIGHTS;
}

/* So that the instructions that count find all there is: one that has to be helped is translated in another way. */
static void first_touch(void)
{
	for (u64 slot = 0; slot < SLOTS; slot++)
		*(volatile u8 *)(BASE + (slot << 39));
}

static void map_large(u64 rights)
{
	for (unsigned n = 0; n < 512; n++)
		pd[n] = FRAME | rights | PTE_PS;
	flush_tlb();
	first_touch();
}

static void map_small(u64 rights)
{
	for (unsigned n = 0; n < 512; n++) {
		pt[n] = (FRAME + (n & 7) * 4096) | rights;
		pd[n] = (u64)pt | RIGHTS;
	}
	flush_tlb();
}

/* Code in eight pages of it; each version returns another number. */
static int run_code(u8 number)
{
	int sum = 0;

	for (u64 page = 0; page < 16; page += 2) {
		u8 *code = (u8 *)(FRAME + page * 4096 + 64);

		code[0] = 0xb8; /* mov $number, %eax; ret */
		code[1] = number;
		code[2] = code[3] = code[4] = 0;
		code[5] = 0xc3;
		sum += ((int (*)(void))code)();
	}
	return sum;
}

static void write_at(u64 step, unsigned count, u8 value)
{
	for (u64 n = 0; n < count; n++)
		at(n * step)[8] = value + (u8)n;
}

static void test_large(void)
{
	unsigned wrong = 0;

	map_large(RIGHTS);
	write_at(LARGE, MANY, 1);
	check(at(0)[8] == (u8)MANY && at(77 * LARGE)[8] == (u8)MANY, "a large page at many places");
	check(run_code(3) == 24, "code in it");
	write_at(LARGE, TIMES, 2);
	check(*(volatile u8 *)(FRAME + 8) == (u8)(TIMES + 1) && run_code(5) == 40, "written once more");
	/* Code changes through one of the other places. */
	at(100 * LARGE)[64 + 1] = 9;
	check(((int (*)(void))(FRAME + 64))() == 9, "code changed elsewhere");
	map_large(RIGHTS & ~PTE_W);
	check(at(5 * LARGE)[8] == (u8)(TIMES + 1), "read-only by a flush");
	for (u64 n = 0; n < TIMES; n++)
		wrong += at(n * LARGE)[8] != (u8)(TIMES + 1);
	check(!wrong, "read at all places");
}

static void test_small(void)
{
	map_small(RIGHTS);
	write_at(4096, TIMES, 3);
	check(at(8)[0] == *(volatile u8 *)(FRAME + 8), "small pages at many places");
	check(run_code(7) == 56, "code in them");
	for (unsigned n = 0; n < 512; n += 2)
		pt[n] &= ~PTE_W;
	flush_tlb();
	for (u64 n = 1; n < TIMES; n += 2)
		at(n * 4096)[8] = (u8)n;
	check(at(4096 + 8)[0] == *(volatile u8 *)(FRAME + 4096 + 8), "every other one read-only");
}

static void test_sparse(void)
{
	map_small(RIGHTS & ~PTE_W);
	*(volatile u8 *)FRAME = 1;
	for (u64 slot = 0; slot < SLOTS; slot++) {
		u64 sum = 0;

		for (u64 n = 0; n < SPARSE; n++)
			sum += at((slot << 39) + n * LARGE)[0];
		check(sum == SPARSE, "sparse pages, %lu", slot);
	}
}

void guest(void)
{
	map_everywhere();
	test_large();
	test_small();
	test_sparse();
	finish();
}
