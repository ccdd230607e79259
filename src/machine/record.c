/*
 * The whole machine as bytes: a header, then records in a fixed order, each followed by its CRC-32, then the contents of RAM:
 *
 *	header		"DOPPELVM", version of the format (4)
 *	config.0	what the machine that loads must have, too
 *	clock.0		guest time, UTC, rate of the TSC
 *	machine.0	whose turn it is under virtual time and what is left of it; what the guest asked for and was not given yet
 *	plugs.0		what was plugged, as text, which must be the same in the machine that loads
 *	cpu.N, vcpu.N	of each vCPU: its architectural state; events on their way to it
 *	...		devices (local APICs are such), sorted by name and instance, and a 0 (no name); in whatever order they were plugged, and are found by name
 *	memory		see mem.h
 *
 * Nothing of the machine changes before all of that was read and found good.
 */
#include "machine/private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define FORMAT_VERSION 2
#define MAX_RECORDS    1024 /* of devices */

/* Little endian. */
struct header {
	char magic[8];
	uint32_t version;
} __attribute__((packed));

static const struct header our_header = { "DOPPELVM", FORMAT_VERSION };

/* ---- what must be the same ---- */

#define CONFIG_STATE(_, T)                                                                                             \
	_(T, uint64_t, memory, 1, 1, 0, UINT64_MAX)                                                                    \
	_(T, uint32_t, cpus, 1, 2, 0, UINT32_MAX)                                                                      \
	_(T, uint8_t, virtual_time, 1, 3, 0, 1)                                                                        \
	_(T, uint8_t, cpu_vendor, 12, 4, 0, 0xff)                                                                      \
	_(T, uint32_t, cpu_signature, 1, 5, 0, UINT32_MAX)                                                             \
	_(T, uint32_t, cpu_features, 1, 6, 0, UINT32_MAX) /* a checksum */                                             \
	_(T, uint8_t, paravirtual, 1, 7, 0, 1)                                                                         \
	_(T, uint32_t, rom_checksum, 1, 8, 0, UINT32_MAX)

struct config_state {
	STATE_FIELDS(CONFIG_STATE)
};
STATE_DESC(config_desc, "config", 1, struct config_state, CONFIG_STATE);

/* Of the features that there are: others that doppel comes to know make no difference, nor does their order. */
static uint32_t features_checksum(const struct cpu_model *model)
{
	static const struct {
		uint32_t leaf, subleaf, reg, bit;
	} places[FEATURE_COUNT] = {
#define _(name, leaf, subleaf, reg, bit) { leaf, subleaf, reg, bit },
		CPU_FEATURES(_)
#undef _
	};
	uint32_t sum = 0;

	for (size_t f = 0; f < FEATURE_COUNT; f++)
		if (model->features[f])
			sum ^= state_checksum(0, &places[f], sizeof(places[f]));
	return sum;
}

static struct config_state get_config(const struct machine *m)
{
	struct config_state c = {
		.memory = m->mem->ram_size,
		.cpus = m->cpu_count,
		.virtual_time = m->virtual_time,
		.cpu_signature = m->model.signature,
		.paravirtual = m->model.kvm_pv,
		.cpu_features = features_checksum(&m->model),
		.rom_checksum = mem_rom_checksum(m->mem),
	};

	memcpy(c.cpu_vendor, m->model.vendor, sizeof(c.cpu_vendor));
	return c;
}

static int compare_configs(const struct config_state *ours, const struct config_state *theirs, struct error *err)
{
	for (size_t i = 0; i < config_desc.field_count; i++) {
		const struct state_field *field = &config_desc.fields[i];

		for (uint32_t n = 0; n < field->count; n++) {
			size_t at = field->offset + (size_t)n * field->size;
			uint64_t a = 0, b = 0;

			memcpy(&a, (const char *)ours + at, field->size);
			memcpy(&b, (const char *)theirs + at, field->size);
			if (a != b)
				return error_set(err, EINVAL,
						 "record 'config.0': field '%s'[%" PRIu32 "] is 0x%" PRIx64
						 "; this machine has 0x%" PRIx64,
						 field->name, n, b, a);
		}
	}
	return 0;
}

/* ---- time, turns and requests ---- */

#define LAST_TIME (1ull << 62) /* 146 years: sums of times do not overflow */

