/*
 * -chardev and what refers to one: serial ports, monitors, QMP.
 */
#include "qemu/private.h"

#include <errno.h>
#include <stdlib.h>

/* "socket" of -chardev, or "unix:", "tcp:" of -serial: pairs are path or host and port, server. */
static const char *socket_spec(struct qemu *q, struct group *g)
{
	const char *path = group_take(g, "path"), *host = group_take(g, "host"), *port = group_take(g, "port");
	bool server = group_switch(g, "server", false);

	path = path ? path : group_take(g, "addr.data.path");
	host = host ? host : group_take(g, "addr.data.host");
	port = port ? port : group_take(g, "addr.data.port");
	if (path)
		return text_print(q, "unix%s:%s", server ? "" : "-connect", path);
	if (!port || !*port) {
		refuse(q, "%s %s: expected path=PATH, or host=HOST,port=PORT", g->option, g->text);
		return NULL;
	}
	host = host && *host ? host : "127.0.0.1";
	return text_print(q, strchr(host, ':') ? "tcp%s:[%s]:%s" : "tcp%s:%s:%s", server ? "" : "-connect", host, port);
}

/* Whoever comes second gets nothing: QEMU has keys to go from one to the other. */
static const char *stdio_spec(struct qemu *q)
{
	if (q->stdio_taken)
		return "";
	q->stdio_taken = true;
	return "stdio";
}

/* _(QEMU's word, doppel's; NULL: from its properties): those with neither a line nor a reason are harmless. */
static const struct {
	const char *word, *spec;
	const char *why; /* a line says why it is nothing */
} backends[] = {
	{ "null", "null", NULL },
	{ "pty", "pty", NULL },
	{ "vc", "null", NULL }, /* a console in a window that is not there */
	{ "ringbuf", "null", "what is written there cannot be read" },
	{ "memory", "null", "what is written there cannot be read" },
	{ "spicevmc", "null", "there is no SPICE" },
	{ "spiceport", "null", "there is no SPICE" },
	{ "qemu-vdagent", "null", "there is no clipboard" },
	{ "msmouse", "null", "there is no serial mouse" },
};

static const char *backend_spec(struct qemu *q, struct group *g)
{
	const char *backend = group_take(g, "backend"), *path;

	if (!backend)
		backend = "";
	if (!strcmp(backend, "stdio"))
		return stdio_spec(q);
	if (!strcmp(backend, "socket"))
		return socket_spec(q, g);
	if (!strcmp(backend, "file") && (path = group_take(g, "path")))
		return text_print(q, "file:%s", path);
	for (size_t n = 0; n < ARRAY_SIZE(backends); n++) {
		if (strcmp(backends[n].word, backend) != 0)
			continue;
		if (backends[n].why)
			log_warning("%s %s: %s", g->option, backend, backends[n].why);
		return backends[n].spec;
	}
	refuse(q, "%s %s: doppel has no such character device; expected socket, stdio, file, pty or null", g->option,
	       g->text);
	return NULL;
}

const char *chardev_spec(struct qemu *q, const char *option, const char *id)
{
	struct item *item = id ? item_find(q, BIT(CHARDEV), id) : NULL;
	const char *spec;

	if (!item) {
		refuse(q, "%s: there is no '-chardev ...,id=%.64s'", option, id ? id : "");
		return NULL;
	}
	if (item->taken)
		return "";
	item->taken = true;
	spec = backend_spec(q, &item->group);
	group_leftovers(q, &item->group, id);
	return spec;
}

const char *chardev_path(struct qemu *q, const char *option, const char *id)
{
	const char *spec = chardev_spec(q, option, id);

	if (spec && strncmp(spec, "unix-connect:", 13) != 0) {
		refuse(q, "%s: chardev '%s' is '%s'; expected socket,path=PATH without server", option, id, spec);
		return NULL;
	}
	return spec ? spec + 13 : NULL;
}

