/*
 * Displays that are looked at by sockets: each server listens, by TCP or at a path, for viewers of one kind, plain RFB or browsers, and each connection has a
 * session of its own. All of it in the event loop's thread, where nothing waits: what a viewer does not take now is made later.
 */
#define _GNU_SOURCE
#include "display/text.h"
#include "display/web.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_CONNECTIONS 16 /* of a server */
#define READ_SIZE	 16384
#define TOKEN_BYTES	 16
#define MOST_PASSWORD	 128

enum server_kind { SERVER_NONE, SERVER_VNC, SERVER_WEB, SERVER_TEXT };

/* What was asked for. */
struct spec {
	enum server_kind kind;
	const char *unix_path; /* or */
	const char *address, *port;
	const char *password_file, *password_env;
	bool readonly, exclusive;
	char *text; /* what the others point to */
};

struct server {
	struct display *display;
	struct list node;
	struct spec spec;
	struct host_listener listener; /* fd alone, of TCP */
	struct event_source source;
	struct list connections; /* the oldest first */
	unsigned count;
	char password[MOST_PASSWORD + 1]; /* of web: the token */
};

struct connection {
	struct server *server;
	struct list node;
	struct event_source source;
	struct rfb *rfb;
	struct web *web; /* NULL: plain RFB */
	struct bytes piece, out;
	size_t sent;
	bool over; /* when all of out is sent */
};

/* ---- connections ---- */

static void close_connection(struct connection *c)
{
	event_loop_cancel_posts(c->server->display->loop, c);
	event_loop_remove(c->server->display->loop, &c->source);
	close(c->source.fd);
	list_remove(&c->node);
	c->server->count--;
	if (c->rfb)
		rfb_destroy(c->rfb);
	web_destroy(c->web);
	free(c->piece.data);
	free(c->out.data);
	free(c);
}

/* Browsers get nothing before they are a WebSocket. */
static bool may_produce(const struct connection *c)
{
	return !c->over && (!c->web || web_is_open(c->web)) && rfb_waits(c->rfb);
}

static void update_events(struct connection *c)
{
	bool sends = c->sent < c->out.size || may_produce(c);

	event_loop_modify(c->server->display->loop, &c->source,
			  (short)((c->over ? 0 : POLLIN) | (sends || c->over ? POLLOUT : 0)));
}

static void session_waits(void *opaque) { update_events(opaque); }

static int produce(struct connection *c)
{
	int rc;

	c->out.size = c->sent = 0;
	if (!c->web)
		return rfb_produce(c->rfb, &c->out);
	c->piece.size = 0;
	rc = rfb_produce(c->rfb, &c->piece);
	return rc ? rc : web_wrap(&c->piece, &c->out) ? 0 : -ENOMEM;
}

