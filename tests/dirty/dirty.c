/*
 * The log of written pages against the truth: a machine runs under virtual time, and every so many instructions all of its RAM is compared with a
 * copy. A page that differs and is not in the log is an error.
 */
#include "machine/machine.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

struct watch {
	struct machine *machine;
	struct guest_mem *mem; /* NULL: it has not run yet */
	uint64_t interval, end;
	uint64_t next; /* position of the next comparison */
	uint8_t *copy;
	uint64_t *bitmap;
	uint64_t pages, comparisons, logged, changed, missing;
	uint8_t *origin; /* all of RAM's contents when it began; NULL: that is in RAM */
	uint64_t fetched;
	bool away;
};

static int fetch(void *opaque, uint64_t page, void *to, struct error *err)
{
	struct watch *w = opaque;

	(void)err;
	memcpy(to, w->origin + (page << PAGE_SHIFT), PAGE_SIZE);
	w->fetched++;
	return 0;
}

/* RAM is empty, and gets its pages from a copy when they are needed. */
static void move_away(struct watch *w)
{
	const struct mem_origin origin = { fetch, w };

	memcpy(w->origin, w->mem->ram.file.base, w->mem->ram.file.size);
	memset(w->mem->ram.file.base, 0, w->mem->ram.file.size);
	BUG_ON(mem_set_origin(w->mem, &w->mem->ram, &origin, NULL));
}

static uint64_t checksum(const struct watch *w)
{
	uint64_t sum = 0;

	for (uint64_t n = 0; n < w->mem->ram.file.size; n += 8)
		sum = sum * 0x9e3779b97f4a7c15ull + load_le64(w->copy + n) + 1;
	return sum;
}

static uint64_t position_of(const struct vcpu *v)
{
	uint64_t position = 0;

	for (unsigned n = 0; n < v->peer_count; n++)
		position += v->peers[n]->s.icount;
	return position;
}

static void begin(struct watch *w, struct guest_mem *mem)
{
	w->mem = mem;
	w->pages = mem->ram.file.size >> PAGE_SHIFT;
	w->copy = malloc(mem->ram.file.size);
	w->bitmap = calloc(w->pages / 64, sizeof(*w->bitmap));
	BUG_ON(!w->copy || !w->bitmap);
	memcpy(w->copy, mem->ram.file.base, mem->ram.file.size);
	if (w->away) {
		w->origin = malloc(mem->ram.file.size);
		BUG_ON(!w->origin);
		move_away(w);
	}
	mem_dirty_start(mem);
}

static void compare(struct watch *w, uint64_t position)
{
	mem_dirty_collect(w->mem, w->mem->ram.first, w->pages, w->bitmap);
	w->comparisons++;
	for (uint64_t n = 0; n < w->pages; n++) {
		uint8_t *was = w->copy + (n << PAGE_SHIFT), *is = w->mem->ram.file.base + (n << PAGE_SHIFT);
		bool logged = w->bitmap[n / 64] & BIT(n % 64);

		w->logged += logged;
		if (mem_is_absent(&w->mem->ram, n) || !memcmp(was, is, PAGE_SIZE))
			continue;
		w->changed++;
		memcpy(was, is, PAGE_SIZE);
		if (!logged && w->missing++ < 8)
			printf("page %#llx changed before position %llu, and is not in the log\n",
			       (unsigned long long)n << PAGE_SHIFT, (unsigned long long)position);
	}
}

static uint64_t before_run(void *opaque, struct vcpu *v)
{
	struct watch *w = opaque;
	uint64_t position = position_of(v);

	if (!w->mem)
		begin(w, v->mem);
	if (position >= w->next) {
		compare(w, position);
		w->next = position + w->interval;
	}
	if (w->end && position >= w->end)
		machine_quit(w->machine);
	return MAX(w->next - position, 1);
}

static int run(struct watch *w, struct machine_config *config)
{
	struct machine_observer observer = { before_run, w };
	struct error err = { 0 };
	int status;

	config->observer = &observer;
	if (machine_create(&w->machine, config, &err)) {
		fprintf(stderr, "dirty: %s\n", err.text);
		return 2;
	}
	status = machine_run(w->machine);
	if (w->mem) {
		compare(w, w->next);
		mem_dirty_stop(w->mem);
		printf("RAM at the end: %#llx; %llu of %llu pages fetched\n", (unsigned long long)checksum(w),
		       (unsigned long long)w->fetched, (unsigned long long)w->pages);
	}
	printf("status %d; %llu comparisons, %llu pages logged, %llu changed, %llu missing\n", status,
	       (unsigned long long)w->comparisons, (unsigned long long)w->logged, (unsigned long long)w->changed,
	       (unsigned long long)w->missing);
	machine_destroy(w->machine);
	free(w->copy);
	free(w->origin);
	free(w->bitmap);
	return w->missing || !w->changed || status == MACHINE_ENGINE_ERROR;
}

static void usage(void)
{
	fputs("usage: dirty --kernel FILE [--initrd FILE] [--append TEXT] [--engine NAME] [--cpus N] [--memory MIB]\n"
	      "             [--interval INSTRUCTIONS] [--end INSTRUCTIONS] [--serial SPEC] [--debug-exit] [--origin]\n",
	      stderr);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "kernel", required_argument, NULL, 'k' },   { "initrd", required_argument, NULL, 'r' },
		{ "append", required_argument, NULL, 'a' },   { "engine", required_argument, NULL, 'e' },
		{ "cpus", required_argument, NULL, 'c' },     { "memory", required_argument, NULL, 'm' },
		{ "interval", required_argument, NULL, 'i' }, { "end", required_argument, NULL, 'n' },
		{ "serial", required_argument, NULL, 's' },   { "debug-exit", no_argument, NULL, 'd' },
		{ "origin", no_argument, NULL, 'o' },	      { NULL, 0, NULL, 0 },
	};
	struct machine_config config = {
		.memory = 256ull << 20, .cpus = 1, .engine = "bt", .cpu_model = "v2", .clock = CLOCK_VIRTUAL
	};
	const char *serial = "null";
	struct watch watch = { .interval = 10000000 };

	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 'k': config.kernel = optarg; break;
		case 'r': config.initrd = optarg; break;
		case 'a': config.append = optarg; break;
		case 'e': config.engine = optarg; break;
		case 'c': config.cpus = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'm': config.memory = strtoull(optarg, NULL, 0) << 20; break;
		case 'i': watch.interval = strtoull(optarg, NULL, 0); break;
		case 'n': watch.end = strtoull(optarg, NULL, 0); break;
		case 's': serial = optarg; break;
		case 'd': config.devices[config.device_count++].spec = "debug-exit"; break;
		case 'o': watch.away = true; break;
		default: usage();
		}
	}
	if (!config.kernel || !watch.interval)
		usage();
	config.devices[config.device_count++] = (struct device_request){ "uart", "chardev", serial, NULL };
	return run(&watch, &config);
}
