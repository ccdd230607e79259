/*
 * Which devices a machine has: those of every PC, those that were asked for, and those that come and go while it runs.
 */
#include "machine/private.h"

#include <errno.h>

unsigned machine_asks_for(const struct machine_config *config, const struct device_type *type)
{
	unsigned count = 0;

	for (unsigned i = 0; i < config->device_count; i++)
		count += device_request_check(&config->devices[i], NULL) == type;
	return count;
}

bool machine_has_disk(const struct machine_config *config)
{
	for (unsigned i = 0; i < config->device_count; i++) {
		const struct device_type *type = device_request_check(&config->devices[i], NULL);

		if (type && type->starts)
			return true;
	}
	return false;
}

int machine_ask_for(struct machine_config *config, struct device_request request, struct error *err)
{
	const struct device_type *type = device_request_check(&request, err);

	if (!type)
		return -EINVAL;
	if (machine_asks_for(config, type) == type->most)
		return error_set(err, EINVAL, "a machine has at most %u of '%s'", type->most, type->name);
	if (config->device_count == MACHINE_MAX_DEVICES)
		return error_set(err, EINVAL, "at most %d devices can be added", MACHINE_MAX_DEVICES);
	config->devices[config->device_count++] = request;
	return 0;
}

static int plug(struct machine *m, const struct device_request *request, struct error *err)
{
	return device_plug(m->bus, m->loop, request, err) ? 0 : -err->code;
}

/* One with the defaults, unless others are asked for? */
static bool comes_by_itself(const struct machine_config *config, const struct device_type *type)
{
	if (type == &fw_cfg_type)
		return config->firmware || machine_asks_for(config, &fw_cfg_file_type);
	if (type == &pflash_type)
		return config->firmware && !strcmp(config->firmware, "uefi");
	return type->in_every_pc;
}

/* All devices of one type that there are to be. */
static int plug_type(struct machine *m, const struct device_type *type, struct error *err)
{
	const struct machine_config *config = &m->config;
	int rc = 0;

	if (comes_by_itself(config, type) && !machine_asks_for(config, type))
		return plug(m, &(struct device_request){ .spec = type->name }, err);
	for (unsigned i = 0; !rc && i < config->device_count; i++)
		if (device_request_check(&config->devices[i], NULL) == type)
			rc = plug(m, &config->devices[i], err);
	return rc;
}

int plug_devices(struct machine *m, struct error *err)
{
	int rc = 0;

	for (const struct device_type *const *type = device_types; !rc && *type; type++)
		rc = plug_type(m, *type, err);
	for (unsigned i = 0; !rc && i < m->config.device_count; i++)
		if (m->config.devices[i].type)
			rc = plug(m, &m->config.devices[i], err);
	return rc;
}

/* ---- while it runs ---- */

struct change {
	const struct device_request *request;
	const char *name;
	unsigned instance;
	uint64_t balloon;
	struct balloon_info *info;
	struct error *err;
	int rc;
};

static void plug_one(struct machine *m, void *arg)
{
	struct change *c = arg;
	struct device_plug *plug;
	struct device *device;

	bus_lock(m->bus);
	plug = device_plug(m->bus, m->loop, c->request, c->err);
	if (plug) {
		list_for_each (device, &m->bus->devices, node)
			if (device->plug == plug && device->ops->reset)
				device->ops->reset(device);
	} else {
		c->rc = -c->err->code;
	}
	bus_unlock(m->bus);
}

static void unplug_one(struct machine *m, void *arg)
{
	struct change *c = arg;
	struct device_plug *plug;

	bus_lock(m->bus);
	plug = device_plug_find(m->bus, c->name, c->instance);
	if (plug && !device_plug_type(plug)->in_every_pc)
		device_unplug(plug);
	else
		c->rc = error_set(c->err, ENOENT, "there is no device '%s.%u' that can be unplugged", c->name,
				  c->instance);
	bus_unlock(m->bus);
}

static void set_balloon(struct machine *m, void *arg)
{
	struct change *c = arg;

	c->rc = balloon_set(m->bus, c->balloon, c->err);
}

static void query_balloon(struct machine *m, void *arg)
{
	struct change *c = arg;

	c->rc = balloon_query(m->bus, c->info, c->err);
}

static int change(struct machine *m, void (*fn)(struct machine *, void *), struct change c, struct error *err)
{
	struct error ignored;

	c.err = err ? err : &ignored;
	pause_call(m, fn, &c);
	return c.rc;
}

int machine_plug(struct machine *m, const struct device_request *request, struct error *err)
{
	return change(m, plug_one, (struct change){ .request = request }, err);
}

int machine_unplug(struct machine *m, const char *name, unsigned instance, struct error *err)
{
	return change(m, unplug_one, (struct change){ .name = name, .instance = instance }, err);
}

int machine_set_balloon(struct machine *m, uint64_t bytes, struct error *err)
{
	return change(m, set_balloon, (struct change){ .balloon = bytes }, err);
}

int machine_query_balloon(struct machine *m, struct balloon_info *info, struct error *err)
{
	return change(m, query_balloon, (struct change){ .info = info }, err);
}
