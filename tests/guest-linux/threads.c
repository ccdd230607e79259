/* Threads: atomic instructions, locks of the kernel's making, registers across switches, and mappings taken from under the others. */
#define _GNU_SOURCE
#include "torture.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define THREADS 4

/* Runs fn in so many threads, with their numbers. */
static void in_threads(unsigned count, void *(*fn)(void *))
{
	pthread_t thread[THREADS];

	for (unsigned n = 0; n < count; n++)
		need(!pthread_create(&thread[n], NULL, fn, (void *)(uintptr_t)n), "pthread_create");
	for (unsigned n = 0; n < count; n++)
		pthread_join(thread[n], NULL);
}

/* ---- atomic instructions of every kind on one line, and across two ---- */

#define ATOMIC_ROUNDS 20000

static struct {
	_Alignas(64) _Atomic uint64_t added, swapped;
	_Atomic uint8_t byte;
	_Atomic uint16_t word;
	_Atomic uint64_t mask;
	_Alignas(16) unsigned __int128 pair;
	_Alignas(64) uint8_t split[128];
	_Atomic uint64_t sum_swapped;
} atomics;

static void add_pair(void)
{
	uint64_t low = 0, high = 0, new_low, new_high;
	bool done;

	do {
		new_low = low + 1;
		new_high = high + 3;
		__asm__ volatile("lock cmpxchg16b %[pair]"
				 : [pair] "+m"(atomics.pair), "+a"(low), "+d"(high), "=@ccz"(done)
				 : "b"(new_low), "c"(new_high)
				 : "memory");
	} while (!done);
}

static void *atomic_thread(void *arg)
{
	uint64_t number = (uintptr_t)arg, mine = number + 1, expected;

	for (unsigned n = 0; n < ATOMIC_ROUNDS; n++) {
		atomic_fetch_add(&atomics.added, number + 1);
		atomic_fetch_add(&atomics.byte, 1);
		expected = atomic_load(&atomics.word);
		while (!atomic_compare_exchange_weak(&atomics.word, (uint16_t *)&expected, (uint16_t)(expected + 3)))
			;
		/* What is put in comes out once. */
		mine = atomic_exchange(&atomics.swapped, mine);
		/* Each thread has a bit of its own: nobody else's may get lost. */
		expect(!(atomic_fetch_or(&atomics.mask, 1ull << number) & 1ull << number), "a bit was set already");
		expect(atomic_fetch_and(&atomics.mask, ~(1ull << number)) & 1ull << number,
		       "a bit was not set any more");
		if (n % 16 == 0) {
			add_pair();
			__asm__ volatile("lock incq %0" : "+m"(*(uint64_t *)(atomics.split + 60)) : : "memory");
		}
	}
	atomic_fetch_add(&atomics.sum_swapped, mine);
	return NULL;
}

void test_atomics(uint64_t *random)
{
	uint64_t low, split;

	(void)random;
	memset(&atomics, 0, sizeof(atomics));
	in_threads(THREADS, atomic_thread);
	expect(atomics.added == 10ull * ATOMIC_ROUNDS, "XADD: %lu", atomics.added);
	expect(atomics.byte == (uint8_t)(THREADS * ATOMIC_ROUNDS), "8-bit additions: %u", atomics.byte);
	expect(atomics.word == (uint16_t)(3 * THREADS * ATOMIC_ROUNDS), "16-bit CMPXCHG: %u", atomics.word);
	expect(atomics.sum_swapped + atomics.swapped == 10, "XCHG: %lu and %lu", atomics.sum_swapped, atomics.swapped);
	expect(!atomics.mask, "bits left: %#lx", atomics.mask);
	low = (uint64_t)atomics.pair;
	expect(low == THREADS * ATOMIC_ROUNDS / 16 && (uint64_t)(atomics.pair >> 64) == 3 * low, "CMPXCHG16B: %lu",
	       low);
	memcpy(&split, atomics.split + 60, 8);
	expect(split == THREADS * ATOMIC_ROUNDS / 16, "INC across lines: %lu", split);
}

