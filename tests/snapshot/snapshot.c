/*
 * A machine that is saved in the middle of what it does and goes on in a new process.
 *
 *	snapshot MACHINE... --seed N --stops N	runs a guest once without stopping; then again, in a chain of processes, each of which loads
 *						what the one before saved and runs it to a random moment, the last one to the end
 *	snapshot MACHINE... --hostile N		damages the record of a machine N times: it is refused, and the machine is as it was, or it
 *						loads and the machine runs
 *
 * Under virtual time moments are instructions, and the end (registers, memory, counts) must be that of the run without stops; or, since loading flushes TLBs,
 * as a processor may at any time, that of a run that flushes them at these moments. Under the host's they are milliseconds, and the guest itself tells whether all is well: by its exit status and what it writes.
 */
#define _GNU_SOURCE
#include "machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct options {
	struct machine_config config;
	const char *load_engine; /* of every other process; NULL: the same */
	const char *folder;	 /* for what is left behind */
	uint64_t seed;
	uint64_t within; /* host time: moments are in so many ms */
	unsigned stops, hostile;
	bool debug_console;
	const uint64_t *flushes; /* when a run flushes all TLBs, and how often */
	unsigned flush_count;
	int expected; /* status */
};

static _Noreturn void die(const char *what, const char *why)
{
	printf("FAILED: %s: %s\n", what, why);
	fflush(stdout);
	_exit(1);
}

/* splitmix64 */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

/* ---- files ---- */

static void file_name(char name[512], const struct options *o, const char *what, unsigned n)
{
	snprintf(name, 512, "%s/%s.%u", o->folder, what, n);
}

static void write_file(const char *name, const void *data, size_t size)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || host_write_all(fd, data, size))
		die(name, strerror(errno));
	close(fd);
}

static struct reader read_file(const char *name)
{
	int fd = open(name, O_RDONLY);
	struct stat s;
	void *data;

	if (fd < 0 || fstat(fd, &s))
		die(name, strerror(errno));
	data = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		die(name, strerror(errno));
	close(fd);
	return (struct reader){ data, (size_t)s.st_size, 0 };
}

/* ---- one process ---- */

/* Stops a machine when its vCPUs have executed so many instructions, and after so many ms, where these are not 0. */
struct stopper {
	struct machine *machine;
	struct machine_observer observer;
	uint64_t instructions, ms;
	const uint64_t *flushes;
	unsigned flush_count;
	bool stopped;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t over;
	bool is_over;
};

static uint64_t position(const struct vcpu *v)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < v->peer_count; i++)
		sum += v->peers[i]->s.icount;
	return sum;
}

static uint64_t flush_at_moments(struct stopper *s, struct vcpu *v)
{
	while (s->flush_count && position(v) >= *s->flushes) {
		for (unsigned i = 0; i < v->peer_count; i++)
			cpu_tlb_flush(v->peers[i]);
		s->flushes++;
		s->flush_count--;
	}
	return s->flush_count ? *s->flushes - position(v) : UINT64_MAX;
}

static uint64_t before_run(void *opaque, struct vcpu *v)
{
	struct stopper *s = opaque;

	if (s->flush_count)
		return flush_at_moments(s, v);
	if (!s->instructions)
		return UINT64_MAX;
	if (position(v) < s->instructions)
		return s->instructions - position(v);
	s->stopped = true;
	machine_quit(s->machine);
	return 1;
}

static void *stop_later(void *opaque)
{
	struct stopper *s = opaque;
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(s->ms / 1000);
	until.tv_nsec += (long)(s->ms % 1000) * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&s->lock);
	while (!s->is_over && pthread_cond_timedwait(&s->over, &s->lock, &until) != ETIMEDOUT)
		;
	if (!s->is_over) {
		s->stopped = true;
		machine_quit(s->machine);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void stopper_init(struct stopper *s, uint64_t instructions, uint64_t ms)
{
	pthread_condattr_t monotonic;

	*s = (struct stopper){ .observer = { before_run, s }, .instructions = instructions, .ms = ms };
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&s->over, &monotonic);
}

