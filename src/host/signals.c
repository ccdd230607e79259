/*
 * Signals that ask the process to end, as something to wait for. Process-wide because signal dispositions are.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>
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

int host_signals_open(struct error *err)
{
	sigset_t set;
	int fd;

	ending_set(&set);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot wait for signals");
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return fd;
}

int host_signals_read(int fd)
{
	struct signalfd_siginfo info;

	return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

void host_signals_close(int fd)
{
	sigset_t set;

	if (fd < 0)
		return;
	close(fd);
	ending_set(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
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
