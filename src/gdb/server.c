/*
 * Sockets on which a debugger is waited for: one at a time, whichever it comes by. All in the event loop's thread.
 */
#define _GNU_SOURCE /* accept4 */
#include "gdb/private.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTENERS_MOST 4
#define READ_SIZE      4096u
#define END_PATIENCE   200 /* ms, for a debugger to take what is left for it at the end */

struct listener {
	struct gdb *gdb;
	struct host_listener listener;
	struct event_source source;
};

struct gdb {
	struct machine *machine;
	struct listener listeners[LISTENERS_MOST];
	unsigned listener_count;
	struct event_source source; /* of the debugger's connection */
	struct session *session;    /* NULL: there is none */
	enum view view;
};

/* ---- the debugger ---- */

static void hang_up(struct gdb *gdb)
{
	event_loop_remove(machine_loop(gdb->machine), &gdb->source);
	close(gdb->source.fd);
	gdb->view = gdb->session->next_view;
	session_end(gdb->session);
	free(gdb->session);
	gdb->session = NULL;
}

/* False: it is gone. */
static bool flush(struct gdb *gdb)
{
	struct bytes *out = &gdb->session->out;

	while (out->size) {
		ssize_t n = send(gdb->source.fd, out->data, out->size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0)
			break;
		bytes_cut_front(out, (size_t)n);
	}
	event_loop_modify(machine_loop(gdb->machine), &gdb->source, out->size ? POLLIN | POLLOUT : POLLIN);
	return true;
}