static int run(struct stopper *s)
{
	int status;

	s->stopped = s->is_over = false;
	if (s->ms && pthread_create(&s->thread, NULL, stop_later, s))
		die("pthread_create", "failed");
	status = machine_run(s->machine);
	if (s->ms) {
		pthread_mutex_lock(&s->lock);
		s->is_over = true;
		pthread_cond_signal(&s->over);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->thread, NULL);
	}
	return status;
}

static struct machine *create(const struct options *o, struct stopper *s, unsigned n)
{
	struct machine_config config = o->config;
	char serial[520], console[520];
	struct error err = { 0 };
	struct machine *m;

	snprintf(serial, sizeof(serial), "file:%s/serial.%u", o->folder, n);
	snprintf(console, sizeof(console), "file:%s/console.%u", o->folder, n);
	config.devices[config.device_count++] = (struct device_request){ "uart", "chardev", serial, NULL };
	if (o->debug_console)
		config.devices[config.device_count++] =
			(struct device_request){ "debug-console", "chardev", console, NULL };
	config.observer = config.clock == CLOCK_VIRTUAL && s ? &s->observer : NULL;
	if (n % 2 && o->load_engine)
		config.engine = o->load_engine;
	if (machine_create(&m, &config, &err))
		die("create", err.text);
	if (s)
		s->machine = m;
	return m;
}

static struct writer save(struct machine *m)
{
	struct writer writer = { 0 };
	struct error err = { 0 };

	if (machine_save(m, &writer, &err))
		die("save", err.text);
	return writer;
}

/* What was loaded is saved as the same bytes. */
static void load(struct machine *m, const struct options *o, unsigned n)
{
	struct error err = { 0 };
	struct reader reader;
	struct writer again;
	char name[512];

	file_name(name, o, "record", n);
	reader = read_file(name);
	if (machine_load(m, &reader, &err))
		die("load", err.text);
	again = save(m);
	for (size_t i = 0; i < MIN(again.size, reader.size); i++)
		if (again.data[i] != reader.data[i]) {
			printf("byte %zu: 0x%02x, saved again 0x%02x\n", i, reader.data[i], again.data[i]);
			die("save again", "other bytes");
		}
	if (again.size != reader.size)
		die("save again", "another size");
	writer_free(&again);
	munmap((void *)reader.data, reader.size);
}

enum { RUN_ENDED = 0, RUN_FAILED = 1, RUN_STOPPED = 10 };

/* Runs part n of a chain up to the moment `at`, or to the end (0), and saves the machine: as record n + 1, or as record `end`. */
static int run_part(const struct options *o, unsigned n, uint64_t at, unsigned end)
{
	bool host_time = o->config.clock == CLOCK_HOST;
	struct stopper s;
	struct writer record;
	char name[512];
	int status;

	stopper_init(&s, host_time ? 0 : at, host_time ? at : 0);
	s.flushes = o->flushes;
	s.flush_count = o->flush_count;
	create(o, &s, n);
	if (n != end && n)
		load(s.machine, o, n);
	status = run(&s);
	/* Where the end and the moment came together, the end counts. */
	if (s.stopped && status == MACHINE_QUIT) {
		record = save(s.machine);
		file_name(name, o, "record", n + 1);
		write_file(name, record.data, record.size);
		writer_free(&record);
		machine_destroy(s.machine);
		return RUN_STOPPED;
	}
	if (status != o->expected) {
		printf("status %d, expected %d\n", status, o->expected);
		die("run", "ended otherwise");
	}
	if (!host_time) {
		record = save(s.machine);
		file_name(name, o, "record", end);
		write_file(name, record.data, record.size);
		writer_free(&record);
	}
	machine_destroy(s.machine);
	return RUN_ENDED;
}

/* In a process of its own, that no state of this one helps. */
static int in_process(const struct options *o, unsigned n, uint64_t at, unsigned end)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("fork", strerror(errno));
	if (!pid) {
		int result = run_part(o, n, at, end);

		fflush(stdout);
		_exit(result);
	}
	while (waitpid(pid, &status, 0) < 0)
		;
	if (!WIFEXITED(status)) {
		printf("part %u ended by signal %d\n", n, WTERMSIG(status));
		die("run", "crashed");
	}
	if (WEXITSTATUS(status) == RUN_FAILED)
		_exit(1);
	return WEXITSTATUS(status);
}

/* ---- the chain ---- */

