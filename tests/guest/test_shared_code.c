/*
 * The same code, on the same physical pages, at several linear addresses, as programs and libraries are mapped into many processes:
 * whatever depends on RIP is the right one's. SDM vol. 1 3.5.1.1 (relative addresses), 2 CALL, vol. 1 8.1.8 (x87 instruction
 * pointer).
 */
#include "guest.h"

#define PAGE 4096ull

/* Two pages; everything that it finds ends up in registers. One instruction is in both pages. */
asm(".pushsection .text\n.balign 4096\n"
    "image:\n"
    "lea image(%rip), %rax\n"
    "call 1f\n"
    "2: call image_second\n"
    "mov image_data(%rip), %rbx\n"
    "lea 3f(%rip), %rdi\n"
    "call *%rdi\n"
    "fninit\n" LABEL(
	    image_fld) "fld1\n"
		       "sub $32, %rsp\n"
		       "fnstenv (%rsp)\n"
		       "mov 12(%rsp), %r9d\n"
		       "add $32, %rsp\n"
		       "push image_data(%rip)\n"
		       "pop %r10\n"
		       "mov $5, %r13d\n"
		       "4: dec %r13d\n"
		       "jnz 4b\n"
		       "jmp *image_pointer(%rip)\n"
		       "1: mov (%rsp), %rcx\n"
		       "ret\n"
		       "3: mov (%rsp), %rsi\n"
		       "ret\n"
		       ".balign 8\n" LABEL(image_pointer) ".quad 0\n" LABEL(
			       image_constant) "mov $0x11, %r12d\n"
					       "jmp image_crossing\n"
					       ".org image + 4091\n" LABEL(
						       image_crossing) "movabs $0x1122334455667788, %r8\n"
								       "int $0x40\n" LABEL(
									       image_second) "lea image_second(%rip), "
											     "%rdx\n"
											     "mov (%rsp), %r11\n"
											     "ret\n" LABEL(
												     image_data) ".quad"
														 " 0x12"
														 "34567"
														 "89\n"
														 ".org "
														 "image"
														 " + "
														 "8192"
														 "\n"
														 ".pops"
														 "ectio"
														 "n\n");
extern const u8 image[], image_fld[], image_pointer[], image_constant[], image_crossing[], image_second[], image_data[];

static const u64 places[] = {
	FREE_BASE, 0x555555554000, 0x7f0012345000, 0x7ffefffff000, 0x7fffffffd000,
};

static u8 *first, *second, *other; /* frames: the image's, and another second page */

static u64 at(u64 base, const u8 *label) { return base + (u64)(label - image); }

static void map(u64 base, const u8 *page_2)
{
	map_page(base, (u64)first, PTE_P | PTE_U);
	map_page(base + PAGE, (u64)page_2, PTE_P | PTE_U);
}

/* image_constant's address depends on where the image is: the one thing that differs in memory. */
static struct trap run_at(u64 base)
{
	u64 pointer = at(base, image_constant);

	memcpy(first + (image_pointer - image), &pointer, 8);
	return USER_MODE(0, .rip = base);
}

static void check_at(u64 base, u32 constant, u64 crossing, u64 data, const char *when)
{
	struct trap t = run_at(base);

	check_end(&t, "%s, at %lx: it runs to its end", when, base);
	check_equal(t.rax, base, "%s, at %lx: LEA", when, base);
	check_equal(t.rcx, base + 12, "%s, at %lx: return address of a call", when, base);
	check_equal(t.rdx, at(base, image_second), "%s, at %lx: LEA in another page", when, base);
	check_equal(t.r11, base + 17, "%s, at %lx: return address of a call of another page", when, base);
	check_equal(t.rsi, base + 33, "%s, at %lx: return address of an indirect call", when, base);
	check(t.rbx == data && t.r10 == data, "%s, at %lx: operands", when, base);
	check_equal(t.r9, (u32)at(base, image_fld), "%s, at %lx: x87 instruction pointer", when, base);
	check_equal(t.r12, constant, "%s, at %lx: code on the first page", when, base);
	check_equal(t.r8, crossing, "%s, at %lx: the instruction in both pages", when, base);
}

static void check_places(u32 constant, const char *when)
{
	for (unsigned n = 0; n < ARRAY_SIZE(places); n++)
		check_at(places[n], constant, 0x1122334455667788, 0x123456789, when);
}

void guest(void)
{
	u64 crossing = 0x1122334455667788;

	first = frame_alloc();
	second = frame_alloc();
	other = frame_alloc();
	memcpy(first, image, PAGE);
	memcpy(second, image + PAGE, PAGE);
	memcpy(other, image + PAGE, PAGE);
	for (unsigned n = 0; n < ARRAY_SIZE(places); n++)
		map(places[n], second);
	check_places(0x11, "first");
	check_places(0x11, "again");
	first[image_constant - image + 2] = 0x22;
	check_places(0x22, "changed");
	check_places(0x22, "changed, again");

	/* The last bytes of the instruction in both pages, and of the data. */
	other[4] = 0x99;
	other[image_data - image - PAGE] = 0;
	crossing = (crossing & ~(0xffull << 56)) | 0x99ull << 56;
	map(places[1], other);
	map(places[3], other);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned n = 0; n < ARRAY_SIZE(places); n++) {
			bool moved = n == 1 || n == 3;

			check_at(places[n], 0x22, moved ? crossing : 0x1122334455667788,
				 moved ? 0x123456700 : 0x123456789, "another second page");
		}
}
