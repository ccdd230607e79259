/*
 * The table of device types, and what follows from it: options taken apart and checked, help, a device plugged in with its host's
 * side and unplugged again. Knows no single device.
 */
#include "devices/devices.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

const struct device_type *const device_types[] = {
#define _(name) &name##_type,
	DEVICE_TYPES(_)
#undef _
		NULL,
};

struct device_plug {
	const struct device_type *type;
	struct bus *bus;
	void *options;
};

/* ---- requests ---- */

/* Words with commas between them, for sentences. */
struct words {
	char text[320];
	size_t used;
};

static void add_word(struct words *words, const char *word)
{
	size_t room = sizeof(words->text) - words->used;
	int n = snprintf(words->text + words->used, room, "%s%s", words->used ? ", " : "", word);

	words->used += MIN((size_t)n, room - 1);
}

static const struct device_type *find_type(const char *spec, struct error *err)
{
	size_t length = strcspn(spec, ",");
	struct words names = { "", 0 };

	for (const struct device_type *const *t = device_types; *t; t++) {
		if (strlen((*t)->name) == length && !strncmp((*t)->name, spec, length))
			return *t;
		add_word(&names, (*t)->name);
	}
	error_set(err, EINVAL, "'%.*s' is unknown; there are: %s", (int)MIN(length, 64), spec, names.text);
	return NULL;
}

/* Names are fields of C's in the table: what is _ there is written -. */
static bool is_name(const char *field, const char *name, size_t length)
{
	if (strlen(field) != length)
		return false;
	for (size_t n = 0; n < length; n++)
		if (field[n] != name[n] && !(field[n] == '_' && name[n] == '-'))
			return false;
	return true;
}

static const struct device_option *find_option(const struct device_type *type, const char *name, size_t length,
					       struct error *err)
{
	struct words names = { "", 0 };

	for (const struct device_option *o = type->options; o && o->name; o++) {
		if (is_name(o->name, name, length))
			return o;
		add_word(&names, o->name);
	}
	error_set(err, EINVAL, "%s: option '%.*s' is unknown; expected %s", type->name, (int)MIN(length, 64), name,
		  names.used ? names.text : "none");
	return NULL;
}

static int wrong(const struct device_type *type, const struct device_option *o, const char *value, const char *expected,
		 struct error *err)
{
	return error_set(err, EINVAL, "%s: option '%s' is '%.128s'; expected %s", type->name, o->name, value, expected);
}

static int set_number(const struct device_type *type, const struct device_option *o, const char *value, uint64_t *field,
		      struct error *err)
{
	char expected[64], *rest;

	errno = 0;
	*field = strtoull(value, &rest, 0);
	if (*value >= '0' && *value <= '9' && !*rest && !errno && *field >= o->least && *field <= o->most)
		return 0;
	snprintf(expected, sizeof(expected), "a number from %" PRIu64 " to %" PRIu64, o->least, o->most);
	return wrong(type, o, value, expected, err);
}

static int set_switch(const struct device_type *type, const struct device_option *o, const char *value, bool *field,
		      struct error *err)
{
	*field = !strcmp(value, "on");
	return *field || !strcmp(value, "off") ? 0 : wrong(type, o, value, "on or off", err);
}

/* loop NULL: only a check, nothing is opened. */
static int open_chardev(const struct device_type *type, const struct device_option *o, const char *value,
			struct event_loop *loop, struct chardev **field, struct error *err)
{
	if (!loop)
		return 0;
	*field = chardev_open(value, loop, err);
	if (*field)
		return 0;
	return err ? error_prefix(err, "%s: option '%s'", type->name, o->name) : -EINVAL;
}

static void free_value(const struct device_option *o, void *options)
{
	void *field = (char *)options + o->offset;

	if (o->kind == DEVICE_CHARDEV && *(struct chardev **)field)
		chardev_close(*(struct chardev **)field);
	else if (o->kind == DEVICE_TEXT)
		free(*(char **)field);
	memset(field, 0, sizeof(void *));
}

static void free_options(const struct device_type *type, void *options)
{
	for (const struct device_option *o = type->options; o && o->name; o++)
		if (o->kind == DEVICE_CHARDEV || o->kind == DEVICE_TEXT)
			free_value(o, options);
	free(options);
}

static int set_value(const struct device_type *type, const struct device_option *o, const char *value, void *options,
		     struct event_loop *loop, struct error *err)
{
	void *field = (char *)options + o->offset;

