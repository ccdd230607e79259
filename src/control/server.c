/*
 * Sockets that control a machine, and their clients: what they send is cut into JSON texts, answered in their order, and events go to all that have said qmp_capabilities.
 * All in the event loop's thread. A client that sends what is too long, or does not read what it is sent, is dropped.
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
	struct event_source source;
	struct list node;
	struct split split;
	struct bytes in, out;
	size_t scanned; /* bytes of in that split has seen */
	bool ready;
};

struct listener {
	struct control *control;
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
	event_loop_remove(machine_loop(c->control->machine), &c->source);
	close(c->source.fd);
	list_remove(&c->node);
	c->control->client_count--;
	free(c->in.data);
	free(c->out.data);
	free(c);
}

/* False: it is gone, or will not read. */
static bool flush(struct client *c)
{
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

/* Takes the object. */
static bool send_object(struct client *c, json_t *object)
{
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	bool sent = text && c->out.size + strlen(text) <= OUTPUT_MOST && bytes_add(&c->out, text, strlen(text)) &&
		    bytes_add(&c->out, "\r\n", 2);

	free(text);
	json_decref(object);
	return sent && flush(c);
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

static bool serve_input(struct client *c)
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
	if (n <= 0 || c->in.size + (size_t)n > INPUT_MOST || !bytes_add(&c->in, data, (size_t)n) || !serve_input(c))
		drop(c);
}

static void accept_client(void *opaque, short revents)
{
	struct listener *listener = opaque;
	struct control *control = listener->control;
	int fd = accept4(listener->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c = fd < 0 || control->client_count == CLIENTS_MOST ? NULL : calloc(1, sizeof(*c));

	(void)revents;
	if (!c) {
		if (fd >= 0)
			close(fd);
		return;
	}
	c->control = control;
	c->source = (struct event_source){ .fd = fd, .events = POLLIN, .ready = client_ready, .opaque = c };
	list_append(&control->clients, &c->node);
	control->client_count++;
	event_loop_add(machine_loop(control->machine), &c->source);
	if (!send_object(c, command_greeting()))
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
		if (c->ready && !send_object(c, event_object(news)))
			shutdown(c->source.fd, SHUT_RDWR); /* its own turn in the loop drops it */
}

/* ---- life ---- */

static int add_listener(struct control *control, const char *path, struct error *err)
{
	struct listener *l = &control->listeners[control->listener_count];
	int rc = host_unix_listen(&l->listener, path, err);

	if (rc)
		return rc;
	control->listener_count++;
	l->control = control;
	l->source =
		(struct event_source){ .fd = l->listener.fd, .events = POLLIN, .ready = accept_client, .opaque = l };
	event_loop_add(machine_loop(control->machine), &l->source);
	return 0;
}

static int add_spec(struct control *control, const char *spec, struct error *err)
{
	int rc;

	if (strncmp(spec, "unix:", 5) != 0 || !spec[5])
		return error_set(err, EINVAL, "QMP: '%.80s' is unknown; expected unix:PATH", spec);
	if (control->listener_count == LISTENERS_MOST)
		return error_set(err, EINVAL, "QMP: '%.80s' is one too many; expected at most %u", spec,
				 LISTENERS_MOST - 1);
	rc = add_listener(control, spec + 5, err);
	return rc ? error_prefix(err, "QMP at '%.80s'", spec) : 0;
}

int control_create(struct control **out, struct machine *machine, const char *const *specs, unsigned count,
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
			rc = add_listener(control, path, err);
		}
	}
	for (unsigned n = 0; !rc && n < count; n++)
		rc = add_spec(control, specs[n], err);
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

		while (c->out.size && poll(&poll_fd, 1, END_PATIENCE) > 0 && flush(c))
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
