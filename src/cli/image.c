/*
 * doppel image: what people need of qemu-img, by the same names.
 */
#include "cli/cli.h"

#include "block/block.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define OPERANDS   3
#define EXIT_WRONG 2 /* of check: errors */
#define EXIT_LEAKS 3

/* In the order of image_options. */
enum option { FORMAT, OUTPUT, BACKING, BACKING_FORMAT, OPTIONS, REPAIR, TRUST, UNLOCKED, RULE, SHRINK, QUIET, JSON };

struct image_arguments {
	const char *operands[OPERANDS];
	unsigned count;
	const char *format, *output_format, *backing, *backing_format;
	struct block_create_options create;
	enum block_repair repair;
	enum block_backing rule;
	bool trust, unlocked, json, shrink, quiet;
	uint64_t given; /* bits of options */
};

/* ---- options ---- */

#define SET_TEXT(name, field, option)                                                                                  \
	static int set_##name(void *target, const char *value, struct error *err)                                      \
	{                                                                                                              \
		struct image_arguments *args = target;                                                                 \
                                                                                                                       \
		(void)err;                                                                                             \
		args->field = value;                                                                                   \
		args->given |= BIT(option);                                                                            \
		return 0;                                                                                              \
	}
#define SET_SWITCH(name, field, option)                                                                                \
	static int set_##name(void *target, const char *value, struct error *err)                                      \
	{                                                                                                              \
		struct image_arguments *args = target;                                                                 \
                                                                                                                       \
		(void)value;                                                                                           \
		(void)err;                                                                                             \
		args->field = true;                                                                                    \
		args->given |= BIT(option);                                                                            \
		return 0;                                                                                              \
	}

SET_TEXT(format, format, FORMAT)
SET_TEXT(output_format, output_format, OUTPUT)
SET_TEXT(backing, backing, BACKING)
SET_TEXT(backing_format, backing_format, BACKING_FORMAT)
SET_SWITCH(trust, trust, TRUST)
SET_SWITCH(unlocked, unlocked, UNLOCKED)
SET_SWITCH(json, json, JSON)
SET_SWITCH(shrink, shrink, SHRINK)
SET_SWITCH(quiet, quiet, QUIET)

static int set_repair(void *target, const char *value, struct error *err)
{
	struct image_arguments *args = target;

	args->given |= BIT(REPAIR);
	if (!strcmp(value, "leaks"))
		args->repair = BLOCK_REPAIR_LEAKS;
	else if (!strcmp(value, "all"))
		args->repair = BLOCK_REPAIR_ALL;
	else
		return error_set(err, EINVAL, "'%s' is unknown; expected leaks or all", value);
	return 0;
}

static int set_rule(void *target, const char *value, struct error *err)
{
	struct image_arguments *args = target;

	args->given |= BIT(RULE);
	if (!strcmp(value, "near"))
		args->rule = BLOCK_BACKING_NEAR;
	else if (!strcmp(value, "any"))
		args->rule = BLOCK_BACKING_ANY;
	else if (!strcmp(value, "none"))
		args->rule = BLOCK_BACKING_NONE;
	else
		return error_set(err, EINVAL, "'%s' is unknown; expected near, any or none", value);
	return 0;
}

/* ---- -o NAME=VALUE,... ---- */

static int set_compat(struct block_create_options *o, const char *value, struct error *err)
{
	if (!strcmp(value, "1.1") || !strcmp(value, "v3"))
		o->version = 3;
	else if (!strcmp(value, "0.10") || !strcmp(value, "v2"))
		o->version = 2;
	else
		return error_set(err, EINVAL, "compat is '%s'; expected 0.10 or 1.1", value);
	return 0;
}

static int set_cluster_size(struct block_create_options *o, const char *value, struct error *err)
{
	return cli_parse_size(value, &o->cluster_size, err);
}

static int set_refcount_bits(struct block_create_options *o, const char *value, struct error *err)
{
	uint64_t bits_of = 0;
	int rc = cli_parse_size(value, &bits_of, err);

	o->refcount_bits = (unsigned)MIN(bits_of, UINT32_MAX);
	return rc;
}

static int set_switch(bool *field, const char *name, const char *value, struct error *err)
{
	*field = !strcmp(value, "on");
	if (!*field && strcmp(value, "off") != 0)
		return error_set(err, EINVAL, "%s is '%s'; expected on or off", name, value);
	return 0;
}

static int set_lazy(struct block_create_options *o, const char *value, struct error *err)
{
	return set_switch(&o->lazy_refcounts, "lazy_refcounts", value, err);
}

