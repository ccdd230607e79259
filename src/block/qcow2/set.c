/*
 * A set of cluster numbers: hashed, with open addressing. The numbers come from an image and the factor from the host's random numbers,
 * so that nobody can choose numbers that all want the same slot.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

static size_t slot_of(const struct cluster_set *set, uint64_t cluster)
{
	return (size_t)((cluster + 1) * set->factor >> 20) & (set->room - 1);
}

/* Where it is, or the free slot where it would be. */
static size_t find(const struct cluster_set *set, uint64_t cluster)
{
	size_t n = slot_of(set, cluster);

	while (set->slots[n] && set->slots[n] != cluster + 1)
		n = (n + 1) & (set->room - 1);
	return n;
}

static int grow(struct cluster_set *set)
{
	struct cluster_set larger = { .room = set->room ? set->room * 2 : 64, .count = set->count };

	if (getrandom(&larger.factor, sizeof(larger.factor), 0) != sizeof(larger.factor))
		larger.factor = (uintptr_t)set ^ 0x9e3779b97f4a7c15u;
	larger.factor |= 1;
	larger.slots = calloc(larger.room, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	for (size_t n = 0; n < set->room; n++)
		if (set->slots[n])
			larger.slots[find(&larger, set->slots[n] - 1)] = set->slots[n];
	free(set->slots);
	*set = larger;
	return 0;
}

int set_add(struct cluster_set *set, uint64_t cluster)
{
	size_t n;

	if (set->count * 2 >= set->room && grow(set))
		return -ENOMEM;
	n = find(set, cluster);
	if (set->slots[n])
		return -EEXIST;
	set->slots[n] = cluster + 1;
	set->count++;
	return 0;
}

bool set_has(const struct cluster_set *set, uint64_t cluster) { return set->room && set->slots[find(set, cluster)]; }

/* What stands behind it and would not be found any more moves up. */
void set_remove(struct cluster_set *set, uint64_t cluster)
{
	size_t mask = set->room - 1, hole, n;

	if (!set_has(set, cluster))
		return;
	hole = find(set, cluster);
	for (n = (hole + 1) & mask; set->slots[n]; n = (n + 1) & mask) {
		size_t home = slot_of(set, set->slots[n] - 1);

		if (((n - home) & mask) < ((n - hole) & mask))
			continue;
		set->slots[hole] = set->slots[n];
		hole = n;
	}
	set->slots[hole] = 0;
	set->count--;
}

void set_free(struct cluster_set *set)
{
	free(set->slots);
	*set = (struct cluster_set){ 0 };
}
