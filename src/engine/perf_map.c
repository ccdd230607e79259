/*
 * A perf map: /tmp/perf-PID.map, a line "START SIZE NAME" for each piece of generated code, by which `perf report` names what it
 * finds in anonymous memory (Linux, tools/perf/Documentation/jit-interface.txt). perf reads it when the profile is looked at, long
 * after: so who writes it must never have two pieces of code at one address.
 */
#define _GNU_SOURCE
#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct perf_map {
	FILE *out;
	char path[64];
};

/* /tmp is everybody's: never write through what somebody else put there. */
static FILE *create(const char *path)
{
	int fd;

	unlink(path); /* of an earlier process with this number */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	return fd < 0 ? NULL : fdopen(fd, "w");
}

struct perf_map *perf_map_open(struct error *err)
{
	struct perf_map *map = malloc(sizeof(*map));

	if (!map) {
		error_set_errno(err, ENOMEM, "perf map");
		return NULL;
	}
	snprintf(map->path, sizeof(map->path), "/tmp/perf-%d.map", (int)getpid());
	map->out = create(map->path);
	if (!map->out) {
		error_set_errno(err, errno, "cannot create the perf map '%s'", map->path);
		free(map);
		return NULL;
	}
	/* Whole lines, so that the map is of use whatever ends this process. */
	setvbuf(map->out, NULL, _IOLBF, BUFSIZ);
	return map;
}

void perf_map_add(struct perf_map *map, const void *start, size_t size, const struct vcpu *v, uint64_t rip)
{
	char name[128];

	if (map && !ferror(map->out))
		fprintf(map->out, "%llx %zx %s\n", (unsigned long long)(uintptr_t)start, size,
			guest_code_name(v, rip, name, sizeof(name)));
}

void perf_map_close(struct perf_map *map)
{
	if (!map)
		return;
	if (ferror(map->out) | fclose(map->out))
		log_error("perf map '%s': not all of it could be written", map->path);
	free(map);
}

const char *guest_code_name(const struct vcpu *v, uint64_t rip, char *name, size_t size)
{
	static const unsigned widths[] = { [MODE_16] = 16, [MODE_32] = 32, [MODE_64] = 64 };
	char level = v->cpl == 3 ? 'u' : 'k';
	uint64_t offset;
	const char *symbol = symbols_find(v->symbols, rip, &offset);

	if (symbol)
		snprintf(name, size, "%c%u:%s+%#llx", level, widths[v->code_mode], symbol, (unsigned long long)offset);
	else
		snprintf(name, size, "%c%u:%#llx", level, widths[v->code_mode], (unsigned long long)rip);
	return name;
}