static int set_extended(struct block_create_options *o, const char *value, struct error *err)
{
	return set_switch(&o->extended_l2, "extended_l2", value, err);
}

static const struct format_option {
	const char *name;
	int (*set)(struct block_create_options *, const char *value, struct error *);
} format_options[] = {
	{ "cluster_size", set_cluster_size }, { "compat", set_compat },	       { "refcount_bits", set_refcount_bits },
	{ "lazy_refcounts", set_lazy },	      { "extended_l2", set_extended },
};

static int set_format_option(struct block_create_options *o, char *word, struct error *err)
{
	char *value = strchr(word, '=');

	if (value)
		*value++ = 0;
	for (size_t n = 0; n < ARRAY_SIZE(format_options); n++)
		if (value && !strcmp(format_options[n].name, word))
			return format_options[n].set(o, value, err);
	return error_set(err, EINVAL,
			 "'%s' is unknown; expected cluster_size=, compat=, refcount_bits=, lazy_refcounts= or "
			 "extended_l2= with a value",
			 word);
}

static int set_format_options(void *target, const char *value, struct error *err)
{
	struct image_arguments *args = target;
	char *copy = strdup(value), *rest = copy, *word;
	int rc = copy ? 0 : error_set_errno(err, ENOMEM, "-o");

	args->given |= BIT(OPTIONS);
	while (!rc && (word = strsep(&rest, ",")))
		rc = set_format_option(&args->create, word, err);
	free(copy);
	return rc;
}

static const char *format_word(unsigned n)
{
	static const char *const words[] = { "raw", "qcow2", NULL };

	return words[n];
}

static const char *rule_word(unsigned n)
{
	static const char *const words[] = { "near", "any", "none", NULL };

	return words[n];
}

static const char *repair_word(unsigned n)
{
	static const char *const words[] = { "leaks", "all", NULL };

	return words[n];
}

const struct cli_option image_options[] = {
	{ "-f", "FORMAT", "format of the image, or of the one to read", set_format, format_word, false },
	{ "-O", "FORMAT", "format of the image to write", set_output_format, format_word, false },
	{ "-b", "FILE", "backing file, as the image names it", set_backing, NULL, true },
	{ "-F", "FORMAT", "its format", set_backing_format, format_word, false },
	{ "-o", "NAME=VALUE,...", "cluster_size, compat, refcount_bits, lazy_refcounts of a new image",
	  set_format_options, NULL, false },
	{ "-r", "WHAT", "repair", set_repair, repair_word, false },
	{ "-u", NULL, "only the backing file's name changes, nothing is read", set_trust, NULL, false },
	{ "-U", NULL, "somebody else may be writing to it", set_unlocked, NULL, false },
	{ "--backing", "RULE", "which backing files are opened (default near: in the image's folder)", set_rule,
	  rule_word, false },
	{ "--shrink", NULL, "the disk may become smaller", set_shrink, NULL, false },
	{ "--quiet", NULL, "no progress, no figures", set_quiet, NULL, false },
	{ "--json", NULL, "for programs: one JSON object", set_json, NULL, false },
	{ NULL, NULL, NULL, NULL, NULL, false },
};

int image_operand(void *target, const char *word, struct error *err)
{
	struct image_arguments *args = target;

	if (args->count == OPERANDS)
		return error_set(err, EINVAL, "unexpected argument '%s'; 'doppel help image' shows the usage", word);
	args->operands[args->count++] = word;
	return 0;
}

/* ---- progress ---- */

#define BAR 40

struct bar {
	int shown; /* tenths of a percent */
};

static void show_progress(void *opaque, uint64_t done, uint64_t all)
{
	struct bar *bar = opaque;
	int now = all ? (int)((__uint128_t)done * 1000 / all) : 1000, full = now * BAR / 1000;

	if (now == bar->shown)
		return;
	bar->shown = now;
	fprintf(stderr, "\r[%.*s%*s] %3d.%d %%", full, "########################################", BAR - full, "",
		now / 10, now % 10);
	if (now == 1000)
		fputc('\n', stderr);
}

/* Only where somebody looks. */
static struct block_progress progress_of(const struct image_arguments *args, struct bar *bar)
{
	bool shown = !args->quiet && isatty(STDERR_FILENO);

	*bar = (struct bar){ -1 };
	return (struct block_progress){ shown ? show_progress : NULL, bar };
}

/* ---- commands ---- */