/* ---- mutexes and condition variables ---- */

#define FUTEX_ROUNDS 2000

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	unsigned turn;
	uint64_t count, plain;
} futexes = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void *futex_thread(void *arg)
{
	unsigned number = (unsigned)(uintptr_t)arg;

	for (unsigned n = 0; n < FUTEX_ROUNDS / THREADS; n++) {
		pthread_mutex_lock(&futexes.mutex);
		while (futexes.turn != number)
			pthread_cond_wait(&futexes.changed, &futexes.mutex);
		futexes.turn = (number + 1) % THREADS;
		futexes.count++;
		pthread_cond_broadcast(&futexes.changed);
		pthread_mutex_unlock(&futexes.mutex);
		for (unsigned k = 0; k < 20; k++) {
			pthread_mutex_lock(&futexes.mutex);
			futexes.plain++;
			pthread_mutex_unlock(&futexes.mutex);
		}
	}
	return NULL;
}

void test_futexes(uint64_t *random)
{
	(void)random;
	futexes.turn = 0;
	futexes.count = futexes.plain = 0;
	in_threads(THREADS, futex_thread);
	expect(futexes.count == FUTEX_ROUNDS && futexes.plain == 20 * FUTEX_ROUNDS, "%lu turns and %lu additions",
	       futexes.count, futexes.plain);
}

/* ---- vector registers and MXCSR across switches ---- */

__attribute__((target("avx"))) static bool hold_ymm(uint64_t number)
{
	uint64_t wrong_bits;

	/* All-different registers, kept over a system call (sched_yield) that may switch to another thread. */
	__asm__ volatile(
		"vmovq %[n], %%xmm0\n\tvpunpcklqdq %%xmm0, %%xmm0, %%xmm0\n\tvinsertf128 $1, %%xmm0, %%ymm0, %%ymm0\n\t"
		"vaddpd %%ymm0, %%ymm0, %%ymm9\n\tvmovaps %%ymm0, %%ymm15\n\t"
		"mov $24, %%eax\n\tsyscall\n\t"
		"vaddpd %%ymm15, %%ymm0, %%ymm1\n\tvxorps %%ymm1, %%ymm9, %%ymm1\n\tvxorps %%ymm0, %%ymm15, %%ymm2\n\t"
		"vorps %%ymm1, %%ymm2, %%ymm1\n\tvextractf128 $1, %%ymm1, %%xmm2\n\tvorps %%xmm1, %%xmm2, %%xmm1\n\t"
		"vpsrldq $8, %%xmm1, %%xmm2\n\tvorps %%xmm1, %%xmm2, %%xmm1\n\tvmovq %%xmm1, %[wrong]\n\tvzeroupper"
		: [wrong] "=&r"(wrong_bits)
		: [n] "r"(number)
		: "rax", "rcx", "r11", "xmm0", "xmm1", "xmm2", "xmm9", "xmm15", "memory");
	return !wrong_bits;
}

static bool hold_xmm(uint64_t number)
{
	uint64_t wrong_bits;

	__asm__ volatile("movq %[n], %%xmm0\n\tmovdqa %%xmm0, %%xmm15\n\tmov $24, %%eax\n\tsyscall\n\t"
			 "pxor %%xmm15, %%xmm0\n\tmovq %%xmm0, %[wrong]\n\tmovq %%xmm15, %%rax\n\txor %[n], "
			 "%%rax\n\tor %%rax, %[wrong]"
			 : [wrong] "=&r"(wrong_bits)
			 : [n] "r"(number)
			 : "rax", "rcx", "r11", "xmm0", "xmm15", "cc", "memory");
	return !wrong_bits;
}

