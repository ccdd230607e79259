/*
 * The controlling terminal in raw mode, and back, whatever ends the process. Process-wide because terminals, signal
 * dispositions and atexit() are.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

static struct {
	_Atomic bool raw; /* the rest is valid; set last */
	int fd;		  /* our own descriptor: the caller may close his */
	struct termios saved, changed;
	bool exit_handler;
	_Atomic(const char *) farewell;
} terminal;

static const int fatal_signals[] = {
	SIGHUP,	 SIGINT,  SIGQUIT, SIGILL,  SIGTRAP, SIGABRT, SIGBUS,	 SIGFPE,  SIGUSR1, SIGSEGV, SIGUSR2,
	SIGPIPE, SIGALRM, SIGTERM, SIGXCPU, SIGXFSZ, SIGIO,   SIGVTALRM, SIGPROF, SIGPWR,  SIGSYS,  SIGSTKFLT,
};

/*
 * Async-signal-safe. A background process leaves the terminal to the shell, which has taken its modes back already,
 * and must not be stopped by SIGTTOU on its way out.
 */
static void terminal_set(const struct termios *mode)
{
	pid_t foreground = tcgetpgrp(terminal.fd);
	sigset_t block, old;

	if (foreground > 0 && foreground != getpgrp())
		return;
	sigemptyset(&block);
	sigaddset(&block, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &block, &old);
	tcsetattr(terminal.fd, TCSANOW, mode);
	if (mode == &terminal.saved && terminal.farewell)
		(void)!write(terminal.fd, terminal.farewell, strlen(terminal.farewell));
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void host_signal_end(int signal_number)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	int saved = errno;

	if (atomic_load(&terminal.raw))
		terminal_set(&terminal.saved);
	sigaction(signal_number, &action, NULL);
	/* Blocked until the handler returns. A fault would also simply happen again, but not one that another process sent. */
	raise(signal_number);
	errno = saved;
}

/* Stopped and continued: the shell has put its own modes in place meanwhile. */
static void continue_handler(int signal_number)
{
	int saved = errno;

	(void)signal_number;
	if (atomic_load(&terminal.raw))
		terminal_set(&terminal.changed);
	errno = saved;
}

/* Only where nobody else has a say: a handler of the program or of an engine goes on, or ends in exit() or host_signal_end(). */
static void install_if_default(int signal_number, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags }, old;

	sigfillset(&action.sa_mask);
	if (!sigaction(signal_number, NULL, &old) && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
		sigaction(signal_number, &action, NULL);
}

static void remove_if_ours(int signal_number, void (*handler)(int))
{
	struct sigaction action = { .sa_handler = SIG_DFL }, old;

	if (!sigaction(signal_number, NULL, &old) && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == handler)
		sigaction(signal_number, &action, NULL);
}

int host_terminal_raw(int fd, struct error *err)
{
	size_t i;

	if (!isatty(fd) || atomic_load(&terminal.raw))
		return 0;
	if (tcgetattr(fd, &terminal.saved))
		return error_set_errno(err, errno, "cannot read the terminal's mode");
	terminal.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (terminal.fd < 0)
		return error_set_errno(err, errno, "cannot keep the terminal open");

	/* As cfmakeraw(), but with output processing: lines of the log end in a bare newline. */
	terminal.changed = terminal.saved;
	terminal.changed.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	terminal.changed.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	terminal.changed.c_cflag &= ~(tcflag_t)(CSIZE | PARENB);
	terminal.changed.c_cflag |= CS8;
	terminal.changed.c_cc[VMIN] = 1;
	terminal.changed.c_cc[VTIME] = 0;

	if (!terminal.exit_handler && !atexit(host_terminal_restore))
		terminal.exit_handler = true;
	atomic_store(&terminal.raw, true);
	for (i = 0; i < ARRAY_SIZE(fatal_signals); i++)
		install_if_default(fatal_signals[i], host_signal_end, SA_ONSTACK);
	install_if_default(SIGCONT, continue_handler, SA_RESTART);
	if (tcsetattr(terminal.fd, TCSANOW, &terminal.changed)) {
		int code = errno;

		host_terminal_restore();
		return error_set_errno(err, code, "cannot put the terminal in raw mode");
	}
	return 0;
}

bool host_terminal_is_raw(void) { return atomic_load(&terminal.raw); }

void host_terminal_farewell(const char *text) { atomic_store(&terminal.farewell, text); }

void host_terminal_restore(void)
{
	size_t i;

	if (!atomic_load(&terminal.raw))
		return;
	terminal_set(&terminal.saved);
	atomic_store(&terminal.farewell, NULL);
	atomic_store(&terminal.raw, false);
	for (i = 0; i < ARRAY_SIZE(fatal_signals); i++)
		remove_if_ours(fatal_signals[i], host_signal_end);
	remove_if_ours(SIGCONT, continue_handler);
	close(terminal.fd);
}
