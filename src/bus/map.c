/*
 * Which device answers an address. Looking up takes no lock: it reads a map that never changes, and a change publishes another one. The old one is
 * freed where no vCPU can be looking into it, which is when all of them are stopped (bus_defer()).
 */
#include "bus/map.h"

#include <errno.h>
#include <stdlib.h>

#define NO_ENTRY UINT16_MAX

struct bus_map {
	struct bus_map *older; /* of those that wait to be freed */
	unsigned count;
	uint16_t *ports; /* BUS_PIO: index of the entry, by port */
	struct bus_entry entries[];
};

/* ---- looking up ---- */

/* The last entry that does not begin behind the address; -1: none. */
static int last_before(const struct bus_map *map, uint64_t address)
{
	int low = 0, high = (int)map->count;

	while (low < high) {
		int middle = (low + high) / 2;

		if (map->entries[middle].start <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low - 1;
}

static int find(const struct bus_map *map, uint64_t address)
{
	int n;

	if (map->ports) {
		n = address < BUS_PORTS ? map->ports[address] : NO_ENTRY;
		return n == NO_ENTRY ? -1 : n;
	}
	n = last_before(map, address);
	return n >= 0 && address - map->entries[n].start < map->entries[n].size ? n : -1;
}

bool map_find(struct bus *bus, enum bus_space space, uint64_t address, struct bus_entry *entry)
{
	const struct bus_map *map = atomic_load_explicit(&bus->maps[space], memory_order_acquire);
	int n = find(map, address);

	if (n < 0)
		return false;
	*entry = map->entries[n];
	return true;
}

/* ---- changing; map_lock held ---- */

static const char *const space_names[] = { [BUS_PIO] = "ports", [BUS_MMIO] = "addresses" };

static struct bus_map *map_new(enum bus_space space, unsigned count)
{
	struct bus_map *map = calloc(1, sizeof(*map) + count * sizeof(map->entries[0]));

	if (map && space == BUS_PIO && !(map->ports = calloc(BUS_PORTS, sizeof(map->ports[0])))) {
		free(map);
		return NULL;
	}
	return map;
}

static void map_free(struct bus_map *map)
{
	free(map->ports);
	free(map);
}

static void append(struct bus_map *map, struct bus_entry entry) { map->entries[map->count++] = entry; }

static struct bus_entry entry_of(struct bus_range *range)
{
	struct lock *lock = range->lock ? range->lock : range->device->lock;

	return (struct bus_entry){ range->start, range->size, range, range->takes_locks ? NULL : lock };
}

static void fill_ports(struct bus_map *map)
{
	memset(map->ports, 0xff, BUS_PORTS * sizeof(map->ports[0]));
	for (unsigned n = 0; n < map->count; n++)
		for (uint64_t i = 0; i < map->entries[n].size; i++)
			map->ports[map->entries[n].start + i] = (uint16_t)n;
}

/* The same without `old`, and with `added`; either may be NULL. */
static struct bus_map *map_with(struct bus_map *from, enum bus_space space, const struct bus_range *old,
				struct bus_range *added)
{
	struct bus_map *map = map_new(space, from->count + 1);

	if (!map)
		return NULL;
	for (unsigned n = 0; n < from->count; n++) {
		if (added && added->start < from->entries[n].start) {
			append(map, entry_of(added));
			added = NULL;
		}
		if (from->entries[n].range != old)
			append(map, from->entries[n]);
	}
	if (added)
		append(map, entry_of(added));
	if (map->ports)
		fill_ports(map);
	return map;
}

static void free_retired(struct bus_work *work)
{
	struct bus *bus = container_of(work, struct bus, free_maps);

	pthread_mutex_lock(&bus->map_lock);
	while (bus->retired) {
		struct bus_map *map = bus->retired;

		bus->retired = map->older;
		map_free(map);
	}
	pthread_mutex_unlock(&bus->map_lock);
}

static void publish(struct bus *bus, enum bus_space space, struct bus_map *map)
{
	struct bus_map *old = atomic_exchange(&bus->maps[space], map);

	atomic_fetch_add(&bus->map_generation, 1);
	old->older = bus->retired;
	bus->retired = old;
	bus_defer(bus, &bus->free_maps);
}

static int map_add(struct bus *bus, enum bus_space space, struct bus_range *range, struct error *err)
{
	uint64_t last = range->start + range->size - 1;
	struct bus_map *map = atomic_load(&bus->maps[space]);
	int n = last_before(map, last);

	if (n >= 0 && map->entries[n].start + (map->entries[n].size - 1) >= range->start)
		return error_set(err, EBUSY, "%s: %s 0x%llx..0x%llx are taken by %s", range->device->name,
				 space_names[space], (unsigned long long)range->start, (unsigned long long)last,
				 map->entries[n].range->device->name);
	map = map_with(map, space, NULL, range);
	if (!map)
		return error_set_errno(err, ENOMEM, "%s: %s", range->device->name, space_names[space]);
	publish(bus, space, map);
	range->mapped = true;
	return 0;
}

int bus_map(struct bus *bus, enum bus_space space, struct bus_range *range, struct error *err)
{
	uint64_t last = range->start + range->size - 1;
	int rc;

	BUG_ON(range->mapped);
	if (!range->size || last < range->start || (space == BUS_PIO && last >= BUS_PORTS))
		return error_set(err, EINVAL, "%s: %s 0x%llx, size 0x%llx are no valid range", range->device->name,
				 space_names[space], (unsigned long long)range->start, (unsigned long long)range->size);
	pthread_mutex_lock(&bus->map_lock);
	rc = map_add(bus, space, range, err);
	pthread_mutex_unlock(&bus->map_lock);
	return rc;
}

void bus_unmap(struct bus *bus, enum bus_space space, struct bus_range *range)
{
	struct bus_map *map;

	if (!range->mapped)
		return;
	pthread_mutex_lock(&bus->map_lock);
	map = map_with(atomic_load(&bus->maps[space]), space, range, NULL);
	BUG_ON(!map); /* of some kilobytes: calloc() gives them or the host ends us */
	publish(bus, space, map);
	range->mapped = false;
	pthread_mutex_unlock(&bus->map_lock);
}

static struct bus_range *first_that_moves(const struct bus_map *map)
{
	for (unsigned n = 0; n < map->count; n++)
		if (map->entries[n].range->moves)
			return map->entries[n].range;
	return NULL;
}

void map_remove_what_moves(struct bus *bus)
{
	for (enum bus_space space = BUS_PIO; space <= BUS_MMIO; space++) {
		struct bus_range *range;

		while ((range = first_that_moves(atomic_load(&bus->maps[space]))))
			bus_unmap(bus, space, range);
	}
}

/* ---- life ---- */

int bus_map_create(struct bus *bus)
{
	pthread_mutex_init(&bus->map_lock, NULL);
	bus->free_maps.fn = free_retired;
	for (enum bus_space space = BUS_PIO; space <= BUS_MMIO; space++) {
		struct bus_map *map = map_new(space, 0);

		if (!map)
			return -ENOMEM;
		if (map->ports)
			fill_ports(map);
		atomic_store(&bus->maps[space], map);
	}
	return 0;
}

void bus_map_destroy(struct bus *bus)
{
	free_retired(&bus->free_maps);
	for (enum bus_space space = BUS_PIO; space <= BUS_MMIO; space++)
		if (atomic_load(&bus->maps[space]))
			map_free(atomic_load(&bus->maps[space]));
	pthread_mutex_destroy(&bus->map_lock);
}
