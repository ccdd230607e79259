/*
 * Faults of memory that the host cannot give when it is touched (SIGBUS), and signals that are nobody's. Process-wide because signal
 * dispositions are.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BACKED 32

/* A place is free while its base is 0, and not looked at while its size is. */
static struct {
	_Atomic uint64_t base, size;
	const char *what;
	int fd;		  /* -1: no file that others may cut */
	_Atomic bool cut; /* a line has said so */
} backed[MAX_BACKED];
static struct sigaction previous;
static _Atomic bool installed;

void host_signal_pass_on(const struct sigaction *to, int signal, siginfo_t *info, void *context)
{
	if (to->sa_flags & SA_SIGINFO)
		to->sa_sigaction(signal, info, context);
	else if (to->sa_handler != SIG_DFL && to->sa_handler != SIG_IGN)
		to->sa_handler(signal);
	else
		host_signal_end(signal);
}

/* Async-signal-safe; one write, so that no other thread's line comes in between. */
static void complain(const char *why, const char *what)
{
	const char *const parts[] = { "doppel: ", why, what, "\n" };
	char line[160];
	size_t used = 0;

	for (size_t n = 0; n < ARRAY_SIZE(parts); n++)
		for (const char *c = parts[n]; *c && used < sizeof(line); c++)
			line[used++] = *c;
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}

/* Zeros at the page, of nobody's. */
static bool show_zeros(uint64_t at)
{
	void *page = (void *)(uintptr_t)align_down(at, PAGE_SIZE); /* NOLINT(performance-no-int-to-ptr) */

	return mmap(page, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page;
}

/* Of this thread: where it tries again because another thread has repaired something; 0: nowhere. */
static _Thread_local uint64_t tries_again;

/* Is a file shorter than it was? The access may be by any mapping of it. False: it is not that. */
static bool repair(uint64_t at)
{
	bool repaired = false, by_another = false;

	for (size_t n = 0; n < MAX_BACKED; n++) {
		uint64_t size = atomic_load(&backed[n].size);
		struct stat st;

		if (!size || backed[n].fd < 0 || fstat(backed[n].fd, &st))
			continue;
		if ((uint64_t)st.st_size >= size) {
			by_another |= atomic_load(&backed[n].cut);
			continue;
		}
		repaired |= !ftruncate(backed[n].fd, (off_t)size) || show_zeros(at);
		if (!atomic_exchange(&backed[n].cut, true))
			complain("somebody has cut a file; what was behind its end is zeros now: ", backed[n].what);
	}
	by_another &= !repaired && tries_again != at;
	tries_again = by_another ? at : 0;
	return repaired || by_another;
}

static void on_bus_error(int signal, siginfo_t *info, void *context)
{
	uint64_t at = (uint64_t)(uintptr_t)info->si_addr;
	bool hardware = info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO;

	if (info->si_code == BUS_ADRERR) {
		int code = errno;
		bool repaired = repair(at);

		errno = code;
		if (repaired)
			return;
	}
	for (size_t n = 0; n < MAX_BACKED && (hardware || info->si_code == BUS_ADRERR); n++) {
		if (at - atomic_load(&backed[n].base) >= atomic_load(&backed[n].size))
			continue;
		host_terminal_restore();
		complain(hardware ? "the host's memory is damaged at " : "the host has no memory left for ",
			 backed[n].what);
		break;
	}
	host_signal_pass_on(&previous, signal, info, context);
}

/* Once: others may have put theirs in front, which come here. */
static void install(void)
{
	struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	if (!atomic_exchange(&installed, true))
		sigaction(SIGBUS, &action, &previous);
}

void host_backed_add(const void *base, size_t size, const char *what) { host_backed_add_file(base, size, what, -1); }

void host_backed_add_file(const void *base, size_t size, const char *what, int fd)
{
	install();
	for (size_t n = 0; n < MAX_BACKED; n++) {
		uint64_t none = 0;

		if (!atomic_compare_exchange_strong(&backed[n].base, &none, (uint64_t)(uintptr_t)base))
			continue;
		backed[n].what = what;
		backed[n].fd = fd;
		atomic_store(&backed[n].cut, false);
		atomic_store(&backed[n].size, size);
		return;
	}
}

void host_backed_remove(const void *base)
{
	for (size_t n = 0; n < MAX_BACKED; n++) {
		if (atomic_load(&backed[n].base) != (uint64_t)(uintptr_t)base)
			continue;
		atomic_store(&backed[n].size, 0);
		atomic_store(&backed[n].base, 0);
		return;
	}
}
