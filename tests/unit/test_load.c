/*
 * What is loaded into a machine whose devices were plugged in another order: each device's state is its own, interrupt lines' and PCI slots too. Into
 * one with another set of devices it is refused, with a sentence that says what differs.
 */
#define _GNU_SOURCE /* memmem() */
#include "devices/virtio/virtio.h"
#include "machine/machine.h"

#include <cmocka.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include "lib/hard_device.h"

/* ---- a device that is an interrupt line; of two types ---- */

/* clang-format off */
#define WIRE_OPTIONS(_, T) _(T, NUMBER, line, 3, 12, "5", "which one it pulls")
/* clang-format on */

struct wire_options {
	DEVICE_OPTION_FIELDS(WIRE_OPTIONS)
};

struct wire {
	struct device device;
	struct irq_line line;
};

static struct wire *wires[2]; /* the last ones, "wire" and "post" */

static void wire_destroy(struct device *device)
{
	irq_line_free(&((struct wire *)device)->line);
	free(device);
}

static const struct device_ops wire_ops = { .destroy = wire_destroy };

static struct wire *create(struct bus *bus, const struct wire_options *options, const char *name)
{
	struct wire *wire = calloc(1, sizeof(*wire));

	assert_non_null(wire);
	device_init(&wire->device, bus, name, &wire_ops);
	wire->line = irq_isa_line(&wire->device, (unsigned)options->line);
	return wire;
}

static int wire_create(struct bus *bus, const void *options, struct error *err)
{
	(void)err;
	wires[0] = create(bus, options, "wire");
	return 0;
}

static int post_create(struct bus *bus, const void *options, struct error *err)
{
	(void)err;
	wires[1] = create(bus, options, "post");
	return 0;
}

static const struct device_type wire_type = { .name = "wire",
					      .help = "an interrupt line",
					      .most = 1,
					      DEVICE_OPTIONS(WIRE_OPTIONS, struct wire_options),
					      .create = wire_create };
static const struct device_type post_type = { .name = "post",
					      .help = "another one",
					      .most = 1,
					      DEVICE_OPTIONS(WIRE_OPTIONS, struct wire_options),
					      .create = post_create };

static void pull(struct wire *wire, bool level)
{
	lock_take(wire->device.lock);
	irq_set(&wire->line, level);
	lock_drop(wire->device.lock);
}

/* ---- machines ---- */

static int no_guest(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	(void)opaque, (void)mem, (void)state, (void)err;
	return 0;
}

static struct machine *machine(void)
{
	static const struct machine_guest guest = { .load = no_guest };
	const struct machine_config config = {
		.guest = &guest,
		.memory = 1 << 20,
		.cpus = 1,
		.engine = "interp",
		.cpu_model = "v2",
		.clock = CLOCK_VIRTUAL,
	};
	struct error err = { 0 };
	struct machine *m;

	if (machine_create(&m, &config, &err))
		fail_msg("%s", err.text);
	return m;
}

static void plug(struct machine *m, const struct device_type *type, const char *spec)
{
	struct error err = { 0 };

	if (machine_plug(m, &(struct device_request){ .spec = spec, .type = type }, &err))
		fail_msg("%s", err.text);
}

static struct writer save(struct machine *m)
{
	struct writer writer = { 0 };
	struct error err = { 0 };

	if (machine_save(m, &writer, &err))
		fail_msg("%s", err.text);
	return writer;
}

static void check_same(struct machine *m, const struct writer *record)
{
	struct writer writer = save(m);

	assert_int_equal(writer.size, record->size);
	assert_memory_equal(writer.data, record->data, record->size);
	writer_free(&writer);
}

static int load(struct machine *m, const struct writer *record, struct error *err)
{
	struct reader reader = { record->data, record->size, 0 };

	return machine_load(m, &reader, err);
}

static unsigned slot_of(const char *name, struct bus *bus)
{
	return ((struct pci_device *)bus_find_device(bus, name, 0))->devfn >> 3;
}

