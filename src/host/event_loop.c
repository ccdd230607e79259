/*
 * The event loop: one thread that waits for file descriptors, for functions that other threads post, and for the time
 * at which its tick callback has something to do.
 */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct post {
	void (*fn)(void *); /* NULL: cancelled */
	void *opaque;
};

struct event_loop {
	int wake_fd;
	/* True from the first wake until the loop saw it: spares the writes of the others. */
	_Atomic bool woken;
	_Atomic bool stopping;

	/* Loop's thread only. */
	struct list sources;
	size_t source_count, capacity;
	struct pollfd *fds;	      /* [0] is wake_fd */
	struct event_source **polled; /* polled[i] is waited for in fds[i]; NULL: none or removed since */
	size_t polled_count;
	uint64_t (*tick)(void *);
	void *tick_opaque;

	pthread_mutex_t post_lock; /* covers what follows */
	struct post *posts;
	size_t post_first, post_count, post_capacity;
};

#define INITIAL_SOURCES 16
#define INITIAL_POSTS	64

struct event_loop *event_loop_create(struct error *err)
{
	struct event_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		goto no_memory;
	list_init(&loop->sources);
	pthread_mutex_init(&loop->post_lock, NULL);
	loop->capacity = INITIAL_SOURCES;
	loop->fds = calloc(loop->capacity, sizeof(*loop->fds));
	loop->polled = calloc(loop->capacity, sizeof(struct event_source *));
	loop->post_capacity = INITIAL_POSTS;
	loop->posts = calloc(loop->post_capacity, sizeof(*loop->posts));
	loop->wake_fd = -1;
	if (!loop->fds || !loop->polled || !loop->posts)
		goto no_memory;
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0) {
		error_set_errno(err, errno, "cannot create the event loop's eventfd");
		event_loop_destroy(loop);
		return NULL;
	}
	return loop;

no_memory:
	error_set_errno(err, ENOMEM, "cannot create the event loop");
	event_loop_destroy(loop);
	return NULL;
}

void event_loop_destroy(struct event_loop *loop)
{
	if (!loop)
		return;
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	pthread_mutex_destroy(&loop->post_lock);
	free(loop->fds);
	free(loop->polled);
	free(loop->posts);
	free(loop);
}

/* ---- sources ---- */

void event_loop_add(struct event_loop *loop, struct event_source *source)
{
	BUG_ON(source->active);
	/*
	 * Room for a wait is made here, where there are still few sources, so that waiting itself cannot fail.
	 * Without memory for some pointers there is no going on.
	 */
	if (loop->source_count + 1 >= loop->capacity) {
		loop->capacity *= 2;
		loop->fds = realloc(loop->fds, loop->capacity * sizeof(*loop->fds));
		loop->polled = realloc(loop->polled, loop->capacity * sizeof(struct event_source *));
		BUG_ON(!loop->fds || !loop->polled);
	}
	loop->source_count++;
	source->active = true;
	list_append(&loop->sources, &source->node);
}

void event_loop_remove(struct event_loop *loop, struct event_source *source)
{
	size_t i;

	if (!source->active)
		return;
	source->active = false;
	list_remove(&source->node);
	loop->source_count--;
	/* Its owner may free it now; what this round of dispatch still has for it is forgotten. */
	for (i = 1; i < loop->polled_count; i++)
		if (loop->polled[i] == source)
			loop->polled[i] = NULL;
}

void event_loop_modify(struct event_loop *loop, struct event_source *source, short events)
{
	(void)loop;
	source->events = events;
}

/* ---- other threads ---- */

