/*
 * The A20 gate of PCs (SDM vol. 3A 8.7.13.4, 20.1.1): while it is closed, bit 20 of every physical address is 0, for data, code and
 * page tables, and on every processor. By system control port A and by the keyboard controller's output port.
 *
 * The guest's own image has odd and even megabytes: what runs while the gate is closed is copied to low memory, uses no
 * stack, and leaves its results in an even megabyte.
 */
#include "legacy.h"

#define EVEN	0x2200000
#define ODD	0x2300000
#define DATA	0x10 /* in each of the two */
#define JUMPED	0x20 /* in each: code that says where it is */
#define RESULTS 0x100
#define SEEN	0x200 /* by another processor, whose code is at LOOP; it ends when STOP is not 0 */
#define STOP	0x204
#define LOOP	0x300
#define TABLES	0x1000 /* in each: page tables */

#define BY_PORT_A(bit) "in $0x92, %al\nand $0xfd, %al\nor $2 * " #bit ", %al\nout %al, $0x92\n"
#define READY	       "1: in $0x64, %al\ntest $2, %al\njnz 1b\n"
#define BY_KEYBOARD(bit)                                                                                               \
	READY "mov $0xd1, %al\nout %al, $0x64\n" READY "mov $0xdd + 2 * " #bit ", %al\nout %al, $0x60\n" READY
#define KEEP(n) "mov %eax, 0x2200100 + 4 * " #n "\n"

