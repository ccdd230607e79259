/*
 * Character devices, what all kinds have in common: the choice by spec, the output queue, and the flow of input to
 * the device.
 *
 * Threads: chardev_write runs anywhere, under cd->lock, and touches neither the event loop's sources nor the
 * device; what it finds out (output must wait, output failed) it posts to the loop's thread. The lock is never held
 * while the device's callbacks run.
 */
#include "backend/chardev_private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static const struct chardev_kind *const chardev_kinds[] = {
	&chardev_stdio, &chardev_pty,	       &chardev_file,	     &chardev_unix,
	&chardev_tcp,	&chardev_unix_connect, &chardev_tcp_connect, &chardev_null,
};

/* ---- output queue; lock held ---- */

static void queue_drop(struct chardev *cd, size_t size)
{
	cd->queue_first = (cd->queue_first + size) % CHARDEV_QUEUE_SIZE;
	cd->queue_count -= size;
}

static void note_loss(struct chardev *cd, const char *what)
{
	if (!cd->loss_reported)
		cd->loss = what;
	cd->loss_reported = true;
}

/* Does output that nobody takes wait here, the newest part of it, without holding up the guest? */
static bool lossy(const struct chardev *cd)
{
	return cd->writable ? cd->kind->reader_unknown : cd->kind->reader_returns;
}

/* What is known of it now may be told without the lock. */
static void unlock(struct chardev *cd)
{
	const char *loss = cd->loss;
	size_t used = lossy(cd) || !cd->writable ? 0 : cd->queue_count;

	cd->loss = NULL;
	atomic_store(&cd->room, CHARDEV_QUEUE_SIZE - used);
	pthread_mutex_unlock(&cd->lock);
	if (loss)
		log_warning("%s: %s", cd->description, loss);
}

static void queue_append(struct chardev *cd, const uint8_t *data, size_t size)
{
	size_t room = CHARDEV_QUEUE_SIZE - cd->queue_count, at, part;

	if (size > room && lossy(cd)) {
		note_loss(cd, "nobody reads the output; only its newest part is kept");
		if (size > CHARDEV_QUEUE_SIZE) {
			data += size - CHARDEV_QUEUE_SIZE;
			size = CHARDEV_QUEUE_SIZE;
		}
		queue_drop(cd, size - (CHARDEV_QUEUE_SIZE - cd->queue_count));
	} else if (size > room) {
		note_loss(cd, "the output queue is full; bytes are dropped");
		size = room;
	}
	at = (cd->queue_first + cd->queue_count) % CHARDEV_QUEUE_SIZE;
	part = MIN(size, CHARDEV_QUEUE_SIZE - at);
	memcpy(cd->queue + at, data, part);
	memcpy(cd->queue, data + part, size - part);
	cd->queue_count += size;
}

/* Gives the kind what it takes; returns how much. A failure makes the output unwritable. */
static size_t send_some(struct chardev *cd, const uint8_t *data, size_t size)
{
	size_t done = 0;

	while (cd->writable && done < size) {
		ssize_t n = cd->kind->send(cd, data + done, size - done);

		if (n == 0)
			break;
		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		cd->writable = false;
		cd->failure = (int)-n;
	}
	return done;
}

static void queue_send(struct chardev *cd)
{
	while (cd->writable && cd->queue_count) {
		size_t part = MIN(cd->queue_count, CHARDEV_QUEUE_SIZE - cd->queue_first);
		size_t done = send_some(cd, cd->queue + cd->queue_first, part);

		queue_drop(cd, done);
		if (done < part)
			break;
	}
}

/* ---- output, loop's thread ---- */

static void output_ready(void *opaque, short revents);

/* Settles the source after the queue was tried: waits for room, or for nothing but a hang-up, or not at all. */
static void output_settle(void *opaque)
{
	struct chardev *cd = opaque;
	bool waiting;
	int failure;

	pthread_mutex_lock(&cd->lock);
	queue_send(cd);
	failure = cd->failure;
	cd->failure = 0;
	waiting = cd->writable && cd->queue_count;
	cd->out_posted = waiting;
	unlock(cd);

	if (failure) {
		chardev_output_stop(cd);
		cd->kind->output_failed(cd, failure);
		return;
	}
	if (cd->out.fd < 0)
		return;
	event_loop_modify(cd->loop, &cd->out, waiting ? POLLOUT : 0);
	if (waiting || cd->watch_hangup) {
		if (!cd->out.active)
			event_loop_add(cd->loop, &cd->out);
	} else {
		event_loop_remove(cd->loop, &cd->out);
	}
}

static void output_ready(void *opaque, short revents)
{
	struct chardev *cd = opaque;

	/* POLLERR or POLLHUP alone: writing would fail, and a wait would end at once again and again. */
	if (!(revents & POLLOUT) && (revents & (POLLERR | POLLHUP | POLLNVAL))) {
		pthread_mutex_lock(&cd->lock);
		if (cd->writable)
			cd->failure = EPIPE;
		cd->writable = false;
		unlock(cd);
	}
	output_settle(cd);
}

