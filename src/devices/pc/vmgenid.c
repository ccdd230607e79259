/*
 * The generation ID: 16 bytes that are others when the machine is no longer the one that it was: a copy, or back in its past. A guest then takes new random
 * numbers. ("Virtual Machine Generation ID", a paper of Microsoft's.) It is read at a fixed address, which ACPI tells.
 */
#include "devices/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define PAGE_BYTES 4096 /* nothing else is in its page */

#define VMGENID_STATE(_, T) _(T, uint8_t, guid, 16, 1, 0, 0xff)

struct vmgenid {
	struct device device;
	STATE_FIELDS(VMGENID_STATE)
	uint8_t own[GUID_SIZE]; /* this machine's */
	bool automatic;		/* a new one whenever it is asked */
	struct bus_range range;
};

#define VMGENID_OPTIONS(_, T)                                                                                          \
	_(T, TEXT, guid, 0, 0, "auto", "the ID, as 8-4-4-4-12 hexadecimal digits; auto: a new one for each machine")

struct vmgenid_options {
	DEVICE_OPTION_FIELDS(VMGENID_OPTIONS)
};

static int make(uint8_t guid[GUID_SIZE], struct error *err)
{
	if (getrandom(guid, GUID_SIZE, 0) != GUID_SIZE)
		return error_set_errno(err, errno, "cannot make a generation ID");
	return 0;
}

static uint64_t vmgenid_read(struct device *device, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	if (range_ok(offset, size, GUID_SIZE))
		memcpy(&value, ((struct vmgenid *)device)->guid + offset, size);
	return value;
}

static void vmgenid_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)device, (void)offset, (void)size, (void)value;
}

static void vmgenid_reset(struct device *device)
{
	struct vmgenid *v = (struct vmgenid *)device;

	memcpy(v->guid, v->own, GUID_SIZE);
}

/* What was saved goes on here: as another machine, unless it was told that it is the same. */
static void vmgenid_attach(struct device *device)
{
	struct vmgenid *v = (struct vmgenid *)device;

	if (v->automatic)
		make(v->own, NULL); /* or it stays what it was made with */
	if (!memcmp(v->guid, v->own, GUID_SIZE))
		return;
	memcpy(v->guid, v->own, GUID_SIZE);
	piix_event(device->bus, VMGENID_EVENT);
}

static void vmgenid_destroy(struct device *device)
{
	bus_unmap(device->bus, BUS_MMIO, &((struct vmgenid *)device)->range);
	free(device);
}

STATE_DESC(vmgenid_state_desc, "vmgenid", 1, struct vmgenid, VMGENID_STATE);

static const struct device_ops vmgenid_ops = {
	.state = &vmgenid_state_desc, .reset = vmgenid_reset, .attach = vmgenid_attach, .destroy = vmgenid_destroy
};

bool vmgenid_is_here(struct bus *bus) { return bus_find_device(bus, "vmgenid", 0); }

static int vmgenid_create(struct bus *bus, const void *options, struct error *err)
{
	const struct vmgenid_options *o = options;
	uint8_t guid[GUID_SIZE];
	struct vmgenid *v;
	int rc;

	if (strcmp(o->guid, "auto") != 0 && !guid_parse(o->guid, guid))
		return error_set(err, EINVAL,
				 "option 'guid': '%.64s' is none; expected auto, or hexadecimal digits as in "
				 "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87",
				 o->guid);
	rc = strcmp(o->guid, "auto") ? 0 : make(guid, err);
	if (rc)
		return rc;
	v = calloc(1, sizeof(*v));
	if (!v)
		return error_set_errno(err, ENOMEM, "generation ID");
	device_init(&v->device, bus, "vmgenid", &vmgenid_ops);
	memcpy(v->own, guid, GUID_SIZE);
	v->automatic = !strcmp(o->guid, "auto");
	vmgenid_reset(&v->device);
	v->range = (struct bus_range){ .start = VMGENID_ADDRESS,
				       .size = PAGE_BYTES,
				       .sizes = 1 | 2 | 4 | 8,
				       .device = &v->device,
				       .read = vmgenid_read,
				       .write = vmgenid_write };
	return bus_map(bus, BUS_MMIO, &v->range, err);
}

const struct device_type vmgenid_type = {
	.name = "vmgenid",
	.help = "generation ID, which tells a guest that it was copied or is back in its past",
	.most = 1,
	DEVICE_OPTIONS(VMGENID_OPTIONS, struct vmgenid_options),
	.short_form = { .name = "--generation-id",
			.option = "guid",
			.argument = "GUID|auto",
			.help = "which generation of the machine this is; auto: a new one" },
	.create = vmgenid_create,
};
