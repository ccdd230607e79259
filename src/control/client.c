/*
 * Conversations with a machine's socket, by the commands of the command line.
 */
#include "control/private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define PATIENCE 10 /* seconds */

static int no_answer(const struct control_client *c, struct error *err)
{
	return error_set(err, EPROTO, "machine '%s' does not answer", c->name);
}

static json_t *receive(const struct control_client *c) { return json_loadfd(c->fd, JSON_DISABLE_EOF_CHECK, NULL); }

static bool send_text(const struct control_client *c, const char *text)
{
	size_t size = strlen(text);

	while (size) {
		ssize_t n = send(c->fd, text, size, MSG_NOSIGNAL);

		if (n <= 0 && errno != EINTR)
			return false;
		if (n > 0) {
			text += n;
			size -= (size_t)n;
		}
	}
	return true;
}

int control_open(struct control_client *c, const char *name, struct error *err)
{
	struct timeval patience = { .tv_sec = PATIENCE };
	json_t *answer;

	*c = (struct control_client){ .fd = control_connect(name, CONTROL_QMP, err), .name = name };
	if (c->fd < 0)
		return c->fd;
	(void)setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	answer = receive(c); /* the greeting */
	if (answer) {
		json_decref(answer);
		answer = control_execute(c, "qmp_capabilities", NULL, err);
	} else {
		no_answer(c, err);
	}
	json_decref(answer);
	if (answer)
		return 0;
	control_close(c);
	return -EPROTO;
}

void control_close(struct control_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

/* The answer, behind events. */
static json_t *receive_answer(const struct control_client *c)
{
	json_t *answer;

	while ((answer = receive(c)) && json_object_get(answer, "event"))
		json_decref(answer);
	return answer;
}

json_t *control_execute(struct control_client *c, const char *command, json_t *arguments, struct error *err)
{
	json_t *request = json_pack("{s:s,s:o*}", "execute", command, "arguments", arguments), *answer, *result;
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	const char *why;

	json_decref(request);
	answer = text && send_text(c, text) ? receive_answer(c) : NULL;
	free(text);
	result = json_incref(json_object_get(answer, "return"));
	why = json_string_value(json_object_get(json_object_get(answer, "error"), "desc"));
	if (!result && why)
		error_set(err, EIO, "machine '%s': %s: %.300s", c->name, command, why);
	else if (!result)
		no_answer(c, err);
	json_decref(answer);
	return result;
}

bool control_await_end(struct control_client *c, unsigned seconds)
{
	uint64_t end = host_monotonic_ns() + seconds * 1000000000ull;
	char byte[256];

	for (;;) {
		uint64_t now = host_monotonic_ns();
		struct pollfd poll_fd = { .fd = c->fd, .events = POLLIN };
		int n = poll(&poll_fd, 1, !seconds ? -1 : now >= end ? 0 : (int)((end - now) / 1000000 + 1));

		if (!n)
			return false;
		if (n > 0 && recv(c->fd, byte, sizeof(byte), 0) <= 0)
			return true;
	}
}