void chardev_output_start(struct chardev *cd, int fd, bool watch_hangup)
{
	cd->watch_hangup = watch_hangup;
	pthread_mutex_lock(&cd->lock);
	cd->out.fd = fd;
	cd->writable = true;
	cd->failure = 0;
	unlock(cd);
	output_settle(cd);
}

void chardev_output_stop(struct chardev *cd)
{
	event_loop_remove(cd->loop, &cd->out);
	pthread_mutex_lock(&cd->lock);
	cd->writable = false;
	cd->failure = 0;
	cd->out_posted = false;
	cd->out.fd = -1;
	unlock(cd);
}

size_t chardev_write(struct chardev *cd, const void *data, size_t size)
{
	size_t done = 0;
	bool post;

	pthread_mutex_lock(&cd->lock);
	if (!cd->queue_count)
		done = send_some(cd, data, size);
	/* Output that is over for good: what comes is dropped. */
	if (done < size && (cd->writable || lossy(cd)))
		queue_append(cd, (const uint8_t *)data + done, size - done);
	post = !cd->out_posted && (cd->failure || (cd->writable && cd->queue_count));
	cd->out_posted |= post;
	unlock(cd);
	if (post)
		event_loop_post(cd->loop, output_settle, cd);
	return chardev_room(cd);
}

size_t chardev_room(struct chardev *cd) { return atomic_load(&cd->room); }

ssize_t chardev_write_fd(int fd, const uint8_t *data, size_t size)
{
	ssize_t n;

	do
		n = write(fd, data, size);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	return errno == EAGAIN ? 0 : -errno;
}

/* ---- input, loop's thread ---- */

/* Is there something for the device? */
static bool input_waits(const struct chardev *cd) { return cd->pending_count || cd->break_count; }

/*
 * Reads on while everything read was taken. A kind that looks for key sequences reads on, too, while there is still
 * room for a whole read. A source that is not read is not waited for at all, as its hang-up would be reported over
 * and over.
 */
static void input_settle(struct chardev *cd)
{
	bool read_on =
		!input_waits(cd) || (cd->kind->filter && CHARDEV_INPUT_SIZE - cd->pending_count >= CHARDEV_READ_SIZE);

	if (!cd->input_open || !read_on)
		event_loop_remove(cd->loop, &cd->in);
	else if (!cd->in.active)
		event_loop_add(cd->loop, &cd->in);
}

static void drop_break(struct chardev *cd)
{
	cd->break_count--;
	memmove(cd->breaks, cd->breaks + 1, cd->break_count * sizeof(cd->breaks[0]));
}

static void drop_bytes(struct chardev *cd, size_t count)
{
	cd->pending_count -= count;
	memmove(cd->pending, cd->pending + count, cd->pending_count);
	for (unsigned n = 0; n < cd->break_count; n++)
		cd->breaks[n] -= count;
}

/* Offers the device what comes next: bytes up to a break, or one. False: it did not take all of it. */
static bool input_offer(struct chardev *cd)
{
	size_t most = cd->break_count ? cd->breaks[0] : cd->pending_count, taken = most;

	if (!most) {
		if (cd->ops && cd->ops->receive_break && !cd->ops->receive_break(cd->opaque))
			return false;
		drop_break(cd);
		return true;
	}
	if (cd->ops)
		taken = cd->ops->receive(cd->opaque, cd->pending, most);
	BUG_ON(taken > most);
	drop_bytes(cd, taken);
	return taken == most;
}

static void input_deliver(struct chardev *cd)
{
	while (input_waits(cd)) {
		/*
		 * A resume may come from another thread at any time. Either it finds `paused` set and posts, or it
		 * came before that and is found here.
		 */
		atomic_store(&cd->resume_asked, false);
		if (input_offer(cd))
			continue;
		atomic_store(&cd->paused, true);
		if (!atomic_exchange(&cd->resume_asked, false))
			break;
		atomic_store(&cd->paused, false);
	}
	input_settle(cd);
}

static void input_ready(void *opaque, short revents)
{
	struct chardev *cd = opaque;
	uint8_t *to = cd->pending + cd->pending_count;
	ssize_t n;

	(void)revents;
	do
		n = read(cd->in.fd, to, CHARDEV_READ_SIZE);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		int code = n ? errno : 0;

		chardev_input_stop(cd);
		if (cd->kind->input_ended)
			cd->kind->input_ended(cd, code);
		return;
	}
	cd->pending_count += cd->kind->filter ? cd->kind->filter(cd, to, (size_t)n) : (size_t)n;
	if (atomic_load(&cd->paused))
		input_settle(cd);
	else
		input_deliver(cd);
}

void chardev_input_break(struct chardev *cd, const uint8_t *data, size_t at)
{
	if (cd->break_count < CHARDEV_BREAKS)
		cd->breaks[cd->break_count++] = (size_t)(data - cd->pending) + at;
}

static void input_resume(void *opaque) { input_deliver(opaque); }

