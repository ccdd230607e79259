/* Signals: registers and flags across handlers that come at any instruction, those of faults, and string instructions cut in two. */
#define _GNU_SOURCE
#include "torture.h"

#include <immintrin.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

static volatile sig_atomic_t ticks;

/* Uses as many registers as it can. */
static void on_tick(int number)
{
	(void)number;
	__asm__ volatile(
		"xor %%eax, %%eax\n\tmov $-1, %%rcx\n\tmov %%rcx, %%rdx\n\tmov %%rcx, %%rsi\n\tmov %%rcx, %%rdi\n\t"
		"mov %%rcx, %%r8\n\tmov %%rcx, %%r9\n\tmov %%rcx, %%r10\n\tmov %%rcx, %%r11\n\tmov %%rcx, %%r12\n\t"
		"mov %%rcx, %%r13\n\tmov %%rcx, %%r14\n\tmov %%rcx, %%r15\n\tmov %%rcx, %%rbx\n\t"
		"pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm7, %%xmm7\n\tpcmpeqd %%xmm15, %%xmm15\n\tfninit\n\tstc"
		:
		:
		: "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
		  "xmm0", "xmm7", "xmm15", "cc", "memory");
	ticks++;
}

static void start_ticks(int microseconds)
{
	struct sigaction action = { .sa_handler = on_tick, .sa_flags = SA_RESTART };
	struct itimerval every = { { 0, microseconds }, { 0, microseconds } };

	ticks = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
}

static void stop_ticks(void)
{
	setitimer(ITIMER_REAL, &(struct itimerval){ 0 }, NULL);
	signal(SIGALRM, SIG_IGN);
}

/* ---- registers ---- */

/*
 * A loop that carries values in all registers, through the flags, in vector registers and on the x87 stack; it
 * returns a number that depends on all of them.
 */
static uint64_t carry(uint64_t rounds)
{
	uint64_t result;
	double x87 = 1.0;

	__asm__ volatile(
		"fldl %[x87]\n\tfld1\n\t"
		"movq %[rounds], %%xmm0\n\tmovdqa %%xmm0, %%xmm7\n\tpcmpeqd %%xmm15, %%xmm15\n\t"
		"mov $1, %%eax\n\tmov $2, %%edx\n\tmov $3, %%ebx\n\tmov $4, %%esi\n\tmov $5, %%edi\n\tmov $6, %%r8d\n\t"
		"mov $7, %%r9d\n\tmov $8, %%r10d\n\tmov $9, %%r11d\n\tmov $10, %%r12d\n\tmov $11, %%r13d\n\t"
		"mov $12, %%r14d\n\tmov $13, %%r15d\n\tclc\n"
		"1:\tadc %%rdx, %%rax\n\tadc %%rbx, %%rdx\n\tadc %%rsi, %%rbx\n\tadc %%rdi, %%rsi\n\tadc %%r8, "
		"%%rdi\n\t"
		"adc %%r9, %%r8\n\tadc %%r10, %%r9\n\tadc %%r11, %%r10\n\tadc %%r12, %%r11\n\tadc %%r13, %%r12\n\t"
		"adc %%r14, %%r13\n\tadc %%r15, %%r14\n\tadc %%rax, %%r15\n\t"
		"paddq %%xmm15, %%xmm0\n\tpaddq %%xmm0, %%xmm7\n\tfadd %%st(1), %%st\n\t"
		"lea -1(%%rcx), %%rcx\n\tjrcxz 2f\n\tjmp 1b\n"
		"2:\tadc %%rdx, %%rax\n\txor %%rbx, %%rax\n\tadd %%rsi, %%rax\n\txor %%rdi, %%rax\n\tadd %%r8, "
		"%%rax\n\t"
		"xor %%r9, %%rax\n\tadd %%r10, %%rax\n\txor %%r11, %%rax\n\tadd %%r12, %%rax\n\txor %%r13, %%rax\n\t"
		"add %%r14, %%rax\n\txor %%r15, %%rax\n\tmovq %%xmm7, %%rdx\n\txor %%rdx, %%rax\n\t"
		"fstpl %[x87]\n\tfstp %%st(0)\n\txor %[x87], %%rax"
		: "=a"(result), [x87] "+m"(x87), "+c"(rounds)
		: [rounds] "m"(rounds)
		: "rbx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm7",
		  "xmm15", "cc", "memory");
	return result;
}

void test_signal_registers(uint64_t *random)
{
	uint64_t rounds = 200000 + random_below(random, 1000), quiet = carry(rounds);

	start_ticks(500);
	for (unsigned n = 0; n < 40 || ticks < 10; n++) {
		uint64_t disturbed = carry(rounds);

		expect(disturbed == quiet, "registers: %#lx with signals, %#lx without", disturbed, quiet);
	}
	stop_ticks();
}

/* ---- signals of faults ---- */

/* What the handler saw, and how it goes on: so many bytes further. */
static struct {
	volatile int number, code;
	void *volatile address;
	volatile uint64_t rip, rbx;
	uint64_t skip;
} seen;

static void on_fault(int number, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	seen.number = number;
	seen.code = info->si_code;
	seen.address = info->si_addr;
	seen.rip = (uint64_t)regs[REG_RIP];
	seen.rbx = (uint64_t)regs[REG_RBX];
	regs[REG_RIP] += (greg_t)seen.skip;
	regs[REG_RAX] = 4711;
}

