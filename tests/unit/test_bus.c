/*
 * The bus: mapping, splitting of accesses, what nobody answers, the life of devices.
 */
#include "lib/board.h"

#include <errno.h>

/* A device that answers with the offset's bytes and writes down what it is asked. */
struct probe {
	struct device device;
	struct bus_range range;
	char journal[256];
	unsigned resets, *destroyed;
};

static void note(struct probe *probe, char what, uint64_t offset, unsigned size, uint64_t value)
{
	size_t used = strlen(probe->journal);

	snprintf(probe->journal + used, sizeof(probe->journal) - used, "%c%llu.%u=%llx ", what,
		 (unsigned long long)offset, size, (unsigned long long)value);
}

static uint64_t probe_read(struct device *device, uint64_t offset, unsigned size)
{
	uint64_t value = 0x0706050403020100 + offset * 0x0101010101010101;

	note((struct probe *)device, 'r', offset, size, 0);
	return value; /* with more bits than asked for */
}

static void probe_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	note((struct probe *)device, 'w', offset, size, value);
}

static void probe_reset(struct device *device) { ((struct probe *)device)->resets++; }

static void probe_destroy(struct device *device)
{
	struct probe *probe = (struct probe *)device;

	if (probe->destroyed)
		*probe->destroyed = *probe->destroyed * 10 + device->instance + 1;
	bus_unmap(device->bus, BUS_PIO, &probe->range);
	free(probe);
}

static const struct device_ops probe_ops = { .reset = probe_reset, .destroy = probe_destroy };

static struct probe *probe_create(struct board *b)
{
	struct probe *probe = calloc(1, sizeof(*probe));

	device_init(&probe->device, b->bus, "probe", &probe_ops);
	return probe;
}

static int map(struct probe *probe, uint64_t start, uint64_t size, uint8_t sizes, struct error *err)
{
	probe->range = (struct bus_range){ .start = start,
					   .size = size,
					   .sizes = sizes,
					   .device = &probe->device,
					   .read = probe_read,
					   .write = probe_write };
	return bus_map(probe->device.bus, BUS_PIO, &probe->range, err);
}

static void check(struct probe *probe, const char *expected)
{
	assert_string_equal(probe->journal, expected);
	probe->journal[0] = '\0';
}

static void allowed_sizes_arrive_whole(void **state)
{
	struct board *b = *state;
	struct probe *p = probe_create(b);

	assert_int_equal(map(p, 0x100, 16, 1 | 2 | 4, NULL), 0);
	assert_int_equal(inl(b, 0x104), 0x07060504);
	check(p, "r4.4=0 ");
	assert_int_equal(inw(b, 0x102), 0x0302);
	assert_int_equal(inb(b, 0x10f), 0x0f);
	check(p, "r2.2=0 r15.1=0 ");
	outl(b, 0x108, 0x12345678);
	check(p, "w8.4=12345678 ");
}

static void others_are_split(void **state)
{
	struct board *b = *state;
	struct probe *p = probe_create(b);

	assert_int_equal(map(p, 0x100, 16, 1, NULL), 0);
	assert_int_equal(inl(b, 0x100), 0x03020100);
	check(p, "r0.1=0 r1.1=0 r2.1=0 r3.1=0 ");
	outw(b, 0x101, 0xbeef);
	check(p, "w1.1=ef w2.1=be ");
	bus_unmap(b->bus, BUS_PIO, &p->range);
	assert_int_equal(map(p, 0x100, 16, 1 | 2, NULL), 0);
	outl(b, 0x101, 0x11223344); /* misaligned: the largest parts that are aligned */
	check(p, "w1.1=44 w2.2=2233 w4.1=11 ");
}

static void larger_than_asked_is_not_answered(void **state)
{
	struct board *b = *state;
	struct probe *p = probe_create(b);

	assert_int_equal(map(p, 0x100, 16, 4, NULL), 0);
	assert_int_equal(inb(b, 0x100), 0xff);
	assert_int_equal(inw(b, 0x102), 0xffff);
	outb(b, 0x100, 1);
	check(p, "");
	assert_int_equal(inl(b, 0x102), 0xffffffff);
	check(p, "");
}

