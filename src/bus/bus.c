/*
 * The bus: which device answers a port or a physical address, how an access of another size is taken apart, the list of
 * devices and their common life (reset, destruction). Knows nothing of what devices do.
 */
#include "bus/bus.h"

#include <errno.h>
#include <stdlib.h>

#define PIO_PORTS 0x10000u

/* ---- devices ---- */

void device_init(struct device *device, struct bus *bus, const char *name, const struct device_ops *ops)
{
	device->name = name;
	device->ops = ops;
	device->bus = bus;
	device->instance = 0;
	device->plug = bus->plugging;
	while (bus_find_device(bus, name, device->instance))
		device->instance++;
	list_append(&bus->devices, &device->node);
	if (ops->state)
		state_reset(ops->state, device);
}

void device_destroy(struct device *device)
{
	list_remove(&device->node);
	device->ops->destroy(device);
}

struct device *bus_last_device(struct bus *bus, const struct device_plug *plug)
{
	struct device *device, *last = NULL;

	list_for_each (device, &bus->devices, node)
		if (device->plug == plug)
			last = device;
	return last;
}

struct device *bus_find_device(struct bus *bus, const char *name, unsigned instance)
{
	struct device *device;

	list_for_each (device, &bus->devices, node)
		if (device->instance == instance && !strcmp(device->name, name))
			return device;
	return NULL;
}

void bus_pause(struct bus *bus)
{
	struct device *device;

	list_for_each (device, &bus->devices, node)
		if (device->ops->pause)
			device->ops->pause(device);
}

void bus_resume(struct bus *bus)
{
	struct device *device;

	list_for_each_reverse (device, &bus->devices, node)
		if (device->ops->resume)
			device->ops->resume(device);
}

struct bus *bus_create(struct guest_mem *mem, struct clock *clock, struct trace *trace, struct error *err)
{
	struct bus *bus = calloc(1, sizeof(*bus));
	pthread_mutexattr_t attr;

	if (bus)
		bus->pio_table = calloc(PIO_PORTS, sizeof(struct bus_range *));
	if (!bus || !bus->pio_table) {
		free(bus);
		error_set(err, ENOMEM, "out of memory for the bus");
		return NULL;
	}
	/* Recursive: a device may ask for bus accesses and controllers may be entered from either side of the lock. */
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&bus->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	list_init(&bus->devices);
	list_init(&bus->ranges[BUS_PIO]);
	list_init(&bus->ranges[BUS_MMIO]);
	bus->mem = mem;
	bus->clock = clock;
	bus->trace = trace;
	return bus;
}

void bus_destroy(struct bus *bus)
{
	if (!bus)
		return;
	while (!list_empty(&bus->devices))
		device_destroy(list_entry(bus->devices.prev, struct device, node));
	pthread_mutex_destroy(&bus->lock);
	free(bus->pio_table);
	free(bus);
}

void bus_reset(struct bus *bus)
{
	struct device *device;

	pthread_mutex_lock(&bus->lock);
	list_for_each (device, &bus->devices, node) {
		if (device->ops->state)
			state_reset(device->ops->state, device);
		if (device->ops->reset)
			device->ops->reset(device);
	}
	pthread_mutex_unlock(&bus->lock);
}

static void unmap_what_moves(struct bus *bus, enum bus_space space)
{
	struct list *node = bus->ranges[space].next;

	while (node != &bus->ranges[space]) {
		struct bus_range *range = list_entry(node, struct bus_range, node);

		node = node->next;
		if (range->moves)
			bus_unmap(bus, space, range);
	}
}

void bus_attach(struct bus *bus)
{
	struct device *device;

	pthread_mutex_lock(&bus->lock);
	unmap_what_moves(bus, BUS_PIO);
	unmap_what_moves(bus, BUS_MMIO);
	list_for_each (device, &bus->devices, node)
		if (device->ops->attach)
			device->ops->attach(device);
	pthread_mutex_unlock(&bus->lock);
}

void bus_lock(struct bus *bus)
{
	if (!pthread_mutex_trylock(&bus->lock))
		return;
	if (bus->waits)
		bus->waits(bus->waits_opaque, true);
	pthread_mutex_lock(&bus->lock);
	if (bus->waits)
		bus->waits(bus->waits_opaque, false);
}

/* ---- ranges ---- */

static const char *const space_names[] = { [BUS_PIO] = "ports", [BUS_MMIO] = "addresses" };

static bool range_contains(const struct bus_range *range, uint64_t address)
{
	return address - range->start < range->size;
}

