/*
 * A 32-bit program for Linux, above all for a 64-bit kernel: what such programs do to a processor, checked. Without a C library, so that no
 * 32-bit one is needed: system calls are made here. The last line says how many checks failed; the exit status is that number.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Linux's interface, arch/x86/entry/syscalls/syscall_32.tbl ---- */

enum {
	SYS_exit = 1,
	SYS_fork = 2,
	SYS_write = 4,
	SYS_waitpid = 7,
	SYS_execve = 11,
	SYS_getpid = 20,
	SYS_kill = 37,
	SYS_munmap = 91,
	SYS_modify_ldt = 123,
	SYS_rt_sigreturn = 173,
	SYS_rt_sigaction = 174,
	SYS_mmap2 = 192,
	SYS_set_thread_area = 243,
};
#define AT_NULL		 0
#define AT_SYSINFO	 32
#define PROT_RW		 3
#define PROT_RWX	 7
#define MAP_PRIVATE_ANON 0x22
#define MAP_FIXED	 0x10
#define SIGUSR1		 10
#define SIGSEGV		 11
#define SIGFPE		 8
#define SA_SIGINFO	 4
#define SA_NODEFER	 0x40000000
#define USER_CS64	 0x33
#define USER_CS32	 0x23
#define PAGE		 4096u
#define TOP_PAGE	 0xffffc000u /* just below where the kernel lets no 32-bit program map */

static uint32_t kernel_entry; /* of the vDSO: SYSCALL or SYSENTER */
static bool kernel_64;	      /* the kernel has 64 bits: its descriptors tell */

static int32_t int80(uint32_t n, uint32_t a, uint32_t b, uint32_t c)
{
	int32_t result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
}

static int32_t fast_call(uint32_t n, uint32_t a)
{
	int32_t result;

	__asm__ volatile("call *%1" : "=a"(result) : "m"(kernel_entry), "a"(n), "b"(a) : "memory");
	return result;
}

/* Six arguments: EBP has the last. */
static void *map(uint32_t at, uint32_t size, uint32_t protection, uint32_t flags)
{
	void *result;

	__asm__ volatile("push %%ebp\n\txor %%ebp, %%ebp\n\tint $0x80\n\tpop %%ebp"
			 : "=a"(result)
			 : "a"(SYS_mmap2), "b"(at), "c"(size), "d"(protection), "S"(MAP_PRIVATE_ANON | flags), "D"(-1)
			 : "memory");
	return result;
}

/* ---- what is said ---- */

static unsigned failed;

static unsigned length(const char *s)
{
	unsigned n = 0;

	while (s[n])
		n++;
	return n;
}

static void say(const char *s) { int80(SYS_write, 1, (uint32_t)s, length(s)); }

static void check(bool good, const char *what)
{
	failed += !good;
	say(good ? "ok - " : "not ok - ");
	say(what);
	say("\n");
}

static void __attribute__((noreturn)) finish(unsigned status)
{
	for (;;)
		int80(SYS_exit, status, 0, 0);
}

/* ---- computing ---- */

static uint32_t random_state = 1;

static uint32_t rnd(void)
{
	random_state = random_state * 1664525 + 1013904223;
	return random_state >> 8;
}

static uint32_t table[4096];