static int fail(const struct error *err)
{
	cli_complain("image", err);
	return err->code == EINVAL ? EXIT_USAGE : EXIT_FAILED;
}

static struct block_options options_of(const struct image_arguments *args)
{
	return (struct block_options){
		.file = args->operands[0], .format = args->format, .backing = args->rule, .unlocked = args->unlocked
	};
}

/* Nobody said the format of a file that is made: its name may. */
static const char *format_by_name(const char *format, const char *file)
{
	size_t length = strlen(file);

	if (format)
		return format;
	return length > 6 && !strcmp(file + length - 6, ".qcow2") ? "qcow2" : "raw";
}

static struct block_create_options create_of(const struct image_arguments *args, const char *format, const char *file)
{
	struct block_create_options o = args->create;

	o.file = file;
	o.format = format_by_name(format, file);
	o.backing = args->backing;
	o.backing_format = args->backing_format;
	o.rule = args->rule;
	return o;
}

static int image_create(const struct image_arguments *args)
{
	struct block_create_options o = create_of(args, args->format, args->operands[0]);
	struct error err = { 0 };

	if (!args->operands[1] && !args->backing) {
		error_set(&err, EINVAL, "create '%s': expected a size behind it, such as 10G", args->operands[0]);
		return fail(&err);
	}
	if (args->operands[1] && cli_parse_size(args->operands[1], &o.size, &err))
		return fail(&err);
	return block_create(&o, &err) ? fail(&err) : 0;
}

static void print_size(const char *label, uint64_t size)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)size;
	unsigned unit = 0;

	for (; value >= 1024; value /= 1024)
		unit++;
	printf("%s: %.4g %s (%" PRIu64 " bytes)\n", label, value, units[unit], size);
}

static void print_snapshots(const struct block_details *d)
{
	if (d->snapshot_count)
		printf("snapshots:\n  %-8s %-24s %-20s %s\n", "ID", "TAG", "DATE", "VM SIZE");
	for (unsigned n = 0; n < d->snapshot_count; n++) {
		time_t when = (time_t)d->snapshots[n].seconds;
		char date[32] = "";
		struct tm tm;

		if (localtime_r(&when, &tm))
			strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
		printf("  %-8s %-24s %-20s %" PRIu64 "\n", d->snapshots[n].id, d->snapshots[n].name, date,
		       d->snapshots[n].state_size);
	}
}

static void print_details(const char *file, const struct block_details *d)
{
	printf("image: %s\nformat: %s\n", file, d->format);
	print_size("virtual size", d->size);
	print_size("disk size", d->disk_size);
	if (!d->version)
		return;
	printf("cluster size: %" PRIu64 "\ncompat: %s\ncompression: %s\nrefcount bits: %u\nlazy refcounts: %s\n",
	       d->cluster_size, d->version == 2 ? "0.10" : "1.1", d->compression, d->refcount_bits,
	       d->lazy_refcounts ? "on" : "off");
	printf("extended L2: %s\ndirty: %s\ncorrupt: %s\n", d->extended_l2 ? "on" : "off", d->dirty ? "yes" : "no",
	       d->corrupt ? "yes" : "no");
	if (*d->backing)
		printf("backing file: %s\nbacking file format: %s\n", d->backing,
		       *d->backing_format ? d->backing_format : "(by its first bytes)");
	print_snapshots(d);
}

static const char *json_bool(bool b) { return b ? "true" : "false"; }

static void print_details_json(const char *file, const struct block_details *d)
{
	printf("{");
	cli_json_member("filename", file, ", ");
	cli_json_member("format", d->format, ", ");
	printf("\"virtual-size\": %" PRIu64 ", \"actual-size\": %" PRIu64, d->size, d->disk_size);
	if (*d->backing) {
		printf(", ");
		cli_json_member("backing-filename", d->backing, ", ");
		cli_json_member("backing-filename-format", d->backing_format, "");
	}
	if (d->version) {
		printf(", \"cluster-size\": %" PRIu64 ", \"dirty-flag\": %s, \"format-specific\": {", d->cluster_size,
		       json_bool(d->dirty));
		cli_json_member("compat", d->version == 2 ? "0.10" : "1.1", ", ");
		cli_json_member("compression-type", d->compression, ", ");
		printf("\"refcount-bits\": %u, \"lazy-refcounts\": %s, \"corrupt\": %s, \"extended-l2\": %s}, "
		       "\"snapshots\": [",
		       d->refcount_bits, json_bool(d->lazy_refcounts), json_bool(d->corrupt),
		       json_bool(d->extended_l2));
		for (unsigned n = 0; n < d->snapshot_count; n++) {
			printf("%s{", n ? ", " : "");
			cli_json_member("id", d->snapshots[n].id, ", ");
			cli_json_member("name", d->snapshots[n].name, ", ");
			printf("\"date-sec\": %" PRIu64 ", \"vm-state-size\": %" PRIu64 "}", d->snapshots[n].seconds,
			       d->snapshots[n].state_size);
		}
		printf("]");
	}
	printf("}\n");
}

