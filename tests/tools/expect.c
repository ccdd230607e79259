/*
 * expect: runs a program, waits for what it prints, answers, and judges how it ends. What the boot tests drive doppel
 * with.
 *
 *	expect [-t SECONDS] [-l LOG] [-p] STEP... -- COMMAND [ARGUMENT...]
 *
 * The command's standard output and error are one stream, searched once from front to back. -p runs it on a
 * pseudo-terminal, else its standard input and output are pipes. -t is the time limit of the whole (60). -l keeps what it
 * printed. No signal is ignored when the command begins. Steps:
 *	wait TEXT	until TEXT is printed after what the last wait found
 *	screen TEXT	(-p) until TEXT is in a row of what a terminal of 80x25 shows, see lib/terminal.h
 *	size COLUMNS ROWS	(-p) the terminal is of this size now, and blank
 *	send TEXT	\n \r \t \\ \xHH understood
 *	absent TEXT	TEXT has not been printed so far, anywhere
 *	signal NUMBER	send it
 *	hangup		close the terminal, or the pipe that is its standard input
 *	cooked		(-p) the terminal is in canonical mode with echo
 *	idle S PERCENT	over S seconds it uses under PERCENT of one CPU
 *	exit STATUS	it ends with this status (128 + N: by signal N)
 * Exit status: 0 all steps held, 1 one did not (said on standard error with the last output), 2 usage.
 */
#define _GNU_SOURCE
#include "../lib/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

