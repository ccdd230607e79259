/*
 * Runs vectors: files or folders as arguments, each with a TAP line and what was left out and why. --moo OUT FILE writes FILE's vectors
 * as MOO instead, with --no-masks in front without their masks.
 */
#include "vectors.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define FILE_MAX    (256u << 20) /* unpacked */
#define SHOWN_MAX   10
#define REASONS_MAX 64

struct tally {
	struct runner *runner;
	const char *file;
	uint64_t passed, failed, skipped;
	struct {
		const char *why;
		uint64_t count;
	} reasons[REASONS_MAX];
};

static void skip(struct tally *t, const char *why)
{
	unsigned n = 0;

	while (n < REASONS_MAX - 1 && t->reasons[n].why && t->reasons[n].why != why)
		n++;
	t->reasons[n].why = why;
	t->reasons[n].count++;
	t->skipped++;
}

static int run_vector(void *opaque, enum processor processor, struct test_vector *v)
{
	const char *why = difference_before(processor, v), *wrong;
	struct tally *t = opaque;
	int exception;

	if (why) {
		skip(t, why);
		return 0;
	}
	wrong = runner_run(t->runner, processor, v, &exception);
	why = wrong ? difference_after(processor, v, exception) : NULL;
	if (!wrong) {
		t->passed++;
	} else if (why) {
		skip(t, why);
	} else if (t->failed++ < SHOWN_MAX) {
		printf("# %s, number %u, %s:", t->file, v->index, v->name);
		for (unsigned n = 0; n < v->length; n++)
			printf(" %02x", v->bytes[n]);
		printf(": %s; exception %d\n", wrong, exception);
	}
	return 0;
}

/* The whole file, unpacked if it is packed; NULL on error. */
static uint8_t *read_whole(const char *path, size_t *size, struct error *err)
{
	gzFile file = gzopen(path, "rb");
	struct writer w = { 0 };
	static uint8_t part[1 << 16];
	int n = 0;

	while (file && w.size < FILE_MAX && (n = gzread(file, part, sizeof(part))) > 0)
		writer_bytes(&w, part, (size_t)n);
	if (file)
		gzclose(file);
	if (!file || n < 0 || w.failed || w.size >= FILE_MAX) {
		error_set(err, EIO, "%s: cannot be read, or is larger than %u bytes", path, FILE_MAX);
		writer_free(&w);
		return NULL;
	}
	*size = w.size;
	return w.data;
}

int vectors_read(const char *path, vector_fn *fn, void *opaque, struct error *err)
{
	size_t size;
	uint8_t *data = read_whole(path, &size, err);
	struct metadata *metadata;
	int ret;

	if (!data)
		return err->code ? -err->code : -EIO;
	metadata = metadata_load(path);
	if (size >= 4 && !memcmp(data, "MOO ", 4))
		ret = moo_read(metadata, data, size, fn, opaque, err);
	else
		ret = json_read(path, metadata, data, size, fn, opaque, err);
	metadata_free(metadata);
	free(data);
	return ret;
}

static bool is_vectors(const char *name)
{
	return strcmp(name, "metadata.json") && (strstr(name, ".json") || strstr(name, ".MOO") || strstr(name, ".moo"));
}

/* False: a file could not be read. */
static bool run_path(struct tally *t, const char *path)
{
	struct error err = { 0 };
	struct dirent **names;
	struct stat st;
	char name[4096];
	bool good = true;
	int count;

	if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
		count = scandir(path, &names, NULL, alphasort);
		for (int n = 0; n < count; n++) {
			snprintf(name, sizeof(name), "%s/%s", path, names[n]->d_name);
			if (is_vectors(names[n]->d_name))
				good &= run_path(t, name);
			free(names[n]);
		}
		free(count < 0 ? NULL : names);
		return good;
	}
	t->file = path;
	if (!vectors_read(path, run_vector, t, &err))
		return true;
	printf("# %s: %s\n", path, err.text);
	return false;
}

static int convert(const char *to, const char *from, bool no_masks)
{
	struct moo_writer m = { .out = fopen(to, "wb"), .no_masks = no_masks };
	struct error err = { 0 };

	if (!m.out)
		return 1;
	moo_write_end(&m, CPU_8086);
	if (vectors_read(from, moo_write, &m, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	moo_write_end(&m, strstr(from, "286") ? CPU_80286 : CPU_8086);
	return fclose(m.out) ? 1 : 0;
}

static void report(const struct tally *t, unsigned number, const char *path, bool good)
{
	uint64_t all = t->passed + t->failed + t->skipped;

	for (unsigned n = 0; n < REASONS_MAX && t->reasons[n].why; n++)
		printf("# left out %llu: %s\n", (unsigned long long)t->reasons[n].count, t->reasons[n].why);
	printf("%sok %u - %s: %llu vectors, %llu passed, %llu failed, %llu left out\n",
	       good && all && !t->failed ? "" : "not ", number, path, (unsigned long long)all,
	       (unsigned long long)t->passed, (unsigned long long)t->failed, (unsigned long long)t->skipped);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "engine", required_argument, NULL, 'e' },
						 { "moo", required_argument, NULL, 'm' },
						 { "no-masks", no_argument, NULL, 'n' },
						 { 0 } };
	const char *engine = "interp";
	struct runner *runner;
	bool all_good = true, no_masks = false;
	struct error err;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'e': engine = optarg; break;
		case 'n': no_masks = true; break;
		case 'm': return convert(optarg, argv[optind], no_masks);
		default: fprintf(stderr, "usage: vectors [--engine NAME] FILE|FOLDER...\n"); return 2;
		}
	}
	runner = runner_create(engine, &err);
	if (!runner) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	for (int n = optind; n < argc; n++) {
		struct tally t = { .runner = runner };
		bool good = run_path(&t, argv[n]);

		report(&t, (unsigned)(n - optind + 1), argv[n], good);
		all_good &= good && !t.failed && t.passed;
	}
	printf("1..%d\n", argc - optind);
	runner_destroy(runner);
	return all_good ? 0 : 1;
}