static void session_ready(void *opaque, short revents)
{
	struct gdb *gdb = opaque;
	uint8_t data[READ_SIZE];
	ssize_t n = 0;
	bool good;

	if (revents & (POLLIN | POLLHUP | POLLERR)) {
		n = recv(gdb->source.fd, data, sizeof(data), MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			n = 0;
		else if (n <= 0) {
			hang_up(gdb);
			return;
		}
	}
	good = session_input(gdb->session, data, (size_t)n);
	if (!flush(gdb) || !good)
		hang_up(gdb);
}

/* A vCPU stopped by itself. */
static void stopped(void *opaque)
{
	struct gdb *gdb = opaque;

	session_stopped(gdb->session);
	/* Its own turn in the loop hangs up. */
	if (!flush(gdb))
		shutdown(gdb->source.fd, SHUT_RDWR);
}

static void accept_debugger(void *opaque, short revents)
{
	struct listener *listener = opaque;
	struct gdb *gdb = listener->gdb;
	int fd = accept4(listener->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct session *session;
	const int on = 1;

	(void)revents;
	if (fd < 0)
		return;
	session = gdb->session ? NULL : calloc(1, sizeof(*session));
	if (!session || session_begin(session, gdb->machine, gdb->view, stopped, gdb, NULL)) {
		free(session);
		close(fd);
		return;
	}
	gdb->session = session;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* of TCP alone */
	gdb->source = (struct event_source){ .fd = fd, .events = POLLIN, .ready = session_ready, .opaque = gdb };
	event_loop_add(machine_loop(gdb->machine), &gdb->source);
}

/* ---- listening ---- */

static int add_listener(struct gdb *gdb, struct host_listener listener)
{
	struct listener *l = &gdb->listeners[gdb->listener_count++];

	*l = (struct listener){ .gdb = gdb, .listener = listener };
	l->source = (struct event_source){ .fd = listener.fd, .events = POLLIN, .ready = accept_debugger, .opaque = l };
	event_loop_add(machine_loop(gdb->machine), &l->source);
	return 0;
}

static int listen_unix(struct gdb *gdb, const char *path, struct error *err)
{
	struct host_listener listener;
	int rc = host_unix_listen(&listener, path, err);

	return rc ? rc : add_listener(gdb, listener);
}

/* "[ADDR:]PORT", an address of IPv6 in brackets. */
static int listen_tcp(struct gdb *gdb, char *text, struct error *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE };
	char *colon = strrchr(text, ':'), *port = colon ? colon + 1 : text, *address = text;
	struct host_listener listener = { .fd = -1 };
	struct addrinfo *found;
	int rc;

	if (colon)
		*colon = 0;
	else
		address = (char[]){ "127.0.0.1" };
	if (*address == '[' && address[strlen(address) - 1] == ']') {
		address[strlen(address) - 1] = 0;
		address++;
	}
	if (strspn(port, "0123456789") != strlen(port) || strtoul(port, NULL, 10) - 1 >= UINT16_MAX)
		return error_set(err, EINVAL, "'%.64s' is no port; expected a number from 1 to 65535", port);
	rc = getaddrinfo(address, port, &hints, &found);
	if (rc)
		return error_set(err, EINVAL, "'%.64s' is no address of this host: %s", address, gai_strerror(rc));
	listener.fd = host_tcp_listen(found, 1, address, port, err);
	freeaddrinfo(found);
	return listener.fd < 0 ? listener.fd : add_listener(gdb, listener);
}

static int listen_at(struct gdb *gdb, char *where, struct error *err)
{
	if (gdb->listener_count == LISTENERS_MOST)
		return error_set(err, EINVAL, "there are at most %d such sockets", LISTENERS_MOST - 1);
	if (!strncmp(where, "unix:", 5) && where[5])
		return listen_unix(gdb, where + 5, err);
	if (!strncmp(where, "tcp:", 4))
		return listen_tcp(gdb, where + 4, err);
	return error_set(err, EINVAL, "'%.80s' is unknown; expected unix:PATH or tcp:[ADDR:]PORT", where);
}

static int set_options(struct gdb *gdb, char *rest, struct error *err)
{
	for (const char *option; (option = strsep(&rest, ","));) {
		if (!strcmp(option, "wait"))
			machine_debug_stop(gdb->machine);
		else if (!view_find(option, &gdb->view))
			return error_set(err, EINVAL, "option '%.64s' is unknown; expected wait, x86-64, i386 or i8086",
					 option);
	}
	return 0;
}

static int add_spec(struct gdb *gdb, const char *spec, struct error *err)
{
	char *text = strdup(spec), *rest = text;
	int rc;

	if (!text)
		return error_set_errno(err, ENOMEM, "a debugger's socket");
	(void)strsep(&rest, ",");
	rc = set_options(gdb, rest, err);
	if (!rc)
		rc = listen_at(gdb, text, err);
	free(text);
	return rc ? error_prefix(err, "option '--gdb'") : 0;
}

int gdb_create(struct gdb **out, struct machine *machine, const char *path, const char *const *specs, unsigned count,
	       struct error *err)
{
	struct gdb *gdb = calloc(1, sizeof(*gdb));
	int rc;

	if (!gdb)
		return error_set_errno(err, ENOMEM, "a debugger's sockets");
	gdb->machine = machine;
	rc = path ? listen_unix(gdb, path, err) : 0;
	for (unsigned n = 0; !rc && n < count; n++)
		rc = add_spec(gdb, specs[n], err);
	if (rc) {
		gdb_destroy(gdb, 0);
		return rc;
	}
	*out = gdb;
	return 0;
}

/* What is left for it, as long as it takes it. */
static void say_goodbye(struct gdb *gdb, int status)
{
	struct pollfd poll_fd = { .fd = gdb->source.fd, .events = POLLOUT };

	session_machine_ended(gdb->session, status);
	while (gdb->session->out.size && poll(&poll_fd, 1, END_PATIENCE) > 0 && flush(gdb))
		;
	hang_up(gdb);
}

void gdb_destroy(struct gdb *gdb, int status)
{
	if (!gdb)
		return;
	if (gdb->session)
		say_goodbye(gdb, status);
	for (unsigned n = 0; n < gdb->listener_count; n++) {
		event_loop_remove(machine_loop(gdb->machine), &gdb->listeners[n].source);
		host_unix_unlisten(&gdb->listeners[n].listener);
	}
	free(gdb);
}
