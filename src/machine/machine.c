/*
 * Assembles a machine from its configuration, in one place and in a fixed order, and takes it apart again.
 */
#include "machine/private.h"

#include "boot/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- the board ---- */

static int add_interrupt_controllers(struct machine *m, struct error *err)
{
	void *cpus[MACHINE_MAX_CPUS];
	int rc;

	for (unsigned i = 0; i < m->cpu_count; i++)
		cpus[i] = &m->cpus[i];
	rc = irq_chip_create(m->bus, m->cpu_count, &machine_lapic_ops, cpus, err);
	for (unsigned i = 0; !rc && i < m->cpu_count; i++)
		m->cpus[i].lapic = irq_lapic(m->bus, i);
	return rc;
}

/* What devices are plugged into, then these. */
static int create_board(struct machine *m, struct error *err)
{
	int rc = add_interrupt_controllers(m, err);

	if (!rc)
		rc = pci_bus_create(m->bus, err);
	if (!rc)
		rc = plug_devices(m, err);
	return rc ? rc : machine_tell_firmware(m, err);
}

/* ---- creation ---- */

/* Enough for any kernel's, with all modules. */
#define MAX_SYMBOL_FILE (256u << 20)

static int read_guest_symbols(struct machine *m, struct error *err)
{
	uint8_t *text;
	size_t size;
	int rc = host_file_read(m->config.guest_symbols, MAX_SYMBOL_FILE, &text, &size, err);

	if (rc)
		return rc;
	m->symbols = symbols_parse((const char *)text, err);
	free(text);
	return m->symbols ? 0 : error_prefix(err, "guest symbols '%s'", m->config.guest_symbols);
}

/* What shows the person who runs doppel what happens inside. */
static int open_observers(struct machine *m, struct error *err)
{
	const struct machine_config *c = &m->config;
	int rc = 0;

	if (c->guest_symbols)
		rc = read_guest_symbols(m, err);
	if (!rc && c->trace)
		rc = trace_open(&m->trace, c->trace, c->trace_file, c->trace_limit, err);
	if (!rc && c->perf_map && !(m->perf_map = perf_map_open(err)))
		rc = -err->code;
	return rc;
}

static int create_host_side(struct machine *m, struct error *err)
{
	const struct machine_config *c = &m->config;
	int rc = 0;

	rc = cpu_model_init(&m->model, c->cpu_model ? c->cpu_model : "host", c->pure, c->cpus, err);
	if (!rc)
		rc = open_observers(m, err);
	if (rc)
		return rc;
	m->loop = event_loop_create(err);
	if (!m->loop)
		return -err->code;
	m->display = display_create(m->loop, err);
	if (!m->display)
		return -err->code;
	m->clock = clock_create(c->clock, 0, err);
	if (!m->clock)
		return -err->code;
	return 0;
}

static int create_cpu(struct machine *m, unsigned i, struct error *err)
{
	struct machine_cpu *mc = &m->cpus[i];
	int rc;

	mc->machine = m;
	mc->cpu =
		vcpu_create(m->engine.ops->vcpu_size, i, &m->model, m->mem, m->clock, &m->trace, &machine_env, mc, err);
	if (!mc->cpu)
		return -err->code;
	mc->cpu->symbols = m->symbols;
	mc->cpu->perf_map = m->perf_map;
	pthread_cond_init(&mc->turn_begins, NULL);
	m->vcpus[i] = mc->cpu;
	mc->cpu->peers = m->vcpus;
	mc->cpu->peer_count = m->config.cpus;
	rc = engine_add_vcpu(&m->engine, mc->cpu, err);
	if (rc) {
		vcpu_destroy(mc->cpu);
		mc->cpu = NULL;
		return rc;
	}
	m->cpu_count++;
	return 0;
}

static uint64_t overhead_of(const struct machine_config *c)
{
	return c->overhead ? c->overhead : overhead_default(c->memory, c->cpus);
}

static int open_engine(struct machine *m, struct error *err)
{
	const char *spec = m->config.engine ? m->config.engine : "auto";
	struct engine_options options;
	const struct engine_ops *ops = engine_find(spec, &options, err);

	if (!ops)
		return -err->code;
	if (m->virtual_time && !(ops->can & ENGINE_VIRTUAL_CLOCK))
		return error_set(err, ENOTSUP, "engine '%s' cannot count for a virtual clock", ops->name);
	return engine_open(&m->engine, ops, &options, m->mem, err);
}

