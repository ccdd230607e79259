/*
 * The bus: which device answers a port or a physical address, how an access of another size is taken apart, the list of
 * devices and their common life (reset, destruction). Knows nothing of what devices do.
 */
#include "bus/map.h"
#include "bus/private.h"

#include <errno.h>
#include <stdlib.h>

/* ---- devices ---- */

void device_init_sharing(struct device *device, struct bus *bus, const char *name, const struct device_ops *ops,
			 struct lock *lock)
{
	device->name = name;
	device->ops = ops;
	device->bus = bus;
	device->instance = 0;
	device->lock = lock;
	device->own_lock = NULL;
	device->plug = bus->plugging;
	while (bus_find_device(bus, name, device->instance))
		device->instance++;
	list_append(&bus->devices, &device->node);
	if (ops->state)
		state_reset(ops->state, device);
}

void device_init(struct device *device, struct bus *bus, const char *name, const struct device_ops *ops)
{
	struct lock *own = malloc(sizeof(*own));

	BUG_ON(!own); /* some bytes: malloc() gives them or the host ends us */
	lock_init(own, &bus->locks, LOCK_DEVICE);
	device_init_sharing(device, bus, name, ops, own);
	device->own_lock = own;
}

void device_destroy(struct device *device)
{
	struct lock *own = device->own_lock;

	list_remove(&device->node);
	device->ops->destroy(device); /* it may have had a thread that uses the lock */
	if (own)
		lock_destroy(own);
	free(own);
}

struct device *bus_last_device(struct bus *bus, const struct device_plug *plug)
{
	struct device *device, *last = NULL;

	list_for_each (device, &bus->devices, node)
		if (device->plug == plug)
			last = device;
	return last;
}

bool device_comes_before(const struct device *a, const struct device *b)
{
	int order = strcmp(a->name, b->name);

	return order < 0 || (!order && a->instance < b->instance);
}

struct device *bus_next_device(struct bus *bus, const struct device *before)
{
	struct device *device, *next = NULL;

	list_for_each (device, &bus->devices, node)
		if ((!before || device_comes_before(before, device)) && (!next || device_comes_before(device, next)))
			next = device;
	return next;
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

static void commit_map(struct bus_work *work) { mem_commit(container_of(work, struct bus, remap)->mem); }

struct bus *bus_create(struct guest_mem *mem, struct clock *clock, struct trace *trace, struct error *err)
{
	struct bus *bus = calloc(1, sizeof(*bus));

	if (!bus) {
		error_set(err, ENOMEM, "out of memory for the bus");
		return NULL;
	}
	lock_group_init(&bus->locks);
	lock_init(&bus->pci_lock, &bus->locks, LOCK_PCI);
	lock_init(&bus->irq_lock, &bus->locks, LOCK_IRQ);
	pthread_mutex_init(&bus->defer_lock, NULL);
	list_init(&bus->deferred);
	bus->remap.fn = commit_map;
	list_init(&bus->devices);
	list_init(&bus->look_outs);
	if (bus_map_create(bus)) {
		error_set(err, ENOMEM, "out of memory for the bus");
		bus_destroy(bus);
		return NULL;
	}
	bus->name = "";
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
	bus_map_destroy(bus);
	pthread_mutex_destroy(&bus->defer_lock);
	lock_destroy(&bus->pci_lock);
	lock_destroy(&bus->irq_lock);
	free(bus);
}

void bus_add_look_out(struct bus *bus, struct bus_look_out *l) { list_append(&bus->look_outs, &l->node); }

void bus_remove_look_out(struct bus_look_out *l)
{
	if (l->node.next)
		list_remove(&l->node);
}

void bus_look_out(struct bus *bus, bool (*stop)(void *), void *opaque)
{
	struct bus_look_out *l;

	list_for_each (l, &bus->look_outs, node)
		l->look_out(l, stop, opaque);
}

void bus_reset(struct bus *bus)
{
	struct device *device;

	bus_lock(bus);
	list_for_each (device, &bus->devices, node) {
		if (device->ops->state)
			state_reset(device->ops->state, device);
		if (device->ops->reset)
			device->ops->reset(device);
	}
	bus_unlock(bus);
}

void bus_attach(struct bus *bus)
{
	struct device *device;

	bus_lock(bus);
	map_remove_what_moves(bus);
	list_for_each (device, &bus->devices, node)
		if (device->ops->attach)
			device->ops->attach(device);
	bus_unlock(bus);
}

int bus_loaded(struct bus *bus, struct error *err) { return bus->pci ? pci_bus_loaded(bus, err) : 0; }

/* ---- locks ---- */

void bus_lock(struct bus *bus) { lock_take_all(&bus->locks); }

void bus_unlock(struct bus *bus) { lock_drop_all(&bus->locks); }

void device_timer_init(struct device *device, struct timer *timer, const char *name, void (*fire)(void *), void *opaque)
{
	timer_init(timer, device->bus->clock, name, fire, opaque);
	timer->lock = device->lock;
}

/* ---- behind an access ---- */

void bus_defer(struct bus *bus, struct bus_work *work)
{
	pthread_mutex_lock(&bus->defer_lock);
	if (!work->waits)
		list_append(&bus->deferred, &work->node);
	work->waits = true;
	atomic_store(&bus->has_deferred, true);
	pthread_mutex_unlock(&bus->defer_lock);
}

void bus_remap(struct bus *bus)
{
	if (bus->mem && mem_is_stale(bus->mem))
		bus_defer(bus, &bus->remap);
}

static struct bus_work *next_deferred(struct bus *bus)
{
	struct bus_work *work = NULL;