void chardev_resume(struct chardev *cd)
{
	atomic_store(&cd->resume_asked, true);
	if (atomic_exchange(&cd->paused, false))
		event_loop_post(cd->loop, input_resume, cd);
}

void chardev_input_start(struct chardev *cd, int fd)
{
	cd->in.fd = fd;
	cd->input_open = true;
	/* Bytes of an earlier connection may still wait for the device; reading goes on after them. */
	input_settle(cd);
}

void chardev_input_stop(struct chardev *cd)
{
	event_loop_remove(cd->loop, &cd->in);
	cd->input_open = false;
	cd->in.fd = -1;
}

/* ---- life ---- */

int chardev_set_description(struct chardev *cd, const char *fmt, ...)
{
	va_list args;
	char text[512];

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	free(cd->description);
	cd->description = strdup(text);
	return cd->description ? 0 : -ENOMEM;
}

static void chardev_free(struct chardev *cd)
{
	pthread_mutex_destroy(&cd->lock);
	free(cd->description);
	free(cd->queue);
	free(cd);
}

/* The kind that a spec names and what follows the colon; NULL when it names none. */
static const struct chardev_kind *find_kind(const char *spec, const char **argument)
{
	size_t i, length;

	for (i = 0; i < ARRAY_SIZE(chardev_kinds); i++) {
		length = strlen(chardev_kinds[i]->name);
		if (strncmp(spec, chardev_kinds[i]->name, length) != 0)
			continue;
		*argument = NULL;
		if (!chardev_kinds[i]->argument && !spec[length])
			return chardev_kinds[i];
		*argument = spec + length + 1;
		if (chardev_kinds[i]->argument && spec[length] == ':' && **argument)
			return chardev_kinds[i];
	}
	return NULL;
}

static int unknown_kind(const char *spec, struct error *err)
{
	char allowed[256] = "";
	size_t i, length = 0;

	for (i = 0; i < ARRAY_SIZE(chardev_kinds); i++) {
		const struct chardev_kind *kind = chardev_kinds[i];

		length += (size_t)snprintf(allowed + length, sizeof(allowed) - length, "%s%s%s%s", i ? ", " : "",
					   kind->name, kind->argument ? ":" : "", kind->argument ? kind->argument : "");
	}
	return error_set(err, EINVAL, "character device '%s': expected one of %s", spec, allowed);
}

/* A reader that goes away must be an error of write(), not the end of the process. */
static void ignore_sigpipe(void)
{
	struct sigaction action = { .sa_handler = SIG_IGN }, old;

	if (!sigaction(SIGPIPE, NULL, &old) && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
		sigaction(SIGPIPE, &action, NULL);
}

struct chardev *chardev_open(const char *spec, struct event_loop *loop, struct error *err)
{
	const char *argument = NULL;
	const struct chardev_kind *kind = find_kind(spec, &argument);
	struct chardev *cd;

	if (!kind) {
		unknown_kind(spec, err);
		return NULL;
	}
	cd = calloc(1, sizeof(*cd));
	if (!cd) {
		error_set_errno(err, ENOMEM, "character device '%s'", spec);
		return NULL;
	}
	pthread_mutex_init(&cd->lock, NULL);
	cd->kind = kind;
	cd->loop = loop;
	cd->in = (struct event_source){ .fd = -1, .events = POLLIN, .ready = input_ready, .opaque = cd };
	cd->out = (struct event_source){ .fd = -1, .ready = output_ready, .opaque = cd };
	cd->queue = malloc(CHARDEV_QUEUE_SIZE);
	cd->room = CHARDEV_QUEUE_SIZE;
	ignore_sigpipe();
	if (!cd->queue || chardev_set_description(cd, "%s", spec)) {
		error_set_errno(err, ENOMEM, "character device '%s'", spec);
		chardev_free(cd);
		return NULL;
	}
	if (kind->open(cd, argument, err)) {
		error_prefix(err, "character device '%s'", spec);
		chardev_free(cd);
		return NULL;
	}
	return cd;
}

void chardev_attach(struct chardev *cd, const struct chardev_ops *ops, void *opaque)
{
	cd->ops = ops;
	cd->opaque = opaque;
}

const char *chardev_describe(const struct chardev *cd) { return cd->description; }

/* Gives up when the host took nothing for a second in all. */
static void flush(struct chardev *cd)
{
	struct pollfd wait = { .fd = cd->out.fd, .events = POLLOUT };
	int left = 20;

	pthread_mutex_lock(&cd->lock);
	for (;;) {
		size_t before = cd->queue_count;

		queue_send(cd);
		if (!cd->writable || !cd->queue_count)
			break;
		if (cd->queue_count == before && left-- == 0)
			break;
		unlock(cd);
		poll(&wait, 1, 50);
		pthread_mutex_lock(&cd->lock);
	}
	unlock(cd);
}

void chardev_close(struct chardev *cd)
{
	if (!cd)
		return;
	flush(cd);
	event_loop_cancel_posts(cd->loop, cd);
	chardev_input_stop(cd);
	chardev_output_stop(cd);
	cd->kind->close(cd);
	chardev_free(cd);
}