#define CLOCK_STATE(_, T)                                                                                              \
	_(T, uint64_t, tsc, 1, 1, 0, LAST_TIME)                                                                        \
	_(T, uint64_t, tsc_hz, 1, 2, CLOCK_VIRTUAL_TSC_HZ, UINT64_MAX)                                                 \
	_(T, uint64_t, wall, 1, 3, 0, UINT64_MAX) /* UTC, ns since 1970 */

struct clock_state {
	STATE_FIELDS(CLOCK_STATE)
};

static int clock_loaded(void *object, uint16_t version, struct error *err)
{
	const struct clock_state *c = object;

	(void)version;
	if (clock_check_tsc_hz(c->tsc_hz, err))
		return -EINVAL;
	if (c->tsc / c->tsc_hz >= LAST_TIME / NS_PER_S)
		return error_set(err, EINVAL,
				 "clock: tsc is 0x%" PRIx64 " at %" PRIu64 " Hz; expected a time before 0x%llx ns",
				 c->tsc, c->tsc_hz, LAST_TIME);
	return 0;
}
STATE_DESC(clock_desc, "clock", 1, struct clock_state, CLOCK_STATE, .loaded = clock_loaded);

#define MACHINE_STATE(_, T)                                                                                            \
	_(T, uint32_t, turn_holder, 1, 1, 0, MACHINE_MAX_CPUS - 1)                                                     \
	_(T, uint8_t, turn_begun, 1, 2, 0, 1)                                                                          \
	_(T, uint8_t, turn_over, 1, 3, 0, 1)                                                                           \
	_(T, uint64_t, turn_left, 1, 4, 0, TURN_QUANTUM)                                                               \
	_(T, uint32_t, requests, 1, 5, 0, UINT32_MAX)                                                                  \
	_(T, uint32_t, exit_code, 1, 6, 0, 0xff)

struct machine_state {
	STATE_FIELDS(MACHINE_STATE)
};

static int machine_loaded(void *object, uint16_t version, struct error *err)
{
	const struct machine_state *s = object;

	(void)version;
	if (s->requests & ~(uint32_t)GUEST_REQUESTS)
		return error_set(err, EINVAL, "machine: requests are 0x%" PRIx32 "; expected no bits but 0x%x",
				 s->requests, GUEST_REQUESTS);
	return 0;
}
STATE_DESC(machine_desc, "machine", 1, struct machine_state, MACHINE_STATE, .loaded = machine_loaded);

static struct clock_state get_clock(struct machine *m)
{
	return (struct clock_state){ clock_tsc(m->clock), clock_tsc_hz(m->clock), clock_wall_ns(m->clock) };
}

static struct machine_state get_machine(struct machine *m)
{
	vtime_t now = clock_now(m->clock);
	struct machine_state s = {
		.turn_holder = atomic_load(&m->turn.holder),
		.turn_begun = m->turn.begun,
		.requests = atomic_load(&m->requests) & GUEST_REQUESTS,
		.exit_code = (uint32_t)m->bus->exit_code,
	};

	if (m->turn.begun) {
		s.turn_over = m->turn.over;
		s.turn_left = m->turn.last - MIN(now, m->turn.last);
	}
	return s;
}

static void set_machine(struct machine *m, const struct machine_state *s)
{
	turn_give(m, s->turn_holder);
	m->turn.begun = s->turn_begun;
	m->turn.over = s->turn_over;
	m->turn.last = clock_now(m->clock) + s->turn_left;
	m->bus->exit_code = (int)s->exit_code;
	for (uint32_t request = 1; request <= s->requests; request <<= 1)
		if (s->requests & request)
			machine_request(m, request);
}

/* ---- what is plugged ---- */

#define PLUGS_STATE(_, T) _(T, uint8_t, text, 8192, 1, 0, 0x7e)

/* A line for each device: its name and instance, and what the request for it comes to. Behind the last one zeros. */
struct plugs_state {
	STATE_FIELDS(PLUGS_STATE)
};
STATE_DESC(plugs_desc, "plugs", 1, struct plugs_state, PLUGS_STATE);