/* One piece at most, so that the loop goes on. False: there is no more connection. */
static bool send_some(struct connection *c)
{
	ssize_t n;

	if (c->sent == c->out.size && may_produce(c) && produce(c))
		return false;
	if (c->sent < c->out.size) {
		n = send(c->source.fd, c->out.data + c->sent, c->out.size - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		c->sent += (size_t)MAX(n, 0);
	}
	return !c->over || c->sent < c->out.size;
}

static int session_receives(void *opaque, const uint8_t *data, size_t size)
{
	return rfb_receive(((struct connection *)opaque)->rfb, data, size);
}

static bool receive_some(struct connection *c)
{
	uint8_t data[READ_SIZE];
	ssize_t n = recv(c->source.fd, data, sizeof(data), MSG_DONTWAIT);
	int rc;

	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	if (!c->web) {
		rc = rfb_receive(c->rfb, data, (size_t)n);
		/* Why it was refused. */
		if (rc && c->sent == c->out.size)
			produce(c);
	} else {
		if (c->sent == c->out.size)
			c->out.size = c->sent = 0;
		rc = web_receive(c->web, data, (size_t)n, &c->out, session_receives, c);
	}
	c->over = rc;
	return true;
}

/* Who sends and never takes what is answered gets no more answers. */
#define MOST_ANSWERS (1u << 20)

static void connection_ready(void *opaque, short revents)
{
	struct connection *c = opaque;

	if ((revents & (POLLIN | POLLHUP | POLLERR)) && !c->over && !receive_some(c)) {
		close_connection(c);
		return;
	}
	if (!send_some(c) || (c->over && (revents & (POLLHUP | POLLERR))) || c->out.size - c->sent > MOST_ANSWERS) {
		close_connection(c);
		return;
	}
	update_events(c);
}

static void others_end(void *opaque)
{
	struct connection *c = opaque, *other, *next;

	list_for_each_safe (other, next, &c->server->connections, node)
		if (other != c)
			close_connection(other);
}

/* Not now: the caller may be among them. */
static void session_alone(void *opaque)
{
	struct connection *c = opaque;

	event_loop_post(c->server->display->loop, others_end, c);
}

static bool start_session(struct connection *c)
{
	const struct server *s = c->server;
	const struct rfb_options options = {
		.password = s->spec.kind == SERVER_VNC && *s->password ? s->password : NULL,
		.readonly = s->spec.readonly,
		.waits = session_waits,
		.alone = s->spec.exclusive ? session_alone : NULL,
		.opaque = c,
	};

	c->rfb = rfb_create(s->display, &options);
	if (s->spec.kind == SERVER_WEB)
		c->web = web_create(s->password);
	return c->rfb && (s->spec.kind != SERVER_WEB || c->web);
}

static void add_connection(struct server *s, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));
	const int on = 1;

	if (!c) {
		close(fd);
		return;
	}
	c->server = s;
	c->source = (struct event_source){ .fd = fd, .events = POLLIN, .ready = connection_ready, .opaque = c };
	list_append(&s->connections, &c->node);
	s->count++;
	event_loop_add(s->display->loop, &c->source);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* not TCP: then it is not needed */
	if (!start_session(c)) {
		close_connection(c);
		return;
	}
	update_events(c);
}

/* Room for one more, in place of one who has not said who it is. */
static bool make_room(struct server *s)
{
	struct connection *c;

	if (s->count < MOST_CONNECTIONS)
		return true;
	list_for_each (c, &s->connections, node)
		if (!rfb_is_open(c->rfb)) {
			close_connection(c);
			return true;
		}
	return false;
}

static void server_ready(void *opaque, short revents)
{
	struct server *s = opaque;
	int fd = accept4(s->source.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)revents;
	if (fd < 0)
		return;
	if (make_room(s))
		add_connection(s, fd);
	else
		close(fd);
}

/* ---- what is asked for ---- */

static int set_option(struct spec *spec, char *option, struct error *err)
{
	char *value = strchr(option, '=');

	if (value)
		*value++ = 0;
	if (!strcmp(option, "readonly") && !value)
		spec->readonly = true;
	else if (!strcmp(option, "exclusive") && !value)
		spec->exclusive = true;
	else if (!strcmp(option, "password-file") && value && *value)
		spec->password_file = value;
	else if (!strcmp(option, "password-env") && value && *value)
		spec->password_env = value;
	else
		return error_set(err, EINVAL,
				 "option '%.64s' is unknown; expected password-file=FILE, password-env=NAME, readonly "
				 "or exclusive",
				 option);
	return 0;
}

/* "[ADDRESS:]PORT", an address of IPv6 in brackets. */
static int set_address(struct spec *spec, char *text, struct error *err)
{
	char *port = strrchr(text, ':'), *rest;
	unsigned long number;

	spec->address = "127.0.0.1";
	spec->port = text;
	if (port) {
		*port++ = 0;
		spec->port = port;
		spec->address = text;
		if (*text == '[' && text[strlen(text) - 1] == ']') {
			text[strlen(text) - 1] = 0;
			spec->address = text + 1;
		}
	}
	number = strtoul(spec->port, &rest, 10);
	if (*spec->port < '0' || *spec->port > '9' || *rest || number > UINT16_MAX)
		return error_set(err, EINVAL,
				 "'%.64s' is no port; expected a number from 0 (any that is free) to 65535",
				 spec->port);
	return 0;
}

