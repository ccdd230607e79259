/* A terminal as far as --display text needs one: where its characters stand, in which look, and where its cursor is. */
#ifndef DOPPEL_TESTS_TERMINAL_H
#define DOPPEL_TESTS_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TERMINAL_COLUMNS 132u
#define TERMINAL_ROWS	 50u

struct terminal {
	unsigned columns, rows, row, column;
	bool cursor, wraps;
	char look[24], looks[TERMINAL_ROWS][TERMINAL_COLUMNS][24]; /* numbers of the last SGR */
	char cells[TERMINAL_ROWS][TERMINAL_COLUMNS][5];		   /* UTF-8 */
	char pending[32];					   /* of a sequence or a character */
	unsigned size;
	unsigned clears; /* so often all was cleared */
	unsigned drawn;	 /* characters, ever */
};

static void terminal_clear(struct terminal *t)
{
	for (unsigned y = 0; y < TERMINAL_ROWS; y++)
		for (unsigned x = 0; x < TERMINAL_COLUMNS; x++)
			strcpy(t->cells[y][x], " ");
	t->clears++;
}

static inline void terminal_begin(struct terminal *t, unsigned columns, unsigned rows)
{
	*t = (struct terminal){ .columns = columns, .rows = rows, .cursor = true, .wraps = true };
	if (columns > TERMINAL_COLUMNS || rows > TERMINAL_ROWS)
		abort();
	terminal_clear(t);
}

static void terminal_put(struct terminal *t)
{
	if (t->row < t->rows && t->column < t->columns) {
		strcpy(t->cells[t->row][t->column], t->pending);
		strcpy(t->looks[t->row][t->column], t->look);
		t->drawn++;
	}
	t->column++;
}

/* "ESC [ ... LAST" */
static void terminal_sequence(struct terminal *t)
{
	unsigned row = 1, column = 1;
	char last = t->pending[t->size - 1];

	if (last == 'H') {
		sscanf(t->pending + 2, "%u;%u", &row, &column);
		t->row = row - 1 < t->rows ? row - 1 : t->rows - 1;
		t->column = column - 1;
	} else if (last == 'J') {
		terminal_clear(t);
	} else if (last == 'm') {
		snprintf(t->look, sizeof(t->look), "%.*s", (int)t->size - 3, t->pending + 2);
	} else if (!strcmp(t->pending, "\033[?25l") || !strcmp(t->pending, "\033[?25h")) {
		t->cursor = last == 'h';
	} else if (!strcmp(t->pending, "\033[?7l") || !strcmp(t->pending, "\033[?7h")) {
		t->wraps = last == 'h';
	}
}

static void terminal_byte(struct terminal *t, unsigned char byte)
{
	unsigned length;

	if (!t->size && byte < ' ' && byte != 0x1b) {
		t->column = byte == '\r' || byte == '\n' ? 0 : t->column;
		t->row += byte == '\n' && t->row + 1 < t->rows;
		return;
	}
	t->pending[t->size++] = (char)byte;
	t->pending[t->size] = 0;
	if (*t->pending == 0x1b) {
		if (t->size < 3 || byte < 0x40 || byte > 0x7e) {
			if (t->size == sizeof(t->pending) - 1)
				t->size = 0;
			return;
		}
		terminal_sequence(t);
		t->size = 0;
		return;
	}
	byte = (unsigned char)*t->pending;
	length = byte < 0x80 ? 1 : byte >> 5 == 6 ? 2 : byte >> 4 == 14 ? 3 : 4;
	if (t->size < length)
		return;
	terminal_put(t);
	t->size = 0;
}

static inline void terminal_write(struct terminal *t, const char *bytes, size_t size)
{
	while (size--)
		terminal_byte(t, (unsigned char)*bytes++);
}

static void terminal_row(const struct terminal *t, unsigned row, char *text, size_t size)
{
	size_t at = 0;

	for (unsigned x = 0; x < t->columns && at + 5 < size; x++)
		at += (size_t)snprintf(text + at, size - at, "%s", t->cells[row][x]);
}

static inline bool terminal_shows(const struct terminal *t, const char *what)
{
	char text[TERMINAL_COLUMNS * 4 + 8];

	for (unsigned y = 0; y < t->rows; y++) {
		terminal_row(t, y, text, sizeof(text));
		if (strstr(text, what))
			return true;
	}
	return false;
}

static inline void terminal_print(const struct terminal *t, FILE *out)
{
	char text[TERMINAL_COLUMNS * 4 + 8];

	for (unsigned y = 0; y < t->rows; y++) {
		terminal_row(t, y, text, sizeof(text));
		fprintf(out, "|%s|\n", text);
	}
}

#endif
