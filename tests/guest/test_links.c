/*
 * Jumps from page to page whose target is translated anew: what an engine remembers of where they lead must go when the
 * architecture says so, SDM vol. 3A 4.10.4. A routine in one page calls one in another, hot, before and after that one's page is
 * mapped elsewhere, in one address space and in several, with translations that are global and not, for user and supervisor;
 * and runs an instruction that lies in two pages. What a computed jump finds is of the mode and the ring that it is made in,
 * 3A 4.6: also behind an instruction that was not done by translated code.
 */
#include "guest.h"

#define LOW  0x8000000000ull
#define HIGH 0xffff900000000000ull
#define HOT  5

static u64 base; /* LOW or HIGH */
#define CALLER base
#define CALLEE (base + 0x5000)
#define LEFT   (base + 0x9000) /* and the page behind it */

static u8 *caller, *callee[4];

/* Calls RCX times; RAX = sum of what came back. The distance is put in behind the opcode. */
CODE(call_often, "xor %eax, %eax\n1: " LABEL(call_often_call) "call . + 0x5000\nadd %edx, %eax\ndec %ecx\njnz 1b")
extern const u8 call_often_call[];
/* As a callee: EDX = number. */
static const u8 give[] = { 0xba, 0, 0, 0, 0, 0xc3 }; /* mov $0, %edx; ret */

static u64 sum(u64 flags)
{
	struct trap t;

	if (flags & PTE_U)
		t = run(&(struct frame){
			.rip = CALLER, .cs = USER_CS, .ss = USER_DS, .rsp = user_stack(), .rflags = 2, .rcx = HOT });
	else
		t = KERNEL(CALLER, .rcx = HOT);
	return t.vector == END_VECTOR ? t.rax : ~0ull;
}

static void lead_to(unsigned n, u64 flags) { *entry_of(CALLEE, 1) = (u64)callee[n] | PTE_P | PTE_W | PTE_A | flags; }

/* New frames: what is known of others does not matter. */
static void prepare(void)
{
	u32 distance = (u32)(CALLEE - (CALLER + (u64)(call_often_call - call_often) + 5));

	caller = frame_alloc();
	memcpy(caller, call_often, 64);
	memcpy(caller + (call_often_call - call_often) + 1, &distance, 4);
	for (unsigned n = 0; n < ARRAY_SIZE(callee); n++) {
		callee[n] = frame_alloc();
		memcpy(callee[n], give, sizeof(give));
		callee[n][1] = (u8)(n + 1);
	}
}

/* ---- one address space ---- */

static void test_remapped(u64 flags, const char *how)
{
	prepare();
	map_page(CALLER, (u64)caller, PTE_P | PTE_W | flags);
	map_page(CALLEE, (u64)callee[0], PTE_P | PTE_W | flags);
	check_equal(sum(flags), HOT * 1, "3A 4.10.4: a call into another page, %s", how);
	for (unsigned n = 1; n < 4; n++) {
		lead_to(n, flags);
		invlpg(CALLEE);
		check_equal(sum(flags), HOT * (n + 1), "3A 4.10.4: and after INVLPG, %s, %u", how, n);
	}
	lead_to(0, flags);
	if (flags & PTE_G) {
		write_cr4(read_cr4() & ~CR4_PGE);
		write_cr4(read_cr4() | CR4_PGE);
	} else {
		flush_tlb();
	}
	check_equal(sum(flags), HOT * 1, "3A 4.10.4: and after a flush of all, %s", how);
	*entry_of(CALLEE, 1) = 0;
	invlpg(CALLEE);
	check_equal(sum(flags), ~0ull, "3A 4.10.4: and when it is gone, %s", how);
	lead_to(2, flags);
	check_equal(sum(flags), HOT * 3, "3A 4.10.4: and back, %s", how);
}

/* ---- several ---- */

static u64 *make_different(u64 cr3, unsigned n, u64 caller_flags, u64 flags)
{
	write_cr3(cr3);
	/* The tables below are shared: this address space gets its own for what is at CALLER. */
	((u64 *)cr3)[CALLER >> 39 & 511] = 0;
	map_page(CALLER, (u64)caller, PTE_P | PTE_W | caller_flags);
	map_page(CALLEE, (u64)callee[n], PTE_P | PTE_W | flags);
	return entry_of(CALLEE, 1);
}

static void switch_between(const u64 *cr3, u64 flags, const char *how)
{
	static const u8 order[] = { 0, 1, 0, 2, 2, 1, 0, 1, 2, 0 };
	bool good = true;

	for (unsigned n = 0; n < ARRAY_SIZE(order); n++) {
		write_cr3(cr3[order[n]]);
		good &= sum(flags) == HOT * (order[n] + 1u);
	}
	check(good,
	      "3A 4.10.4: one page with the same code, another with other code in each of three address spaces, %s",
	      how);
}

