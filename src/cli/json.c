/*
 * JSON as the commands print it: strings, and members of an object.
 */
#include "cli/cli.h"

static void print_json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

void cli_json_member(const char *name, const char *value, const char *after)
{
	print_json_string(name);
	printf(": ");
	print_json_string(value);
	printf("%s", after);
}