static int get_plugs(struct machine *m, struct plugs_state *plugs, struct error *err)
{
	FILE *out = fmemopen(memset(plugs, 0, sizeof(*plugs)), sizeof(plugs->text) - 1, "w");
	const struct device *device = NULL;
	bool fits;

	if (!out)
		return error_set_errno(err, ENOMEM, "what is plugged");
	while ((device = bus_next_device(m->bus, device))) {
		if (!device->plug)
			continue;
		fprintf(out, "%s.%u ", device->name, device->instance);
		device_plug_print(device->plug, out);
		fputc('\n', out);
	}
	fits = !ferror(out);
	return fclose(out) || !fits
		       ? error_set(err, E2BIG, "what is plugged has more than %zu bytes", sizeof(plugs->text))
		       : 0;
}

/* The line at `at`, for a sentence. */
static void print_line(char line[128], const struct plugs_state *plugs, size_t at)
{
	size_t i = 0;

	for (; i < 127 && at + i < sizeof(plugs->text) && plugs->text[at + i] >= ' '; i++)
		line[i] = (char)plugs->text[at + i];
	line[i] = 0;
	if (!i)
		snprintf(line, 128, "nothing more");
}

static int compare_plugs(const struct plugs_state *ours, const struct plugs_state *theirs, struct error *err)
{
	char our_line[128], their_line[128];
	size_t line = 0;

	for (size_t i = 0; i < sizeof(ours->text); i++) {
		if (ours->text[i] != theirs->text[i]) {
			print_line(our_line, ours, line);
			print_line(their_line, theirs, line);
			return error_set(
				err, EINVAL,
				"record 'plugs.0': other devices are plugged: '%s', where this machine has '%s'",
				their_line, our_line);
		}
		if (ours->text[i] == '\n')
			line = i + 1;
	}
	return 0;
}

/* ---- save ---- */

static int save_record(const struct state_desc *desc, unsigned instance, const void *object, struct writer *writer)
{
	size_t start = writer->size;
	int rc = state_save(desc, instance, object, writer);
	uint32_t checksum;

	if (rc)
		return rc;
	checksum = state_checksum(0, writer->data + start, writer->size - start);
	writer_bytes(writer, &checksum, sizeof(checksum));
	return 0;
}

static int save_cpu(struct machine *m, unsigned i, struct writer *writer)
{
	struct vcpu *v = m->cpus[i].cpu;
	struct cpu_pending pending;
	struct cpu_state state;
	int rc = m->engine.ops->pull(v, &state);

	cpu_pending_pull(v, &pending);
	if (!rc)
		rc = save_record(cpu_state_desc, i, &state, writer);
	return rc ? rc : save_record(cpu_pending_desc, i, &pending, writer);
}

static void save_devices(struct bus *bus, struct writer *writer)
{
	const struct device *device = NULL;

	bus_lock(bus);
	while ((device = bus_next_device(bus, device)))
		if (device->ops->state)
			save_record(device->ops->state, device->instance, device, writer);
	bus_unlock(bus);
	writer_bytes(writer, "", 1);
}

int machine_save(struct machine *m, struct writer *writer, struct error *err)
{
	struct config_state config = get_config(m);
	struct clock_state clock = get_clock(m);
	struct machine_state machine = get_machine(m);
	struct plugs_state plugs;
	int rc;

	BUG_ON(!atomic_load(&m->paused));
	rc = get_plugs(m, &plugs, err);
	if (rc)
		return rc;
	writer_bytes(writer, &our_header, sizeof(our_header));
	save_record(&config_desc, 0, &config, writer);
	save_record(&clock_desc, 0, &clock, writer);
	save_record(&machine_desc, 0, &machine, writer);
	save_record(&plugs_desc, 0, &plugs, writer);
	for (unsigned i = 0; i < m->cpu_count; i++) {
		rc = save_cpu(m, i, writer);
		if (rc)
			return error_set_errno(err, -rc, "save vCPU %u", i);
	}
	save_devices(m->bus, writer);
	if (mem_save(m->mem, writer, err))
		return -EIO;
	return writer->failed ? error_set_errno(err, ENOMEM, "save the machine") : 0;
}

/* ---- load ---- */

/* What was read, until all was. Devices' records are in the devices themselves, to be taken out again. */
struct loading {
	struct machine *m;
	struct reader *reader, memory;
	struct error *err;
	struct state_changes changes;
	struct config_state config;
	struct plugs_state plugs;
	unsigned record_count; /* devices' that were not loaded yet, and where they are */
	size_t records[MAX_RECORDS];
	struct clock_state clock;
	struct machine_state machine;
	struct {
		struct cpu_state state;
		struct cpu_pending pending;
	} * cpus;
};