static void test_spaces(u64 caller_flags, u64 flags, const char *how)
{
	u64 home = read_cr3(), cr3[3], pcid[3];
	u64 *entry[3];

	prepare();
	for (unsigned n = 0; n < 3; n++) {
		cr3[n] = address_space();
		entry[n] = make_different(cr3[n], n, caller_flags, flags);
	}
	switch_between(cr3, flags, how);
	if (has_pcid()) {
		write_cr3(home);
		write_cr4(read_cr4() | CR4_PCIDE);
		for (unsigned n = 0; n < 3; n++) {
			pcid[n] = cr3[n] | (n + 1);
			write_cr3(pcid[n]);
			sum(flags);
			pcid[n] |= BIT(63);
		}
		switch_between(pcid, flags, how);
		/* Changed behind its back, and the others stay. */
		*entry[1] = (u64)callee[3] | PTE_P | PTE_W | flags;
		write_cr3(pcid[1] & ~BIT(63));
		check_equal(sum(flags), HOT * 4, "3A 4.10.4: and after a flush of one of them, %s", how);
		write_cr3(pcid[2]);
		check_equal(sum(flags), HOT * 3, "3A 4.10.4: the next one, %s", how);
		write_cr3(pcid[1]);
		check_equal(sum(flags), HOT * 4, "3A 4.10.4: and again, %s", how);
		write_cr3(home);
		write_cr4(read_cr4() & ~CR4_PCIDE);
	}
	write_cr3(home);
}

/* ---- an instruction in two pages ---- */

/* jmp to the last byte of the page: mov $n, %eax begins there; int $0x40 */
static void test_crossing(void)
{
	u8 *left = frame_alloc(), *right[2] = { frame_alloc(), frame_alloc() };
	struct trap t;

	/* LEFT: xor %eax, %eax; again: dec %ecx; js end; jmp last; end: int $0x40 */
	static const u8 loop[] = { 0xff, 0xc9, 0x78, 0x05, 0xe9, 0, 0, 0, 0, 0xcd, END_VECTOR };
	u32 to_last = 4095 - 9, back;

	memcpy(left, loop, sizeof(loop));
	memcpy(left + 5, &to_last, 4);
	left[4095] = 0xb8; /* mov $imm32, %eax */
	for (unsigned n = 0; n < 2; n++) {
		right[n][0] = (u8)(n + 7);
		right[n][4] = 0xe9; /* jmp LEFT */
		back = (u32) - (4096 + 9);
		memcpy(right[n] + 5, &back, 4);
	}
	map_page(LEFT, (u64)left, PTE_P | PTE_W);
	for (unsigned n = 0; n < 4; n++) {
		map_page(LEFT + 4096, (u64)right[n & 1], PTE_P | PTE_W);
		t = KERNEL(LEFT, .rcx = HOT);
		check(t.vector == END_VECTOR && t.rax == (n & 1) + 7, "3A 4.10.4: an instruction's second page, %u", n);
	}
	unmap_page(LEFT + 4096);
	t = KERNEL(LEFT, .rcx = HOT);
	check(t.vector == EXC_PF && t.cr2 == LEFT + 4096, "3A 4.10.4: and when it is gone");
}

static void test_half(u64 start, const char *half)
{
	base = start;
	print("# %s half\n", half);
	test_remapped(0, "supervisor");
	test_remapped(PTE_U, "user");
	test_remapped(PTE_G, "global");
	test_remapped(PTE_G | PTE_U, "global, user");
	test_spaces(0, 0, "supervisor");
	test_spaces(PTE_U, PTE_U, "user");
	test_spaces(PTE_G, 0, "from a global page");
	test_spaces(PTE_G | PTE_U, PTE_U, "from a global page, user");
	test_crossing();
}

#define DEVICE 0xfed00000ull /* nothing is there */
CODE(forbidden, "mov $1, %ebx")
CODE(jump_behind_device, "mov (%rdi), %eax\nmov (%rdi), %eax\njmp *%rsi")
CODE32(jump_behind_device_32, "mov (%edi), %eax\nmov (%edi), %eax\njmp *%esi")

/* The supervisor's code is run by it, again and again; a jump there from user mode and from 32-bit code faults all the same. */
static void test_rings(void)
{
	const u64 wanted = (u64)forbidden, at = FREE_BASE;
	unsigned good = 0, good_32 = 0;

	map_page(at, DEVICE, PTE_P | PTE_U | PTE_A);
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(USER_DS));
	for (unsigned n = 0; n < 40; n++) {
		struct trap t = KERNEL(forbidden);

		check(t.vector == END_VECTOR && t.rbx == 1, "supervisor code, %u", n);
		t = USER_MODE(jump_behind_device, .rdi = at, .rsi = wanted);
		good += t.vector == EXC_PF && t.cr2 == wanted && t.rip == wanted && t.cs == USER_CS;
		t = USER_MODE(jump_behind_device_32, .cs = USER_CS32, .rdi = at, .rsi = wanted);
		good_32 += t.vector == EXC_PF && t.cr2 == wanted && t.rip == wanted && t.cs == USER_CS32;
	}
	check_equal(good, 40, "3A 4.6: user mode's jumps to supervisor code, behind an access to a device");
	check_equal(good_32, 40, "3A 4.6: those of 32-bit code");
}

void guest(void)
{
	if (has_pge())
		write_cr4(read_cr4() | CR4_PGE);
	test_half(LOW, "lower");
	test_half(HIGH, "upper");
	test_rings();
}
