/*
 * Lists of NAME=VALUE with commas between, two of which are one that belongs to the value; or the same as a JSON object. And the words of doppel's that come of them.
 */
#include "qemu/private.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <strings.h>

struct qemu_text {
	struct qemu_text *next;
	_Alignas(16) char room[];
};

void *text_room(struct qemu *q, size_t size)
{
	struct qemu_text *text = calloc(1, sizeof(*text) + size);

	if (!text) {
		q->no_memory = true;
		return NULL;
	}
	text->next = q->line->texts;
	q->line->texts = text;
	return text->room;
}

const char *text_print(struct qemu *q, const char *format, ...)
{
	va_list ap;
	char *room;
	int size;

	va_start(ap, format);
	size = vsnprintf(NULL, 0, format, ap);
	va_end(ap);
	room = size < 0 ? NULL : text_room(q, (size_t)size + 1);
	if (!room)
		return "";
	va_start(ap, format);
	vsnprintf(room, (size_t)size + 1, format, ap);
	va_end(ap);
	return room;
}

int refuse(struct qemu *q, const char *format, ...)
{
	char why[sizeof(q->err->text)];
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, sizeof(why), format, ap);
	va_end(ap);
	return error_set(q->err, EINVAL, "%s", why);
}

void qemu_free(struct qemu_line *line)
{
	struct qemu_text *text;

	while ((text = line->texts)) {
		line->texts = text->next;
		free(text);
	}
	free(line->words);
	*line = (struct qemu_line){ 0 };
}

/* ---- taking apart ---- */

static void add_pair(struct group *g, const char *name, const char *value)
{
	g->pairs[g->count++] = (struct pair){ .name = name, .value = value };
}

/* Ends the word that begins at `at`, with its double commas made single, in place; what is behind it, or NULL. */
static char *end_word(char *at)
{
	char *to = at;

	for (; *at; at++) {
		if (*at == ',' && at[1] != ',') {
			*to = 0;
			return at + 1;
		}
		at += *at == ',';
		*to++ = *at;
	}
	*to = 0;
	return NULL;
}

static void parse_word(struct group *g, const char *first, char *word)
{
	char *equals = strchr(word, '=');

	if (equals) {
		*equals = 0;
		add_pair(g, word, equals + 1);
	} else if (first && !g->count) {
		add_pair(g, first, word);
	} else if (!strcmp(word, "nowait") || !strcmp(word, "nodelay")) {
		add_pair(g, word + 2, "off");
	} else {
		add_pair(g, word, "on");
	}
}