int bus_map(struct bus *bus, enum bus_space space, struct bus_range *range, struct error *err)
{
	uint64_t last = range->start + range->size - 1;
	struct bus_range *other;

	BUG_ON(range->mapped);
	if (!range->size || last < range->start || (space == BUS_PIO && last >= PIO_PORTS))
		return error_set(err, EINVAL, "%s: %s 0x%llx, size 0x%llx are no valid range", range->device->name,
				 space_names[space], (unsigned long long)range->start, (unsigned long long)range->size);
	list_for_each (other, &bus->ranges[space], node) {
		if (other->start > last)
			break;
		if (range_contains(other, range->start) || range_contains(range, other->start))
			return error_set(err, EBUSY, "%s: %s 0x%llx..0x%llx are taken by %s", range->device->name,
					 space_names[space], (unsigned long long)range->start, (unsigned long long)last,
					 other->device->name);
	}
	/* `other` is the first range beyond, or the list's head. */
	list_insert_before(&other->node, &range->node);
	range->mapped = true;
	if (space == BUS_PIO)
		for (uint64_t port = range->start; port <= last; port++)
			bus->pio_table[port] = range;
	return 0;
}

void bus_unmap(struct bus *bus, enum bus_space space, struct bus_range *range)
{
	if (!range->mapped)
		return;
	list_remove(&range->node);
	range->mapped = false;
	if (space == BUS_PIO)
		memset(&bus->pio_table[range->start], 0, range->size * sizeof(bus->pio_table[0]));
}

static struct bus_range *find_range(struct bus *bus, enum bus_space space, uint64_t address)
{
	struct bus_range *range;

	if (space == BUS_PIO)
		return address < PIO_PORTS ? bus->pio_table[address] : NULL;
	list_for_each (range, &bus->ranges[BUS_MMIO], node) {
		if (range_contains(range, address))
			return range;
		if (range->start > address)
			break;
	}
	return NULL;
}

/* ---- accesses ---- */

static uint64_t size_mask(unsigned size) { return ~0ull >> (64 - 8 * size); }

static uint64_t range_access(struct bus_range *range, uint64_t address, unsigned size, bool write, uint64_t value)
{
	uint64_t offset = address - range->start;

	if (!write)
		return range->read ? range->read(range->device, offset, size) & size_mask(size) : size_mask(size);
	if (range->write)
		range->write(range->device, offset, size, value & size_mask(size));
	return value;
}

/* The largest access that the range allows at this address: naturally aligned, inside the range and no longer than left; or 0. */
static unsigned largest_part(const struct bus_range *range, uint64_t address, unsigned left)
{
	for (unsigned size = 8; size; size /= 2)
		if ((range->sizes & size) && size <= left && !(address & (size - 1)) &&
		    range_ok(address - range->start, size, range->size))
			return size;
	return 0;
}

static int split_access(struct bus *bus, struct bus_access *access)
{
	bool answered = false;
	uint64_t value = 0;

	for (unsigned done = 0; done < access->size;) {
		uint64_t address = access->address + done;
		struct bus_range *range = find_range(bus, access->space, address);
		unsigned part = range ? largest_part(range, address, access->size - done) : 0;
		uint64_t bits = 0xff;

		answered |= range != NULL;
		if (part)
			bits = range_access(range, address, part, access->write, access->value >> (8 * done));
		else
			part = 1;
		value |= bits << (8 * done);
		done += part;
	}
	if (!access->write)
		access->value = value & size_mask(access->size);
	return answered ? 0 : -ENXIO;
}

int bus_access(struct bus *bus, struct bus_access *access)
{
	struct bus_range *range;
	int result = 0;

	BUG_ON(access->size != 1 && access->size != 2 && access->size != 4 && access->size != 8);
	bus_lock(bus);
	range = find_range(bus, access->space, access->address);
	if (likely(range && (range->sizes & access->size) && !(access->address & (access->size - 1u)) &&
		   range_ok(access->address - range->start, access->size, range->size))) {
		uint64_t value = range_access(range, access->address, access->size, access->write, access->value);

		if (!access->write)
			access->value = value;
	} else {
		result = split_access(bus, access);
	}
	if (access->space == BUS_PIO)
		TRACE(bus->trace, PIO, "%s port 0x%04llx size %u value 0x%llx%s", access->write ? "out" : "in ",
		      (unsigned long long)access->address, access->size, (unsigned long long)access->value,
		      result ? " (nobody)" : "");
	else
		TRACE(bus->trace, MMIO, "%s 0x%llx size %u value 0x%llx%s", access->write ? "write" : "read ",
		      (unsigned long long)access->address, access->size, (unsigned long long)access->value,
		      result ? " (nobody)" : "");
	pthread_mutex_unlock(&bus->lock);
	return result;
}