void event_loop_wake(struct event_loop *loop)
{
	const uint64_t one = 1;
	int saved = errno;

	if (!atomic_exchange(&loop->woken, true) && write(loop->wake_fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, which wakes the loop as well. */
	}
	errno = saved;
}

/* Called when a wait is over. The flag is cleared after the counter: the other way round a wake could get lost. */
static void drain_wake(struct event_loop *loop)
{
	uint64_t count;

	if (!(loop->fds[0].revents & POLLIN))
		return;
	if (read(loop->wake_fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: nothing to drain. */
	}
	atomic_exchange(&loop->woken, false);
}

void event_loop_post(struct event_loop *loop, void (*fn)(void *), void *opaque)
{
	pthread_mutex_lock(&loop->post_lock);
	if (loop->post_first + loop->post_count == loop->post_capacity) {
		if (loop->post_first >= loop->post_capacity / 2) {
			memmove(loop->posts, loop->posts + loop->post_first, loop->post_count * sizeof(*loop->posts));
			loop->post_first = 0;
		} else {
			loop->post_capacity *= 2;
			loop->posts = realloc(loop->posts, loop->post_capacity * sizeof(*loop->posts));
			BUG_ON(!loop->posts);
		}
	}
	loop->posts[loop->post_first + loop->post_count++] = (struct post){ fn, opaque };
	pthread_mutex_unlock(&loop->post_lock);
	event_loop_wake(loop);
}

void event_loop_cancel_posts(struct event_loop *loop, const void *opaque)
{
	size_t i;

	pthread_mutex_lock(&loop->post_lock);
	for (i = 0; i < loop->post_count; i++)
		if (loop->posts[loop->post_first + i].opaque == opaque)
			loop->posts[loop->post_first + i].fn = NULL;
	pthread_mutex_unlock(&loop->post_lock);
}

/* Runs as many as there were at first: what these post waits for the next round, so that descriptors get their turn. */
static void run_posts(struct event_loop *loop)
{
	size_t rounds;

	pthread_mutex_lock(&loop->post_lock);
	for (rounds = loop->post_count; rounds && loop->post_count; rounds--) {
		struct post post = loop->posts[loop->post_first];

		loop->post_first++;
		if (!--loop->post_count)
			loop->post_first = 0;
		pthread_mutex_unlock(&loop->post_lock);
		if (post.fn)
			post.fn(post.opaque);
		pthread_mutex_lock(&loop->post_lock);
	}
	if (loop->post_count)
		event_loop_wake(loop);
	pthread_mutex_unlock(&loop->post_lock);
}

void event_loop_set_tick(struct event_loop *loop, uint64_t (*tick)(void *), void *opaque)
{
	loop->tick = tick;
	loop->tick_opaque = opaque;
}

void event_loop_stop(struct event_loop *loop)
{
	atomic_store(&loop->stopping, true);
	event_loop_wake(loop);
}

/* ---- the loop ---- */

static void collect_sources(struct event_loop *loop)
{
	struct event_source *source;
	size_t n = 1;

	loop->fds[0] = (struct pollfd){ .fd = loop->wake_fd, .events = POLLIN };
	loop->polled[0] = NULL;
	list_for_each (source, &loop->sources, node) {
		loop->fds[n] = (struct pollfd){ .fd = source->fd, .events = source->events };
		loop->polled[n++] = source;
	}
	loop->polled_count = n;
}

static int wait_until(struct event_loop *loop, uint64_t deadline)
{
	struct timespec timeout;
	uint64_t now, left;

	if (deadline == UINT64_MAX)
		return ppoll(loop->fds, loop->polled_count, NULL, NULL);
	now = host_monotonic_ns();
	left = deadline > now ? deadline - now : 0;
	timeout.tv_sec = (time_t)(left / 1000000000u);
	timeout.tv_nsec = (long)(left % 1000000000u);
	return ppoll(loop->fds, loop->polled_count, &timeout, NULL);
}

static void dispatch(struct event_loop *loop)
{
	size_t i;

	/* A callback may add sources, which can move both arrays but does not change what is in them. */
	for (i = 1; i < loop->polled_count; i++)
		if (loop->polled[i] && loop->fds[i].revents)
			loop->polled[i]->ready(loop->polled[i]->opaque, loop->fds[i].revents);
	loop->polled_count = 0;
}

void event_loop_run(struct event_loop *loop)
{
	for (;;) {
		uint64_t deadline;
		int ready;

		run_posts(loop);
		deadline = loop->tick ? loop->tick(loop->tick_opaque) : UINT64_MAX;
		/* Consumed, so that the loop can be run again. */
		if (atomic_exchange(&loop->stopping, false))
			return;
		collect_sources(loop);
		ready = wait_until(loop, deadline);
		BUG_ON(ready < 0 && errno != EINTR && errno != ENOMEM);
		if (ready <= 0) {
			loop->polled_count = 0;
			continue;
		}
		drain_wake(loop);
		dispatch(loop);
	}
}
