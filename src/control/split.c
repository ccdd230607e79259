/*
 * Where a JSON text ends, in a stream whose writer ends none by a newline: by counting brackets outside of strings. Whether it is JSON is not asked here.
 */
#include "control/private.h"

#define DEPTH_MOST 64u

enum split_result split_next(struct split *s, const uint8_t *data, size_t size, size_t *begin, size_t *used)
{
	while (*used < size) {
		char c = (char)data[(*used)++];

		if (!s->depth && !s->garbage)
			*begin = *used - 1;
		if (s->garbage) {
			if (c == '\n') {
				*s = (struct split){ 0 };
				return SPLIT_BAD;
			}
		} else if (s->in_string) {
			s->in_string = s->escaped || c != '"';
			s->escaped = !s->escaped && c == '\\';
		} else if (c == '"' && s->depth) {
			s->in_string = true;
		} else if (c == '{' || c == '[') {
			s->garbage = ++s->depth > DEPTH_MOST;
		} else if ((c == '}' || c == ']') && s->depth) {
			if (!--s->depth)
				return SPLIT_WHOLE;
		} else if (!s->depth && !strchr(" \t\r\n", c)) {
			s->garbage = true;
		}
	}
	return SPLIT_MORE;
}
