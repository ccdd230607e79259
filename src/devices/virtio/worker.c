/*
 * Threads of virtio devices.
 */
#include "devices/virtio/worker.h"

static bool wait_for_work(struct virtio_worker *w)
{
	bool stops;

	pthread_mutex_lock(&w->lock);
	w->busy = false;
	pthread_cond_broadcast(&w->changed);
	while (!w->stops && (w->paused || !w->kicked))
		pthread_cond_wait(&w->changed, &w->lock);
	w->kicked = false;
	w->busy = true;
	stops = w->stops;
	pthread_mutex_unlock(&w->lock);
	return !stops;
}

static void *worker_thread(void *opaque)
{
	struct virtio_worker *w = opaque;

	while (wait_for_work(w))
		w->serve(w->opaque);
	return NULL;
}

void virtio_worker_kick(struct virtio_worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->kicked = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

void virtio_worker_pause(struct virtio_worker *w)
{
	if (!w->started)
		return;
	pthread_mutex_lock(&w->lock);
	w->paused = true;
	while (w->busy)
		pthread_cond_wait(&w->changed, &w->lock);
	pthread_mutex_unlock(&w->lock);
}

void virtio_worker_resume(struct virtio_worker *w)
{
	if (!w->started)
		return;
	w->paused = false;
	virtio_worker_kick(w);
}

int virtio_worker_start(struct virtio_worker *w, const char *name, void (*serve)(void *), void *opaque,
			struct error *err)
{
	int rc;

	w->serve = serve;
	w->opaque = opaque;
	atomic_init(&w->paused, true);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	rc = host_thread_create(&w->thread, name, worker_thread, w, err);
	if (rc) {
		pthread_cond_destroy(&w->changed);
		pthread_mutex_destroy(&w->lock);
	}
	w->started = !rc;
	return rc;
}

void virtio_worker_end(struct virtio_worker *w)
{
	if (!w->started)
		return;
	pthread_mutex_lock(&w->lock);
	w->stops = true;
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->changed);
	pthread_mutex_destroy(&w->lock);
	w->started = false;
}