static void any_order_of_plugging(void **state)
{
	struct machine *m = machine(), *other = machine();
	struct wire *wire, *other_wire;
	struct writer record, after;
	struct error err = { 0 };

	(void)state;
	plug(m, &wire_type, "wire,line=5");
	plug(m, NULL, "virtio-rng");
	plug(m, &hard_type, "hard");
	plug(m, &post_type, "post,line=6");
	plug(m, NULL, "uart,port=2");
	plug(m, NULL, "virtio-console,chardev=null");
	wire = wires[0];
	pull(wire, true);
	memset(hard_seen.last->memory->file.base + 5 * PAGE_SIZE, 0x5a, PAGE_SIZE);
	assert_int_equal(slot_of("virtio-rng-pci", wire->device.bus), 3);
	assert_int_equal(slot_of("hard", wire->device.bus), 4);
	record = save(m);

	plug(other, NULL, "uart,port=2");
	plug(other, &post_type, "post,line=6");
	plug(other, &hard_type, "hard");
	plug(other, NULL, "virtio-console,chardev=null");
	plug(other, NULL, "virtio-rng");
	plug(other, &wire_type, "wire,line=5");
	other_wire = wires[0];
	assert_int_equal(slot_of("hard", other_wire->device.bus), 3);
	if (load(other, &record, &err))
		fail_msg("%s", err.text);
	assert_int_equal(slot_of("virtio-rng-pci", other_wire->device.bus), 3);
	assert_int_equal(slot_of("hard", other_wire->device.bus), 4);
	assert_int_equal(hard_seen.last->memory->file.base[5 * PAGE_SIZE + 7], 0x5a);
	check_same(other, &record);
	/* From now on both do the same. */
	pull(wire, false);
	pull(other_wire, false);
	after = save(m);
	check_same(other, &after);
	/* Unplugged, it leaves its slot, wherever that was. */
	assert_int_equal(machine_unplug(other, "hard", 0, NULL), 0);
	plug(other, &hard_type, "hard");
	assert_int_equal(slot_of("hard", other_wire->device.bus), 4);
	writer_free(&record);
	writer_free(&after);
	machine_destroy(m);
	machine_destroy(other);
}

/* And nothing has happened to the machine. */
static void refuses(struct machine *m, const struct writer *record, const char *says)
{
	struct writer before = save(m);
	struct error err = { 0 };

	assert_int_equal(load(m, record, &err), -EINVAL);
	if (strcmp(err.text, says) != 0)
		fail_msg("'%s', expected '%s'", err.text, says);
	check_same(m, &before);
	writer_free(&before);
}

static struct virtio_device *virtio(const struct wire *wire, const char *name)
{
	return (struct virtio_device *)bus_find_device(wire->device.bus, name, 0);
}

static uint32_t window_read(const struct wire *wire, unsigned window, unsigned offset)
{
	struct bus_access access = { .space = BUS_MMIO, .address = VIRTIO_MMIO_ADDRESS(window) + offset, .size = 4 };

	bus_access(wire->device.bus, &access);
	return (uint32_t)access.value;
}

static void acknowledge(const struct wire *wire, unsigned window)
{
	struct bus_access access = {
		.space = BUS_MMIO, .address = VIRTIO_MMIO_ADDRESS(window) + 0x64, .size = 4, .write = true, .value = 3
	};

	bus_access(wire->device.bus, &access);
}

/* Of virtio devices that are not on PCI, with the interrupt lines that belong to them. */
static void windows_in_any_order(void **state)
{
	struct machine *m = machine(), *other = machine();
	struct wire *wire, *other_wire;
	struct writer record, after;
	struct error err = { 0 };

	(void)state;
	plug(m, &wire_type, "wire");
	wire = wires[0];
	plug(m, NULL, "virtio-rng,transport=mmio");
	plug(m, NULL, "virtio-console,chardev=null,transport=mmio");
	virtio(wire, "virtio-rng")->transport->queue_interrupt(virtio(wire, "virtio-rng"), 0);
	record = save(m);

	plug(other, NULL, "virtio-console,chardev=null,transport=mmio");
	plug(other, NULL, "virtio-rng,transport=mmio");
	plug(other, &wire_type, "wire");
	other_wire = wires[0];
	assert_int_equal(window_read(other_wire, 0, 8), VIRTIO_ID_CONSOLE);
	if (load(other, &record, &err))
		fail_msg("%s", err.text);
	check_same(other, &record);
	assert_int_equal(window_read(other_wire, 0, 8), VIRTIO_ID_RNG);
	assert_int_equal(window_read(other_wire, 1, 8), VIRTIO_ID_CONSOLE);
	/* lines, and who pulls them, are what they were: from now on both do the same */
	acknowledge(wire, 0);
	acknowledge(other_wire, 0);
	virtio(wire, "virtio-console")->transport->queue_interrupt(virtio(wire, "virtio-console"), 0);
	virtio(other_wire, "virtio-console")->transport->queue_interrupt(virtio(other_wire, "virtio-console"), 0);
	after = save(m);
	check_same(other, &after);
	writer_free(&after);

	assert_int_equal(machine_unplug(other, "virtio-rng", 0, NULL), 0);
	plug(other, NULL, "virtio-rng");
	refuses(other, &record,
		"record 'plugs.0': other devices are plugged: 'virtio-rng-mmio.0 virtio-rng,packed=off,legacy=on', "
		"where "
		"this machine has 'virtio-rng-pci.0 virtio-rng,packed=off,legacy=on'");
	writer_free(&record);
	machine_destroy(m);
	machine_destroy(other);
}