	switch (o->kind) {
	case DEVICE_NUMBER: return set_number(type, o, value, field, err);
	case DEVICE_SWITCH: return set_switch(type, o, value, field, err);
	case DEVICE_CHARDEV: return open_chardev(type, o, value, loop, field, err);
	case DEVICE_TEXT: *(char **)field = strdup(value); break;
	}
	return *(char **)field ? 0 : error_set_errno(err, ENOMEM, "%s: option '%s'", type->name, o->name);
}

struct parser {
	const struct device_type *type;
	void *options;
	struct event_loop *loop;
	uint64_t given; /* bits, by place in the table */
};

static int give(struct parser *p, const struct device_option *o, const char *value, struct error *err)
{
	uint64_t bit = BIT(o - p->type->options);

	if (p->given & bit)
		return error_set(err, EINVAL, "%s: option '%s' is given twice", p->type->name, o->name);
	p->given |= bit;
	return set_value(p->type, o, value, p->options, p->loop, err);
}

/* "OPTION=VALUE", or a switch's name alone. */
static int parse_one(struct parser *p, char *text, struct error *err)
{
	size_t length = strcspn(text, "=");
	const struct device_option *o = find_option(p->type, text, length, err);

	if (!o)
		return -EINVAL;
	if (!text[length] && o->kind != DEVICE_SWITCH)
		return error_set(err, EINVAL, "%s: option '%s' has no value; expected %s=VALUE", p->type->name, o->name,
				 o->name);
	return give(p, o, text[length] ? text + length + 1 : "on", err);
}

/* The next word of a list, in place; a comma of its own is written as two. NULL behind the last. */
static char *next_word(char **at)
{
	char *word = *at, *to = word, *from = word;

	if (!word)
		return NULL;
	for (; *from && (*from != ',' || from[1] == ','); from++) {
		from += *from == ',';
		*to++ = *from;
	}
	*at = *from ? from + 1 : NULL;
	*to = 0;
	return word;
}

enum first_word { FIRST_IS_NONE, FIRST_IS_VALUE, FIRST_IS_OPTION };

/* Options with commas between; the first word may be something else: the value of one, or nothing to us. */
static int parse_list(struct parser *p, enum first_word what, const struct device_option *first, const char *list,
		      struct error *err)
{
	char *copy, *at, *one;
	int rc = 0;

	copy = strdup(list);
	if (!copy)
		return error_set_errno(err, ENOMEM, "%s", p->type->name);
	at = copy;
	if (what != FIRST_IS_OPTION)
		one = next_word(&at);
	if (what == FIRST_IS_VALUE)
		rc = give(p, first, one, err);
	while (!rc && (one = next_word(&at)))
		rc = parse_one(p, one, err);
	free(copy);
	return rc;
}

static int parse_short_form(struct parser *p, const struct device_request *request, struct error *err)
{
	const struct device_option *o;

	if (!request->option)
		return parse_list(p, FIRST_IS_OPTION, NULL, request->value, err);
	o = find_option(p->type, request->option, strlen(request->option), NULL);
	if (p->type->short_form.options_follow)
		return parse_list(p, FIRST_IS_VALUE, o, request->value, err);
	return give(p, o, request->value, err);
}

static int set_defaults(struct parser *p, struct error *err)
{
	int rc = 0;

	for (const struct device_option *o = p->type->options; !rc && o && o->name; o++)
		if (o->by_default && !(p->given & BIT(o - p->type->options)))
			rc = set_value(p->type, o, o->by_default, p->options, p->loop, err);
	return rc;
}

static int parse(const struct device_type *type, const struct device_request *request, struct event_loop *loop,
		 void **options, struct error *err)
{
	struct parser p = { .type = type, .loop = loop };
	int rc;

	p.options = calloc(1, MAX(type->options_size, (size_t)1));
	if (!p.options)
		return error_set_errno(err, ENOMEM, "%s", type->name);
	rc = parse_list(&p, FIRST_IS_NONE, NULL, request->spec, err);
	if (!rc && request->value)
		rc = parse_short_form(&p, request, err);
	if (!rc)
		rc = set_defaults(&p, err);
	if (rc)
		free_options(type, p.options);
	else
		*options = p.options;
	return rc;
}

static const struct device_type *type_of(const struct device_request *request, struct error *err)
{
	return request->type ? request->type : find_type(request->spec, err);
}

const struct device_type *device_request_check(const struct device_request *request, struct error *err)
{
	const struct device_type *type = type_of(request, err);
	void *options;

	if (!type || parse(type, request, NULL, &options, err))
		return NULL;
	free_options(type, options);
	return type;
}

/* ---- plugging ---- */

