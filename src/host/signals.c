/*
 * Signals that ask the process to end, as something to wait for. Process-wide because signal dispositions are.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

static const int ending_signals[] = { SIGHUP, SIGINT, SIGTERM };

/* Those that nobody told this process to ignore (nohup). */
static void ending_set(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < ARRAY_SIZE(ending_signals); i++) {
		struct sigaction action;

		if (!sigaction(ending_signals[i], NULL, &action) &&
		    ((action.sa_flags & SA_SIGINFO) || action.sa_handler != SIG_IGN))
			sigaddset(set, ending_signals[i]);
	}
}

/* To the thread alone: that it is to look whether it ends. Means nothing to a process that does not ask for it. */
#define WAKE_SIGNAL SIGWINCH

static void *wait_for_one(void *opaque)
{
	const struct host_signals *signals = opaque;
	sigset_t set;
	int number;

	ending_set(&set);
	sigaddset(&set, WAKE_SIGNAL);
	do {
		if (sigwait(&set, &number))
			return NULL;
	} while (number == WAKE_SIGNAL && !atomic_load(&signals->ends));
	if (number != WAKE_SIGNAL)
		host_write_all(signals->to, &number, sizeof(number));
	return NULL;
}

/* A signalfd that is polled would wake its poller for each signal of the process, every SIGSEGV of translated code among them. */
int host_signals_open(struct host_signals *signals, struct error *err)
{
	sigset_t set, old;
	int ends[2], rc;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return error_set_errno(err, errno, "cannot wait for signals");
	signals->fd = ends[0];
	signals->to = ends[1];
	atomic_init(&signals->ends, false);
	ending_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	rc = host_thread_create(&signals->thread, "signals", wait_for_one, signals, err);
	if (rc) {
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		close(ends[0]);
		close(ends[1]);
		signals->fd = -1;
	}
	return rc;
}

int host_signals_read(const struct host_signals *signals)
{
	int number;

	return read(signals->fd, &number, sizeof(number)) == sizeof(number) ? number : 0;
}

void host_signals_close(struct host_signals *signals)
{
	sigset_t set;
	int number;

	if (signals->fd < 0)
		return;
	atomic_store(&signals->ends, true);
	pthread_kill(signals->thread, WAKE_SIGNAL);
	pthread_join(signals->thread, NULL);
	number = host_signals_read(signals);
	close(signals->fd);
	close(signals->to);
	signals->fd = -1;
	ending_set(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	if (number)
		raise(number);
}

void host_signal_insist(int signal_number, unsigned seconds)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal_number };
	struct itimerspec when = { .it_value = { .tv_sec = seconds } };
	sigset_t set;
	timer_t timer;

	sigemptyset(&set);
	sigaddset(&set, signal_number);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	if (!timer_create(CLOCK_MONOTONIC, &event, &timer))
		timer_settime(timer, 0, &when, NULL);
}

void host_signal_die(int signal_number)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	sigset_t set;

	sigaction(signal_number, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, signal_number);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	raise(signal_number);
}