static void across_the_edge_of_a_range(void **state)
{
	struct board *b = *state;
	struct probe *p = probe_create(b), *q = probe_create(b);

	assert_int_equal(map(p, 0x100, 2, 1 | 2 | 4, NULL), 0);
	assert_int_equal(map(q, 0x103, 1, 1, NULL), 0);
	assert_int_equal(inl(b, 0x100), 0x00ff0100);
	check(p, "r0.2=0 ");
	check(q, "r0.1=0 ");
	assert_int_equal(inl(b, 0xffff), 0xffffffff);
}

static void nobody_reads_as_ones(void **state)
{
	struct board *b = *state;
	struct bus_access access = { .space = BUS_MMIO, .address = 0xd0000000, .size = 8 };

	assert_int_equal(bus_access(b->bus, &access), -ENXIO);
	assert_true(access.value == UINT64_MAX);
	access = (struct bus_access){ .space = BUS_PIO, .address = 0x1234, .size = 2, .write = true, .value = 7 };
	assert_int_equal(bus_access(b->bus, &access), -ENXIO);
	assert_true(access.value == 7);
	access = (struct bus_access){ .space = BUS_MMIO, .address = UINT64_MAX - 3, .size = 8 };
	assert_int_equal(bus_access(b->bus, &access), -ENXIO);
}

static void bad_and_overlapping_ranges_are_refused(void **state)
{
	struct board *b = *state;
	struct probe *p = probe_create(b), *q = probe_create(b);
	struct error error;

	assert_int_equal(map(p, 0x100, 16, 1, &error), 0);
	assert_int_equal(map(q, 0x10f, 16, 1, &error), -EBUSY);
	assert_non_null(strstr(error.text, "probe"));
	assert_int_equal(map(q, 0xf8, 9, 1, &error), -EBUSY);
	assert_int_equal(map(q, 0x104, 1, 1, &error), -EBUSY);
	assert_int_equal(map(q, 0xf0, 32, 1, &error), -EBUSY);
	assert_int_equal(map(q, 0x200, 0, 1, &error), -EINVAL);
	assert_int_equal(map(q, 0xfff8, 9, 1, &error), -EINVAL);
	assert_int_equal(map(q, UINT64_MAX, 2, 1, &error), -EINVAL);
	assert_int_equal(map(q, 0x110, 16, 1, &error), 0);
	bus_unmap(b->bus, BUS_PIO, &p->range);
	assert_int_equal(inb(b, 0x100), 0xff);
	assert_int_equal(inb(b, 0x110), 0x00);
}

static void devices_are_numbered_reset_and_destroyed_in_order(void **state)
{
	struct board *b = board_create(1);
	unsigned destroyed = 0;
	struct probe *probes[3];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		probes[i] = probe_create(b);
		probes[i]->destroyed = &destroyed;
		assert_int_equal(probes[i]->device.instance, i);
	}
	bus_reset(b->bus);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(probes[i]->resets, 1);
	board_destroy(b);
	assert_int_equal(destroyed, 321);
}

static void debug_ports(void **state)
{
	struct board *b = *state;

	assert_int_equal(debug_exit_type.create(b->bus, NULL, NULL), 0);
	assert_non_null(device_plug(b->bus, NULL, &(struct device_request){ .spec = "debug-console" }, NULL));
	assert_int_equal(inb(b, 0xe9), 0xe9);
	outb(b, 0xe9, 'x');
	outb(b, 0xf4, 0x10);
	assert_int_equal(b->requests[BUS_REQUEST_EXIT], 1);
	assert_int_equal(b->bus->exit_code, 0x21);
	outl(b, 0xf4, 0xffffffff);
	assert_int_equal(b->bus->exit_code, 0xff);
	devices_unplug(b->bus);
}

/* ---- locks ---- */

/* What a thread reads while another has a lock. */
struct reading {
	struct board *board;
	uint16_t port;
	uint64_t value;
};

static void *read_port(void *opaque)
{
	struct reading *r = opaque;

	r->value = inl(r->board, r->port);
	return NULL;
}

static uint64_t read_meanwhile(struct board *b, struct lock *lock, uint16_t port)
{
	struct reading r = { .board = b, .port = port };
	pthread_t thread;

	lock_take(lock);
	assert_int_equal(pthread_create(&thread, NULL, read_port, &r), 0);
	pthread_join(thread, NULL);
	lock_drop(lock);
	return r.value;
}

