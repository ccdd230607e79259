/*
 * Sockets that control a machine, and their clients: what they send is cut into JSON texts, answered in their order, and events go to all that have said qmp_capabilities; or
 * into lines that people type. All in the event loop's thread. A client that sends what is too long, or does not read what it is sent, is dropped. One that is no
 * connection to a socket of ours (standard input, somebody who listens) is a character device, and stays.
 */
#define _GNU_SOURCE /* accept4 */
#include "control/private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MOST   32
#define LISTENERS_MOST 4
#define INPUT_MOST     (1u << 20) /* bytes of one text */
#define OUTPUT_MOST    (4u << 20) /* bytes that wait for a client to read */
#define READ_SIZE      4096u
#define END_PATIENCE   200 /* ms, for clients to take what is left for them at the end */

struct client {
	struct control *control;
	struct event_source source; /* fd -1: chardev has it */
	struct chardev *chardev;
	struct list node;
	bool human; /* lines, not QMP */
	bool deaf;  /* a chardev that is no longer served */
	struct split split;
	struct bytes in, out;
	size_t scanned; /* bytes of in that split has seen */
	bool ready;
};

struct listener {
	struct control *control;
	bool human;
	struct host_listener listener;
	struct event_source source;
};

struct control {
	struct machine *machine;
	struct folder folder;
	struct listener listeners[LISTENERS_MOST];
	unsigned listener_count, client_count;
	struct list clients;
};

/* ---- clients ---- */

static void drop(struct client *c)
{
	if (c->chardev) {
		chardev_close(c->chardev);
	} else {
		event_loop_remove(machine_loop(c->control->machine), &c->source);
		close(c->source.fd);
	}
	list_remove(&c->node);
	c->control->client_count--;
	free(c->in.data);
	free(c->out.data);
	free(c);
}

/* False: it is gone, or will not read. */
static bool flush(struct client *c)
{
	if (c->chardev) {
		chardev_write(c->chardev, c->out.data, c->out.size);
		bytes_cut_front(&c->out, c->out.size);
		return true;
	}
	while (c->out.size) {
		ssize_t n = send(c->source.fd, c->out.data, c->out.size, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0)
			break;
		bytes_cut_front(&c->out, (size_t)n);
	}
	event_loop_modify(machine_loop(c->control->machine), &c->source, c->out.size ? POLLIN | POLLOUT : POLLIN);
	return true;
}

static bool send_text(struct client *c, const char *text)
{
	return text && c->out.size + strlen(text) <= OUTPUT_MOST && bytes_add(&c->out, text, strlen(text));
}

/* Takes the object. */
static bool send_object(struct client *c, json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	bool sent = send_text(c, text) && send_text(c, "\r\n");

	free(text);
	json_decref(object);
	return sent && flush(c);
}

static bool greet(struct client *c)
{
	return c->human ? send_text(c, human_greeting) && flush(c) : send_object(c, command_greeting());
}

/* False: it is to be dropped. */
static bool serve_text(struct client *c, const uint8_t *text, size_t size)
{
	json_error_t error;
	char why[JSON_ERROR_TEXT_LENGTH + 32];
	json_t *request = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, &error), *answer;

	if (request) {
		answer = command_answer(c->control->machine, request, &c->ready);
	} else {
		snprintf(why, sizeof(why), "JSON parse error, %s", error.text);
		answer = command_error("GenericError", why, NULL);
	}
	json_decref(request);
	return send_object(c, answer);
}

/* A line, and the prompt behind its answer. */
static bool serve_line(struct client *c, const uint8_t *line, size_t size)
{
	char *text = strndup((const char *)line, size), *answer = text ? human_answer(c->control->machine, text) : NULL;
	bool good = answer && send_text(c, answer) && send_text(c, human_prompt) && flush(c);

	free(answer);
	free(text);
	return good;
}

static bool serve_lines(struct client *c)
{
	const uint8_t *end;
	bool good = true;

	while (good && (end = memchr(c->in.data, '\n', c->in.size))) {
		size_t size = (size_t)(end - c->in.data);

		good = serve_line(c, c->in.data, size && end[-1] == '\r' ? size - 1 : size);
		bytes_cut_front(&c->in, size + 1);
	}
	return good;
}