static int parse(const char *text, struct spec *spec, struct error *err)
{
	char *at, *what;
	int rc = 0;

	*spec = (struct spec){ .kind = SERVER_NONE, .text = strdup(text) };
	if (!spec->text)
		return error_set_errno(err, ENOMEM, "display '%.64s'", text);
	at = spec->text;
	what = strsep(&at, ",");
	if (!strncmp(what, "vnc:unix:", 9) && what[9]) {
		spec->kind = SERVER_VNC;
		spec->unix_path = what + 9;
	} else if (!strncmp(what, "vnc:", 4) || !strncmp(what, "web:", 4)) {
		spec->kind = *what == 'v' ? SERVER_VNC : SERVER_WEB;
		rc = set_address(spec, what + 4, err);
	} else if (!strcmp(what, "text")) {
		spec->kind = SERVER_TEXT;
	} else if (strcmp(what, "none") != 0) {
		rc = error_set(err, EINVAL,
			       "'%.64s' is unknown; expected none, text, vnc:[ADDRESS:]PORT, vnc:unix:PATH or "
			       "web:[ADDRESS:]PORT",
			       what);
	}
	while (!rc && at)
		rc = set_option(spec, strsep(&at, ","), err);
	if (!rc && spec->password_file && spec->password_env)
		rc = error_set(err, EINVAL, "a password comes from a file or from the environment, not from both");
	if (!rc && spec->kind == SERVER_TEXT && (spec->password_file || spec->password_env || spec->exclusive))
		rc = error_set(err, EINVAL, "of a terminal's options there is readonly alone");
	if (rc)
		free(spec->text);
	return rc;
}

int display_check(const char *text, struct error *err)
{
	struct spec spec;
	int rc = parse(text, &spec, err);

	if (!rc)
		free(spec.text);
	return rc;
}

/* ---- secrets ---- */

static int read_password_file(struct server *s, struct error *err)
{
	uint8_t *data;
	size_t size;
	int rc = host_file_read(s->spec.password_file, MOST_PASSWORD + 2, &data, &size, err);

	if (rc)
		return error_prefix(err, "option 'password-file'");
	size = strcspn((const char *)data, "\r\n");
	memcpy(s->password, data, MIN(size, MOST_PASSWORD));
	free(data);
	return 0;
}

static int make_token(struct server *s, struct error *err)
{
	uint8_t random[TOKEN_BYTES];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return error_set_errno(err, errno, "cannot make a token");
	for (unsigned n = 0; n < TOKEN_BYTES; n++)
		snprintf(s->password + 2 * n, 3, "%02x", random[n]);
	return 0;
}

