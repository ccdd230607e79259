/*
 * The thread that deals with a back end, and what it shares with vCPUs: queues' states and requests, under the queues' locks.
 */
#define _GNU_SOURCE
#include "devices/virtio/back_end.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ANSWER_MS      5000u  /* within which a back end is to answer */
#define DRAIN_MS       10000u /* within which requests are to come to an end that is waited for */
#define RETRY_LEAST_MS 10u
#define RETRY_MOST_MS  500u
#define STABLE_MS      5000u /* a back end that was there for so long is expected back soon */
#define QUICK_LINES    10u   /* losses that there are lines of, of one that never is */
#define NEWS_MS	       2     /* until the device's lock is tried again */
#define MS	       1000000ull
/* Of the driver's queues, which the back end does not see. */
#define QUEUES_FEATURES (BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_RING_RESET))

struct request {
	struct list node;
	uint16_t behind; /* the queue's position behind it */
	struct virtio_chain chain;
	struct iovec pieces[];
};

static struct virtio_queue *queue_at(struct back_end *b, unsigned n) { return &b->virtio->queues[n]; }

static void wake(struct back_end *b)
{
	const uint64_t one = 1;

	if (write(b->wake_fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, which wakes the thread as well. */
	}
}

/* ---- requests; the queue's lock is held ---- */

/* Off the list, and freed. The back end may have written to any of it. */
static void end_request(struct virtio_queue *q, struct request *r,
			void (*end)(struct virtio_queue *, const struct virtio_chain *))
{
	virtqueue_note(q, &r->chain);
	end(q, &r->chain);
	list_remove(&r->node);
	free(r);
}

static void drop(struct virtio_queue *q, const struct virtio_chain *c)
{
	(void)c;
	virtqueue_drop(q);
}

static void end_all(struct back_end_queue *bq, struct virtio_queue *q,
		    void (*end)(struct virtio_queue *, const struct virtio_chain *))
{
	struct request *r, *next;

	list_for_each_safe (r, next, &bq->requests, node)
		end_request(q, r, end);
	virtqueue_publish(q);
}

/* As if they had not been popped, from the last one backwards; what was popped before one that is done cannot be. */
static void rewind_all(struct back_end *b, struct back_end_queue *bq, struct virtio_queue *q)
{
	struct request *r = list_entry(bq->requests.prev, struct request, node), *before;

	for (; &r->node != &bq->requests && r->behind == q->next_available; r = before) {
		before = list_entry(r->node.prev, struct request, node);
		end_request(q, r, virtqueue_unpop);
	}
	end_all(bq, q, b->ops->fail);
}

static void give(struct back_end_queue *bq, struct request *r)
{
	vhost_ring_add(bq->ring, r->pieces, r->chain.out_count, r->chain.in_count, r);
}

/* How many descriptors; 0: its driver broke a rule. */
static unsigned need_of(struct back_end *b, const struct virtio_queue *q, const struct virtio_chain *c)
{
	/* Both kinds of pieces are in one array. */
	unsigned need = vhost_ring_need(b->setup.ram, q->pieces, (unsigned)virtio_chain_pieces(c));

	if (need && need <= VHOST_RING_SIZE && (!b->ops->valid || b->ops->valid(c)))
		return need;
	virtio_break(q->virtio, need ? "a request that is none"
				     : "a buffer outside of RAM, which is all that a back end sees, or none at all");
	return 0;
}

/* False: there is no room now, and it is not popped. */
static bool take(struct back_end *b, struct back_end_queue *bq, struct virtio_queue *q, const struct virtio_chain *c)
{
	unsigned need = need_of(b, q, c);
	struct request *r;

	/* Asked when it was popped: it may have been added behind that. */
	if (atomic_load(&b->config_waits)) {
		virtqueue_unpop(q, c);
		return false;
	}
	if (!need) {
		virtqueue_drop(q);
		return true;
	}
	if (need > bq->ring->free) {
		virtqueue_unpop(q, c);
		return false;
	}
	r = malloc(sizeof(*r) + virtio_chain_pieces(c) * sizeof(r->pieces[0]));
	if (!r) {
		virtqueue_unpop(q, c);
		virtqueue_later(q);
		return false;
	}
	r->behind = q->next_available;
	virtio_chain_copy(&r->chain, c, r->pieces);
	list_append(&bq->requests, &r->node);
	give(bq, r);
	return true;
}

/* What the driver has to what the back end serves; as much as its ring has room for, which bounds this. */
static void fill(struct back_end *b, struct back_end_queue *bq, struct virtio_queue *q)
{
	uint16_t before = bq->ring->available;
	struct virtio_chain chain;
	bool room = true;

	do {
		virtqueue_want_kicks(q, false);
		while (room && virtqueue_pop(q, &chain))
			room = take(b, bq, q, &chain);
	} while (room && virtqueue_want_kicks(q, true));
	if (bq->ring->available != before && vhost_ring_wants_kick(bq->ring))
		vhost_ring_kick(bq->ring);
}

/* What the back end has done is the driver's again. 0, or -EPROTO: and something that makes no sense. */
static int collect(struct back_end_queue *bq, struct virtio_queue *q)
{
	uint32_t written;
	void *owner;
	int rc = 0;

	while (bq->ring && (rc = vhost_ring_done(bq->ring, &owner, &written)) > 0) {
		struct request *r = owner;

		virtqueue_note(q, &r->chain);
		virtqueue_push(q, &r->chain, MIN(written, r->chain.in_size));
		list_remove(&r->node);
		free(r);
	}
	virtqueue_publish(q);
	return rc;
}

/* ---- the connection; the thread's ---- */

static void lose(struct back_end *b, const struct error *why)
{
	const struct device *device = &b->virtio->device;

	b->quick_losses = host_monotonic_ns() - b->connected_at > STABLE_MS * MS ? 0 : b->quick_losses + 1;
	if (b->quick_losses <= QUICK_LINES)
		log_warning("%s.%u: the back end '%s' is lost (%s)%s%s", device->name, device->instance, b->setup.path,
			    why->text,
			    b->ops->once ? "; all requests fail from now on" : "; waiting for it to come back",
			    b->quick_losses == QUICK_LINES ? ", without more lines of it" : "");
	atomic_store(&b->up, false);
	atomic_store(&b->dead, b->ops->once);
	for (unsigned n = 0; n < b->rings; n++) {
		struct back_end_queue *bq = &b->queues[n];
		struct virtio_queue *q = queue_at(b, n);

		lock_take(&q->lock);
		collect(bq, q);
		bq->ring = NULL;
		bq->started = false;
		if (bq->state == QUEUE_RUNNING)
			bq->state = QUEUE_WANTED;
		if (b->ops->once && bq->state == QUEUE_WANTED) {
			end_all(bq, q, b->ops->fail);
			bq->state = QUEUE_IDLE;
			back_end_kick(b, q);
		}
		lock_drop(&q->lock);
	}
	vhost_close(b->vhost);
	b->vhost = NULL;
	b->features_sent = false;
	if (!b->quick_losses)
		b->retry_ms = RETRY_LEAST_MS;
	b->retry_at = host_monotonic_ns() + b->retry_ms * MS;
	b->news = true;
}

/* One that has what the driver was told of. */
static struct vhost *connect_again(struct back_end *b, struct error *err)
{
	struct vhost *v = vhost_open(&b->setup, err);

	if (!v)
		return NULL;
	if (b->features & ~vhost_features(v))
		error_set(err, EPROTO, "it has not the features that it had");
	else if (!b->ops->config_size || !vhost_get_config(v, b->config, b->ops->config_size, err))
		return v;
	vhost_close(v);
	return NULL;
}

static void come_back(struct back_end *b)
{
	const struct device *device = &b->virtio->device;
	struct error why;

	if (b->vhost || b->ops->once || host_monotonic_ns() < b->retry_at)
		return;
	b->vhost = connect_again(b, &why);
	if (!b->vhost) {
		log_debug("%s.%u: %s", device->name, device->instance, why.text);
		b->retry_ms = MIN(2 * b->retry_ms, RETRY_MOST_MS);
		b->retry_at = host_monotonic_ns() + b->retry_ms * MS;
		return;
	}
	if (b->quick_losses < QUICK_LINES)
		log_info("%s.%u: the back end '%s' is back", device->name, device->instance, b->setup.path);
	b->retry_ms = MIN(2 * b->retry_ms, RETRY_MOST_MS); /* if it is lost again at once */
	b->connected_at = host_monotonic_ns();
	pthread_mutex_lock(&b->lock);
	atomic_store(&b->config_waits, b->config_wanted.is_set);
	pthread_mutex_unlock(&b->lock);
	atomic_store(&b->up, true);
	b->news = true;
}

/* ---- queues that start and stop; the thread's ---- */

/* Features may differ from what they were as soon as nothing is started. */
static int send_features(struct back_end *b, struct error *err)
{
	/* Rings are always as virtio 1.0 has them, and back ends want to hear that; legacy drivers' are not seen. */
	uint64_t features = ((atomic_load(&b->driver_features) & ~QUEUES_FEATURES) | BIT(VIRTIO_F_VERSION_1)) &
			    vhost_features(b->vhost);
	int rc;

	if (b->features_sent && b->sent_features == features)
		return 0;
	for (unsigned n = 0; n < b->rings; n++)
		if (b->queues[n].started)
			return -EAGAIN; /* it is about to be stopped */
	rc = vhost_set_features(b->vhost, features, err);
	b->features_sent = !rc;
	b->sent_features = features;
	return rc;
}

static int start_queue(struct back_end *b, unsigned n, struct error *err)
{
	struct back_end_queue *bq = &b->queues[n];
	struct virtio_queue *q = queue_at(b, n);
	bool enabled = n < atomic_load(&b->enabled);
	struct request *r;
	int rc = send_features(b, err);

	if (!rc)
		rc = vhost_ring_start(b->vhost, n, enabled, err);
	if (rc)
		return rc;
	bq->started = true;
	bq->enabled = enabled;
	lock_take(&q->lock);
	if (bq->state == QUEUE_WANTED) {
		bq->state = QUEUE_RUNNING;
		bq->ring = vhost_ring(b->vhost, n);
		list_for_each (r, &bq->requests, node)
			give(bq, r);
		if (!list_empty(&bq->requests))
			vhost_ring_kick(bq->ring);
		fill(b, bq, q);
	}
	lock_drop(&q->lock);
	return 0;
}

static void fill_all(struct back_end *b)
{
	for (unsigned n = 0; n < b->rings; n++) {
		struct virtio_queue *q = queue_at(b, n);

		lock_take(&q->lock);
		if (b->queues[n].state == QUEUE_RUNNING)
			fill(b, &b->queues[n], q);
		lock_drop(&q->lock);
	}
}

static void send_config(struct back_end *b)
{
	struct error why;

	if (!b->vhost || !atomic_load(&b->config_waits))
		return;
	while (atomic_load(&b->config_waits)) {
		unsigned offset;
		uint8_t value;

		pthread_mutex_lock(&b->lock);
		offset = b->config_wanted.offset;
		value = b->config_wanted.value;
		pthread_mutex_unlock(&b->lock);
		if (vhost_set_config(b->vhost, offset, value, &why)) {
			lose(b, &why);
			return;
		}
		pthread_mutex_lock(&b->lock);
		if (b->config_wanted.value == value)
			atomic_store(&b->config_waits, false);
		pthread_mutex_unlock(&b->lock);
	}
	fill_all(b);
}

static bool state_is(struct back_end *b, unsigned n, unsigned state)
{
	struct virtio_queue *q = queue_at(b, n);
	bool is;

	lock_take(&q->lock);
	is = b->queues[n].state == state;
	lock_drop(&q->lock);
	return is;
}

static void start_queues(struct back_end *b)
{
	struct error why;
	int rc = 0;

	for (unsigned n = 0; !rc && b->vhost && n < b->rings; n++)
		if (state_is(b, n, QUEUE_WANTED) && atomic_load(&b->ready))
			rc = start_queue(b, n, &why);
	if (rc && rc != -EAGAIN)
		lose(b, &why);
}

/* Those that are started are as they are wanted to be. */
static void enable_queues(struct back_end *b)
{
	struct error why;
	int rc = 0;

	for (unsigned n = 0; !rc && b->vhost && n < b->rings; n++) {
		bool enabled = n < atomic_load(&b->enabled);

		if (!b->queues[n].started || b->queues[n].enabled == enabled)
			continue;
		rc = vhost_ring_enable(b->vhost, n, enabled, &why);
		b->queues[n].enabled = enabled;
	}
	if (rc)
		lose(b, &why);
}

/* Is something under way that is worth waiting for? */
static bool is_drained(struct back_end *b, unsigned n)
{
	struct back_end_queue *bq = &b->queues[n];
	struct virtio_queue *q = queue_at(b, n);
	bool drained;

	lock_take(&q->lock);
	drained = list_empty(&bq->requests);
	lock_drop(&q->lock);
	if (drained || !b->ops->drains || !bq->started)
		return true;
	if (!bq->give_up)
		bq->give_up = host_monotonic_ns() + DRAIN_MS * MS;
	return host_monotonic_ns() >= bq->give_up;
}

/* The back end has nothing of the queue behind this, as far as it can be told. */
static void take_away(struct back_end *b, unsigned n, struct error *why)
{
	struct back_end_queue *bq = &b->queues[n];
	struct virtio_queue *q = queue_at(b, n);
	int rc = vhost_ring_stop(b->vhost, n, why);

	bq->started = false;
	lock_take(&q->lock);
	if (collect(bq, q) && !rc)
		rc = error_set(why, EPROTO, "what is in the ring of queue %u makes no sense", n);
	if (!rc && b->ops->drains && !list_empty(&bq->requests))
		rc = error_set(why, ETIMEDOUT, "requests of queue %u are not done in time", n);
	bq->ring = NULL;
	lock_drop(&q->lock);
	if (rc)
		lose(b, why);
}

static void stop_queue(struct back_end *b, unsigned n, bool pauses)
{
	struct back_end_queue *bq = &b->queues[n];
	struct virtio_queue *q = queue_at(b, n);
	struct error why;

	if (!is_drained(b, n))
		return;
	bq->give_up = 0;
	if (bq->started)
		take_away(b, n, &why);
	lock_take(&q->lock);
	if (pauses)
		rewind_all(b, bq, q);
	else
		end_all(bq, q, drop);
	bq->state = QUEUE_IDLE;
	if (!pauses)
		back_end_kick(b, q); /* it may be enabled again by now */
	lock_drop(&q->lock);
}

static void stop_queues(struct back_end *b, bool pauses)
{
	for (unsigned n = 0; n < b->rings; n++)
		if (state_is(b, n, QUEUE_STOPPING))
			stop_queue(b, n, pauses);
}

/* ---- pauses ---- */

static bool are_idle(struct back_end *b)
{
	for (unsigned n = 0; n < b->rings; n++)
		if (!state_is(b, n, QUEUE_IDLE))
			return false;
	return true;
}

static void stop_all(struct back_end *b)
{
	for (unsigned n = 0; n < b->rings; n++) {
		struct virtio_queue *q = queue_at(b, n);

		lock_take(&q->lock);
		if (b->queues[n].state != QUEUE_IDLE)
			b->queues[n].state = QUEUE_STOPPING;
		lock_drop(&q->lock);
	}
}

static void work_pausing(struct back_end *b)
{
	stop_all(b);
	stop_queues(b, true);
	if (!are_idle(b))
		return;
	pthread_mutex_lock(&b->lock);
	b->paused = true;
	pthread_cond_broadcast(&b->is_paused);
	pthread_mutex_unlock(&b->lock);
}

/* ---- the thread ---- */

/* Who has the device's lock may be waiting for this thread. */
static void tell_news(struct back_end *b)
{
	if (!b->news || !lock_try(&b->virtio->lock))
		return;
	b->news = false;
	if (b->ops->changed)
		b->ops->changed(b->virtio);
	lock_drop(&b->virtio->lock);
}

static void work(struct back_end *b)
{
	stop_queues(b, false);
	come_back(b);
	send_config(b);
	enable_queues(b);
	start_queues(b);
	tell_news(b);
}

/* In ms; -1: for ever. */
static int wait_for(struct back_end *b, bool pauses)
{
	uint64_t now = host_monotonic_ns(), next = UINT64_MAX;

	if (!b->vhost && !pauses && !b->ops->once)
		next = b->retry_at;
	for (unsigned n = 0; n < b->rings; n++)
		if (b->queues[n].give_up)
			next = MIN(next, b->queues[n].give_up);
	if (b->news && !pauses)
		next = MIN(next, now + NEWS_MS * MS);
	return next == UINT64_MAX ? -1 : next <= now ? 0 : (int)((next - now) / MS + 1);
}

/* Whether the descriptor is one that blocks, the back end may say, too; hosts before Linux 5.8 believe it. */
static void drain(int fd)
{
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };

	if (preadv2(fd, &iov, 1, -1, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP && read(fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: nothing to drain. */
	}
}

static int called(struct back_end *b, unsigned n, struct error *why)
{
	struct back_end_queue *bq = &b->queues[n];
	struct virtio_queue *q = queue_at(b, n);
	int rc;

	drain(vhost_ring(b->vhost, n)->call_fd);
	lock_take(&q->lock);
	rc = collect(bq, q);
	if (!rc && bq->state == QUEUE_RUNNING)
		fill(b, bq, q);
	lock_drop(&q->lock);
	return rc ? error_set(why, EPROTO, "what is in the ring of queue %u makes no sense", n) : 0;
}

static int requested(struct back_end *b, struct error *why)
{
	bool config = false;
	int rc = vhost_serve_request(b->vhost, &config, why);

	if (rc || !config)
		return rc;
	b->news = true;
	return vhost_get_config(b->vhost, b->config, b->ops->config_size, why);
}

enum { WAKE, SOCKET, REQUESTS, CALLS, FDS_MOST = CALLS + VHOST_RINGS_MOST };

static void wait_for_events(struct back_end *b, bool pauses)
{
	struct pollfd fds[FDS_MOST] = { [WAKE] = { b->wake_fd, POLLIN, 0 } };
	struct error why;
	int rc = 0;

	fds[SOCKET] = (struct pollfd){ b->vhost ? vhost_fd(b->vhost) : -1, POLLIN, 0 };
	fds[REQUESTS] = (struct pollfd){ b->vhost ? vhost_requests_fd(b->vhost) : -1, POLLIN, 0 };
	for (unsigned n = 0; n < b->rings; n++)
		fds[CALLS + n] =
			(struct pollfd){ b->queues[n].started ? vhost_ring(b->vhost, n)->call_fd : -1, POLLIN, 0 };
	/* A signal, or no memory: nothing is ready, then. */
	if (poll(fds, CALLS + b->rings, wait_for(b, pauses)) <= 0)
		return;
	if (fds[WAKE].revents)
		drain(b->wake_fd);
	for (unsigned n = 0; !rc && n < b->rings; n++)
		if (fds[CALLS + n].revents)
			rc = called(b, n, &why);
	if (!rc && fds[REQUESTS].revents)
		rc = requested(b, &why);
	if (!rc && fds[SOCKET].revents)
		rc = vhost_lost(b->vhost, &why);
	if (rc)
		lose(b, &why);
}

static void *run(void *opaque)
{
	struct back_end *b = opaque;

	for (;;) {
		bool pauses, paused, ends;

		pthread_mutex_lock(&b->lock);
		pauses = b->pauses;
		paused = b->paused;
		ends = b->ends;
		pthread_mutex_unlock(&b->lock);
		if (ends)
			return NULL;
		if (!pauses)
			work(b);
		else if (!paused)
			work_pausing(b);
		wait_for_events(b, pauses);
	}
}

/* ---- from vCPUs ---- */

void back_end_kick(struct back_end *b, struct virtio_queue *q)
{
	struct back_end_queue *bq = &b->queues[q->index];

	if (atomic_load(&b->dead)) {
		if (bq->state == QUEUE_IDLE)
			virtqueue_serve(q, b->ops->fail);
	} else if (bq->state == QUEUE_RUNNING) {
		fill(b, bq, q);
	} else if (bq->state == QUEUE_IDLE && q->enabled && atomic_load(&b->ready)) {
		bq->state = QUEUE_WANTED;
		wake(b);
	}
}

void back_end_enable(struct back_end *b, unsigned rings)
{
	if (atomic_exchange(&b->enabled, rings) != rings)
		wake(b);
}

void back_end_set_config(struct back_end *b, unsigned offset, uint8_t value)
{
	pthread_mutex_lock(&b->lock);
	b->config_wanted.is_set = true;
	b->config_wanted.offset = offset;
	b->config_wanted.value = value;
	atomic_store(&b->config_waits, true);
	pthread_mutex_unlock(&b->lock);
	wake(b);
}

void back_end_loaded(struct back_end *b)
{
	atomic_store(&b->ready, false);
	if (virtio_is_started(b->virtio))
		back_end_driver_ready(b);
}

void back_end_driver_ready(struct back_end *b)
{
	atomic_store(&b->driver_features, b->virtio->features);
	atomic_store(&b->ready, true);
}

void back_end_queue_stops(struct back_end *b, struct virtio_queue *q)
{
	if (!q->popped)
		return;
	b->queues[q->index].state = QUEUE_STOPPING;
	wake(b);
}

/* What is started is with other features, or queues. Nothing is under way. */
void back_end_reset(struct back_end *b)
{
	atomic_store(&b->ready, false);
	stop_all(b);
	wake(b);
}

void back_end_pause(struct back_end *b)
{
	pthread_mutex_lock(&b->lock);
	b->pauses = true;
	wake(b);
	while (!b->paused)
		pthread_cond_wait(&b->is_paused, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

/* Queues start when they are kicked, as virtio_resume() does. */
void back_end_resume(struct back_end *b)
{
	pthread_mutex_lock(&b->lock);
	b->pauses = b->paused = false;
	pthread_mutex_unlock(&b->lock);
	wake(b);
}

/* ---- life ---- */

int back_end_open(struct back_end *b, struct virtio_device *v, const struct back_end_ops *ops, const char *path,
		  unsigned rings, struct error *err)
{
	struct bus *bus = v->device.bus;

	b->virtio = v;
	b->ops = ops;
	b->setup = (struct vhost_setup){ .path = path,
					 .ram = &bus->mem->ram.file,
					 .rings = rings,
					 .pairs = ops->pairs,
					 .config_size = ops->config_size,
					 .timeout_ms = ANSWER_MS };
	atomic_store(&b->enabled, VHOST_RINGS_MOST);
	b->pauses = b->paused = true;
	b->retry_ms = RETRY_LEAST_MS;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->is_paused, NULL);
	for (unsigned n = 0; n < VHOST_RINGS_MOST; n++)
		list_init(&b->queues[n].requests);
	b->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->wake_fd < 0)
		return error_set_errno(err, errno, "%s: cannot create an eventfd", v->device.name);
	if (clock_kind(bus->clock) == CLOCK_VIRTUAL)
		return error_set(err, EINVAL,
				 "%s: '" VHOST_PREFIX "%s' and virtual time: another process has a time of its own",
				 v->device.name, path);
	b->vhost = vhost_open(&b->setup, err);
	if (!b->vhost)
		return err ? -err->code : -EINVAL;
	b->features = vhost_features(b->vhost);
	b->rings_offered = vhost_ring_count(b->vhost);
	b->connected_at = host_monotonic_ns();
	atomic_store(&b->up, true);
	return ops->config_size ? vhost_get_config(b->vhost, b->config, ops->config_size, err) : 0;
}

int back_end_start(struct back_end *b, unsigned rings, struct error *err)
{
	int rc;

	b->rings = b->setup.rings = rings;
	rc = host_thread_create(&b->thread, "vhost", run, b, err);
	b->has_thread = !rc;
	return rc;
}

void back_end_close(struct back_end *b)
{
	if (b->has_thread) {
		pthread_mutex_lock(&b->lock);
		b->ends = true;
		pthread_mutex_unlock(&b->lock);
		wake(b);
		pthread_join(b->thread, NULL);
	}
	vhost_close(b->vhost);
	if (b->wake_fd >= 0)
		close(b->wake_fd);
	pthread_cond_destroy(&b->is_paused);
	pthread_mutex_destroy(&b->lock);
}