/* Executes `insn`, of `size` bytes, which faults, with RBX = value; *at: its address. */
#define FAULTING(insn, size, value, at, after)                                                                         \
	do {                                                                                                           \
		seen.number = 0;                                                                                       \
		seen.skip = (size);                                                                                    \
		__asm__ volatile("lea 1f(%%rip), %%rcx\n\tmov $1, %%eax\n\txor %%edx, %%edx\n1:\t" insn                \
				 : "=a"(after), "=&c"(at)                                                              \
				 : "b"(value)                                                                          \
				 : "rdx", "cc", "memory");                                                             \
	} while (0)

static void check_fault(const char *what, int number, uint64_t at, uint64_t value, uint64_t after)
{
	expect(seen.number == number, "%s: signal %d, not %d", what, seen.number, number);
	expect(seen.rip == at, "%s: at %#lx, not %#lx", what, seen.rip, at);
	expect(seen.rbx == value && after == 4711, "%s: RBX %#lx, not %#lx; RAX afterwards %lu", what, seen.rbx, value,
	       after);
}

void test_fault_signals(uint64_t *random)
{
	static const int numbers[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO }, old[5];
	uint8_t *memory = map_memory(PAGE, PROT_READ);
	uint64_t at, after, value = random_next(random) | 1, address;

	for (unsigned n = 0; n < 5; n++)
		sigaction(numbers[n], &action, &old[n]);
	for (unsigned n = 0; n < 50; n++) {
		FAULTING("ud2", 2, value, at, after);
		check_fault("UD2", SIGILL, at, value, after);
		/* 128 bits by a register that is 0 */
		FAULTING("div %%rdx", 3, value, at, after);
		check_fault("DIV", SIGFPE, at, value, after);
		FAULTING("int3", 0, value, at, after);
		check_fault("INT3", SIGTRAP, at + 1, value, after);
		FAULTING("hlt", 1, value, at, after);
		check_fault("HLT", SIGSEGV, at, value, after);
		address = (uint64_t)memory + random_below(random, PAGE - 8);
		FAULTING("add %%rdx, (%%rbx)", 3, address, at, after);
		check_fault("a write to what may be read", SIGSEGV, at, address, after);
		expect((uint64_t)seen.address == address && seen.code == SEGV_ACCERR,
		       "the address is %p, not %#lx; code %d", seen.address, address, seen.code);
		address = 0x800000000000ull + n * 0x1000000000000ull;
		FAULTING("mov (%%rbx), %%rdx", 3, address, at, after);
		check_fault("an address that is not canonical", SIGSEGV, at, address, after);
	}
	/* Unmasked floating-point exceptions. */
	_MM_SET_EXCEPTION_MASK(_MM_MASK_MASK & ~_MM_MASK_DIV_ZERO);
	seen.number = 0;
	seen.skip = 4;
	__asm__ volatile("xorps %%xmm0, %%xmm0\n\tmovsd %[one], %%xmm1\n\tdivsd %%xmm0, %%xmm1"
			 :
			 : [one] "m"((double){ 1.0 })
			 : "rax", "xmm0", "xmm1");
	expect(seen.number == SIGFPE && seen.code == FPE_FLTDIV, "DIVSD: signal %d, code %d", seen.number, seen.code);
	_mm_setcsr(0x1f80);
	for (unsigned n = 0; n < 5; n++)
		sigaction(numbers[n], &old[n], NULL);
	munmap(memory, PAGE);
}

/* ---- string instructions ---- */

#define STRING_SIZE (2ul << 20)

void test_string_signals(uint64_t *random)
{
	uint8_t *from = map_memory(STRING_SIZE, PROT_READ | PROT_WRITE),
		*to = map_memory(STRING_SIZE, PROT_READ | PROT_WRITE);
	uint8_t pattern = (uint8_t)random_next(random);

	start_ticks(300);
	for (unsigned n = 0; n < 4; n++) {
		size_t size = STRING_SIZE - random_below(random, 5000), left = size;
		uint8_t *rdi = from, *rsi = from;

		__asm__ volatile("rep stosb" : "+D"(rdi), "+c"(left) : "a"(pattern + n) : "memory");
		expect(rdi == from + size && !left, "REP STOSB: %ld bytes further, %zu left", rdi - from, left);
		for (size_t k = 0; k < size; k += 509)
			from[k] = (uint8_t)(k >> 9);
		left = size;
		rdi = to;
		__asm__ volatile("rep movsb" : "+D"(rdi), "+S"(rsi), "+c"(left) : : "memory");
		expect(rdi == to + size && rsi == from + size && !left, "REP MOVSB: %ld bytes further, %zu left",
		       rdi - to, left);
		rdi = to;
		rsi = from;
		left = size;
		bool equal;
		__asm__ volatile("repe cmpsb" : "+D"(rdi), "+S"(rsi), "+c"(left), "=@ccz"(equal) : : "memory");
		expect(equal && !left, "REPE CMPSB: different with %zu left", left);
		/* Backwards, eight at a time. */
		rsi = from + size / 8 * 8 - 8;
		rdi = to + size / 8 * 8 - 8;
		left = size / 8;
		memset(to, 0, size);
		__asm__ volatile("std\n\trep movsq\n\tcld" : "+D"(rdi), "+S"(rsi), "+c"(left) : : "memory");
		expect(!memcmp(from, to, size / 8 * 8), "REP MOVSQ backwards copied something else");
		to[size - 1 - n] ^= 0x40;
	}
	stop_ticks();
	munmap(from, STRING_SIZE);
	munmap(to, STRING_SIZE);
}