static void another_set_is_refused(void **state)
{
	struct machine *m = machine(), *other = machine();
	struct writer record;

	(void)state;
	plug(m, &wire_type, "wire,line=5");
	record = save(m);
	refuses(other, &record,
		"record 'plugs.0': other devices are plugged: 'wire.0 wire,line=5', where this machine has 'nothing "
		"more'");
	plug(other, &wire_type, "wire,line=7");
	refuses(other, &record,
		"record 'plugs.0': other devices are plugged: 'wire.0 wire,line=5', where this machine has 'wire.0 "
		"wire,line=7'");
	assert_int_equal(machine_unplug(other, "wire", 0, NULL), 0);
	plug(other, &wire_type, "wire");
	assert_int_equal(load(other, &record, NULL), 0); /* which is the default */
	plug(other, &hard_type, "hard");
	refuses(other, &record,
		"record 'plugs.0': other devices are plugged: 'kbc.0 kbc', where this machine has 'hard.0 "
		"hard,cpus=0,intx=off'");
	writer_free(&record);
	machine_destroy(m);
	machine_destroy(other);
}

/* Where a record begins, behind the byte of its name's length. */
static uint8_t *find(const struct writer *record, const char *name)
{
	uint8_t *at = record->data;

	do {
		at = memmem(at + 1, record->size - (size_t)(at + 1 - record->data), name, strlen(name));
		assert_non_null(at);
	} while (at[-1] != strlen(name));
	return at;
}

static void seal(uint8_t *name)
{
	uint8_t *begin = name - 1;
	size_t size = 1u + begin[0] + 6, payload = load_le32(begin + size - 4);

	store_le32(begin + size + payload, state_checksum(0, begin, size + payload));
}

static void devices_that_a_record_has_not_or_has_twice(void **state)
{
	struct machine *m = machine();
	struct writer record = save(m);
	uint8_t *name = find(&record, "rtc.0");

	(void)state;
	memcpy(name, "rtc.1", 5);
	seal(name);
	refuses(m, &record, "there is no record 'rtc.0', of a device that this machine has");
	memcpy(name, "pit.0", 5);
	seal(name);
	assert_int_equal(load(m, &record, NULL), -EINVAL);
	memcpy(name, "rt\n.0", 5);
	refuses(m, &record, "there is no record 'rtc.0', of a device that this machine has");
	writer_free(&record);
	machine_destroy(m);
}

/* The byte of a device's record that says where on PCI it is. */
static uint8_t *place(const struct writer *record, const char *name)
{
	static const uint8_t field[] = { 1002 & 0xff, 1002 >> 8, 1, 1, 0, 0, 0 };
	uint8_t *at = find(record, name);

	at = memmem(at, record->size - (size_t)(at - record->data), field, sizeof(field));
	assert_non_null(at);
	return at + sizeof(field);
}

static void slots_are_checked(void **state)
{
	struct machine *m = machine();
	struct writer record;
	uint8_t *at;

	(void)state;
	plug(m, &hard_type, "hard");
	plug(m, NULL, "virtio-rng");
	record = save(m);
	at = place(&record, "hard.0");
	assert_int_equal(*at, 3 << 3);
	*at = 4 << 3; /* virtio-rng-pci's */
	seal(find(&record, "hard.0"));
	refuses(m, &record, "record 'virtio-rng-pci.0': PCI function 00:04.0 is taken by 'hard.0'");
	*at = 3 << 3 | 1;
	seal(find(&record, "hard.0"));
	refuses(m, &record, "record 'hard.0': hard: it is PCI function 00:03.1; here it is 00:03.0");
	*at = 31 << 3;
	seal(find(&record, "hard.0"));
	assert_int_equal(load(m, &record, NULL), 0);
	writer_free(&record);
	record = save(m);
	at = place(&record, "i440fx.0"); /* which is at a fixed place */
	*at = 30 << 3;
	seal(find(&record, "i440fx.0"));
	refuses(m, &record, "record 'i440fx.0': i440fx: it is PCI function 00:1e.0; here it is 00:00.0");
	writer_free(&record);
	machine_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_order_of_plugging),  cmocka_unit_test(windows_in_any_order),
		cmocka_unit_test(another_set_is_refused), cmocka_unit_test(devices_that_a_record_has_not_or_has_twice),
		cmocka_unit_test(slots_are_checked),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