static uint32_t __attribute__((noinline)) fibonacci(unsigned n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint32_t crc_of(const uint8_t *p, unsigned n)
{
	uint32_t crc = ~0u;

	while (n--) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static void sort(uint32_t *a, int first, int last)
{
	int i = first, j = last;
	uint32_t middle = a[(first + last) / 2];

	while (i <= j) {
		while (a[i] < middle)
			i++;
		while (a[j] > middle)
			j--;
		if (i <= j) {
			uint32_t t = a[i];

			a[i++] = a[j];
			a[j--] = t;
		}
	}
	if (first < j)
		sort(a, first, j);
	if (i < last)
		sort(a, i, last);
}

static void test_computing(void)
{
	volatile double one = 1, three = 3;
	volatile long double ten = 10;
	uint64_t product = 0;
	uint32_t low, high;
	bool sorted = true;

	for (unsigned n = 0; n < 4096; n++)
		table[n] = rnd();
	sort(table, 0, 4095);
	for (unsigned n = 1; n < 4096; n++)
		sorted &= table[n - 1] <= table[n];
	check(sorted, "quicksort");
	check(fibonacci(22) == 17711, "recursion");
	check(crc_of((const uint8_t *)"123456789", 9) == 0xcbf43926, "shifts and exclusive or");
	for (uint32_t n = 1; n <= 100000; n++)
		product += (uint64_t)n * n;
	check(product == 333338333350000ull, "sums of 64 bits");
	__asm__("divl %4"
		: "=a"(low), "=d"(high)
		: "a"((uint32_t)product), "d"((uint32_t)(product >> 32)), "rm"(100003));
	check((uint64_t)low * 100003 + high == product, "division of 64 bits by 32");
	check(one / three * three == one && (int)(ten * ten / three) == 33, "floating point by x87");
}

/* ---- system calls, processes ---- */

static void test_system_calls(char **argv)
{
	uint32_t pid = (uint32_t)int80(SYS_getpid, 0, 0, 0);
	bool same = true;
	int32_t child, status = -1;

	for (unsigned n = 0; n < 1000; n++)
		same &= (uint32_t)int80(SYS_getpid, 0, 0, 0) == pid;
	check(same, "system calls by INT 80h");
	for (unsigned n = 0; n < 1000 && kernel_entry; n++)
		same &= (uint32_t)fast_call(SYS_getpid, 0) == pid;
	check(same, "system calls by the vDSO");
	table[0] = 1000;
	for (unsigned n = 0; n < 20; n++) {
		child = int80(SYS_fork, 0, 0, 0);
		if (!child) {
			table[0] = n;
			finish(table[0]);
		}
		same &= int80(SYS_waitpid, (uint32_t)child, (uint32_t)&status, 0) == child &&
			(uint32_t)status >> 8 == n && table[0] == 1000;
	}
	check(same, "processes");
	child = int80(SYS_fork, 0, 0, 0);
	if (!child) {
		char *arguments[] = { argv[0], "again", NULL };

		int80(SYS_execve, (uint32_t)argv[0], (uint32_t)arguments, 0);
		finish(1);
	}
	check(int80(SYS_waitpid, (uint32_t)child, (uint32_t)&status, 0) == child && status == 42 << 8, "execve");
}

/* ---- memory ---- */

static void test_memory(void)
{
	uint8_t *p = map(0, 64 * PAGE, PROT_RW, 0), *top;
	bool good = true;

	for (unsigned n = 0; n < 64; n++)
		good &= !p[n * PAGE];
	for (unsigned n = 0; n < 63; n++)
		*(uint32_t *)(p + (n + 1) * PAGE - 2) = n * 0x01010101;
	for (unsigned n = 0; n < 63; n++)
		good &= *(uint32_t *)(p + (n + 1) * PAGE - 2) == n * 0x01010101;
	check(good, "pages, and operands across them");
	int80(SYS_munmap, (uint32_t)p, 64 * PAGE, 0);

	if (!kernel_64) {
		say("ok - # SKIP the memory near 4 GiB is a 32-bit kernel's\n");
		return;
	}
	top = map(TOP_PAGE, PAGE, PROT_RW, MAP_FIXED);
	check((uint32_t)top == TOP_PAGE, "memory near 4 GiB can be mapped");
	if ((uint32_t)top != TOP_PAGE)
		return;
	for (unsigned n = 0; n < PAGE; n++)
		top[n] = (uint8_t)(n * 7);
	/* The same bytes by an index that wraps. */
	for (unsigned n = 0; n < PAGE; n += 64) {
		uint32_t base = TOP_PAGE + 0x10000, index = (0u - 0x10000 + n) / 8;
		uint8_t value;

		__asm__("movb (%1,%2,8), %0" : "=q"(value) : "r"(base), "r"(index));
		good &= value == (uint8_t)(n * 7);
	}
	check(good, "addresses that wrap at 4 GiB");
}

/* ---- segments ---- */

struct user_desc {
	uint32_t entry, base, limit;
	uint32_t is_32 : 1, contents : 2, read_only : 1, in_pages : 1, not_present : 1, useable : 1;
};

static uint32_t local[8] = { 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7 };
static volatile uint32_t fault_address, fault_count, fault_error;

static void test_segments(void)
{
	struct user_desc d = { -1u, (uint32_t)local, 0xfffff, 1, 0, 0, 1, 0, 1 };
	uint32_t a, b, c;
	bool good;

	check(!int80(SYS_set_thread_area, (uint32_t)&d, 0, 0), "set_thread_area");
	__asm__ volatile("mov %0, %%gs" ::"r"(d.entry << 3 | 3));
	__asm__ volatile("movl %%gs:4, %0\n\tmovl $0xb2, %%gs:8\n\tmovl %%gs:-4(%3), %1\n\taddl $1, %%gs:(%3,%4,4)\n\t"
			 "movl %%gs:28, %2"
			 : "=&r"(a), "=&r"(b), "=&r"(c)
			 : "r"(16), "r"(3)
			 : "memory");
	check(a == 0xa1 && b == 0xa3 && c == 0xa8 && local[2] == 0xb2, "thread-local storage by GS");
	good = true;
	for (unsigned n = 0; n < 200; n++) {
		int80(SYS_getpid, 0, 0, 0);
		__asm__ volatile("movl %%gs:12, %0" : "=r"(a));
		good &= a == 0xa3;
	}
	check(good, "which system calls keep");

	d = (struct user_desc){ 0, (uint32_t)local, 15, 1, 0, 0, 0, 0, 1 };
	if (int80(SYS_modify_ldt, 1, (uint32_t)&d, sizeof(d))) {
		say("ok - # SKIP the kernel has no modify_ldt\n");
		return;
	}
	__asm__ volatile(
		"push %%fs\n\tmov %2, %%fs\n\tmovl %%fs:12, %0\n\tmov %%fs:(%3), %%al\n\tpop %%fs\n\tmovzbl %%al, %1"
		: "=&r"(a), "=&r"(b)
		: "r"(7), "r"(8)
		: "eax");
	check(a == 0xa3 && b == 0xb2, "a segment of the LDT with a limit");
}

/* ---- signals ---- */

struct sigaction {
	void (*handler)(int, void *, void *);
	uint32_t flags;
	void (*restorer)(void);
	uint32_t mask[2];
};

void restorer(void);
__asm__("restorer: mov $173, %eax\n\tint $0x80");

/* struct ucontext: uc_mcontext begins at 20; its registers in the order of struct sigcontext_32. */
enum { CONTEXT = 20 / 4, CONTEXT_EAX = CONTEXT + 11, CONTEXT_TRAPNO, CONTEXT_ERR, CONTEXT_EIP };

static void on_signal(int n, void *info, void *context)
{
	uint32_t *u = context;

	fault_count++;
	fault_address = ((uint32_t *)info)[3];
	fault_error = u[CONTEXT_ERR];
	if (n == SIGSEGV || n == SIGFPE) {
		u[CONTEXT_EIP] += 2; /* over the instruction */
		u[CONTEXT_EAX] = 0x5e9;
	}
}

static void catch (int n)
{
	struct sigaction a = { on_signal, SA_SIGINFO | SA_NODEFER | 0x04000000, restorer, { 0 } };
	int32_t result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(SYS_rt_sigaction), "b"(n), "c"(&a), "d"(0), "S"(8)
			 : "memory");
	check(!result, "rt_sigaction");
}

static void test_signals(void)
{
	uint32_t pid = (uint32_t)int80(SYS_getpid, 0, 0, 0), value;
	bool good = true;

	catch (SIGSEGV);
	catch (SIGFPE);
	catch (SIGUSR1);
	for (unsigned n = 0; n < 100; n++) {
		fault_count = 0;
		__asm__ volatile("mov (%1), %%eax\n\tmov %%eax, %0"
				 : "=r"(value)
				 : "b"(0x1000 + n * 4)
				 : "eax", "memory");
		good &= fault_count == 1 && fault_address == 0x1000 + n * 4 && value == 0x5e9 && fault_error == 4;
	}
	check(good, "SIGSEGV: address, error code, registers from the handler");
	fault_count = 0;
	__asm__ volatile("xor %%edx, %%edx\n\tdiv %%ecx" : "=a"(value) : "a"(5), "c"(0) : "edx");
	check(fault_count == 1 && value == 0x5e9, "SIGFPE");
	fault_count = 0;
	for (unsigned n = 0; n < 100; n++)
		int80(SYS_kill, pid, SIGUSR1, 0);
	check(fault_count == 100, "signals to itself");
}

/* ---- code that changes; 64-bit code ---- */

static void test_code(void)
{
	uint8_t *code = map(0, PAGE, PROT_RWX, 0);
	uint32_t sum = 0, low, high;
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) back, there;

	for (unsigned n = 0; n < 500; n++) {
		code[0] = 0xb8; /* mov $n, %eax; ret */
		*(uint32_t *)(code + 1) = n;
		code[5] = 0xc3;
		sum += ((uint32_t(*)(void))code)();
	}
	check(sum == 500 * 499 / 2, "code that is rewritten before each call");

	if (!kernel_64) {
		say("ok - # SKIP a 32-bit kernel has no 64-bit code\n");
		return;
	}
	/* movabs $0x123456789abcdef0, %r8; mov %r8, %rax; shr $32, %r8; mov %r8d, %edx; ljmp *(%rcx) */
	static const uint8_t code_64[] = { 0x49, 0xb8, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x4c,
					   0x89, 0xc0, 0x49, 0xc1, 0xe8, 0x20, 0x44, 0x89, 0xc2, 0xff, 0x29 };
	for (unsigned n = 0; n < sizeof(code_64); n++)
		code[n] = code_64[n];
	there.offset = (uint32_t)code;
	there.selector = USER_CS64;
	back.selector = USER_CS32;
	sum = 0;
	for (unsigned n = 0; n < 100; n++) {
		__asm__ volatile("movl $1f, (%%ecx)\n\tljmp *%2\n1:"
				 : "=a"(low), "=d"(high)
				 : "m"(there), "c"(&back)
				 : "memory");
		sum += low == 0x9abcdef0 && high == 0x12345678;
	}
	check(sum == 100, "to 64-bit code and back");
}

static void number(unsigned n)
{
	char digits[2] = { (char)('0' + n % 10), 0 };

	if (n >= 10)
		number(n / 10);
	say(digits);
}

/* stack: argc, argv, NULL, environment, NULL, auxiliary vector: System V ABI, i386. */
void __attribute__((noreturn)) start(uint32_t *stack);

void start(uint32_t *stack)
{
	char **argv = (char **)(stack + 1);
	uint32_t *aux = stack + stack[0] + 2;
	uint16_t cs;

	__asm__("mov %%cs, %0" : "=r"(cs));
	kernel_64 = cs == USER_CS32;

	if (stack[0] > 1 && argv[1][0] == 'a')
		finish(42);
	while (*aux++)
		;
	for (; aux[0] != AT_NULL; aux += 2)
		if (aux[0] == AT_SYSINFO)
			kernel_entry = aux[1];
	test_computing();
	test_system_calls(argv);
	test_memory();
	test_segments();
	test_signals();
	test_code();
	say("user32: ");
	number(failed);
	say(" failed\n");
	finish(failed);
}
__asm__(".globl _start\n_start: mov %esp, %eax\n\tand $-16, %esp\n\tsub $12, %esp\n\tpush %eax\n\tcall start");