static void *vector_thread(void *arg)
{
	uint64_t number = (uintptr_t)arg;
	bool avx = __builtin_cpu_supports("avx");
	double value = 1.0 + (double)number;
	uint64_t bits;

	_MM_SET_ROUNDING_MODE((unsigned)number << 13);
	memcpy(&bits, &value, 8);
	for (unsigned n = 0; n < 100; n++) {
		expect(hold_xmm(bits), "XMM registers changed");
		if (avx)
			expect(hold_ymm(bits), "YMM registers changed");
		expect(_MM_GET_ROUNDING_MODE() == (unsigned)number << 13, "MXCSR changed");
	}
	return NULL;
}

void test_vectors(uint64_t *random)
{
	(void)random;
	in_threads(THREADS, vector_thread);
}

/* ---- mappings that go while others use them ---- */

#define SHOOTDOWN_PAGES	 8
#define SHOOTDOWN_ROUNDS 30

/*
 * Pages that the others read, write and lose. A page holds its number of times that it was made; the generation is counted before it
 * goes: who reads an older number afterwards has used a translation that was no longer there.
 */
static struct {
	volatile uint8_t *base;
	_Atomic uint32_t oldest[SHOOTDOWN_PAGES]; /* generation that a read may still give */
	_Atomic bool stop;
	_Atomic uint64_t reads, faults;
} shootdown;

static void *shootdown_reader(void *arg)
{
	uint64_t random = (uintptr_t)arg + 77;
	int number;

	while (!atomic_load(&shootdown.stop)) {
		unsigned page = random_below(&random, SHOOTDOWN_PAGES);
		uint32_t oldest = atomic_load(&shootdown.oldest[page]), got;

		got = try_read(shootdown.base + page * PAGE, &number);
		if (number) {
			atomic_fetch_add_explicit(&shootdown.faults, 1, memory_order_relaxed);
			continue;
		}
		atomic_fetch_add_explicit(&shootdown.reads, 1, memory_order_relaxed);
		/* Bytes: generations of 128 back count as newer. */
		expect((uint8_t)(got - oldest) < 128, "page %u: generation %u read, %u is long there", page, got,
		       oldest & 0xff);
	}
	return NULL;
}

static void replace_page(unsigned page, uint32_t generation, uint64_t *random)
{
	uint8_t *at = (uint8_t *)shootdown.base + page * PAGE, *fresh;

	switch (random_below(random, 3)) {
	case 0: /* another page in its place */
		fresh = map_memory(PAGE, PROT_READ | PROT_WRITE);
		*fresh = (uint8_t)generation;
		need(mremap(fresh, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at, "mremap");
		break;
	case 1: /* nothing for a while */
		need(!mprotect(at, PAGE, PROT_NONE), "mprotect");
		need(!mprotect(at, PAGE, PROT_READ | PROT_WRITE), "mprotect");
		*at = (uint8_t)generation;
		break;
	default: /* read-only, and back */
		need(!mprotect(at, PAGE, PROT_READ), "mprotect");
		need(!mprotect(at, PAGE, PROT_READ | PROT_WRITE), "mprotect");
		*at = (uint8_t)generation;
	}
	atomic_store(&shootdown.oldest[page], generation);
}

void test_shootdown(uint64_t *random)
{
	pthread_t reader[2];

	memset(&shootdown, 0, sizeof(shootdown));
	shootdown.base = map_memory(SHOOTDOWN_PAGES * PAGE, PROT_READ | PROT_WRITE);
	for (unsigned n = 0; n < 2; n++)
		need(!pthread_create(&reader[n], NULL, shootdown_reader, (void *)(uintptr_t)n), "pthread_create");
	for (uint32_t generation = 1; generation <= SHOOTDOWN_ROUNDS; generation++)
		for (unsigned page = 0; page < SHOOTDOWN_PAGES; page++)
			replace_page(page, generation, random);
	atomic_store(&shootdown.stop, true);
	for (unsigned n = 0; n < 2; n++)
		pthread_join(reader[n], NULL);
	munmap((void *)shootdown.base, SHOOTDOWN_PAGES * PAGE);
}
