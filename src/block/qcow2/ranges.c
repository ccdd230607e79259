/*
 * Requests that are on their way, by the guest's clusters: whoever changes which cluster of the file is which is alone there. So no data
 * goes to, or comes from, a cluster that has become somebody else's meanwhile, and two requests that both need a new cluster get one.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>

static bool in_the_way(const struct qcow2 *q, const struct range *range)
{
	const struct range *other;

	list_for_each (other, &q->ranges, node)
		if (other->first <= range->last && range->first <= other->last &&
		    (other->exclusive || range->exclusive))
			return true;
	return false;
}

int range_begin(struct qcow2 *q, struct range *range, uint64_t offset, uint64_t size, bool exclusive, bool nowait)
{
	bool busy;

	*range = (struct range){ .first = offset >> q->cluster_bits,
				 .last = (offset + size - 1) >> q->cluster_bits,
				 .exclusive = exclusive };
	pthread_mutex_lock(&q->range_lock);
	while ((busy = in_the_way(q, range)) && !nowait)
		pthread_cond_wait(&q->range_gone, &q->range_lock);
	if (!busy)
		list_append(&q->ranges, &range->node);
	pthread_mutex_unlock(&q->range_lock);
	return busy ? -EAGAIN : 0;
}

void range_end(struct qcow2 *q, struct range *range)
{
	pthread_mutex_lock(&q->range_lock);
	list_remove(&range->node);
	pthread_cond_broadcast(&q->range_gone);
	pthread_mutex_unlock(&q->range_lock);
}