static const char *json_text(struct qemu *q, const json_t *value)
{
	if (json_is_string(value))
		return text_print(q, "%s", json_string_value(value));
	if (json_is_integer(value))
		return text_print(q, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	if (json_is_real(value))
		return text_print(q, "%g", json_real_value(value));
	return json_is_true(value) ? "on" : json_is_false(value) ? "off" : "";
}

static size_t json_leaves(const json_t *value)
{
	size_t count = 0, n;
	const char *name;
	json_t *member;

	if (json_is_object(value))
		json_object_foreach((json_t *)value, name, member) count += json_leaves(member);
	else if (json_is_array(value))
		json_array_foreach(value, n, member) count += json_leaves(member);
	else
		count = 1;
	return count;
}

static void add_json(struct qemu *q, struct group *g, const char *path, const json_t *value)
{
	const char *name, *dot = *path ? "." : "";
	json_t *member;
	size_t n;

	if (json_is_object(value))
		json_object_foreach((json_t *)value, name, member)
			add_json(q, g, text_print(q, "%s%s%s", path, dot, name), member);
	else if (json_is_array(value))
		json_array_foreach(value, n, member) add_json(q, g, text_print(q, "%s%s%zu", path, dot, n), member);
	else
		add_pair(g, path, json_text(q, value));
}

static int parse_json(struct qemu *q, struct group *g)
{
	json_error_t error;
	json_t *value = json_loads(g->text, JSON_REJECT_DUPLICATES, &error);

	if (!value)
		return refuse(q, "%s: '%.80s' is no JSON: %s", g->option, g->text, error.text);
	g->pairs = text_room(q, json_leaves(value) * sizeof(*g->pairs));
	if (g->pairs)
		add_json(q, g, "", value);
	json_decref(value);
	return g->pairs ? 0 : -ENOMEM;
}

int group_parse(struct qemu *q, struct group *g, const char *option, const char *first, const char *text)
{
	size_t words = 1;
	char *at, *next;

	*g = (struct group){ .option = option, .text = text };
	if (*text == '{')
		return parse_json(q, g);
	for (const char *c = text; *c; c++)
		words += *c == ',';
	g->pairs = text_room(q, words * sizeof(*g->pairs));
	at = (char *)text_print(q, "%s", text);
	if (q->no_memory)
		return -ENOMEM;
	for (; at && *at; at = next) {
		next = end_word(at);
		parse_word(g, first, at);
	}
	return 0;
}

const char *group_take(struct group *g, const char *name)
{
	const char *value = NULL;

	for (unsigned n = 0; n < g->count; n++)
		if (!strcmp(g->pairs[n].name, name)) {
			g->pairs[n].used = true;
			value = g->pairs[n].value;
		}
	return value;
}

bool group_switch(struct group *g, const char *name, bool by_default)
{
	const char *value = group_take(g, name);

	if (!value)
		return by_default;
	return !strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true") || !strcmp(value, "y");
}

void group_leftovers(struct qemu *q, struct group *g, const char *what)
{
	(void)q;
	for (unsigned n = 0; n < g->count; n++) {
		struct pair *p = &g->pairs[n];

		if (!p->used && !key_is_harmless(g->option, p->name, p->value))
			log_warning("%s %s: %s=%s has no effect", g->option, what, p->name, p->value);
		p->used = true;
	}
}

/* ---- doppel's words ---- */

static void add_word(struct qemu *q, const char *word)
{
	struct qemu_line *line = q->line;
	char **words = realloc(line->words, (line->count + 2) * sizeof(*words));

	if (!words) {
		q->no_memory = true;
		return;
	}
	line->words = words;
	words[line->count++] = (char *)word;
	words[line->count] = NULL;
}

void word_add(struct qemu *q, const char *option, const char *value)
{
	add_word(q, option);
	if (value)
		add_word(q, value);
}

static void add_bytes(struct qemu *q, struct spec *s, const void *data, size_t size)
{
	q->no_memory |= !bytes_add(&s->text, data, size);
}

void spec_begin(struct qemu *q, struct spec *s, const char *name)
{
	*s = (struct spec){ 0 };
	add_bytes(q, s, name, strlen(name));
}

void spec_add(struct qemu *q, struct spec *s, const char *name, const char *value)
{
	if (!value)
		return;
	add_bytes(q, s, ",", 1);
	add_bytes(q, s, name, strlen(name));
	add_bytes(q, s, "=", 1);
	for (; *value; value++)
		add_bytes(q, s, *value == ',' ? ",," : value, *value == ',' ? 2 : 1);
}

void spec_emit(struct qemu *q, struct spec *s, const char *option)
{
	word_add(q, option, text_print(q, "%.*s", (int)s->text.size, (const char *)s->text.data));
	free(s->text.data);
	*s = (struct spec){ 0 };
}

/* ---- items ---- */

int item_add(struct qemu *q, enum item_kind kind, const char *option, const char *first, const char *text)
{
	struct item *item = &q->items[q->item_count];

	if (q->item_count == ITEMS_MOST)
		return refuse(q, "%s: there are more than %u such options", option, ITEMS_MOST);
	item->kind = kind;
	q->item_count++;
	return group_parse(q, &item->group, option, first, text);
}

struct item *item_find(struct qemu *q, unsigned kinds, const char *id)
{
	for (unsigned n = 0; n < q->item_count; n++) {
		struct item *item = &q->items[n];

		if (!(BIT(item->kind) & kinds))
			continue;
		for (unsigned p = 0; p < item->group.count; p++) {
			const struct pair *pair = &item->group.pairs[p];

			if ((strcmp(pair->name, "id") && strcmp(pair->name, "node-name")) || strcmp(pair->value, id))
				continue;
			item->group.pairs[p].used = true;
			return item;
		}
	}
	return NULL;
}