	pthread_mutex_lock(&bus->defer_lock);
	if (list_empty(&bus->deferred)) {
		atomic_store(&bus->has_deferred, false);
	} else {
		work = list_entry(bus->deferred.next, struct bus_work, node);
		list_remove(&work->node);
		work->waits = false;
	}
	pthread_mutex_unlock(&bus->defer_lock);
	return work;
}

static void run_deferred(struct bus *bus)
{
	struct bus_work *work;

	while ((work = next_deferred(bus)))
		work->fn(work);
}

void bus_settle(struct bus *bus)
{
	if (likely(!atomic_load_explicit(&bus->has_deferred, memory_order_relaxed)))
		return;
	if (bus->stopped)
		bus->stopped(bus->stopped_opaque, run_deferred);
	else
		run_deferred(bus);
}

/* ---- accesses ---- */

static uint64_t size_mask(unsigned size) { return ~0ull >> (64 - 8 * size); }

static uint64_t entry_access(const struct bus_entry *entry, uint64_t address, unsigned size, bool write, uint64_t value)
{
	const struct bus_range *range = entry->range;
	uint64_t offset = address - entry->start;

	if (!write)
		return range->read ? range->read(range->device, offset, size) & size_mask(size) : size_mask(size);
	if (range->write)
		range->write(range->device, offset, size, value & size_mask(size));
	return value;
}

static void leave(const struct bus_entry *entry)
{
	if (entry->lock)
		lock_drop(entry->lock);
}

/* Who answers the address, with the lock taken, if there is one; what has moved while we waited for that is looked up anew. */
static bool enter(struct bus *bus, enum bus_space space, uint64_t address, struct bus_entry *entry)
{
	for (;;) {
		uint64_t generation = atomic_load_explicit(&bus->map_generation, memory_order_acquire);

		if (!map_find(bus, space, address, entry))
			return false;
		if (!entry->lock)
			return true;
		lock_take(entry->lock);
		if (likely(generation == atomic_load_explicit(&bus->map_generation, memory_order_acquire)))
			return true;
		leave(entry);
	}
}

/* Can the device do it as it is? */
static bool fits(const struct bus_entry *entry, const struct bus_access *access)
{
	return (entry->range->sizes & access->size) && !(access->address & (access->size - 1u)) &&
	       range_ok(access->address - entry->start, access->size, entry->size);
}

/* The largest access that the range allows at this address: naturally aligned, inside the range and no longer than left; or 0. */
static unsigned largest_part(const struct bus_entry *entry, uint64_t address, unsigned left)
{
	for (unsigned size = 8; size; size /= 2)
		if ((entry->range->sizes & size) && size <= left && !(address & (size - 1)) &&
		    range_ok(address - entry->start, size, entry->size))
			return size;
	return 0;
}

/* At most `left` bytes at the address; returns how many. */
static unsigned access_part(struct bus *bus, const struct bus_access *access, unsigned done, bool *answered,
			    uint64_t *bits)
{
	uint64_t address = access->address + done;
	struct bus_entry entry;
	unsigned part;

	*bits = 0xff;
	if (!enter(bus, access->space, address, &entry))
		return 1;
	*answered = true;
	part = largest_part(&entry, address, access->size - done);
	if (part)
		*bits = entry_access(&entry, address, part, access->write, access->value >> (8 * done));
	leave(&entry);
	return part ? part : 1;
}

/* Each part is an access of its own, as on a real bus that is narrower. */
static int split_access(struct bus *bus, struct bus_access *access)
{
	bool answered = false;
	uint64_t value = 0, bits;

	for (unsigned done = 0, part; done < access->size; done += part) {
		part = access_part(bus, access, done, &answered, &bits);
		value |= bits << (8 * done);
	}
	if (!access->write)
		access->value = value & size_mask(access->size);
	return answered ? 0 : -ENXIO;
}

static int do_access(struct bus *bus, struct bus_access *access)
{
	struct bus_entry entry;
	bool whole;

	if (!enter(bus, access->space, access->address, &entry))
		return split_access(bus, access);
	whole = fits(&entry, access);
	if (likely(whole)) {
		uint64_t value = entry_access(&entry, access->address, access->size, access->write, access->value);

		if (!access->write)
			access->value = value;
	}
	leave(&entry);
	return whole ? 0 : split_access(bus, access);
}

int bus_access(struct bus *bus, struct bus_access *access)
{
	int result;

	BUG_ON(access->size != 1 && access->size != 2 && access->size != 4 && access->size != 8);
	result = do_access(bus, access);
	bus_settle(bus);
	if (access->space == BUS_PIO)
		TRACE(bus->trace, PIO, "%s port 0x%04llx size %u value 0x%llx%s", access->write ? "out" : "in ",
		      (unsigned long long)access->address, access->size, (unsigned long long)access->value,
		      result ? " (nobody)" : "");
	else
		TRACE(bus->trace, MMIO, "%s 0x%llx size %u value 0x%llx%s", access->write ? "write" : "read ",
		      (unsigned long long)access->address, access->size, (unsigned long long)access->value,
		      result ? " (nobody)" : "");
	return result;
}