static int take_password(struct server *s, struct error *err)
{
	const char *value;
	int rc;

	if (s->spec.password_file) {
		rc = read_password_file(s, err);
		if (rc)
			return rc;
	} else if (s->spec.password_env) {
		value = getenv(s->spec.password_env);
		if (!value)
			return error_set(err, EINVAL, "option 'password-env': there is no '%.64s' in the environment",
					 s->spec.password_env);
		snprintf(s->password, sizeof(s->password), "%s", value);
	} else {
		return s->spec.kind == SERVER_WEB ? make_token(s, err) : 0;
	}
	if (!*s->password)
		return error_set(err, EINVAL, "the password is empty");
	if (s->spec.kind == SERVER_VNC && strlen(s->password) > RFB_PASSWORD)
		return error_set(err, EINVAL, "the password has %zu characters; of VNC's no more than %d count",
				 strlen(s->password), RFB_PASSWORD);
	if (s->spec.kind == SERVER_WEB &&
	    s->password[strspn(s->password, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")])
		return error_set(
			err, EINVAL,
			"the password is a part of the page's address: letters, digits, '.', '_', '~' and '-' alone");
	return 0;
}

/* ---- listening ---- */

static int listen_tcp(struct server *s, struct error *err)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
					.ai_socktype = SOCK_STREAM };
	struct addrinfo *a;

	if (getaddrinfo(s->spec.address, s->spec.port, &hints, &a))
		return error_set(err, EINVAL, "'%.64s' is no address; expected one of IPv4, or of IPv6 in brackets",
				 s->spec.address);
	s->listener.fd = host_tcp_listen(a, MOST_CONNECTIONS, s->spec.address, s->spec.port, err);
	freeaddrinfo(a);
	return MIN(s->listener.fd, 0);
}

static unsigned bound_port(const struct server *s)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} address = { .v6 = { 0 } };
	socklen_t size = sizeof(address);

	if (getsockname(s->listener.fd, &address.any, &size))
		return 0;
	/* The port is at the same place in both. */
	return ntohs(address.v6.sin6_port);
}

static void say_where(const struct server *s)
{
	bool ip6 = !s->spec.unix_path && strchr(s->spec.address, ':');

	if (s->spec.unix_path)
		log_info("display: VNC at %s", s->spec.unix_path);
	else if (s->spec.kind == SERVER_VNC)
		log_info("display: VNC at %s%s%s:%u", ip6 ? "[" : "", s->spec.address, ip6 ? "]" : "", bound_port(s));
	else
		log_info("display: http://%s%s%s:%u/?token=%s", ip6 ? "[" : "", s->spec.address, ip6 ? "]" : "",
			 bound_port(s), s->password);
}

static void close_server(struct server *s)
{
	struct connection *c, *next;

	list_for_each_safe (c, next, &s->connections, node)
		close_connection(c);
	event_loop_remove(s->display->loop, &s->source);
	if (s->spec.unix_path)
		host_unix_unlisten(&s->listener);
	else if (s->listener.fd >= 0)
		close(s->listener.fd);
	list_remove(&s->node);
	free(s->spec.text);
	free(s);
}

static int show_text(struct display *d, bool readonly, struct error *err)
{
	struct text *text = text_open(d, STDIN_FILENO, STDOUT_FILENO, readonly, err);

	if (!text)
		return -err->code;
	d->text = text;
	return 0;
}

bool display_is_text(const char *text) { return !strncmp(text, "text", 4) && (!text[4] || text[4] == ','); }

int display_show(struct display *d, const char *text, struct error *err)
{
	struct server *s;
	struct spec spec;
	int rc = parse(text, &spec, err);

	if (rc)
		return rc;
	if (spec.kind == SERVER_TEXT) {
		free(spec.text);
		return show_text(d, spec.readonly, err);
	}
	s = spec.kind == SERVER_NONE ? NULL : calloc(1, sizeof(*s));
	if (!s) {
		free(spec.text);
		return spec.kind == SERVER_NONE ? 0 : error_set_errno(err, ENOMEM, "display '%.64s'", text);
	}
	*s = (struct server){ .display = d, .spec = spec, .listener = { .fd = -1 } };
	list_init(&s->connections);
	list_append(&d->servers, &s->node);
	rc = take_password(s, err);
	if (!rc)
		rc = spec.unix_path ? host_unix_listen(&s->listener, spec.unix_path, err) : listen_tcp(s, err);
	if (rc) {
		close_server(s);
		return rc;
	}
	s->source = (struct event_source){ .fd = s->listener.fd, .events = POLLIN, .ready = server_ready, .opaque = s };
	event_loop_add(d->loop, &s->source);
	say_where(s);
	return 0;
}

void servers_close(struct display *d)
{
	struct server *s, *next;

	list_for_each_safe (s, next, &d->servers, node)
		close_server(s);
}
