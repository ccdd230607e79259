/*
 * gbench: what the benchmarks' files share.
 */
#ifndef GBENCH_H
#define GBENCH_H

#include <stddef.h>
#include <stdint.h>

#define NOINLINE __attribute__((noinline))
/* The compiler must have this value here, and may know nothing of it afterwards. */
#define OPAQUE(x) __asm__ volatile("" : "+r"(x) : : "memory")
/* It must have computed this variable. */
#define KEEP(x) __asm__ volatile("" : : "m"(x) : "memory")

/*
 * _(name, operations at 100 %, expected result, what one operation is). The function bench_<name>(n) does n operations between
 * timer_start() and timer_stop() and returns a result that does not depend on n.
 */
#define BENCHES(_)                                                                                                     \
	_(sort, 600, 0x7ff, "merge sort of a 2,048-element linked list")                                               \
	_(sieve, 30, 78498, "primes under 1,000,000")                                                                  \
	_(heap, 20, 0xe790c0666c0cbe14, "heap sort of 50,000 numbers")                                                 \
	_(hash, 20, 0x4000d5558, "64 Ki inserts and 256 Ki look-ups in an open hash table")                            \
	_(chase, 12000000, 4096, "one step of a random cycle through 256 KiB")                                         \
	_(chase_far, 1000000, 524288, "one step of a random cycle through 32 MiB")                                     \
	_(tokens, 300, 0x2ab91b0d9dc15725, "a state machine over 64 KiB of text")                                      \
	_(pack, 120, 0xd4db, "compress and expand 128 KiB")                                                            \
	_(sha256, 100, 0xbf718b6f653bebc1, "SHA-256 of 64 KiB")                                                        \
	_(matrix, 150, 0x463c19edef3325fa, "multiply two 128 x 128 matrices of doubles")                               \
	_(orbit, 150, 0xc0320059745ec24c, "10,000 steps of three bodies")                                              \
	_(x87, 400, 0xed288f06aae95c3d, "10,000 steps in 80-bit arithmetic")                                           \
	_(sse, 12000, 0xec49b7014fb8a886, "64 KiB of 16-bit SSE2 arithmetic")                                          \
	_(copy, 1500, 0x5a, "memcpy of 1 MiB")                                                                         \
	_(movs, 1000000, 0xa5, "REP MOVSB of 4 KiB")                                                                   \
	_(dispatch, 80, 0xe45ac53f6daf294f, "100,000 steps of a bytecode interpreter")                                 \
	_(fib, 300, 75025, "fib(25) by recursion")                                                                     \
	_(divide, 8000000, 0xe1223eb964dd58a6, "a dependent 64-bit division")                                          \
	_(locked, 10000000, 0, "a locked addition and a compare-exchange")                                             \
	_(patch, 500000, 0, "rewrite a function's code and call it")                                                   \
	_(fresh, 20000, 0, "write a new page of code and run all of it")                                               \
	_(rdtsc, 4000000, 1, "RDTSC")                                                                                  \
	_(cpuid, 20000, 1, "CPUID")                                                                                    \
	_(syscall, 300000, 1, "getppid()")                                                                             \
	_(fault, 20000, 0, "first touch of a page")                                                                    \
	_(protect, 20000, 0, "mprotect() of a touched page and a write to it")                                         \
	_(signal, 20000, 0, "a signal to oneself")                                                                     \
	_(pipe, 8000, 0, "a byte to another process and back")                                                         \
	_(fork, 200, 0, "fork(), exit, wait")                                                                          \
	_(exec, 120, 0, "fork(), execve() of a static program, wait")                                                  \
	_(file, 4000, 0, "create, write 4 KiB, read, remove a file")

#define _(name, ops, want, what) uint64_t bench_##name(long n);
BENCHES(_)
#undef _

void timer_start(void);
void timer_stop(void);

/* Zeroed and touched memory; ends the program when there is none. */
void *memory_take(size_t size);
void memory_give(void *, size_t size);
/* Says what failed, with errno, and ends the program. */
_Noreturn void die(const char *what);

static inline uint32_t random_next(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

/* Mixes a value into a result. */
static inline uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 29;
}

#endif