static int image_info(const struct image_arguments *args)
{
	struct block_options options = options_of(args);
	struct block_details details;
	struct error err = { 0 };

	if (block_examine(&options, &details, &err)) {
		block_details_free(&details);
		return fail(&err);
	}
	if (args->json)
		print_details_json(args->operands[0], &details);
	else
		print_details(args->operands[0], &details);
	block_details_free(&details);
	return cli_finish_output("image");
}

static void print_line(void *opaque, const char *line)
{
	(void)opaque;
	printf("%s\n", line);
}

static void print_check(const struct image_arguments *args, const struct block_check_result *r)
{
	if (args->json)
		printf("{\"check-errors\": 0, \"corruptions\": %" PRIu64 ", \"leaks\": %" PRIu64
		       ", \"corruptions-fixed\": %" PRIu64 ", \"leaks-fixed\": %" PRIu64
		       ", \"total-clusters\": %" PRIu64 ", \"allocated-clusters\": %" PRIu64
		       ", \"compressed-clusters\": %" PRIu64 "}\n",
		       r->errors, r->leaks, r->errors_fixed, r->leaks_fixed, r->total, r->allocated, r->compressed);
	else if (!args->quiet)
		printf("%" PRIu64 " errors, %" PRIu64 " leaked clusters; repaired: %" PRIu64 " errors, %" PRIu64
		       " leaked clusters\n%" PRIu64 " of %" PRIu64 " clusters are there, %" PRIu64
		       " of them compressed\n",
		       r->errors, r->leaks, r->errors_fixed, r->leaks_fixed, r->allocated, r->total, r->compressed);
}

static int image_check(const struct image_arguments *args)
{
	struct block_options options = options_of(args);
	struct block_check_result result;
	struct error err = { 0 };
	int status;

	if (block_check(&options, args->repair, &result, args->json || args->quiet ? NULL : print_line, NULL, &err)) {
		cli_complain("image", &err);
		return EXIT_FAILED;
	}
	print_check(args, &result);
	status = cli_finish_output("image");
	return status ? status : result.errors ? EXIT_WRONG : result.leaks ? EXIT_LEAKS : 0;
}

static int image_convert(const struct image_arguments *args)
{
	struct block_options from = options_of(args);
	struct block_create_options to = create_of(args, args->output_format, args->operands[1]);
	struct error err = { 0 };
	struct bar bar;
	struct block_progress progress = progress_of(args, &bar);

	return block_convert(&from, &to, &progress, &err) ? fail(&err) : 0;
}

/* "10G", or "+1G" and "-1G" from what it is. */
static int new_size(const struct block_options *options, const char *word, uint64_t *size, struct error *err)
{
	struct block_details details;
	bool more = word[0] == '+', less = word[0] == '-';
	int rc = cli_parse_size(word + (more || less), size, err);

	if (rc || !(more || less))
		return rc;
	rc = block_examine(options, &details, err);
	if (!rc && more && __builtin_add_overflow(details.size, *size, size))
		rc = error_set(err, EINVAL, "'%s' is too large", word);
	else if (!rc && less && *size > details.size)
		rc = error_set(err, EINVAL, "'%s' is more than the %" PRIu64 " bytes of '%s'", word, details.size,
			       options->file);
	else if (!rc && less)
		*size = details.size - *size;
	block_details_free(&details);
	return rc;
}

static int image_resize(const struct image_arguments *args)
{
	struct block_options options = options_of(args);
	struct error err = { 0 };
	uint64_t size;

	if (new_size(&options, args->operands[1], &size, &err))
		return fail(&err);
	return block_resize(&options, size, args->shrink, &err) ? fail(&err) : 0;
}

static int image_commit(const struct image_arguments *args)
{
	struct block_options options = options_of(args);
	struct error err = { 0 };
	struct bar bar;
	struct block_progress progress = progress_of(args, &bar);

	return block_commit(&options, &progress, &err) ? fail(&err) : 0;
}