#define WHOLE	  9000 /* numbers of runs and of their last records */
#define LAST	  9001
#define FLUSHING  9002
#define MAX_STOPS 64

/* Sum of all vCPUs' instruction counts at the end of the run without stops: told by a field of its record. */
static uint64_t count_instructions(const struct options *o)
{
	struct machine *m = create(o, NULL, WHOLE);
	struct error err = { 0 };
	struct reader reader;
	char name[512];
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	uint64_t count;

	file_name(name, o, "record", WHOLE);
	reader = read_file(name);
	if (machine_load(m, &reader, &err))
		die("load the end", err.text);
	machine_print_stats(m, out);
	fclose(out);
	count = strtoull(strstr(text, " s, ") + 4, NULL, 10);
	free(text);
	machine_destroy(m);
	return count;
}

static int compare_moments(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Of the chain and of another run. */
static bool is_end_of(const struct options *o, unsigned n)
{
	struct reader a, b;
	char name[512];
	size_t i = 0;

	file_name(name, o, "record", n);
	a = read_file(name);
	file_name(name, o, "record", LAST);
	b = read_file(name);
	while (i < MIN(a.size, b.size) && a.data[i] == b.data[i])
		i++;
	if (i == a.size && i == b.size)
		return true;
	printf("byte %zu of %zu: not as in the run without stops, of %zu\n", i, b.size, a.size);
	return false;
}

static void compare_ends(struct options *o, const uint64_t *moments, unsigned count)
{
	if (is_end_of(o, WHOLE))
		return;
	o->flushes = moments;
	o->flush_count = count;
	in_process(o, FLUSHING, 0, FLUSHING);
	if (!is_end_of(o, FLUSHING))
		die("end", "not that of the run without stops that flushes TLBs at the same moments either");
	printf("as if TLBs were flushed\n");
}

static void run_chain(struct options *o)
{
	bool virtual_time = o->config.clock == CLOCK_VIRTUAL;
	uint64_t moments[MAX_STOPS], span = o->within;
	unsigned n = 0;

	if (virtual_time) {
		in_process(o, WHOLE, 0, WHOLE);
		span = count_instructions(o);
	}
	for (unsigned i = 0; i < o->stops; i++)
		moments[i] = 1 + random_next(&o->seed) % span;
	qsort(moments, o->stops, sizeof(moments[0]), compare_moments);
	for (; n < o->stops; n++) {
		/* Milliseconds count in each process anew. */
		uint64_t at = virtual_time || !n ? moments[n] : moments[n] - moments[n - 1] + 1;

		if (in_process(o, n, at, LAST) != RUN_STOPPED)
			break;
	}
	if (n == o->stops)
		in_process(o, n, 0, LAST);
	if (virtual_time)
		compare_ends(o, moments, n);
	printf("%u stops in %llu %s\n", n, (unsigned long long)span, virtual_time ? "instructions" : "ms");
}

/* ---- hostile records ---- */

/* Gives records right checksums, so that what is behind them is looked at. Where memory begins, if the records' frames are whole. */
static size_t seal(uint8_t *data, size_t size)
{
	size_t at = 12;

	while (range_ok(at, 1, size) && data[at] && data[at] < 32) {
		size_t head = 1 + data[at] + 6, end;

		if (!range_ok(at, head, size))
			break;
		end = at + head + load_le32(data + at + head - 4);
		if (!range_ok(at, end - at, size) || !range_ok(end, 4, size))
			break;
		store_le32(data + end, state_checksum(0, data + at, end - at));
		at = end + 4;
	}
	return at;
}

/* Cut off, or a bit flipped somewhere, or one to three among the records, which then have right checksums. */
static struct writer damaged(const struct writer *record, size_t records, unsigned n, uint64_t *seed)
{
	struct writer bad = { 0 };

	writer_bytes(&bad, record->data, record->size);
	if (n % 4 == 0) {
		bad.size = random_next(seed) % (n % 8 ? bad.size : records);
	} else if (n % 4 == 1) {
		bad.data[random_next(seed) % bad.size] ^= (uint8_t)(1 << random_next(seed) % 8);
	} else {
		for (uint64_t flips = 1 + random_next(seed) % 3; flips; flips--)
			bad.data[random_next(seed) % records] ^= (uint8_t)(1 << random_next(seed) % 8);
		seal(bad.data, bad.size);
	}
	return bad;
}

/* True: refused. */
static bool try_damaged(struct stopper *s, const struct writer *bad, const struct writer *before)
{
	struct reader reader = { bad->data, bad->size, 0 };
	struct error err = { 0 };
	struct writer after;

	if (!machine_load(s->machine, &reader, &err)) {
		run(s); /* whatever that comes to */
		return false;
	}
	if (err.code != EINVAL || !err.text[0] || reader.offset)
		die("refused without a sentence", err.text);
	after = save(s->machine);
	if (after.size != before->size || memcmp(after.data, before->data, after.size) != 0)
		die("changed though refused", err.text);
	writer_free(&after);
	return true;
}

static void hostile(struct options *o)
{
	struct writer record, before;
	unsigned refused = 0;
	struct stopper s;
	size_t records;

	log_set_level(LOG_ERROR);
	if (!freopen("/dev/null", "w", stderr)) /* triple faults */
		die("/dev/null", strerror(errno));
	stopper_init(&s, 100000, 0);
	create(o, &s, 0);
	run(&s);
	record = save(s.machine);
	records = seal(record.data, record.size);
	machine_destroy(s.machine);
	stopper_init(&s, 200000, 300);
	create(o, &s, 0);
	before = save(s.machine);
	for (unsigned n = 0; n < o->hostile; n++) {
		struct writer bad = damaged(&record, records, n, &o->seed);

		if (try_damaged(&s, &bad, &before)) {
			refused++;
		} else {
			machine_destroy(s.machine);
			create(o, &s, 0);
		}
		writer_free(&bad);
	}
	machine_destroy(s.machine);
	writer_free(&record);
	writer_free(&before);
	printf("%u damaged records, %u refused\n", o->hostile, refused);
}

/* ---- command line ---- */

static const char *take_value(char **argv, int argc, int *i)
{
	if (*i + 1 >= argc)
		die(argv[*i], "a value is missing");
	return argv[++*i];
}

static void parse(struct options *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		const char *value = strcmp(word, "--debug-exit") != 0 ? take_value(argv, argc, &i) : NULL;

		if (!value)
			o->config.devices[o->config.device_count++].spec = "debug-exit", o->debug_console = true;
		else if (!strcmp(word, "--kernel"))
			o->config.kernel = value;
		else if (!strcmp(word, "--initrd"))
			o->config.initrd = value;
		else if (!strcmp(word, "--append"))
			o->config.append = value;
		else if (!strcmp(word, "--memory"))
			o->config.memory = strtoull(value, NULL, 0) << 20;
		else if (!strcmp(word, "--cpus"))
			o->config.cpus = (unsigned)strtoul(value, NULL, 0);
		else if (!strcmp(word, "--cpu"))
			o->config.cpu_model = value;
		else if (!strcmp(word, "--engine"))
			o->config.engine = value;
		else if (!strcmp(word, "--load-engine"))
			o->load_engine = value;
		else if (!strcmp(word, "--clock"))
			o->config.clock = strcmp(value, "virtual") ? CLOCK_HOST : CLOCK_VIRTUAL;
		else if (!strcmp(word, "--folder"))
			o->folder = value;
		else if (!strcmp(word, "--seed"))
			o->seed = strtoull(value, NULL, 0);
		else if (!strcmp(word, "--within"))
			o->within = strtoull(value, NULL, 0);
		else if (!strcmp(word, "--stops"))
			o->stops = MIN((unsigned)strtoul(value, NULL, 0), MAX_STOPS);
		else if (!strcmp(word, "--hostile"))
			o->hostile = (unsigned)strtoul(value, NULL, 0);
		else if (!strcmp(word, "--status"))
			o->expected = (int)strtol(value, NULL, 0);
		else
			die(word, "unknown option");
	}
}

int main(int argc, char **argv)
{
	struct options o = {
		.config = { .memory = 64 << 20, .cpus = 1, .engine = "bt", .cpu_model = "v2", .clock = CLOCK_VIRTUAL },
		.folder = "/tmp",
		.seed = 1,
		.within = 1000,
		.stops = 3,
	};

	parse(&o, argc, argv);
	if (o.hostile)
		hostile(&o);
	else
		run_chain(&o);
	return 0;
}
