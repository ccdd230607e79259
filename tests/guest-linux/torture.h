/*
 * torture: a program for a Linux guest that uses what is hard on a monitor (processes, signals, changing mappings, changing
 * code, threads and their memory order) and checks every result. It runs on any Linux on x86-64, also on the host itself.
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096ul

/* The test's sentence about what went wrong; the first one counts. Any thread. */
void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define expect(condition, ...) ((condition) ? (void)0 : wrong(__VA_ARGS__))
/* What only a lack of memory or the like can break: ends the program. */
void need(bool condition, const char *what);

/* Numbers, a sequence for each caller. */
static inline uint64_t random_next(uint64_t *state) /* SplitMix64 */
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}
static inline unsigned random_below(uint64_t *state, unsigned n)
{
	return (unsigned)((random_next(state) >> 32) * n >> 32);
}

/* Private memory with these rights, zeroed. */
void *map_memory(size_t size, int protection);

/*
 * Does an access fault? Reads, or writes `value`, at p in this thread, with the signal that it raises in *signal_number (0: none);
 * returns the byte read.
 */
uint8_t try_read(const volatile uint8_t *p, int *signal_number);
void try_write(volatile uint8_t *p, uint8_t value, int *signal_number);

/* A round of each test; main() repeats it. */
typedef void test_fn(uint64_t *random);
/* processes.c */
test_fn test_fork, test_exec, test_pipes;
int exec_child(char **argv);
/* signals.c */
test_fn test_signal_registers, test_fault_signals, test_string_signals;
/* memory.c */
test_fn test_mappings, test_copy_on_write, test_shared_mappings;
/* code.c */
test_fn test_patched_code, test_code_ahead, test_code_aliases, test_code_and_data, test_code_remapped,
	test_many_functions;
/* threads.c */
test_fn test_atomics, test_futexes, test_vectors, test_shootdown;
/* order.c */
test_fn test_message_passing, test_store_buffering, test_cross_modifying;

#endif