static bool serve_texts(struct client *c)
{
	size_t begin = 0, done = 0;
	enum split_result result;
	bool good = true;

	while (good && (result = split_next(&c->split, c->in.data, c->in.size, &begin, &c->scanned)) != SPLIT_MORE) {
		if (result == SPLIT_WHOLE)
			good = serve_text(c, c->in.data + begin, c->scanned - begin);
		else
			good = send_object(c,
					   command_error("GenericError", "JSON parse error, expected an object", NULL));
		done = c->scanned;
	}
	/* Nothing is kept of what is between texts, or was no JSON. */
	if (!c->split.depth)
		done = c->scanned;
	bytes_cut_front(&c->in, done);
	c->scanned -= done;
	return good;
}

/* False: no more of it. */
static bool take_input(struct client *c, const uint8_t *data, size_t size)
{
	if (c->in.size + size > INPUT_MOST || !bytes_add(&c->in, data, size))
		return false;
	return c->human ? serve_lines(c) : serve_texts(c);
}

static size_t chardev_receives(void *opaque, const uint8_t *data, size_t size)
{
	struct client *c = opaque;

	c->deaf = c->deaf || !take_input(c, data, size);
	return size;
}

static void chardev_quits(void *opaque) { machine_quit(((struct client *)opaque)->control->machine); }

static const struct chardev_ops chardev_client = { .receive = chardev_receives, .quit = chardev_quits };

static void client_ready(void *opaque, short revents)
{
	struct client *c = opaque;
	uint8_t data[READ_SIZE];
	ssize_t n;

	if ((revents & POLLOUT) && !flush(c)) {
		drop(c);
		return;
	}
	if (!(revents & (POLLIN | POLLHUP | POLLERR)))
		return;
	n = recv(c->source.fd, data, sizeof(data), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || !take_input(c, data, (size_t)n))
		drop(c);
}

static struct client *add_client(struct control *control, bool human)
{
	struct client *c = control->client_count == CLIENTS_MOST ? NULL : calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->control = control;
	c->human = human;
	c->source.fd = -1;
	list_append(&control->clients, &c->node);
	control->client_count++;
	return c;
}