static int image_rebase(const struct image_arguments *args)
{
	struct block_options options = options_of(args);
	const char *backing = args->backing && *args->backing ? args->backing : NULL;
	struct error err = { 0 };
	struct bar bar;
	struct block_progress progress = progress_of(args, &bar);

	if (!args->backing) {
		error_set(&err, EINVAL, "rebase '%s': expected -b FILE, or -b '' for none", args->operands[0]);
		return fail(&err);
	}
	return block_rebase(&options, backing, args->backing_format, args->trust, &progress, &err) ? fail(&err) : 0;
}

static const struct image_command {
	const char *name;
	uint64_t options;     /* that it takes */
	unsigned least, most; /* words */
	const char *words;
	int (*run)(const struct image_arguments *);
} image_commands[] = {
	{ "create", BIT(FORMAT) | BIT(BACKING) | BIT(BACKING_FORMAT) | BIT(OPTIONS) | BIT(RULE) | BIT(QUIET), 1, 2,
	  "FILE [SIZE]", image_create },
	{ "info", BIT(FORMAT) | BIT(UNLOCKED) | BIT(JSON), 1, 1, "FILE", image_info },
	{ "check", BIT(FORMAT) | BIT(UNLOCKED) | BIT(REPAIR) | BIT(JSON) | BIT(QUIET), 1, 1, "FILE", image_check },
	{ "convert", BIT(FORMAT) | BIT(OUTPUT) | BIT(UNLOCKED) | BIT(OPTIONS) | BIT(RULE) | BIT(QUIET), 2, 2,
	  "FILE NEW-FILE", image_convert },
	{ "resize", BIT(FORMAT) | BIT(RULE) | BIT(SHRINK) | BIT(QUIET), 2, 2, "FILE [+-]SIZE", image_resize },
	{ "commit", BIT(FORMAT) | BIT(RULE) | BIT(QUIET), 1, 1, "FILE", image_commit },
	{ "rebase", BIT(FORMAT) | BIT(BACKING) | BIT(BACKING_FORMAT) | BIT(TRUST) | BIT(RULE) | BIT(QUIET), 1, 1,
	  "FILE", image_rebase },
};

const char image_notes[] =
	"  create [-f FORMAT] [-o ...] [-b FILE -F FORMAT] FILE [SIZE]   a new, empty image\n"
	"  info [--json] [-U] FILE                                      what an image says of itself\n"
	"  check [-r leaks|all] [--json] FILE                           do its tables agree?\n"
	"  convert [-f FORMAT] [-O FORMAT] [-o ...] FILE NEW-FILE       all that it shows, in another file\n"
	"  resize [--shrink] FILE [+-]SIZE                              a larger or smaller disk\n"
	"  commit FILE                                                  into its backing file\n"
	"  rebase [-u] -b FILE -F FORMAT FILE                           on another backing file (-b '': none)\n"
	"Without -f a file is what its first bytes say, a new one qcow2 if its name ends in .qcow2, else raw.\n"
	"Exit status: 0, 1 error, 2 wrong usage; of check: 2 errors, 3 leaked clusters alone.";

static const struct image_command *find_command(const char *name, struct error *err)
{
	for (size_t n = 0; n < ARRAY_SIZE(image_commands); n++)
		if (!strcmp(image_commands[n].name, name))
			return &image_commands[n];
	error_set(err, EINVAL, "'%s' is unknown; expected create, info, check, convert, resize, commit or rebase",
		  name);
	return NULL;
}

static int check_usage(const struct image_command *command, const struct image_arguments *args, struct error *err)
{
	uint64_t wrong = args->given & ~command->options;

	if (wrong)
		return error_set(err, EINVAL, "%s does not take %s; 'doppel help image' shows the usage", command->name,
				 image_options[__builtin_ctzll(wrong)].name);
	if (args->count < command->least || args->count > command->most)
		return error_set(err, EINVAL, "%s: %u words; expected %s", command->name, args->count, command->words);
	return 0;
}

int command_image(int argc, char **argv)
{
	struct image_arguments args = { 0 };
	const struct image_command *command;
	struct error err = { 0 };
	int status;

	if (argc < 2) {
		fprintf(stderr,
			"doppel image: no command; expected create, info, check, convert, resize, commit or rebase\n");
		return EXIT_USAGE;
	}
	command = find_command(argv[1], &err);
	if (!command)
		return fail(&err);
	status = cli_parse(cli_find("image"), argc - 1, argv + 1, &args);
	if (status)
		return status;
	return check_usage(command, &args, &err) ? fail(&err) : command->run(&args);
}