static int load_header(struct loading *l)
{
	struct header header;

	if (!range_ok(l->reader->offset, sizeof(header), l->reader->size))
		return error_set(l->err, EINVAL, "cut off in its header: no record of a machine");
	memcpy(&header, l->reader->data + l->reader->offset, sizeof(header));
	l->reader->offset += sizeof(header);
	if (memcmp(header.magic, our_header.magic, sizeof(header.magic)) != 0)
		return error_set(l->err, EINVAL, "no record of a machine: it does not begin with '%.8s'",
				 our_header.magic);
	if (header.version != FORMAT_VERSION)
		return error_set(l->err, EINVAL, "the record of a machine has version %" PRIu32 "; expected %u",
				 header.version, FORMAT_VERSION);
	return 0;
}

static int load_record(struct loading *l, const struct state_desc *desc, unsigned instance, void *object)
{
	struct reader *r = l->reader;
	size_t start = r->offset;
	uint32_t found, right;
	int rc = state_load_part(&l->changes, desc, instance, object, r, l->err);

	if (rc)
		return rc;
	right = state_checksum(0, r->data + start, r->offset - start);
	if (!range_ok(r->offset, sizeof(found), r->size))
		return error_set(l->err, EINVAL, "record '%s.%u' is cut off in its checksum", desc->name, instance);
	found = load_le32(r->data + r->offset);
	r->offset += sizeof(found);
	if (found != right)
		return error_set(l->err, EINVAL,
				 "record '%s.%u' has the checksum 0x%08" PRIx32 "; expected 0x%08" PRIx32, desc->name,
				 instance, found, right);
	return 0;
}

static int load_machine(struct loading *l)
{
	struct config_state ours = get_config(l->m);
	int rc = load_record(l, &config_desc, 0, &l->config);

	if (!rc)
		rc = compare_configs(&ours, &l->config, l->err);
	if (!rc)
		rc = load_record(l, &clock_desc, 0, &l->clock);
	if (!rc)
		rc = load_record(l, &machine_desc, 0, &l->machine);
	if (!rc && l->machine.turn_holder >= l->m->cpu_count)
		rc = error_set(l->err, EINVAL, "record 'machine.0': turn_holder is %u; there are %u vCPUs",
			       l->machine.turn_holder, l->m->cpu_count);
	return rc;
}

static int load_cpus(struct loading *l)
{
	int rc = 0;

	for (unsigned i = 0; !rc && i < l->m->cpu_count; i++) {
		rc = load_record(l, cpu_state_desc, i, &l->cpus[i].state);
		if (!rc && (rc = cpu_state_offered(l->m->cpus[i].cpu, &l->cpus[i].state, l->err)))
			error_prefix(l->err, "record 'cpu.%u'", i);
		if (!rc)
			rc = load_record(l, cpu_pending_desc, i, &l->cpus[i].pending);
	}
	return rc;
}

static int load_plugs(struct loading *l)
{
	struct plugs_state ours;
	int rc = get_plugs(l->m, &ours, l->err);

	if (!rc)
		rc = load_record(l, &plugs_desc, 0, &l->plugs);
	return rc ? rc : compare_plugs(&ours, &l->plugs, l->err);
}

/* Where the devices' records are. The reader is behind them then. */
static int find_records(struct loading *l)
{
	struct reader *r = l->reader;
	char name[STATE_NAME_SIZE];
	size_t size;

	for (l->record_count = 0; !range_ok(r->offset, 1, r->size) || r->data[r->offset]; l->record_count++) {
		if (!state_peek(r, name, &size) || !range_ok(r->offset + size, sizeof(uint32_t), r->size))
			return error_set(l->err, EINVAL, "a device's record is cut off, behind %u others",
					 l->record_count);
		if (l->record_count == MAX_RECORDS)
			return error_set(l->err, EINVAL, "more than %u records of devices", MAX_RECORDS);
		l->records[l->record_count] = r->offset;
		r->offset += size + sizeof(uint32_t);
	}
	r->offset++;
	return 0;
}

