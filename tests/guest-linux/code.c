/* Code that changes: written by itself, through another address, by the kernel, moved, next to data. */
#define _GNU_SOURCE
#include "torture.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

typedef uint32_t function(void);

/* mov $value, %eax; ret */
#define FUNCTION_SIZE 6
static void write_function(uint8_t *at, uint32_t value)
{
	at[0] = 0xb8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xc3;
}

static uint32_t call(const void *at) { return ((function *)(uintptr_t)at)(); }

/* ---- one function, written again and again, anywhere in a page and across two ---- */

void test_patched_code(uint64_t *random)
{
	uint8_t *code = map_memory(2 * PAGE, RWX);

	for (unsigned n = 0; n < 400; n++) {
		uint8_t *at = code + (n % 3 ? random_below(random, PAGE) : PAGE - 1 - n % 5);
		uint32_t value = (uint32_t)random_next(random), got;

		write_function(at, value);
		for (unsigned k = 0; k < 3; k++) {
			got = call(at);
			expect(got == value, "a new function gives %#x, not %#x", got, value);
		}
		/* One byte of it. */
		at[1 + n % 4] ^= 0x5a;
		value ^= 0x5au << n % 4 * 8;
		got = call(at);
		expect(got == value, "a function with one byte changed gives %#x, not %#x", got, value);
	}
	munmap(code, 2 * PAGE);
}

/* ---- code that changes the instructions right behind the store ---- */

void test_code_ahead(uint64_t *random)
{
	uint8_t *code = map_memory(2 * PAGE, RWX), *at;

	for (unsigned n = 0; n < 300; n++) {
		/* mov %edi, target(%rip); (nops;) mov $0, %eax; ret, also over the end of a page */
		unsigned nops = random_below(random, 20);
		int32_t distance = (int32_t)nops + 1;
		uint32_t value = (uint32_t)random_next(random), got;

		at = code + (n & 1 ? 0 : PAGE - 6 - random_below(random, nops + 6));
		at[0] = 0x89;
		at[1] = 0x3d;
		memcpy(at + 2, &distance, 4);
		memset(at + 6, 0x90, nops);
		write_function(at + 6 + nops, 0);
		got = ((uint32_t(*)(uint32_t))(uintptr_t)at)(value);
		expect(got == value, "code changed %u bytes ahead gives %#x, not %#x", nops, got, value);
		got = ((uint32_t(*)(uint32_t))(uintptr_t)at)(~value);
		expect(got == ~value, "the second time it gives %#x, not %#x", got, ~value);
	}
	munmap(code, 2 * PAGE);
}

/* ---- the same physical page at two addresses: written at one, executed at the other; written by system calls ---- */

void test_code_aliases(uint64_t *random)
{
	int fd = memfd_create("code", 0);
	uint8_t *write_view, *exec_view, function_bytes[FUNCTION_SIZE];

	need(fd >= 0 && !ftruncate(fd, 4 * PAGE), "memfd");
	write_view = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	exec_view = mmap(NULL, 4 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	need(write_view != MAP_FAILED && exec_view != MAP_FAILED, "mmap");
	for (unsigned n = 0; n < 400; n++) {
		unsigned at = random_below(random, 4 * PAGE - FUNCTION_SIZE);
		uint32_t value = (uint32_t)random_next(random), got;

		if (n % 3) {
			write_function(write_view + at, value);
		} else {
			write_function(function_bytes, value);
			need(pwrite(fd, function_bytes, FUNCTION_SIZE, at) == FUNCTION_SIZE, "pwrite");
		}
		got = call(exec_view + at);
		expect(got == value, "%s and executed elsewhere it gives %#x, not %#x",
		       n % 3 ? "stored" : "written by the kernel", got, value);
	}
	munmap(write_view, 4 * PAGE);
	munmap(exec_view, 4 * PAGE);
	close(fd);
}

/* ---- a counter beside the code that counts ---- */

void test_code_and_data(uint64_t *random)
{
	static const uint8_t count[] = {
		0xff, 0x87, 0x00, 0x01, 0x00, 0x00, /* incl 0x100(%rdi) */
		0x8b, 0x87, 0x00, 0x01, 0x00, 0x00, /* mov 0x100(%rdi), %eax */
		0x48, 0xff, 0xce,		    /* dec %rsi */
		0x75, 0xef,			    /* jnz to the start */
		0xc3,
	};
	uint8_t *code = map_memory(PAGE, RWX);
	uint32_t start = (uint32_t)random_next(random), got;

	memcpy(code, count, sizeof(count));
	memcpy(code + 0x100, &start, 4);
	got = ((uint32_t(*)(uint8_t *, uint64_t))(uintptr_t)code)(code, 3000);
	expect(got == start + 3000, "counted to %#x, not %#x", got, start + 3000);
	munmap(code, PAGE);
}

/* ---- other code at the same address ---- */

void test_code_remapped(uint64_t *random)
{
	uint8_t *place = map_memory(4 * PAGE, PROT_NONE);

	for (unsigned n = 0; n < 100; n++) {
		uint8_t *code = map_memory(PAGE, PROT_READ | PROT_WRITE);
		uint32_t value = (uint32_t)random_next(random), got;
		unsigned at = random_below(random, PAGE - FUNCTION_SIZE);

		write_function(code + at, value);
		need(!mprotect(code, PAGE, PROT_READ | PROT_EXEC), "mprotect");
		got = call(code + at);
		expect(got == value, "before moving it gives %#x, not %#x", got, value);
		need(mremap(code, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place + n % 4 * PAGE) != MAP_FAILED,
		     "mremap");
		got = call(place + n % 4 * PAGE + at);
		expect(got == value, "moved it gives %#x, not %#x", got, value);
	}
	munmap(place, 4 * PAGE);
}

/* ---- more code than is kept ---- */

/* Functions, each of so many bytes, in a random order of calls: most of them are not translated any more, or not linked. */
#define MANY_FUNCTIONS 20000
#define MANY_SIZE      64

void test_many_functions(uint64_t *random)
{
	uint8_t *code = map_memory(MANY_FUNCTIONS * MANY_SIZE, RWX);
	uint32_t got, seed = (uint32_t)random_next(random);

	for (uint32_t n = 0; n < MANY_FUNCTIONS; n++) {
		uint8_t *at = code + n * MANY_SIZE;

		/* test %edi, %edi; jnz 1f; nops; mov $a, %eax; ret; 1: mov $b, %eax; ret */
		memcpy(at, "\x85\xff\x75\x10", 4);
		memset(at + 4, 0x90, 10);
		write_function(at + 14, seed + n);
		write_function(at + 20, seed - n);
	}
	for (unsigned k = 0; k < MANY_FUNCTIONS; k++) {
		uint32_t n = random_below(random, MANY_FUNCTIONS), other = k & 1;

		got = ((uint32_t(*)(uint32_t))(uintptr_t)(code + n * MANY_SIZE))(other);
		expect(got == (other ? seed - n : seed + n), "function %u gives %#x", n, got);
	}
	munmap(code, MANY_FUNCTIONS * MANY_SIZE);
}