/* "unix:PATH[,server][,wait=off]", "tcp:HOST:PORT[,server]" */
static const char *address_spec(struct qemu *q, const char *option, const char *text, bool tcp)
{
	struct group g;
	const char *address = NULL, *colon, *spec;
	struct pair more[3];

	if (group_parse(q, &g, option, "address", text))
		return NULL;
	address = group_take(&g, "address");
	colon = tcp && address ? strrchr(address, ':') : NULL;
	if (!address || !*address || (tcp && !colon)) {
		refuse(q, "%s: '%s' has no address; expected unix:PATH or tcp:HOST:PORT", option, text);
		return NULL;
	}
	more[0] = (struct pair){ .name = "path", .value = address };
	if (tcp) {
		more[0] = (struct pair){ .name = "host",
					 .value = text_print(q, "%.*s", (int)(colon - address), address) };
		more[1] = (struct pair){ .name = "port", .value = colon + 1 };
	}
	more[1 + tcp] = (struct pair){ .name = "server", .value = group_switch(&g, "server", false) ? "on" : "off" };
	(void)group_take(&g, "wait"); /* nobody is waited for */
	(void)group_take(&g, "nodelay");
	group_leftovers(q, &g, text);
	spec = socket_spec(q, &(struct group){ .option = option, .text = text, .pairs = more, .count = 2 + tcp });
	return spec;
}

/* What -serial, -monitor, -qmp and their like take. */
static const char *short_spec(struct qemu *q, const char *option, const char *text)
{
	static const char *const telnets[] = { "telnet:", "tcp:" };

	if (!strncmp(text, "mon:", 4))
		text += 4; /* the keys that lead to the monitor lead to doppel */
	if (!strncmp(text, "chardev:", 8))
		return chardev_spec(q, option, text + 8);
	if (!strcmp(text, "stdio"))
		return stdio_spec(q);
	if (!strcmp(text, "null") || !strncmp(text, "vc", 2) || !strcmp(text, "pty"))
		return !strcmp(text, "pty") ? "pty" : "null";
	if (!strncmp(text, "file:", 5))
		return text_print(q, "file:%s", text + 5);
	if (!strncmp(text, "unix:", 5))
		return address_spec(q, option, text + 5, false);
	for (size_t n = 0; n < ARRAY_SIZE(telnets); n++)
		if (!strncmp(text, telnets[n], strlen(telnets[n])))
			return address_spec(q, option, text + strlen(telnets[n]), true);
	if (!strncmp(text, "/dev/", 5))
		return text_print(q, "file:%s", text);
	refuse(q,
	       "%s: doppel has no '%.64s'; expected stdio, mon:stdio, null, none, pty, file:PATH, unix:PATH, "
	       "tcp:HOST:PORT or chardev:ID",
	       option, text);
	return NULL;
}

static int finish_serial(struct qemu *q, struct group *g)
{
	const char *spec;

	if (!strcmp(g->text, "none"))
		return 0;
	spec = short_spec(q, g->option, g->text);
	if (!spec)
		return -EINVAL;
	q->uarts++;
	word_add(q, "--serial", *spec ? spec : "null");
	return 0;
}

/* mode: "readline", which people type to, or "control", which is QMP. */
static int finish_monitor(struct qemu *q, struct group *g, bool control)
{
	const char *spec, *id = group_take(g, "chardev");

	if (!strcmp(g->text, "none") || !strcmp(g->text, "null"))
		return 0;
	spec = id ? chardev_spec(q, g->option, id) : short_spec(q, g->option, g->text);
	if (!spec)
		return -EINVAL;
	if (!*spec || !strcmp(spec, "null"))
		return 0;
	if (!strncmp(spec, "file:", 5) || !strcmp(spec, "pty"))
		return refuse(q, "%s: a monitor cannot be on '%s'; expected stdio, unix:PATH or tcp:HOST:PORT",
			      g->option, spec);
	word_add(q, control ? "--qmp" : "--monitor", spec);
	return 0;
}

static int finish_item(struct qemu *q, struct item *item)
{
	const char *mode;

	switch (item->kind) {
	case SERIAL: return finish_serial(q, &item->group);
	case PARALLEL:
		if (strcmp(item->group.text, "none") != 0)
			log_warning("-parallel: there is no parallel port");
		return 0;
	case QMP: return finish_monitor(q, &item->group, true);
	case MONITOR:
		mode = group_take(&item->group, "mode");
		return finish_monitor(q, &item->group, mode && !strcmp(mode, "control"));
	default: return 0;
	}
}

int chardevs_finish(struct qemu *q)
{
	bool asked = false;
	int rc = 0;

	for (unsigned n = 0; !rc && n < q->item_count; n++) {
		asked |= q->items[n].kind == SERIAL;
		rc = finish_item(q, &q->items[n]);
	}
	/* QEMU's first port is a console of its window, or with -nographic the terminal; here that in either case. */
	if (!rc && !asked && !q->uarts) {
		bool wanted = (!q->no_defaults || q->no_graphic) && !q->no_machine;

		word_add(q, "--serial", wanted && *stdio_spec(q) ? "stdio" : "null");
	}
	return rc;
}
