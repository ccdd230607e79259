/*
 * Memory order between processors (SDM vol. 3A 8.2), and code that another processor changes (8.1.3). With one processor all
 * of it holds by itself; with two it needs the host's.
 */
#define _GNU_SOURCE
#include "torture.h"

#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

/* Two threads; each turn begins for both at once, as far as that is possible. */
static pthread_barrier_t barrier;

static void both(void *(*fn)(void *))
{
	pthread_t other;

	need(!pthread_barrier_init(&barrier, NULL, 2), "barrier");
	need(!pthread_create(&other, NULL, fn, (void *)1), "pthread_create");
	fn(NULL);
	pthread_join(other, NULL);
	pthread_barrier_destroy(&barrier);
}

#define load(at)	 __atomic_load_n(at, __ATOMIC_RELAXED)
#define store(at, value) __atomic_store_n(at, value, __ATOMIC_RELAXED)

/* ---- stores are seen in order, loads are done in order ---- */

#define MESSAGES 4096

static struct {
	_Alignas(64) uint64_t data[MESSAGES * 8];
	_Alignas(64) uint64_t ready;
} message;

static void *message_thread(void *arg)
{
	for (unsigned turn = 1; turn <= 8; turn++) {
		pthread_barrier_wait(&barrier);
		for (uint64_t n = 0; n < MESSAGES; n++) {
			if (arg) {
				store(&message.data[n * 8], n * turn + 1);
				__asm__ volatile("" ::: "memory");
				store(&message.ready, (uint64_t)turn << 32 | (n + 1));
				continue;
			}
			uint64_t ready = load(&message.ready), last = (uint32_t)ready;
			__asm__ volatile("" ::: "memory");
			if (ready >> 32 != turn || !last)
				continue;
			uint64_t data = load(&message.data[(last - 1) * 8]);
			expect(data == (last - 1) * turn + 1, "message %lu of turn %u: %lu", last, turn, data);
		}
	}
	return NULL;
}

void test_message_passing(uint64_t *random)
{
	(void)random;
	memset(&message, 0, sizeof(message));
	both(message_thread);
}

/* ---- a locked instruction or MFENCE between a store and a load ---- */

#define BUFFERED 4000

static struct {
	struct {
		_Alignas(64) uint64_t x;
		_Alignas(64) uint64_t y;
		_Alignas(64) uint64_t got[2];
		_Atomic unsigned arrived;
	} turn[BUFFERED];
} buffering;

static void *buffering_thread(void *arg)
{
	unsigned me = arg ? 1 : 0;
	uint64_t dummy = 0, one;

	pthread_barrier_wait(&barrier);
	for (unsigned n = 0; n < BUFFERED; n++) {
		uint64_t *mine = me ? &buffering.turn[n].y : &buffering.turn[n].x;
		uint64_t *other = me ? &buffering.turn[n].x : &buffering.turn[n].y;

		/* Together, but not for long: the other may not be running. */
		atomic_fetch_add(&buffering.turn[n].arrived, 1);
		for (unsigned spins = 0; spins < 1000 && atomic_load(&buffering.turn[n].arrived) < 2; spins++)
			;
		one = 1;
		switch (n % 3) {
		case 0: __asm__ volatile("xchg %0, %1" : "+r"(one), "+m"(*mine) : : "memory"); break;
		case 1: __asm__ volatile("mov %1, %0\n\tmfence" : "=m"(*mine) : "r"(one) : "memory"); break;
		default:
			__asm__ volatile("mov %2, %0\n\tlock addq $0, %1"
					 : "=m"(*mine), "+m"(dummy)
					 : "r"(one)
					 : "memory", "cc");
		}
		buffering.turn[n].got[me] = load(other);
	}
	return NULL;
}

void test_store_buffering(uint64_t *random)
{
	(void)random;
	memset(&buffering, 0, sizeof(buffering));
	both(buffering_thread);
	for (unsigned n = 0; n < BUFFERED; n++)
		expect(buffering.turn[n].got[0] || buffering.turn[n].got[1],
		       "turn %u: neither saw what the other had stored", n);
}

/* ---- cross-modifying code ---- */

#define CROSS_ROUNDS 300

static struct {
	uint8_t *code; /* mov $value, %eax; ret; the value is aligned */
	_Atomic uint32_t written, executed;
} cross;

static uint32_t run_cross(void) { return ((uint32_t(*)(void))(uintptr_t)cross.code)(); }

/*
 * The writer stores new code and then says so; who sees that, serializes and executes the new code. In between it calls what is
 * there: the old value or the new one, never another.
 */
static void *cross_thread(void *arg)
{
	for (uint32_t n = 1; n <= CROSS_ROUNDS; n++) {
		if (arg) {
			__atomic_store_n((uint32_t *)(cross.code + 1), n * 0x01010101u, __ATOMIC_SEQ_CST);
			atomic_store(&cross.written, n);
			while (atomic_load(&cross.executed) != n)
				sched_yield();
			continue;
		}
		uint32_t got, a, b, c, d;
		for (unsigned spins = 0; atomic_load(&cross.written) != n; spins++) {
			got = run_cross();
			expect(got == (n - 1) * 0x01010101u || got == n * 0x01010101u, "round %u: %#x while it changes",
			       n, got);
			if (spins % 64 == 63)
				sched_yield();
		}
		__cpuid(0, a, b, c, d);
		got = run_cross();
		expect(got == n * 0x01010101u, "round %u: %#x, the old code", n, got);
		atomic_store(&cross.executed, n);
	}
	return NULL;
}

void test_cross_modifying(uint64_t *random)
{
	uint8_t *page = map_memory(PAGE, PROT_READ | PROT_WRITE | PROT_EXEC);

	cross.code = page + 63 + 64 * random_below(random, 32);
	cross.code[0] = 0xb8;
	cross.code[5] = 0xc3;
	atomic_store(&cross.written, 0);
	atomic_store(&cross.executed, 0);
	both(cross_thread);
	munmap(page, PAGE);
}
