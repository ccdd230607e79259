/*
 * What firmware would have done before it started a kernel: this machine boots kernels directly, so the machine does it: after
 * power-on and after each reset the kernel is loaded anew and memory types are set up. (Local APICs: see lapic_reset().) Unless there
 * is a firmware.
 */
#include "machine/private.h"

#include "boot/boot.h"

_Static_assert(MACHINE_MAX_MODULES <= BOOT_MODULES_MAX, "every module can be booted");

/* Memory types, SDM vol. 3A 11.11 */
#define MTRR_WRITE_BACK	     6ull
#define MTRR_UNCACHED	     0ull
#define MTRR_ENABLED	     BIT(11)
#define MTRR_FIXED_ENABLED   BIT(10)
#define MTRR_MASK_VALID	     BIT(11)
#define CPUID_ADDRESS_WIDTHS 0x80000008u

/* Eight fields of one byte. */
#define ALL_FIELDS(type) ((type)*0x0101010101010101ull)

/* Write-back, but for the VGA's window and what is between low memory and 4 GiB. The same on all CPUs. */
static void set_memory_types(struct vcpu *v, struct cpu_state *s)
{
	unsigned width = cpu_cpuid(v, CPUID_ADDRESS_WIDTHS, 0).eax & 0xff;
	uint64_t hole = MEM_HIGH_BASE - MEM_LOW_TOP;

	s->mtrr_def_type = MTRR_ENABLED | MTRR_FIXED_ENABLED | MTRR_WRITE_BACK;
	for (unsigned i = 0; i < ARRAY_SIZE(s->mtrr_fixed); i++)
		s->mtrr_fixed[i] = ALL_FIELDS(MTRR_WRITE_BACK);
	s->mtrr_fixed[2] = ALL_FIELDS(MTRR_UNCACHED); /* 0xa0000..0xbffff */
	s->mtrr_var[0] = MEM_LOW_TOP | MTRR_UNCACHED;
	s->mtrr_var[1] = ((BIT(width) - 1) & ~(hole - 1)) | MTRR_MASK_VALID;
}

static int load(struct machine *m, struct cpu_state *state, struct error *err)
{
	const struct machine_guest *guest = m->config.guest;
	struct boot_config config = {
		.kernel = m->config.kernel,
		.initrd = m->config.initrd,
		.command_line = m->config.append ? m->config.append : "",
		.modules = m->config.modules,
		.module_count = m->config.module_count,
		.cpu_count = m->cpu_count,
	};

	return guest ? guest->load(guest->opaque, m->mem, state, err) : boot_load(&config, m->mem, state, err);
}

int machine_boot(struct machine *m, struct error *err)
{
	if (m->rom) {
		rom_shadow(m->mem, m->rom, m->rom_size); /* and all else is the firmware's */
		return 0;
	}
	for (unsigned i = 0; i < m->cpu_count; i++) {
		struct vcpu *v = m->cpus[i].cpu;
		struct cpu_state state;
		int rc = m->engine->pull(v, &state);

		if (!rc && i == 0)
			rc = load(m, &state, err);
		if (rc)
			return rc;
		set_memory_types(v, &state);
		rc = m->engine->push(v, &state);
		if (rc)
			return error_set(err, -rc, "set the initial state of vCPU %u", i);
	}
	return 0;
}
