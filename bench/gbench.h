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
 * _(name, kind, operations at 100 %, expected result, what one operation is). The function bench_<name>(n) does n operations between
 * timer_start() and timer_stop() and returns a result that does not depend on n, or ABSENT where the processor cannot do it.
 *
 * Kinds: COMPUTE is what a translator makes native, SYSTEM what an operating system is asked for; OTHER counts in the mean of all
 * only. CPUID counts in none: on a virtual host it is the host above that works.
 */
#define BENCHES(_)                                                                                                     \
	_(integer, COMPUTE, 60000, 0x88892a8f12309be7,                                                                 \
	  "1,000 steps of shifts, additions, a multiplication and a branch")                                           \
	_(sort, COMPUTE, 600, 0x7ff, "merge sort of a 2,048-element linked list")                                      \
	_(sieve, COMPUTE, 30, 78498, "primes under 1,000,000")                                                         \
	_(heap, COMPUTE, 20, 0xe790c0666c0cbe14, "heap sort of 50,000 numbers")                                        \
	_(quick, COMPUTE, 20, 0xe790c0666c0cbe14, "quick sort of 50,000 numbers")                                      \
	_(hash, COMPUTE, 20, 0x4000d5558, "64 Ki inserts and 256 Ki look-ups in an open hash table")                   \
	_(chase, COMPUTE, 12000000, 4096, "one step of a random cycle through 256 KiB")                                \
	_(chase_far, COMPUTE, 1000000, 524288, "one step of a random cycle through 32 MiB")                            \
	_(tokens, COMPUTE, 300, 0x2ab91b0d9dc15725, "a state machine over 64 KiB of text")                             \
	_(pack, COMPUTE, 120, 0xd4db, "compress and expand 128 KiB")                                                   \
	_(sha256, COMPUTE, 100, 0xbf718b6f653bebc1, "SHA-256 of 64 KiB")                                               \
	_(matrix, COMPUTE, 150, 0x463c19edef3325fa, "multiply two 128 x 128 matrices of doubles")                      \
	_(orbit, COMPUTE, 150, 0xc0320059745ec24c, "10,000 steps of three bodies")                                     \
	_(x87, COMPUTE, 400, 0xed288f06aae95c3d, "10,000 steps in 80-bit arithmetic")                                  \
	_(sse, COMPUTE, 12000, 0xec49b7014fb8a886, "64 KiB of 16-bit SSE2 arithmetic")                                 \
	_(avx2, COMPUTE, 12000, 0x9dba7a6fcfac5c6e, "64 KiB of 32-bit AVX2 arithmetic")                                \
	_(copy, COMPUTE, 1500, 0x5a, "memcpy of 1 MiB")                                                                \
	_(movs, COMPUTE, 1000000, 0xa5, "REP MOVSB of 4 KiB")                                                          \
	_(dispatch, COMPUTE, 80, 0xe45ac53f6daf294f, "100,000 steps of a bytecode interpreter")                        \
	_(calls, COMPUTE, 30000, 0x5f2801, "1,000 calls through a table of functions")                                 \
	_(fib, COMPUTE, 300, 75025, "fib(25) by recursion")                                                            \
	_(divide, COMPUTE, 8000000, 0xe1223eb964dd58a6, "a dependent 64-bit division")                                 \
	_(locked, COMPUTE, 10000000, 0, "a locked addition and a compare-exchange")                                    \
	_(patch, OTHER, 500000, 0, "rewrite a function's code and call it")                                            \
	_(fresh, OTHER, 20000, 0, "write a new page of code and run all of it")                                        \
	_(rdtsc, OTHER, 4000000, 1, "RDTSC")                                                                           \
	_(clock, OTHER, 300000, 1, "clock_gettime()")                                                                  \
	_(cpuid, OTHER, 20000, 1, "CPUID")                                                                             \
	_(syscall, SYSTEM, 300000, 1, "getppid()")                                                                     \
	_(fault, SYSTEM, 20000, 0, "first touch of a page")                                                            \
	_(protect, OTHER, 20000, 0, "mprotect() of a touched page and a write to it")                                  \
	_(signal, SYSTEM, 20000, 0, "a signal to oneself")                                                             \
	_(pipe, SYSTEM, 8000, 0, "a byte to another process and back")                                                 \
	_(futex, SYSTEM, 8000, 0, "a word to another thread and back, by futex")                                       \
	_(fork, SYSTEM, 200, 0, "fork(), exit, wait")                                                                  \
	_(exec, SYSTEM, 120, 0, "fork(), execve() of a static program, wait")                                          \
	_(file, SYSTEM, 4000, 0, "create, write 4 KiB, read, remove a file")

#define _(name, kind, ops, want, what) uint64_t bench_##name(long n);
BENCHES(_)
#undef _

/* Apart from the others: the same work by `threads` threads, n operations in all. */
uint64_t bench_parallel(long n);
#define PARALLEL_OPERATIONS 2000
#define PARALLEL_RESULT	    0xdf6b2b18221931c9
#define MAX_THREADS	    64
extern int threads;

#define ABSENT UINT64_MAX /* no benchmark's result */

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