static void accept_client(void *opaque, short revents)
{
	struct listener *listener = opaque;
	struct control *control = listener->control;
	int fd = accept4(listener->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c = fd < 0 ? NULL : add_client(control, listener->human);

	(void)revents;
	if (!c) {
		if (fd >= 0)
			close(fd);
		return;
	}
	c->source = (struct event_source){ .fd = fd, .events = POLLIN, .ready = client_ready, .opaque = c };
	event_loop_add(machine_loop(control->machine), &c->source);
	if (!greet(c))
		drop(c);
}

/* ---- events ---- */

static json_t *failure_object(const struct bus_failure *f)
{
	char device[64];

	snprintf(device, sizeof(device), "%s%u", f->device, f->instance);
	return json_pack("{s:s,s:s,s:s,s:b,s:s}", "device", device, "operation", f->writes ? "write" : "read", "action",
			 "stop", "nospace", f->error == -ENOSPC, "reason", strerror(-f->error));
}

/* NULL: it has none. */
static json_t *event_data(const struct machine_news *news)
{
	static const char *const reasons[2][2] = { { "host-qmp-system-reset", "guest-reset" },
						   { "host-qmp-quit", "guest-shutdown" } };

	switch (news->event) {
	case MACHINE_RESETS:
	case MACHINE_ENDS:
		return json_pack("{s:b,s:s}", "guest", news->by_guest, "reason",
				 reasons[news->event == MACHINE_ENDS][news->by_guest]);
	case MACHINE_IO_FAILS: return failure_object(&news->failure);
	default: return NULL;
	}
}

static json_t *event_object(const struct machine_news *news)
{
	uint64_t now = host_realtime_ns();

	return json_pack("{s:{s:I,s:I},s:s,s:o*}", "timestamp", "seconds", (json_int_t)(now / 1000000000),
			 "microseconds", (json_int_t)(now / 1000 % 1000000), "event", command_event(news->event),
			 "data", event_data(news));
}

static void machine_tells(void *opaque, const struct machine_news *news)
{
	struct control *control = opaque;
	struct client *c, *next;

	list_for_each_safe (c, next, &control->clients, node)
		if (c->ready && !send_object(c, event_object(news)) && !c->chardev)
			shutdown(c->source.fd, SHUT_RDWR); /* its own turn in the loop drops it */
}

/* ---- life ---- */

static void listen_for(struct control *control, int fd, bool human)
{
	struct listener *l = &control->listeners[control->listener_count++];

	l->control = control;
	l->human = human;
	l->listener.fd = fd;
	l->source = (struct event_source){ .fd = fd, .events = POLLIN, .ready = accept_client, .opaque = l };
	event_loop_add(machine_loop(control->machine), &l->source);
}

static int listen_at(struct control *control, const char *path, bool human, struct error *err)
{
	int rc = host_unix_listen(&control->listeners[control->listener_count].listener, path, err);

	if (!rc)
		listen_for(control, control->listeners[control->listener_count].listener.fd, human);
	return rc;
}

static int serve_chardev(struct control *control, const char *spec, bool human, struct error *err)
{
	struct chardev *chardev = chardev_open(spec, machine_loop(control->machine), err);
	struct client *c = chardev ? add_client(control, human) : NULL;

	if (!c) {
		chardev_close(chardev);
		return chardev ? error_set_errno(err, ENOMEM, "'%.80s'", spec) : -err->code;
	}
	c->chardev = chardev;
	chardev_attach(chardev, &chardev_client, c);
	return greet(c) ? 0 : error_set_errno(err, ENOMEM, "'%.80s'", spec);
}

static int add_spec(struct control *control, const struct control_spec *spec, struct error *err)
{
	const char *where = spec->where;
	int rc;

	if (control->listener_count == LISTENERS_MOST)
		return error_set(err, EINVAL, "'%.80s' is one too many; expected at most %u", where,
				 LISTENERS_MOST - 1);
	if (!strncmp(where, "unix:", 5) && where[5])
		return listen_at(control, where + 5, spec->human, err);
	if (!strncmp(where, "tcp:", 4)) {
		rc = host_tcp_open(where + 4, true, CLIENTS_MOST, err);
		if (rc < 0)
			return rc;
		control->listeners[control->listener_count].listener = (struct host_listener){ .fd = -1 };
		listen_for(control, rc, spec->human);
		return 0;
	}
	if (!strcmp(where, "stdio") || !strncmp(where, "unix-connect:", 13) || !strncmp(where, "tcp-connect:", 12))
		return serve_chardev(control, where, spec->human, err);
	return error_set(err, EINVAL,
			 "'%.80s' is unknown; expected unix:PATH, tcp:HOST:PORT, unix-connect:PATH, "
			 "tcp-connect:HOST:PORT or stdio",
			 where);
}

int control_create(struct control **out, struct machine *machine, const struct control_spec *specs, unsigned count,
		   struct error *err)
{
	const char *name = machine_config(machine)->name;
	struct control *control = calloc(1, sizeof(*control));
	char path[FOLDER_PATH_SIZE];
	int rc = 0;

	if (!control)
		return error_set_errno(err, ENOMEM, "control of the machine");
	control->machine = machine;
	control->folder = (struct folder){ .all = -1, .fd = -1, .lock = -1 };
	list_init(&control->clients);
	if (name) {
		rc = folder_claim(&control->folder, name, err);
		if (!rc) {
			folder_path(&control->folder, CONTROL_QMP, path);
			rc = listen_at(control, path, false, err);
		}
	}
	for (unsigned n = 0; !rc && n < count; n++) {
		rc = add_spec(control, &specs[n], err);
		if (rc)
			error_prefix(err, specs[n].human ? "--monitor" : "--qmp");
	}
	if (rc) {
		control_destroy(control);
		return rc;
	}
	machine_listen(machine, machine_tells, control);
	*out = control;
	return 0;
}

bool control_path(const struct control *control, const char *file, char path[CONTROL_PATH_SIZE])
{
	if (control->folder.fd < 0)
		return false;
	folder_path(&control->folder, file, path);
	return true;
}

/* What is left for them, as long as they take it. */
static void say_goodbye(struct control *control)
{
	struct client *c, *next;

	list_for_each_safe (c, next, &control->clients, node) {
		struct pollfd poll_fd = { .fd = c->source.fd, .events = POLLOUT };

		while (!c->chardev && c->out.size && poll(&poll_fd, 1, END_PATIENCE) > 0 && flush(c))
			;
		drop(c);
	}
}

void control_destroy(struct control *control)
{
	if (!control)
		return;
	machine_listen(control->machine, NULL, NULL);
	say_goodbye(control);
	for (unsigned n = 0; n < control->listener_count; n++) {
		event_loop_remove(machine_loop(control->machine), &control->listeners[n].source);
		host_unix_unlisten(&control->listeners[n].listener);
	}
	folder_remove(&control->folder);
	free(control);
}
