/*
 * What this host is.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/sysinfo.h>
#include <unistd.h>

uint64_t host_page_size(void) { return (uint64_t)sysconf(_SC_PAGESIZE); }

/* The CPUs that this process may use, which in a container is fewer than there are. */
unsigned host_cpu_count(void)
{
	cpu_set_t set;
	long online;

	if (!sched_getaffinity(0, sizeof(set), &set))
		return (unsigned)CPU_COUNT(&set);
	online = sysconf(_SC_NPROCESSORS_ONLN);
	return online > 0 ? (unsigned)online : 1;
}

uint64_t host_memory_total(void)
{
	struct sysinfo info;

	return sysinfo(&info) ? 0 : (uint64_t)info.totalram * info.mem_unit;
}

bool host_cpu_flag(const char *name)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char *line = NULL, *word, *rest;
	bool found = false;
	size_t room = 0;

	while (file && getline(&line, &room, file) > 0) {
		if (strncmp(line, "flags", 5) != 0)
			continue;
		for (word = strtok_r(line, " \t\n", &rest); word && !found; word = strtok_r(NULL, " \t\n", &rest))
			found = !strcmp(word, name);
		break; /* all processors have the same */
	}
	free(line);
	if (file)
		fclose(file);
	return found;
}

bool host_detects_split_locks(void) { return host_cpu_flag("split_lock_detect") || host_cpu_flag("bus_lock_detect"); }

/* proc(5): the third number of statm. */
uint64_t host_shared_pages(void)
{
	char text[128] = { 0 }, *at = text;
	uint64_t value = 0;
	int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) > 0)
		for (unsigned n = 0; n < 3; n++)
			value = strtoull(at, &at, 10);
	close(fd);
	return value;
}

int64_t host_proc_number(const char *path)
{
	char text[64], *end;
	long long value;
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	text[n] = 0;
	errno = 0;
	value = strtoll(text, &end, 0);
	if (errno || end == text || value < 0)
		return -1;
	return value;
}
