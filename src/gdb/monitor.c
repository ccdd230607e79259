/*
 * What a person types behind GDB's "monitor": a table of commands.
 */
#include "gdb/private.h"

#include <errno.h>
#include <stdlib.h>

/* Text for the person, in packets of their own. */
static void say_bytes(struct session *s, const char *text, size_t size)
{
	while (size) {
		struct reply reply = { .size = 0 };
		size_t piece = MIN(size, sizeof(reply.data) / 2 - 1);

		reply_text(&reply, "O");
		reply_hex(&reply, text, piece);
		session_send(s, reply.data, reply.size);
		text += piece;
		size -= piece;
	}
}

static void printf_like(2, 3) say(struct session *s, const char *format, ...)
{
	char text[512];
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	say_bytes(s, text, MIN((size_t)MAX(size, 0), sizeof(text) - 1));
}

static bool info_registers(struct session *s, const char *rest)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = *rest ? NULL : open_memstream(&text, &size);

	if (!out)
		return false;
	cpu_print(machine_vcpu(s->machine, s->cpu), out);
	fclose(out);
	say_bytes(s, text, size);
	free(text);
	return true;
}

static bool info_cpus(struct session *s, const char *rest)
{
	for (unsigned n = 0; !*rest && n < machine_config(s->machine)->cpus; n++)
		say(s, "%c CPU %u: rip %#llx, CPL %u\n", n == s->cpu ? '*' : ' ', n,
		    (unsigned long long)machine_vcpu(s->machine, n)->s.rip, machine_vcpu(s->machine, n)->cpl);
	return !*rest;
}

static bool translate(struct session *s, const char *rest)
{
	uint64_t address;
	gpa_t at;

	if (!strncmp(rest, "0x", 2))
		rest += 2;
	if (!parse_hex(&rest, &address) || *rest)
		return false;
	if (cpu_translate_debug(machine_vcpu(s->machine, s->cpu), gva(address), &at))
		say(s, "%#llx is not mapped\n", (unsigned long long)address);
	else
		say(s, "%#llx is at physical %#llx\n", (unsigned long long)address, (unsigned long long)at.v);
	return true;
}

static bool set_switch(bool *field, const char *rest)
{
	if (strcmp(rest, "on") != 0 && strcmp(rest, "off") != 0)
		return false;
	*field = !strcmp(rest, "on");
	return true;
}

static bool interrupts(struct session *s, const char *rest) { return set_switch(&s->loud, rest); }

static bool physical(struct session *s, const char *rest) { return set_switch(&s->physical, rest); }

static bool set_view(struct session *s, const char *rest)
{
	enum view view;

	if (!view_find(rest, &view))
		return false;
	s->next_view = view;
	say(s, "registers of %s when GDB connects next\n", rest);
	return true;
}

static bool reset(struct session *s, const char *rest)
{
	if (*rest)
		return false;
	machine_reset_button(s->machine);
	say(s, "the machine is being reset: \"maintenance flush register-cache\" before you look\n");
	return true;
}

static bool quit(struct session *s, const char *rest)
{
	if (!*rest)
		machine_quit(s->machine);
	return !*rest;
}

static bool help(struct session *s, const char *rest);

static const struct {
	const char *name, *arguments, *what;
	bool (*fn)(struct session *, const char *rest); /* false: the arguments are wrong */
} commands[] = {
	{ "info registers", "", "the processor of the present thread, all that a guest's kernel sees of it",
	  info_registers },
	{ "info cpus", "", "where each processor is", info_cpus },
	{ "translate", " ADDRESS", "by the present thread's page tables, to a physical address", translate },
	{ "physical", " on|off", "addresses of memory are physical ones", physical },
	{ "interrupts", " on|off", "interrupts come while single instructions are stepped (off)", interrupts },
	{ "view", " x86-64|i386|i8086", "registers that GDB is told of", set_view },
	{ "reset", "", "the reset button", reset },
	{ "quit", "", "ends the machine", quit },
	{ "help", "", "this list", help },
};

static bool help(struct session *s, const char *rest)
{
	(void)rest;
	for (unsigned n = 0; n < ARRAY_SIZE(commands); n++)
		say(s, "%s%s: %s\n", commands[n].name, commands[n].arguments, commands[n].what);
	return true;
}

void monitor_execute(struct session *s, const char *line)
{
	for (unsigned n = 0; n < ARRAY_SIZE(commands); n++) {
		size_t length = strlen(commands[n].name);

		if (strncmp(line, commands[n].name, length) != 0 || (line[length] && line[length] != ' '))
			continue;
		if (!commands[n].fn(s, line + length + strspn(line + length, " ")))
			say(s, "expected: %s%s\n", commands[n].name, commands[n].arguments);
		return;
	}
	say(s, "'%.64s' is unknown; \"monitor help\" lists what there is\n", line);
}
