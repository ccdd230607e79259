/*
 * What firmware would have done before it started a kernel: this machine boots kernels directly, so the machine does it: after
 * power-on and after each reset the kernel is loaded anew, memory types and interrupt controllers are set up. (Local APICs: see
 * lapic_reset().) Unless there is a firmware.
 */
#include "machine/private.h"

#include "boot/boot.h"

_Static_assert(MEM_MAX + MEM_HIGH_BASE - MEM_LOW_TOP == BIT(CPU_PHYS_BITS), "all RAM has an address");
_Static_assert(MACHINE_MAX_SMBIOS <= BOOT_SMBIOS_MOST, "they have room");
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

static void out8(struct machine *m, uint16_t port, uint8_t value)
{
	bus_access(m->bus,
		   &(struct bus_access){ .space = BUS_PIO, .address = port, .size = 1, .write = true, .value = value });
}

static void write_ioapic(struct machine *m, uint64_t offset, uint32_t value)
{
	bus_access(m->bus, &(struct bus_access){ .space = BUS_MMIO,
						 .address = IOAPIC_ADDRESS + offset,
						 .size = 4,
						 .write = true,
						 .value = value });
}

/*
 * The 8259s with a PC's vectors, 08h and 70h, and every line masked but the slave's; the DMA controllers as a cascade; the I/O APIC with the ID that tables name; a shutdown
 * code that the guest left is used up.
 */
static void set_chipset(struct machine *m)
{
	static const struct {
		uint16_t port;
		uint8_t value;
	} words[] = {
		{ 0x20, 0x11 },
		{ 0x21, 0x08 },
		{ 0x21, 0x04 },
		{ 0x21, 0x01 },
		{ 0x21, 0xfb },
		{ 0xa0, 0x11 },
		{ 0xa1, 0x70 },
		{ 0xa1, 0x02 },
		{ 0xa1, 0x01 },
		{ 0xa1, 0xff },
		{ 0xd6, 0xc0 },
		{ 0xd4, 0x00 },
		{ 0x70, BOOT_SHUTDOWN_CODE },
		{ 0x71, 0x00 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		out8(m, words[i].port, words[i].value);
	write_ioapic(m, IOAPIC_INDEX, 0);
	write_ioapic(m, IOAPIC_DATA, (uint32_t)boot_ioapic_id(m->cpu_count) << 24);
}

/* Between 768 KiB and 1 MiB: RAM instead of ROM; sealed: what holds tables and the BIOS, the last 64 KiB, is read only. */
static void enable_ram(struct machine *m, enum i440fx_ram ram)
{
	bus_lock(m->bus);
	i440fx_set_ram(m->bus, ram);
	bus_unlock(m->bus);
	bus_settle(m->bus);
}

bool machine_warm_reset(struct machine *m)
{
	struct bus_access code = { .space = BUS_PIO, .address = 0x71, .size = 1 };

	out8(m, 0x70, BOOT_SHUTDOWN_CODE);
	bus_access(m->bus, &code);
	return bios_resumes((uint8_t)code.value);
}

/* Without what CPUID says. */
static struct boot_config boot_config_of(const struct machine *m)
{
	return (struct boot_config){
		.kernel = m->config.kernel,
		.initrd = m->config.initrd,
		.command_line = m->config.append ? m->config.append : "",
		.modules = m->config.modules,
		.module_count = m->config.module_count,
		.cpu_count = m->cpu_count,
		.serial_ports = uart_ports(m->bus),
		.virtio_windows = virtio_mmio_windows(m->bus),
		.fw_cfg = fw_cfg_is_here(m->bus),
		.hpet = hpet_is_here(m->bus),
		.vmgenid = vmgenid_is_here(m->bus),
		.smbios = m->config.smbios,
		.smbios_count = m->config.smbios_count,
	};
}

static struct boot_config whole_boot_config_of(const struct machine *m)
{
	struct cpuid_regs features = cpu_cpuid(m->cpus[0].cpu, 1, 0);
	struct boot_config config = boot_config_of(m);

	config.cpu_signature = features.eax;
	config.cpu_features = features.edx;
	return config;
}

static void make_acpi(void *machine, const struct fw_cfg_choices *choices, struct fw_cfg_acpi *files)
{
	const struct machine *m = machine;
	struct boot_config config = boot_config_of(m);

	boot_make_acpi(&config, m->mem, choices, files);
}

int machine_tell_firmware(struct machine *m, struct error *err)
{
	struct boot_config config = whole_boot_config_of(m);
	int rc;

	if (!config.fw_cfg)
		return 0;
	rc = fw_cfg_add_acpi(m->bus, make_acpi, m, err);
	return rc ? rc : boot_tell_firmware(&config, m->bus, err);
}

static int load(struct machine *m, struct cpu_state *state, struct error *err)
{
	const struct machine_guest *guest = m->config.guest;
	struct boot_config config = whole_boot_config_of(m);

	return guest ? guest->load(guest->opaque, m->mem, state, err) : boot_load(&config, m->mem, state, err);
}

int machine_check_smbios(const char *spec, struct error *err) { return smbios_check(spec, err); }

const char *machine_firmware_name(unsigned n) { return rom_name(n); }

int machine_boot(struct machine *m, struct error *err)
{
	bus_settle(m->bus);
	if (m->config.firmware)
		return 0; /* all else is the firmware's */
	set_chipset(m);
	enable_ram(m, I440FX_RAM);
	bios_shadow(m->mem);
	for (unsigned i = 0; i < m->cpu_count; i++) {
		struct vcpu *v = m->cpus[i].cpu;
		struct cpu_state state;
		int rc = m->engine.ops->pull(v, &state);

		if (!rc && i == 0)
			rc = load(m, &state, err);
		if (rc)
			return rc;
		set_memory_types(v, &state);
		rc = m->engine.ops->push(v, &state);
		if (rc)
			return error_set(err, -rc, "set the initial state of vCPU %u", i);
	}
	enable_ram(m, I440FX_RAM_SEALED);
	return 0;
}
