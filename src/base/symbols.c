/*
 * Names of addresses: a symbol table as text, "ADDRESS TYPE NAME" a line, as `nm` prints it, System.map is and /proc/kallsyms reads.
 */
#include "base/base.h"

#include <errno.h>
#include <stdlib.h>

/* What is further behind a symbol is not called by its name: functions are smaller. */
#define SYMBOL_REACH 0x10000u

struct symbols {
	char *text; /* where names are */
	size_t count;
	struct symbol {
		uint64_t address;
		const char *name;
	} symbol[];
};

static int compare(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return (x->address > y->address) - (x->address < y->address);
}

/* Code has types T, t, W and w; lines that are something else are passed over. NULL: no symbol. The line's end becomes the name's. */
static const char *parse_line(char *line, uint64_t *address)
{
	char *rest, *name;

	*address = strtoull(line, &rest, 16);
	if (rest == line || rest[0] != ' ' || !rest[1] || !strchr("TtWw", rest[1]) || rest[2] != ' ' || !*address)
		return NULL;
	name = rest + 3;
	name[strcspn(name, " \t\r")] = '\0';
	return *name ? name : NULL;
}

struct symbols *symbols_parse(const char *text, struct error *err)
{
	size_t lines = 1;
	struct symbols *s;

	for (const char *p = text; (p = strchr(p, '\n')); p++)
		lines++;
	s = malloc(sizeof(*s) + lines * sizeof(s->symbol[0]));
	if (!s || !(s->text = strdup(text))) {
		free(s);
		error_set_errno(err, ENOMEM, "a table of %zu symbols", lines);
		return NULL;
	}
	s->count = 0;
	for (char *line = s->text, *next; line; line = next) {
		struct symbol *symbol = &s->symbol[s->count];

		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		symbol->name = parse_line(line, &symbol->address);
		s->count += symbol->name != NULL;
	}
	if (!s->count) {
		error_set(err, EINVAL,
			  "no symbol of code; expected lines such as 'ffffffff81000000 T _stext' (addresses in "
			  "/proc/kallsyms are 0 for all but root)");
		symbols_free(s);
		return NULL;
	}
	qsort(s->symbol, s->count, sizeof(s->symbol[0]), compare);
	return s;
}

const char *symbols_find(const struct symbols *s, uint64_t address, uint64_t *offset)
{
	size_t low = 0, high = s ? s->count : 0;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->symbol[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || address - s->symbol[low - 1].address >= SYMBOL_REACH)
		return NULL;
	*offset = address - s->symbol[low - 1].address;
	return s->symbol[low - 1].name;
}

void symbols_free(struct symbols *s)
{
	if (s)
		free(s->text);
	free(s);
}
