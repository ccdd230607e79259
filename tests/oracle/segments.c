/*
 * segments: what selectors of user mode name: the segments of Linux's GDT, and an LDT with segments of every kind that
 * modify_ldt() makes, placed so that the areas of memory lie in them, and that their ends lie in the areas. Kernels that
 * a software hypervisor runs may have less (PVM: neither 32-bit code nor an LDT, though modify_ldt() says it made one).
 */
#define _GNU_SOURCE
#include "oracle.h"

#include <asm/ldt.h>
#include <sys/syscall.h>
#include <unistd.h>

#define USER (ATTR_P | ATTR_S | ATTR_DPL | ATTR_ACCESSED)
/* Linux marks all descriptors of an LDT accessed, makes no others than DPL 3, and conforming code only not present. */
#define CODE_16	    (USER | ATTR_CODE | ATTR_WRITABLE)
#define CODE_32	    (CODE_16 | ATTR_DB)
#define DATA_16	    (USER | ATTR_WRITABLE)
#define DATA_32	    (DATA_16 | ATTR_DB)
#define READ_16	    USER
#define END_OF_CODE (CODE + CODE_SIZE)
#define END_OF_DATA (DATA + DATA_SIZE)

/* Limits as descriptors have them: in pages where G is set. */
static const struct {
	uint32_t base, limit;
	uint16_t attr;
} ldt[LDT_SIZE] = {
	/* code: beginnings and ends of 64 KiB, ends inside, wrapping at 4 GiB */
	{ CODE - 0x3000, 0xffff, CODE_16 },
	{ END_OF_CODE - 0x10000, 0xffff, CODE_16 },
	{ CODE - 0x1000, 0x1000 + CODE_SIZE - 0x301, CODE_16 },
	{ CODE - 0x8000, 0xfffff, CODE_16 | ATTR_G },
	{ CODE - 0x5000, 0xffff, CODE_16 & ~ATTR_WRITABLE },
	{ CODE - 0x7000000, 0xfffff, CODE_32 | ATTR_G },
	{ CODE - 0x2000, 0x2000 + CODE_SIZE - 0x201, CODE_32 },
	{ (uint32_t)(CODE - 0x20000000), 0xfffff, CODE_32 | ATTR_G },
	{ CODE - 0x4000, 0xffff, CODE_32 & ~ATTR_WRITABLE },
	{ CODE - 0x3000, 0xffff, (CODE_32 | ATTR_EXPAND_DOWN) & ~ATTR_P },
	{ CODE - 0x3000, 0xffff, CODE_16 & ~ATTR_P },
	/* data */
	{ DATA - 0x2000, 0xffff, DATA_16 },
	{ END_OF_DATA - 0x10000, 0xffff, DATA_16 },
	{ DATA - 0x100, 0x100 + DATA_SIZE / 2 + 5, DATA_16 },
	{ DATA - 0x234, 0x234 + DATA_SIZE - 0x611, DATA_32 },
	{ DATA - 0x200, 0xffff, READ_16 },
	{ DATA - 0x4321, 0x47ff, DATA_16 | ATTR_EXPAND_DOWN },
	{ DATA - 0x4000, 0x47ff, DATA_32 | ATTR_EXPAND_DOWN },
	{ DATA - 0x12345678, 0xfffff, DATA_32 | ATTR_G },
	{ DATA - 0x3000, 4, DATA_32 | ATTR_G },
	{ (uint32_t)(DATA - 0x40000000), 0xfffff, DATA_16 | ATTR_G },
	{ DATA - 0x2000, 0x2, READ_16 | ATTR_G | ATTR_EXPAND_DOWN },
	{ DATA, 0, DATA_16 },
	{ DATA, 0xffff, DATA_16 & ~ATTR_P },
	{ DATA - 0x4000, 0xffff, DATA_16 | ATTR_EXPAND_DOWN },
	/* stacks */
	{ STACK - 0x1000, 0xffff, DATA_16 },
	{ STACK + STACK_SIZE - 0x10000, 0xffff, DATA_16 },
	{ STACK, 0xffff, DATA_16 },
	{ STACK - 0x800, 0x800 + STACK_SIZE / 2 + 0x12, DATA_16 },
	{ STACK - 0x100000, 0xfffff, DATA_32 | ATTR_G },
	{ STACK - 0x6001, 0x6001 + STACK_SIZE / 2 + 0x13, DATA_32 },
	{ STACK - 0x3000, 0x33ff, DATA_16 | ATTR_EXPAND_DOWN },
	{ STACK - 0x3003, 0x33fe, DATA_32 | ATTR_EXPAND_DOWN },
};

static bool have_code_32 = true, have_ldt = true;

static const uint16_t flat = USER | ATTR_WRITABLE | ATTR_G | ATTR_DB;

struct segment segment_of(uint16_t selector)
{
	unsigned n = selector >> 3;
	struct segment s = { 0 };

	if (selector & 4) {
		if (n < LDT_SIZE && have_ldt)
			s = (struct segment){ ldt[n].base, ldt[n].limit, ldt[n].attr };
	} else if (n == 0x28 >> 3) {
		s = (struct segment){ 0, 0xfffff, flat };
	} else if (n == SEL_CODE_32 >> 3 && have_code_32) {
		s = (struct segment){ 0, 0xfffff, flat | ATTR_CODE };
	} else if (n == 0x30 >> 3) {
		s = (struct segment){ 0, 0xfffff, ((flat | ATTR_CODE) & ~ATTR_DB) | ATTR_L };
	}
	if (s.attr & ATTR_G)
		s.limit = s.limit << 12 | 0xfff;
	return s;
}

uint64_t segment_descriptor(uint16_t selector)
{
	struct segment s = segment_of(selector);
	uint32_t limit = s.attr & ATTR_G ? s.limit >> 12 : s.limit;

	return (limit & 0xffff) | (uint64_t)(s.base & 0xffffff) << 16 | (uint64_t)s.attr << 40 |
	       (uint64_t)(limit & 0xf0000) << 32 | (uint64_t)(s.base >> 24) << 56;
}

/* What the processor says of a selector. */
static bool is_there(uint16_t selector)
{
	uint32_t rights;
	bool found;

	__asm__ volatile("lar %2, %0" : "=r"(rights), "=@ccz"(found) : "r"((uint32_t)selector));
	return found;
}

static bool make_ldt(void)
{
	for (unsigned n = 0; n < LDT_SIZE; n++) {
		uint16_t attr = ldt[n].attr;
		struct user_desc d = { .entry_number = n,
				       .base_addr = ldt[n].base,
				       .limit = ldt[n].limit,
				       .seg_32bit = !!(attr & ATTR_DB),
				       .contents = attr >> 2 & 3,
				       .read_exec_only = !(attr & ATTR_WRITABLE),
				       .limit_in_pages = !!(attr & ATTR_G),
				       .seg_not_present = !(attr & ATTR_P) };

		if (syscall(SYS_modify_ldt, 0x11, &d, sizeof(d)))
			return false;
	}
	return is_there(SEL_CODE_16);
}

void segments_install(void)
{
	have_ldt = make_ldt();
	have_code_32 = is_there(SEL_CODE_32);
}

bool segments_of_mode(enum code_mode mode) { return mode == MODE_64 || (mode == MODE_32 ? have_code_32 : have_ldt); }

bool segment_holds(const struct segment *s, uint64_t area)
{
	return (s->attr & ATTR_G && !(s->attr & ATTR_EXPAND_DOWN)) || (uint32_t)(area - s->base) < 0x10000;
}