/* Takes its record, the first of that name, out of the list. */
static int load_device(struct loading *l, struct device *device)
{
	char wanted[STATE_NAME_SIZE], found[STATE_NAME_SIZE];
	struct reader behind = *l->reader;
	size_t size;
	int rc;

	snprintf(wanted, sizeof(wanted), "%s.%u", device->ops->state->name, device->instance);
	for (unsigned n = 0; n < l->record_count; n++) {
		l->reader->offset = l->records[n];
		if (!state_peek(l->reader, found, &size) || strcmp(found, wanted) != 0)
			continue;
		l->record_count--;
		memmove(&l->records[n], &l->records[n + 1], (l->record_count - n) * sizeof(l->records[0]));
		rc = load_record(l, device->ops->state, device->instance, device);
		*l->reader = behind;
		return rc;
	}
	*l->reader = behind;
	return error_set(l->err, EINVAL, "there is no record '%s', of a device that this machine has", wanted);
}

static int load_devices(struct loading *l)
{
	struct device *device = NULL;
	int rc = find_records(l);

	/* In the order in which they were saved: devices of several names may have records of one. */
	while (!rc && (device = bus_next_device(l->m->bus, device)))
		if (device->ops->state)
			rc = load_device(l, device);
	if (!rc && l->record_count) {
		struct reader left = { l->reader->data, l->reader->size, l->records[0] };
		char name[STATE_NAME_SIZE] = "";
		size_t size;

		state_peek(&left, name, &size);
		rc = error_set(l->err, EINVAL, "there is a record '%.64s', of a device that this machine does not have",
			       name);
	}
	return rc ? rc : bus_loaded(l->m->bus, l->err);
}

static int load_all(struct loading *l)
{
	int rc = load_header(l);

	if (!rc)
		rc = load_machine(l);
	if (!rc)
		rc = load_plugs(l);
	if (!rc)
		rc = load_cpus(l);
	if (!rc)
		rc = load_devices(l);
	l->memory = *l->reader;
	if (!rc)
		rc = mem_check(l->m->mem, l->reader, l->err);
	if (!rc && l->reader->offset != l->reader->size)
		rc = error_set(l->err, EINVAL, "%zu bytes behind the last run of memory; expected the end",
			       l->reader->size - l->reader->offset);
	return rc;
}

static void attach_cpus(struct loading *l)
{
	for (unsigned i = 0; i < l->m->cpu_count; i++) {
		struct vcpu *v = l->m->cpus[i].cpu;

		cpu_reset(v, false); /* what is between instructions, and in no record */
		BUG_ON(l->m->engine.ops->push(v, &l->cpus[i].state));
		cpu_pending_push(v, &l->cpus[i].pending);
		l->m->engine.ops->invalidate(v, gpa(0), SIZE_MAX);
	}
}

/* push() has every vCPU look for interrupts; under virtual time one that sleeps must not get a turn for nothing. */
static void settle_cpus(struct machine *m)
{
	for (unsigned i = 0; i < m->cpu_count; i++)
		if (!lapic_pending(m->cpus[i].lapic))
			atomic_fetch_and(&m->cpus[i].cpu->events, ~(uint32_t)EVENT_INTERRUPT);
}

/* All is good. Time comes first, because all else may look at it; a local APIC's timer depends on its CPU's TSC. */
static void attach_all(struct loading *l)
{
	struct machine *m = l->m;

	BUG_ON(clock_set_tsc_hz(m->clock, l->clock.tsc_hz, NULL));
	clock_load(m->clock, l->clock.tsc, l->clock.wall);
	mem_load(m->mem, &l->memory);
	attach_cpus(l);
	bus_attach(m->bus);
	bus_settle(m->bus);
	settle_cpus(m);
	machine_apply_a20(m);
	set_machine(m, &l->machine);
}

int machine_load(struct machine *m, struct reader *reader, struct error *err)
{
	struct reader at = *reader;
	struct loading l = { .m = m, .reader = &at, .err = err };
	int rc;

	BUG_ON(!atomic_load(&m->paused));
	l.cpus = calloc(m->cpu_count, sizeof(*l.cpus));
	if (!l.cpus)
		return error_set_errno(err, ENOMEM, "load the machine");
	bus_lock(m->bus);
	rc = load_all(&l);
	if (rc)
		state_load_undo(&l.changes);
	else
		state_load_keep(&l.changes);
	bus_unlock(m->bus);
	if (!rc) {
		attach_all(&l);
		*reader = at;
	}
	free(l.cpus);
	return rc;
}
