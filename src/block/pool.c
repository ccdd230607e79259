/*
 * Workers: a few threads that do what blocks. The queue is made of the requests themselves, so that it is as long as callers have requests,
 * and putting one in neither blocks nor fails.
 */
#include "block/private.h"

#include <errno.h>
#include <stdlib.h>

#define POOL_THREADS 4

struct pool {
	void (*run)(void *opaque, struct block_request *);
	void *opaque;
	pthread_mutex_t lock;
	pthread_cond_t work, nothing;
	struct list queue;
	unsigned waiting, busy; /* requests in the queue, and with a worker */
	unsigned idle, count;
	bool stops;
	pthread_t threads[POOL_THREADS];
};

static struct block_request *pool_next(struct pool *pool)
{
	struct block_request *request;

	while (list_empty(&pool->queue) && !pool->stops) {
		pool->idle++;
		pthread_cond_wait(&pool->work, &pool->lock);
		pool->idle--;
	}
	if (list_empty(&pool->queue))
		return NULL;
	request = list_entry(pool->queue.next, struct block_request, node);
	list_remove(&request->node);
	pool->waiting--;
	pool->busy++;
	return request;
}

static void *work(void *opaque)
{
	struct pool *pool = opaque;
	struct block_request *request;

	pthread_mutex_lock(&pool->lock);
	while ((request = pool_next(pool))) {
		pthread_mutex_unlock(&pool->lock);
		pool->run(pool->opaque, request);
		pthread_mutex_lock(&pool->lock);
		pool->busy--;
		if (!pool->busy && !pool->waiting)
			pthread_cond_broadcast(&pool->nothing);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Lock held, or nobody else there yet. */
static int start_thread(struct pool *pool, struct error *err)
{
	int rc = host_thread_create(&pool->threads[pool->count], "disk", work, pool, err);

	if (!rc)
		pool->count++;
	return rc;
}

struct pool *pool_create(void (*run)(void *opaque, struct block_request *), void *opaque, struct error *err)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool) {
		error_set_errno(err, ENOMEM, "make workers for a disk");
		return NULL;
	}
	pool->run = run;
	pool->opaque = opaque;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);
	pthread_cond_init(&pool->nothing, NULL);
	list_init(&pool->queue);
	if (start_thread(pool, err)) {
		pool_destroy(pool);
		return NULL;
	}
	return pool;
}

void pool_submit(struct pool *pool, struct block_request *request)
{
	pthread_mutex_lock(&pool->lock);
	list_append(&pool->queue, &request->node);
	pool->waiting++;
	/* One worker is always there: a host that gives no more threads makes it slower, no more. */
	if (pool->waiting > pool->idle && pool->count < POOL_THREADS)
		start_thread(pool, NULL);
	pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

void pool_drain(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	while (pool->waiting || pool->busy)
		pthread_cond_wait(&pool->nothing, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
}

void pool_destroy(struct pool *pool)
{
	if (!pool)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stops = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned n = 0; n < pool->count; n++)
		pthread_join(pool->threads[n], NULL);
	pthread_mutex_destroy(&pool->lock);
	pthread_cond_destroy(&pool->work);
	pthread_cond_destroy(&pool->nothing);
	free(pool);
}