/* ESI: odd data, EDI: even data, ECX: odd code, which comes back to EDX. */
#define READ_ODD    "mov (%esi), %eax\n"
#define WRITE_ODD   "movl $0x33333333, (%esi)\nmov (%edi), %eax\n"
#define JUMP_ODD    "jmp *%ecx\n"
#define JUMPED_TO   "mov %ebx, %eax\n"
#define PORT_A	    "xor %eax, %eax\nin $0x92, %al\n"
#define OUTPUT_PORT "mov $0xd0, %al\nout %al, $0x64\nin $0x60, %al\n"
#define TRY_CLOSED  READ_ODD KEEP(1) WRITE_ODD KEEP(2) JUMP_ODD
#define TRY_BACK    JUMPED_TO KEEP(3) PORT_A KEEP(4) OUTPUT_PORT KEEP(5)
#define TRY(name, gate)                                                                                                \
	CODE32(name, READ_ODD KEEP(0) gate(0) TRY_CLOSED LABEL(name##_back) TRY_BACK gate(1) READ_ODD KEEP(6))         \
	extern const u8 name##_back[];
TRY(port_a, BY_PORT_A)
TRY(keyboard, BY_KEYBOARD)

static volatile u32 *memory(u32 at)
{
	u64 address = at;

	asm("" : "+r"(address)); /* gcc takes the first page for a null pointer */
	return (volatile u32 *)address;
}
static u32 result(unsigned n) { return *memory(EVEN + RESULTS + 4 * n); }

/* mov $value, %ebx; jmp *%edx */
static void put_code(u32 at, u8 value)
{
	u8 code[7] = { 0xbb, value, 0, 0, 0, 0xff, 0xe2 };

	memcpy((void *)(u64)at, code, sizeof(code));
}

static void prepare(const u8 *code)
{
	memcpy((void *)LOW_CODE, code, 256);
	*memory(EVEN + DATA) = 0x22222222;
	*memory(ODD + DATA) = 0x11111111;
	put_code(EVEN + JUMPED, 2);
	put_code(ODD + JUMPED, 1);
	for (unsigned n = 0; n < 16; n++)
		*memory(EVEN + RESULTS + 4 * n) = 0xdeadbeef;
}

static void check_try(const struct legacy_trap *t, const char *what)
{
	check_end_32(t, "%s: ends", what);
	check_equal(result(0), 0x11111111, "%s: open, an odd megabyte's data are its own", what);
	check_equal(result(1), 0x22222222, "3A 8.7.13.4: %s: closed, they are the even one's", what);
	check_equal(result(2), 0x33333333, "3A 8.7.13.4: %s: closed, a store goes there too", what);
	check_equal(result(3), 2, "3A 8.7.13.4: %s: closed, code comes from there", what);
	check_equal(result(4) & 2, 0, "%s: port 0x92 says so", what);
	check_equal(result(5) & 2, 0, "%s: the output port says so", what);
	check_equal(result(6), 0x11111111, "%s: open again, nothing was written there", what);
	check_equal(in8(0x92) & 2, 2, "%s: port 0x92 says that it is open", what);
}

#define RUN(name, ...)                                                                                                 \
	(prepare(name), RING0_32(LOW_CODE, .esi = ODD + DATA, .edi = EVEN + DATA, .ecx = ODD + JUMPED,                 \
				 .edx = LOW_CODE + (u32)(name##_back - name), ##__VA_ARGS__))

/* Pages of 4 MiB for all memory, in an even megabyte. */
static u32 large_pages(void)
{
	volatile u32 *directory = memory(EVEN + TABLES);

	memset((void *)directory, 0, 4096);
	for (u32 n = 0; n < 16; n++)
		directory[n] = n << 22 | 0x83;
	return EVEN + TABLES;
}

/* Reads what is mapped at 2 GiB. */
CODE32(through_table, "mov 0x80000000, %eax\n" KEEP(0) BY_PORT_A(0) "mov 0x80000000, %eax\n" KEEP(1)
			      BY_PORT_A(1) "mov 0x80000000, %eax\n" KEEP(2))

/* The page table is in an odd megabyte, and the even one has another there. */
static void test_page_tables(void)
{
	u32 cr3 = large_pages();

	memory(cr3)[512] = (ODD + 2 * TABLES) | 3;
	memory(ODD + 2 * TABLES)[0] = (ODD + 3 * TABLES) | 3;
	memory(EVEN + 2 * TABLES)[0] = (ODD + 4 * TABLES) | 3;
	*memory(ODD + 3 * TABLES) = 13;
	*memory(ODD + 4 * TABLES) = 14;
	*memory(EVEN + 3 * TABLES) = 23;
	*memory(EVEN + 4 * TABLES) = 24;
	prepare(through_table);
	struct legacy_trap t = RING0_32(LOW_CODE, .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = cr3, .cr4 = CR4_PSE);
	check_end_32(&t, "page tables: ends");
	check_equal(result(0), 13, "page tables: open");
	check_equal(result(1), 24, "3A 8.7.13.4: page tables: closed, the entry and the page are the even megabyte's");
	check_equal(result(2), 13, "page tables: open again");
}

CODE_LOW(real_wrap, "mov $0xffff, %ax\nmov %ax, %es\nmov %es:0x410, %ebx\n" BY_PORT_A(
			    0) "mov %es:0x410, %ecx\n" BY_PORT_A(1) "mov %es:0x410, %edx\n")

static void test_real_mode(void)
{
	u32 above = *memory(0x100400), below = ~above;

	*memory(0x400) = below;
	struct legacy_trap t = legacy_run(&(struct legacy_state){ LEGACY_REAL, .eip = place_code(real_wrap) });
	check_equal(t.vector, END_VECTOR, "real mode: ends");
	check_equal(t.ebx, above, "3A 20.1.1: FFFF:0410 is above 1 MiB with the gate open");
	check_equal(t.ecx, below, "3A 20.1.1: and wraps to 400 with the gate closed");
	check_equal(t.edx, above, "3A 20.1.1: and is there again when it is opened");
}

/* ---- another processor ---- */

/* RSI: what to read, RDI: where SEEN is, CR3: RCX while it does, then RDX. Back to RBX. */
CODE(watch,
     "mov %rcx, %cr3\n1: mov (%rsi), %eax\nmov %eax, (%rdi)\npause\ncmpl $0, 4(%rdi)\nje 1b\nmov %rdx, %cr3\njmp *%rbx")

/* Each wait is bounded: what is kept is 0 when it was in vain. */
#define WAIT_SEEN(value, n)                                                                                            \
	"mov $1000000, %ecx\n2: pause\nmov 0x2200200, %eax\ncmp $" #value                                              \
	", %eax\nje 3f\nloop 2b\n3: mov %ecx, %eax\n" KEEP(n)
CODE32(across, WAIT_SEEN(0x11111111, 0) BY_PORT_A(0) WAIT_SEEN(0x22222222, 1) BY_PORT_A(1) WAIT_SEEN(0x11111111, 2))

/* Identity mapping of the first GiB, in an even megabyte. */
static u64 even_tables(void)
{
	u64 *tables = (u64 *)(u64)(EVEN + 4 * TABLES);

	memset(tables, 0, 3 * 4096);
	tables[0] = (EVEN + 5 * TABLES) | PTE_P | PTE_W;
	tables[512] = (EVEN + 6 * TABLES) | PTE_P | PTE_W;
	for (u64 n = 0; n < 512; n++)
		tables[1024 + n] = n << 21 | PTE_P | PTE_W | PTE_PS;
	return EVEN + 4 * TABLES;
}

static void watch_there(u64 cr3)
{
	u64 target = EVEN + LOOP, rsi = ODD + DATA, rdi = EVEN + SEEN, old = read_cr3();

	asm volatile("lea 1f(%%rip), %%rbx\n\tjmp *%0\n1:"
		     : "+r"(target), "+S"(rsi), "+D"(rdi), "+c"(cr3), "+d"(old)
		     :
		     : "rax", "rbx", "memory");
}

static void test_other_processor(void)
{
	if (smp_start() < 2) {
		skip("closed, another processor sees it", "one processor");
		return;
	}
	prepare(across);
	memcpy((void *)(EVEN + LOOP), watch, 64);
	*memory(EVEN + SEEN) = *memory(EVEN + STOP) = 0;
	smp_run(1, watch_there, even_tables());
	struct legacy_trap t = RING0_32(LOW_CODE);
	*memory(EVEN + STOP) = 1;
	smp_wait(1);
	check_end_32(&t, "two processors: ends");
	check(result(0) && result(1) && result(2),
	      "3A 8.7.13.4: closed, another processor sees it, and that it is opened");
}

void guest(void)
{
	struct legacy_trap t = RUN(port_a);

	check_try(&t, "port 0x92");
	t = RUN(keyboard);
	check_try(&t, "keyboard controller");
	t = RUN(port_a, .cr0 = (u32)(CR0_PE | CR0_NE | CR0_PG), .cr3 = large_pages(), .cr4 = CR4_PSE);
	check_try(&t, "pages of 4 MiB");
	test_page_tables();
	test_real_mode();
	test_other_processor();
	finish();
}