static int create_guest_side(struct machine *m, struct error *err)
{
	int rc;

	m->mem = mem_create(m->config.memory, err);
	if (!m->mem)
		return -err->code;
	m->mem->lost = machine_memory_lost;
	m->mem->lost_opaque = m;
	overhead_init(&m->mem->overhead, overhead_of(&m->config), m->config.memory, m->config.cpus);
	rc = m->config.firmware ? rom_load(m->mem, m->config.firmware, err) : bios_map(m->mem, err);
	if (rc)
		return rc;
	rc = open_engine(m, err);
	if (rc)
		return rc;
	m->bus = bus_create(m->mem, m->clock, &m->trace, err);
	if (!m->bus)
		return -err->code;
	if (m->config.name)
		m->bus->name = m->config.name;
	m->bus->display = m->display;
	m->bus->firmware = m->config.firmware != NULL;
	m->bus->reinject = !m->virtual_time;
	m->bus->request = machine_bus_request;
	m->bus->hold = pause_hold;
	m->bus->request_opaque = m;
	m->bus->locks.waits = exclusive_wait;
	m->bus->locks.waits_opaque = m;
	m->bus->stopped = machine_stopped;
	m->bus->stopped_opaque = m;
	m->bus->a20.fn = machine_a20_moved;
	m->cpus = calloc(m->config.cpus, sizeof(*m->cpus));
	m->vcpus = calloc(m->config.cpus, sizeof(struct vcpu *));
	if (!m->cpus || !m->vcpus)
		return error_set_errno(err, ENOMEM, "create %u vCPUs", m->config.cpus);
	for (unsigned i = 0; !rc && i < m->config.cpus; i++)
		rc = create_cpu(m, i, err);
	return rc ? rc : create_board(m, err);
}

static int check_config(const struct machine_config *c, struct error *err)
{
	if (!c->kernel && !c->guest && !c->firmware)
		return error_set(err, EINVAL, "no kernel and no firmware given");
	if (c->firmware && (c->kernel || c->initrd || c->append || c->module_count))
		return error_set(err, EINVAL, "a firmware is started alone, without a kernel or what belongs to one");
	if (!c->cpus || c->cpus > MACHINE_MAX_CPUS)
		return error_set(err, EINVAL, "%u CPUs; a machine has 1 to %u", c->cpus, MACHINE_MAX_CPUS);
	if (overhead_of(c) < overhead_least(c->memory, c->cpus))
		return error_set(err, EINVAL,
				 "memory beyond the guest's of %" PRIu64 " MiB; with %u CPUs and %" PRIu64
				 " MiB of memory expected at least %" PRIu64 " MiB",
				 overhead_of(c) >> 20, c->cpus, c->memory >> 20,
				 overhead_least(c->memory, c->cpus) >> 20);
	return 0;
}

int machine_create(struct machine **machine, const struct machine_config *config, struct error *err)
{
	struct error ignored = { 0 };
	struct machine *m;
	int rc;

	err = err ? err : &ignored;
	*machine = NULL;
	rc = check_config(config, err);
	if (rc)
		return rc;
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_set_errno(err, ENOMEM, "create the machine");
	m->config = *config;
	m->virtual_time = config->clock == CLOCK_VIRTUAL;
	m->paused = true;
	list_init(&m->calls);
	list_init(&m->holds);
	pthread_mutex_init(&m->run_lock, NULL);
	pthread_cond_init(&m->run_changed, NULL);
	pthread_mutex_init(&m->exclusive.lock, NULL);
	pthread_cond_init(&m->exclusive.let_in, NULL);
	pthread_cond_init(&m->exclusive.turn, NULL);
	pthread_mutex_init(&m->turn.lock, NULL);
	rc = create_host_side(m, err);
	if (!rc)
		rc = create_guest_side(m, err);
	if (!rc)
		rc = views_open(m, err);
	if (!rc) {
		bus_reset(m->bus);
		rc = machine_boot(m, err);
	}
	if (rc) {
		machine_destroy(m);
		return rc;
	}
	*machine = m;
	return 0;
}

int machine_read_memory(struct machine *m, gpa_t where, void *data, size_t size, struct error *err)
{
	if (mem_read(m->mem, where, data, size))
		return error_set(err, EFAULT, "%zu bytes at guest physical %#lx are not all RAM", size,
				 (unsigned long)where.v);
	return 0;
}

const char *machine_engine(const struct machine *m) { return m->engine.ops->name; }

void machine_destroy(struct machine *m)
{
	if (!m)
		return;
	views_close(m);
	if (m->bus)
		devices_unplug(m->bus);
	bus_destroy(m->bus);
	for (unsigned i = 0; i < m->cpu_count; i++) {
		engine_remove_vcpu(m->cpus[i].cpu);
		vcpu_destroy(m->cpus[i].cpu);
		pthread_cond_destroy(&m->cpus[i].turn_begins);
	}
	free(m->cpus);
	free(m->vcpus);
	if (m->engine.ops)
		engine_close(&m->engine);
	if (m->mem)
		mem_destroy(m->mem);
	clock_destroy(m->clock);
	display_destroy(m->display);
	if (m->loop)
		event_loop_destroy(m->loop);
	trace_close(&m->trace);
	perf_map_close(m->perf_map);
	symbols_free(m->symbols);
	pthread_mutex_destroy(&m->run_lock);
	pthread_cond_destroy(&m->run_changed);
	pthread_mutex_destroy(&m->exclusive.lock);
	pthread_cond_destroy(&m->exclusive.let_in);
	pthread_cond_destroy(&m->exclusive.turn);
	pthread_mutex_destroy(&m->turn.lock);
	free(m);
}