/* Who is under one lock is reached while somebody has another. */
static void looking_up_takes_no_lock(void **state)
{
	struct board *b = *state;
	struct probe *p = probe_create(b), *q = probe_create(b);

	assert_int_equal(map(p, 0x500, 16, 4, NULL), 0);
	assert_int_equal(map(q, 0x510, 16, 4, NULL), 0);
	assert_int_equal(read_meanwhile(b, &b->bus->irq_lock, 0x500), 0x03020100);
	assert_int_equal(read_meanwhile(b, &b->bus->pci_lock, 0x500), 0x03020100);
	assert_int_equal(read_meanwhile(b, p->device.lock, 0x510), 0x03020100);
	assert_int_equal(read_meanwhile(b, p->device.lock, 0x600), 0xffffffff);
	read_meanwhile(b, p->device.lock, 0x20); /* an 8259's */
}

/* Two devices whose registers answer when both are being read. */
struct meeting {
	struct device device;
	struct bus_range range;
	pthread_barrier_t *both_are_inside;
};

static uint64_t meeting_read(struct device *device, uint64_t offset, unsigned size)
{
	(void)offset, (void)size;
	pthread_barrier_wait(((struct meeting *)device)->both_are_inside);
	return device->instance;
}

static void destroy_nothing(struct device *device) { (void)device; }

static void two_devices_are_accessed_at_once(void **state)
{
	static const struct device_ops ops = { .destroy = destroy_nothing };
	struct board *b = *state;
	struct meeting devices[2];
	struct reading first = { .board = b, .port = 0x530 };
	pthread_barrier_t both_are_inside;
	pthread_t thread;

	pthread_barrier_init(&both_are_inside, NULL, 2);
	for (unsigned n = 0; n < 2; n++) {
		struct meeting *d = &devices[n];

		*d = (struct meeting){ .both_are_inside = &both_are_inside };
		device_init(&d->device, b->bus, "meeting", &ops);
		d->range = (struct bus_range){ 0x530 + 4 * n, 4, 4, .device = &d->device, .read = meeting_read };
		assert_int_equal(bus_map(b->bus, BUS_PIO, &d->range, NULL), 0);
	}
	assert_int_equal(pthread_create(&thread, NULL, read_port, &first), 0);
	assert_int_equal(inl(b, 0x534), 1);
	pthread_join(thread, NULL);
	assert_int_equal(first.value, 0);
	for (unsigned n = 0; n < 2; n++) {
		bus_unmap(b->bus, BUS_PIO, &devices[n].range);
		device_destroy(&devices[n].device);
	}
	pthread_barrier_destroy(&both_are_inside);
}

/* A range whose functions take locks of their own: the first write waits inside until a second one has come and gone. */
struct two_queues {
	struct device device;
	struct bus_range range;
	struct lock queues[2];
	pthread_barrier_t first_is_inside, second_is_done;
};

static void queue_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct two_queues *q = (struct two_queues *)device;

	(void)size, (void)value;
	lock_take(&q->queues[offset]);
	if (offset == 0) {
		pthread_barrier_wait(&q->first_is_inside);
		pthread_barrier_wait(&q->second_is_done);
	}
	lock_drop(&q->queues[offset]);
}

static void *write_first_queue(void *board)
{
	outb(board, 0x520, 0);
	return NULL;
}

static void a_range_may_take_its_own_locks(void **state)
{
	static const struct device_ops ops = { .destroy = destroy_nothing };
	struct board *b = *state;
	struct two_queues q;
	pthread_t thread;

	device_init(&q.device, b->bus, "queues", &ops);
	for (unsigned n = 0; n < 2; n++)
		lock_init(&q.queues[n], &b->bus->locks, LOCK_QUEUE);
	pthread_barrier_init(&q.first_is_inside, NULL, 2);
	pthread_barrier_init(&q.second_is_done, NULL, 2);
	q.range = (struct bus_range){ 0x520, 2, 1, .device = &q.device, .takes_locks = true, .write = queue_write };
	assert_int_equal(bus_map(b->bus, BUS_PIO, &q.range, NULL), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_first_queue, b), 0);
	pthread_barrier_wait(&q.first_is_inside);
	outb(b, 0x521, 0);
	pthread_barrier_wait(&q.second_is_done);
	pthread_join(thread, NULL);
	/* Who has all locks may come there, too: a locked instruction. */
	bus_lock(b->bus);
	outb(b, 0x521, 0);
	bus_unlock(b->bus);
	bus_unmap(b->bus, BUS_PIO, &q.range);
	for (unsigned n = 0; n < 2; n++)
		lock_destroy(&q.queues[n]);
	pthread_barrier_destroy(&q.first_is_inside);
	pthread_barrier_destroy(&q.second_is_done);
	device_destroy(&q.device);
}

