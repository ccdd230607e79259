/*
 * vmtime: runs one virtual machine with the benchmark guest and measures from outside, since a guest's clock need not be
 * right.
 *
 *	vmtime [-t SECONDS] [-s FIFO] [-g MIB] -- COMMAND [ARGUMENT...]
 *
 * The guest's console is the command's standard output, or the FIFO (made here). Prints
 *	up WALL CPU			seconds from the start to "USERSPACE UP", and CPU seconds used for that
 *	NAME GUEST HOST CPU		ns an operation by the guest's clock, by the host's, and in CPU time of the monitor
 *	memory WHEN MIB			with -g, the guest's RAM: resident memory of the monitor beyond that, at "up" and "end".
 *					A page that is mapped twice counts twice
 * and whatever begins with WRONG as it is. Exit status 1 when something was wrong, the time limit passed, or the guest did
 * not come to its end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct measure {
	pid_t pid;
	double begin;
	char name[64]; /* of the benchmark that runs, or "" */
	double operations, wall, cpu;
	long ram_kib; /* 0: memory is not looked at */
	bool ended, wrong;
};

static double seconds(clockid_t id)
{
	struct timespec t;

	return clock_gettime(id, &t) ? 0 : (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_seconds(struct measure *m)
{
	clockid_t id;

	return clock_getcpuclockid(m->pid, &id) ? 0 : seconds(id);
}

/* The guest's RAM is the mapping of at least its size that is resident the most, and not code. */
static void measure_memory(const struct measure *m, const char *when)
{
	char path[64], line[512], permissions[8];
	unsigned long start, end;
	long resident = 0, ram = 0, rss;
	bool may_be_ram = false;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)m->pid);
	maps = m->ram_kib ? fopen(path, "r") : NULL;
	if (!maps)
		return;
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %7s", &start, &end, permissions) == 3) {
			may_be_ram = (long)((end - start) >> 10) >= m->ram_kib && !strchr(permissions, 'x');
		} else if (sscanf(line, "Rss: %ld kB", &rss) == 1) {
			resident += rss;
			if (may_be_ram && rss > ram)
				ram = rss;
		}
	}
	fclose(maps);
	printf("memory %s %.1f\n", when, (double)(resident - ram) / 1024);
}

static void take_line(struct measure *m, const char *line)
{
	double wall = seconds(CLOCK_MONOTONIC), cpu = cpu_seconds(m), ns, operations;
	const char *mark = strstr(line, "@ ");
	char name[64];

	if (strstr(line, "USERSPACE UP")) {
		printf("up %.3f %.3f\n", wall - m->begin, cpu);
		measure_memory(m, "up");
	}
	if (mark && sscanf(mark, "@ %63s %lf", name, &operations) == 2) {
		strcpy(m->name, name);
		m->operations = operations;
		m->wall = wall;
		m->cpu = cpu;
	} else if (sscanf(line, "%63s %lf ns", name, &ns) == 2 && !strcmp(name, m->name)) {
		printf("%s %.2f %.2f %.2f\n", name, ns, (wall - m->wall) * 1e9 / m->operations,
		       (cpu - m->cpu) * 1e9 / m->operations);
		m->name[0] = 0;
	} else if (!strncmp(line, "WRONG", 5)) {
		puts(line);
		m->wrong = true;
	} else if (strstr(line, "BENCHMARKS END")) {
		measure_memory(m, "end");
		m->ended = true;
	}
	fflush(stdout);
}

/* Lines until the console or the command ends. */
static void follow(struct measure *m, int fd, double limit)
{
	char line[512];
	size_t length = 0;

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		char bytes[4096];
		ssize_t n;

		if (seconds(CLOCK_MONOTONIC) - m->begin > limit) {
			fprintf(stderr, "vmtime: time limit of %.0f s\n", limit);
			return;
		}
		if (poll(&p, 1, 500) <= 0) {
			siginfo_t info = { .si_pid = 0 };

			if (waitid(P_PID, (id_t)m->pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid)
				return;
			continue;
		}
		n = read(fd, bytes, sizeof(bytes));
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return;
		for (ssize_t i = 0; i < n; i++) {
			if (bytes[i] == '\n') {
				line[length] = 0;
				length = 0;
				take_line(m, line);
			} else if (bytes[i] != '\r' && length + 1 < sizeof(line)) {
				line[length++] = bytes[i];
			}
		}
	}
}

int main(int argc, char **argv)
{
	struct measure m = { .begin = seconds(CLOCK_MONOTONIC) };
	const char *fifo = NULL;
	double limit = 600;
	int option, fd, out[2];

	while ((option = getopt(argc, argv, "+t:s:g:")) != -1) {
		if (option == 't')
			limit = atof(optarg);
		else if (option == 's')
			fifo = optarg;
		else if (option == 'g')
			m.ram_kib = atol(optarg) * 1024;
		else
			return 2;
	}
	if (optind >= argc || pipe2(out, O_CLOEXEC))
		return 2;
	fd = out[0];
	if (fifo) {
		unlink(fifo);
		if (mkfifo(fifo, 0600) || (fd = open(fifo, O_RDWR | O_CLOEXEC)) < 0) {
			fprintf(stderr, "vmtime: FIFO '%s': %s\n", fifo, strerror(errno));
			return 2;
		}
	}
	m.pid = fork();
	if (m.pid == 0) {
		int null = open("/dev/null", O_RDWR);

		setpgid(0, 0);
		dup2(null, 0);
		dup2(fifo ? null : out[1], 1);
		if (fifo)
			dup2(null, 2);
		execvp(argv[optind], argv + optind);
		fprintf(stderr, "vmtime: run '%s': %s\n", argv[optind], strerror(errno));
		_exit(127);
	}
	close(out[1]);
	follow(&m, fd, limit);
	kill(-m.pid, SIGKILL);
	waitpid(m.pid, NULL, 0);
	return !m.ended || m.wrong;
}