struct session {
	pid_t pid;
	int in, out; /* to and from the command; -1 when closed */
	bool pty;
	int terminal; /* our own handle of the pty's other end: keeps its settings readable */
	char *text;   /* all it printed */
	size_t size, capacity;
	size_t searched; /* end of what the last wait found */
	struct terminal screen;
	FILE *log;
	double deadline;
	bool ended;
	int status;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Exits 1 with the sentence and the end of what the command printed. */
static _Noreturn void __attribute__((format(printf, 2, 3))) fail(struct session *s, const char *fmt, ...)
{
	size_t tail = s->size > 3000 ? s->size - 3000 : 0;
	va_list ap;

	fputs("expect: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("; the last output:\n", stderr);
	fwrite(s->text + tail, 1, s->size - tail, stderr);
	fputc('\n', stderr);
	if (s->log)
		fflush(s->log);
	if (s->pid > 0 && !s->ended)
		kill(-s->pid, SIGKILL);
	_exit(1);
}

static void set_size(struct session *s, unsigned columns, unsigned rows)
{
	const struct winsize size = { .ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows };

	terminal_begin(&s->screen, columns, rows);
	if (ioctl(s->terminal, TIOCSWINSZ, &size))
		fail(s, "the terminal's size: %s", strerror(errno));
}

static void start(struct session *s, char **command)
{
	int in[2], out[2], master = -1;
	char name[64] = "";

	if (s->pty) {
		master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (master < 0 || grantpt(master) || unlockpt(master) || ptsname_r(master, name, sizeof(name)))
			fail(s, "no pseudo-terminal: %s", strerror(errno));
		s->terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	} else if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) {
		fail(s, "no pipe: %s", strerror(errno));
	}
	s->pid = fork();
	if (s->pid == 0) {
		/* Whoever starts tests in the background may have them ignore some. */
		for (int n = 1; n < NSIG; n++)
			signal(n, SIG_DFL);
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* whoever kills us does not leave a machine behind */
		setsid();
		if (s->pty) {
			int fd = open(name, O_RDWR);

			ioctl(fd, TIOCSCTTY, 0);
			dup2(fd, 0);
			dup2(fd, 1);
			dup2(fd, 2);
			if (fd > 2)
				close(fd);
		} else {
			dup2(in[0], 0);
			dup2(out[1], 1);
			dup2(out[1], 2);
		}
		execvp(command[0], command);
		dprintf(2, "expect: run '%s': %s\n", command[0], strerror(errno));
		_exit(127);
	}
	if (s->pid < 0)
		fail(s, "no process: %s", strerror(errno));
	if (s->pty) {
		s->in = s->out = master;
		set_size(s, 80, 25);
	} else {
		close(in[0]);
		close(out[1]);
		s->in = in[1];
		s->out = out[0];
	}
}

static void keep(struct session *s, const char *bytes, size_t n)
{
	if (s->size + n + 1 > s->capacity) {
		s->capacity = (s->size + n + 1) * 2;
		s->text = realloc(s->text, s->capacity);
		if (!s->text)
			abort();
	}
	memcpy(s->text + s->size, bytes, n);
	s->size += n;
	if (s->pty)
		terminal_write(&s->screen, bytes, n);
	if (s->log) {
		fwrite(bytes, 1, n, s->log);
		fflush(s->log); /* others may wait for it there */
	}
}

/* Reads what is there, waiting at most until `until`. False at the end of the output. */
static bool pump(struct session *s, double until)
{
	struct pollfd p = { .fd = s->out, .events = POLLIN };
	double left = until - now();
	char bytes[4096];
	ssize_t n;

	if (s->out < 0)
		return false;
	if (poll(&p, 1, left > 0 ? (int)(left * 1000) + 1 : 0) <= 0)
		return true;
	n = read(s->out, bytes, sizeof(bytes));
	if (n > 0) {
		keep(s, bytes, (size_t)n);
		return true;
	}
	/* A pseudo-terminal whose other end was closed says EIO. */
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	return false;
}

static void step_wait(struct session *s, const char *text)
{
	size_t length = strlen(text);

	for (;;) {
		char *found = memmem(s->text + s->searched, s->size - s->searched, text, length);

		if (found) {
			s->searched = (size_t)(found - s->text) + length;
			return;
		}
		if (now() > s->deadline)
			fail(s, "'%s' did not come in time", text);
		if (!pump(s, s->deadline))
			fail(s, "the output ended without '%s'", text);
	}
}

static void step_screen(struct session *s, const char *text)
{
	while (!terminal_shows(&s->screen, text)) {
		if (now() > s->deadline)
			terminal_print(&s->screen, stderr), fail(s, "'%s' was not on the screen in time", text);
		if (!pump(s, s->deadline))
			terminal_print(&s->screen, stderr),
				fail(s, "the output ended without '%s' on the screen", text);
	}
}

static void step_send(struct session *s, const char *text)
{
	char *bytes = malloc(strlen(text) + 1), *out = bytes;
	size_t done = 0;

	if (!bytes)
		abort();
	for (const char *p = text; *p; p++) {
		static const char letters[] = "nrt\\", meanings[] = "\n\r\t\\";
		const char *letter;
		unsigned value;

		if (*p != '\\') {
			*out++ = *p;
		} else if (p[1] == 'x' && sscanf(p + 2, "%2x", &value) == 1) {
			*out++ = (char)value;
			p += 3;
		} else if (p[1] && (letter = strchr(letters, p[1]))) {
			*out++ = meanings[letter - letters];
			p++;
		} else {
			fail(s, "send: no such escape: %s", p);
		}
	}
	while (done < (size_t)(out - bytes)) {
		ssize_t n = write(s->in, bytes + done, (size_t)(out - bytes) - done);

		if (n < 0 && errno != EINTR)
			fail(s, "send '%s': %s", text, strerror(errno));
		done += n > 0 ? (size_t)n : 0;
	}
	free(bytes);
}

/* CPU seconds used by all threads of the process so far. */
static double cpu_seconds(struct session *s)
{
	struct timespec t;
	clockid_t id;

	if (clock_getcpuclockid(s->pid, &id) || clock_gettime(id, &t))
		fail(s, "CPU time of process %d: %s", (int)s->pid, strerror(errno));
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void step_idle(struct session *s, double seconds, double percent)
{
	double begin = now(), used = cpu_seconds(s), share;

	if (begin + seconds > s->deadline)
		fail(s, "no time left for idle");
	while (now() < begin + seconds)
		if (!pump(s, begin + seconds))
			fail(s, "it ended while it should be idle");
	share = 100 * (cpu_seconds(s) - used) / (now() - begin);
	fprintf(stderr, "idle: %.2f %% of a CPU\n", share);
	if (share >= percent)
		fail(s, "idle, it used %.2f %% of a CPU, not under %.2f %%", share, percent);
}

static void step_exit(struct session *s, int want)
{
	int status;

	/* Its output ends when it does; whoever it left behind with the pipe in hand must not hold us up. */
	for (;;) {
		pid_t pid = waitpid(s->pid, &status, WNOHANG);

		if (pid == s->pid)
			break;
		if (now() > s->deadline)
			fail(s, "it did not end in time");
		if (!pump(s, now() + 0.05)) {
			struct timespec pause = { .tv_nsec = 5000000 };

			nanosleep(&pause, NULL);
		}
	}
	s->ended = true;
	while (pump(s, now())) {
		struct pollfd p = { .fd = s->out, .events = POLLIN };

		if (poll(&p, 1, 0) <= 0)
			break;
	}
	s->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	if (s->status != want)
		fail(s, "it ended with status %d, not %d", s->status, want);
}

static void step_cooked(struct session *s)
{
	struct termios t;

	if (tcgetattr(s->terminal, &t))
		fail(s, "terminal settings: %s", strerror(errno));
	if (!(t.c_lflag & ICANON) || !(t.c_lflag & ECHO))
		fail(s, "the terminal is not in canonical mode with echo");
}

static void step_hangup(struct session *s)
{
	close(s->in);
	if (s->pty) {
		close(s->terminal);
		s->out = -1;
	}
	s->in = -1;
}

/* Returns how many words the step took, 0 when it is none. */
static int run_step(struct session *s, char **word)
{
	if (!strcmp(word[0], "hangup"))
		return step_hangup(s), 1;
	if (!strcmp(word[0], "cooked"))
		return step_cooked(s), 1;
	if (!word[1])
		return 0;
	if (!strcmp(word[0], "wait"))
		return step_wait(s, word[1]), 2;
	if (!strcmp(word[0], "screen"))
		return step_screen(s, word[1]), 2;
	if (!strcmp(word[0], "size") && word[2])
		return set_size(s, (unsigned)atoi(word[1]), (unsigned)atoi(word[2])), 3;
	if (!strcmp(word[0], "send"))
		return step_send(s, word[1]), 2;
	if (!strcmp(word[0], "signal"))
		return kill(s->pid, atoi(word[1])), 2;
	if (!strcmp(word[0], "exit"))
		return step_exit(s, atoi(word[1])), 2;
	if (!strcmp(word[0], "absent")) {
		if (memmem(s->text, s->size, word[1], strlen(word[1])))
			fail(s, "'%s' was printed", word[1]);
		return 2;
	}
	if (!strcmp(word[0], "idle") && word[2])
		return step_idle(s, atof(word[1]), atof(word[2])), 3;
	return 0;
}

int main(int argc, char **argv)
{
	struct session s = { .in = -1, .out = -1, .terminal = -1 };
	double limit = 60;
	int option, command;

	/* "+": our options end at the first step. */
	while ((option = getopt(argc, argv, "+t:l:p")) != -1) {
		if (option == 't')
			limit = atof(optarg);
		else if (option == 'l')
			s.log = fopen(optarg, "we");
		else if (option == 'p')
			s.pty = true;
		else
			return 2;
	}
	for (command = optind; command < argc && strcmp(argv[command], "--"); command++)
		continue;
	if (command + 1 >= argc) {
		fputs("usage: expect [-t SECONDS] [-l LOG] [-p] STEP... -- COMMAND [ARGUMENT...]\n", stderr);
		return 2;
	}
	argv[command] = NULL;
	signal(SIGPIPE, SIG_IGN);
	keep(&s, "", 0);
	s.deadline = now() + limit;
	start(&s, argv + command + 1);
	for (char **word = argv + optind; *word;) {
		int taken = run_step(&s, word);

		if (!taken)
			fail(&s, "no such step: %s", *word);
		word += taken;
	}
	if (!s.ended)
		kill(-s.pid, SIGKILL);
	if (s.log)
		fclose(s.log);
	return 0;
}