static unsigned plugged(struct bus *bus, const struct device_type *type)
{
	const struct device_plug *last = NULL;
	const struct device *device;
	unsigned count = 0;

	/* What one request made is in one row. */
	list_for_each (device, &bus->devices, node) {
		count += device->plug && device->plug != last && device->plug->type == type;
		last = device->plug;
	}
	return count;
}

struct device_plug *device_plug(struct bus *bus, struct event_loop *loop, const struct device_request *request,
				struct error *err)
{
	const struct device_type *type = type_of(request, err);
	struct device_plug *plug = type ? calloc(1, sizeof(*plug)) : NULL;
	int rc;

	if (!plug) {
		if (type)
			error_set_errno(err, ENOMEM, "%s", type->name);
		return NULL;
	}
	*plug = (struct device_plug){ .type = type, .bus = bus };
	if (plugged(bus, type) >= type->most) {
		error_set(err, EBUSY, "a machine has at most %u of '%s'", type->most, type->name);
		free(plug);
		return NULL;
	}
	rc = parse(type, request, loop, &plug->options, err);
	if (rc) {
		free(plug);
		return NULL;
	}
	bus->plugging = plug; /* device_init() looks there */
	rc = type->create(bus, plug->options, err);
	bus->plugging = NULL;
	if (!rc)
		return plug;
	device_unplug(plug);
	return NULL;
}

void device_unplug(struct device_plug *plug)
{
	struct device *device;

	while ((device = bus_last_device(plug->bus, plug)))
		device_destroy(device);
	free_options(plug->type, plug->options);
	free(plug);
}

static struct device_plug *last_plug(struct bus *bus)
{
	const struct device *device;

	list_for_each_reverse (device, &bus->devices, node)
		if (device->plug)
			return device->plug; /* NOLINT(clang-analyzer-unix.Malloc): it lives, as its devices do */
	return NULL;
}

void devices_unplug(struct bus *bus)
{
	struct device_plug *plug;

	while ((plug = last_plug(bus)))
		device_unplug(plug);
}

const struct device_type *device_plug_type(const struct device_plug *plug) { return plug->type; }

void device_plug_print(const struct device_plug *plug, FILE *out)
{
	fputs(plug->type->name, out);
	for (const struct device_option *o = plug->type->options; o && o->name; o++) {
		const void *field = (const char *)plug->options + o->offset;

		if (o->kind == DEVICE_NUMBER)
			fprintf(out, ",%s=%" PRIu64, o->name, *(const uint64_t *)field);
		else if (o->kind == DEVICE_SWITCH)
			fprintf(out, ",%s=%s", o->name, *(const bool *)field ? "on" : "off");
	}
}

int device_create_own(struct bus *bus, int (*create)(struct bus *, const void *options, struct error *),
		      const void *options, struct error *err)
{
	struct device_plug *plugging = bus->plugging;
	const struct list *last = bus->devices.prev;
	int rc;

	bus->plugging = NULL;
	rc = create(bus, options, err);
	bus->plugging = plugging;
	while (rc && bus->devices.prev != last)
		device_destroy(list_entry(bus->devices.prev, struct device, node));
	return rc;
}

struct device_plug *device_plug_find(struct bus *bus, const char *name, unsigned instance)
{
	const struct device *device = bus_find_device(bus, name, instance);

	return device ? device->plug : NULL;
}

/* ---- help ---- */

static void print_option(const struct device_option *o, FILE *out)
{
	static const char *const kinds[] = { "", "on|off", "TEXT", "SPEC" };
	char left[64];

	if (o->kind == DEVICE_NUMBER)
		snprintf(left, sizeof(left), "%s=%" PRIu64 "..%" PRIu64, o->name, o->least, o->most);
	else
		snprintf(left, sizeof(left), "%s=%s", o->name, kinds[o->kind]);
	for (char *c = left; (c = strchr(c, '_')); c++)
		*c = '-';
	fprintf(out, "  %-24s %s", left, o->help);
	if (o->by_default)
		fprintf(out, " (default %s)", o->by_default);
	fputc('\n', out);
}

int device_print_help(const char *spec, FILE *out, struct error *err)
{
	const struct device_type *type;

	if (!strcmp(spec, "help")) {
		for (const struct device_type *const *t = device_types; *t; t++)
			fprintf(out, "  %-24s %s%s\n", (*t)->name, (*t)->help,
				(*t)->in_every_pc ? " (in every machine)" : "");
		return 0;
	}
	type = find_type(spec, err);
	if (!type)
		return -EINVAL;
	fprintf(out, "%s: %s\n", type->name, type->help);
	for (const struct device_option *o = type->options; o && o->name; o++)
		print_option(o, out);
	if (!type->options)
		fprintf(out, "  It has no options.\n");
	return 0;
}
