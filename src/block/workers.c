/*
 * Workers: a few threads that do what blocks. The queue is made of the requests themselves, so that it is as long as callers have requests,
 * and putting one in neither blocks nor fails.
 */
#include "block/private.h"

#include <errno.h>
#include <stdlib.h>

#define THREADS 4

struct workers {
	void (*run)(void *opaque, struct block_request *);
	void *opaque;
	pthread_mutex_t lock;
	pthread_cond_t work, nothing;
	struct list queue;
	unsigned waiting, busy; /* requests in the queue, and with a worker */
	unsigned idle, count;
	bool stops;
	pthread_t threads[THREADS];
};

static struct block_request *next_request(struct workers *workers)
{
	struct block_request *request;

	while (list_empty(&workers->queue) && !workers->stops) {
		workers->idle++;
		pthread_cond_wait(&workers->work, &workers->lock);
		workers->idle--;
	}
	if (list_empty(&workers->queue))
		return NULL;
	request = list_entry(workers->queue.next, struct block_request, node);
	list_remove(&request->node);
	workers->waiting--;
	workers->busy++;
	return request;
}

static void *work(void *opaque)
{
	struct workers *workers = opaque;
	struct block_request *request;

	pthread_mutex_lock(&workers->lock);
	while ((request = next_request(workers))) {
		pthread_mutex_unlock(&workers->lock);
		workers->run(workers->opaque, request);
		pthread_mutex_lock(&workers->lock);
		workers->busy--;
		if (!workers->busy && !workers->waiting)
			pthread_cond_broadcast(&workers->nothing);
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

/* Lock held, or nobody else there yet. */
static int start_thread(struct workers *workers, struct error *err)
{
	int rc = host_thread_create(&workers->threads[workers->count], "disk", work, workers, err);

	if (!rc)
		workers->count++;
	return rc;
}

struct workers *workers_create(void (*run)(void *opaque, struct block_request *), void *opaque, struct error *err)
{
	struct workers *workers = calloc(1, sizeof(*workers));

	if (!workers) {
		error_set_errno(err, ENOMEM, "make workers for a disk");
		return NULL;
	}
	workers->run = run;
	workers->opaque = opaque;
	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->work, NULL);
	pthread_cond_init(&workers->nothing, NULL);
	list_init(&workers->queue);
	if (start_thread(workers, err)) {
		workers_destroy(workers);
		return NULL;
	}
	return workers;
}

void workers_submit(struct workers *workers, struct block_request *request)
{
	pthread_mutex_lock(&workers->lock);
	list_append(&workers->queue, &request->node);
	workers->waiting++;
	/* One worker is always there: a host that gives no more threads makes it slower, no more. */
	if (workers->waiting > workers->idle && workers->count < THREADS)
		start_thread(workers, NULL);
	pthread_cond_signal(&workers->work);
	pthread_mutex_unlock(&workers->lock);
}

void workers_drain(struct workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	while (workers->waiting || workers->busy)
		pthread_cond_wait(&workers->nothing, &workers->lock);
	pthread_mutex_unlock(&workers->lock);
}

void workers_destroy(struct workers *workers)
{
	if (!workers)
		return;
	pthread_mutex_lock(&workers->lock);
	workers->stops = true;
	pthread_cond_broadcast(&workers->work);
	pthread_mutex_unlock(&workers->lock);
	for (unsigned n = 0; n < workers->count; n++)
		pthread_join(workers->threads[n], NULL);
	pthread_mutex_destroy(&workers->lock);
	pthread_cond_destroy(&workers->work);
	pthread_cond_destroy(&workers->nothing);
	free(workers);
}