/* Somebody waits for a lock: who has it is told. */
struct waiter {
	struct board *board;
	pthread_barrier_t waits;
	int result;
};

static void tell(void *opaque, bool begins)
{
	if (begins)
		pthread_barrier_wait(&((struct waiter *)opaque)->waits);
}

static void *access_port(void *opaque)
{
	struct waiter *w = opaque;
	struct bus_access access = { .space = BUS_PIO, .address = 0x500, .size = 1, .write = true };

	w->result = bus_access(w->board->bus, &access);
	return NULL;
}

static void what_goes_while_an_access_waits_is_not_reached(void **state)
{
	struct board *b = *state;
	struct probe *probe = probe_create(b);
	struct waiter w = { .board = b };
	pthread_t thread;

	assert_int_equal(map(probe, 0x500, 8, 1, NULL), 0);
	pthread_barrier_init(&w.waits, NULL, 2);
	b->bus->locks.waits = tell;
	b->bus->locks.waits_opaque = &w;
	lock_take(probe->device.lock);
	assert_int_equal(pthread_create(&thread, NULL, access_port, &w), 0);
	pthread_barrier_wait(&w.waits);
	bus_unmap(b->bus, BUS_PIO, &probe->range);
	lock_drop(probe->device.lock);
	pthread_join(thread, NULL);
	assert_int_equal(w.result, -ENXIO);
	assert_string_equal(probe->journal, "");
	pthread_barrier_destroy(&w.waits);
}

/* ---- what is deferred ---- */

struct deferring {
	struct device device;
	struct bus_range range;
	struct bus_work work;
	bool inside;
	unsigned done;
};

static void deferred(struct bus_work *work)
{
	struct deferring *d = container_of(work, struct deferring, work);

	assert_false(d->inside);
	assert_true(lock_try(d->device.lock));
	lock_drop(d->device.lock);
	d->done++;
}

static void defer_twice(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct deferring *d = (struct deferring *)device;

	(void)offset, (void)size, (void)value;
	d->inside = true;
	bus_defer(device->bus, &d->work);
	bus_defer(device->bus, &d->work);
	d->inside = false;
	assert_int_equal(d->done, value);
}

static void deferred_work_comes_behind_the_access(void **state)
{
	static const struct device_ops ops = { .destroy = destroy_nothing };
	struct board *b = *state;
	struct deferring d = { .work = { .fn = deferred } };

	device_init(&d.device, b->bus, "deferring", &ops);
	d.range = (struct bus_range){ 0x510, 1, 1, .device = &d.device, .write = defer_twice };
	assert_int_equal(bus_map(b->bus, BUS_PIO, &d.range, NULL), 0);
	outb(b, 0x510, 0);
	assert_int_equal(d.done, 1);
	outb(b, 0x510, 1);
	assert_int_equal(d.done, 2);
	bus_unmap(b->bus, BUS_PIO, &d.range);
	device_destroy(&d.device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOARD_TEST(allowed_sizes_arrive_whole),
		BOARD_TEST(others_are_split),
		BOARD_TEST(larger_than_asked_is_not_answered),
		BOARD_TEST(across_the_edge_of_a_range),
		BOARD_TEST(nobody_reads_as_ones),
		BOARD_TEST(bad_and_overlapping_ranges_are_refused),
		cmocka_unit_test(devices_are_numbered_reset_and_destroyed_in_order),
		BOARD_TEST(debug_ports),
		BOARD_TEST(looking_up_takes_no_lock),
		BOARD_TEST(two_devices_are_accessed_at_once),
		BOARD_TEST(a_range_may_take_its_own_locks),
		BOARD_TEST(what_goes_while_an_access_waits_is_not_reached),
		BOARD_TEST(deferred_work_comes_behind_the_access),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
