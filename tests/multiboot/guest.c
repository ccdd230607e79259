/*
 * A bare-metal multiboot 1 guest: checks what its loader gave it against the Multiboot Specification 0.6.96, whose sections
 * the checks are named after, and prints it. TAP on the debug console, the end through the debug-exit port.
 *
 * The test that starts it gives it: the command line "... guest one  two", the modules "first" with arguments and "second"
 * without, each a file of letters that begins with its name and ends with ".", and 64 MiB of memory.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEBUG_CONSOLE 0xe9
#define DEBUG_EXIT    0xf4

/* 3.3 */
struct information {
	uint32_t flags, memory_lower, memory_upper, boot_device, command_line, module_count, modules, symbols[4],
		memory_map_length, memory_map, drives[2], config_table, loader_name;
};
struct module {
	uint32_t start, end, string, reserved;
};
struct range {
	uint32_t size;
	uint64_t start, length;
	uint32_t type;
} __attribute__((packed));

/* Filled by start.S. */
extern struct {
	uint32_t eax, ebx, eflags, cr0, selectors[6]; /* CS, then the others */
} entry_state;
extern uint8_t image_start[], bss_end[];

void main(void);

/* ---- TAP ---- */

static unsigned checks;
static volatile uint8_t bss[0x3000];

static void out8(uint16_t port, uint8_t value) { asm volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }

static void print(const char *text)
{
	while (*text)
		out8(DEBUG_CONSOLE, (uint8_t)*text++);
}

static void print_number(uint64_t value, unsigned base)
{
	/* No library: 64-bit division is not to be had. */
	if (base == 10 ? value >= 10 : value >> 4)
		print_number(base == 10 ? (uint32_t)value / 10 : value >> 4, base);
	out8(DEBUG_CONSOLE, (uint8_t) "0123456789abcdef"[base == 10 ? (uint32_t)value % 10 : value & 15]);
}

static void print_hex(const char *what, uint64_t value)
{
	print(what);
	print("0x");
	print_number(value, 16);
}

static void check(bool good, const char *name)
{
	print(good ? "ok " : "not ok ");
	print_number(++checks, 10);
	print(" - ");
	print(name);
	print("\n");
}

/* ---- helpers ---- */

static const char *text(uint32_t address) { return (const char *)address; }

static size_t length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = length(s), m = length(end);

	if (n < m)
		return false;
	for (size_t i = 0; i < m; i++)
		if (s[n - m + i] != end[i])
			return false;
	return true;
}

static bool begins_with(const char *s, const char *begin)
{
	for (; *begin; begin++)
		if (*s++ != *begin)
			return false;
	return true;
}

/* ---- 3.2 ---- */

static bool flat(uint32_t selector)
{
	uint32_t limit = 0;
	bool valid;

	asm("lsl %2, %0\n\tsetz %1" : "+r"(limit), "=qm"(valid) : "r"(selector) : "cc");
	return valid && limit == UINT32_MAX;
}

/* Type, S, DPL, P and D/B of a descriptor, as LAR has them. */
static uint32_t rights(uint32_t selector)
{
	uint32_t value = 0;

	asm("lar %1, %0" : "+r"(value) : "r"(selector) : "cc");
	return value & 0x40fe00; /* without the accessed bit */
}

static void check_machine_state(void)
{
	bool data = true;
	volatile uint32_t *odd = (uint32_t *)(image_start + 0x700000), *even = (uint32_t *)(image_start + 0x600000);

	print_hex("# eax ", entry_state.eax);
	print_hex(" ebx ", entry_state.ebx);
	print_hex(" eflags ", entry_state.eflags);
	print_hex(" cr0 ", entry_state.cr0);
	print("\n");
	check(entry_state.eax == 0x2badb002, "3.2: EAX");
	check(rights(entry_state.selectors[0]) == 0x409a00 && flat(entry_state.selectors[0]), "3.2: CS");
	for (unsigned i = 1; i < 6; i++)
		data &= rights(entry_state.selectors[i]) == 0x409200 && flat(entry_state.selectors[i]);
	check(data, "3.2: DS, ES, FS, GS, SS");
	check((entry_state.cr0 & 0x80000001) == 1, "3.2: CR0");
	check(!(entry_state.eflags & 0x20200), "3.2: EFLAGS");
	*odd = 1;
	*even = 2;
	check(*odd == 1 && *even == 2, "3.2: the A20 gate is open");
}

/* ---- 3.3 ---- */

static void check_memory(const struct information *info)
{
	const struct range *range = (const struct range *)info->memory_map;
	uint32_t end = info->memory_map + info->memory_map_length;
	bool ram = false, sizes = true;

	print("# memory below 1 MiB ");
	print_number(info->memory_lower, 10);
	print(" KiB, above ");
	print_number(info->memory_upper, 10);
	print(" KiB\n");
	check((info->flags & 1) && info->memory_lower == 639 && info->memory_upper == 63 * 1024,
	      "3.3: mem_lower, mem_upper");
	while ((info->flags & 0x40) && (uint32_t)range < end) {
		print_hex("# ", range->start);
		print_hex(" + ", range->length);
		print_hex(" type ", range->type);
		print("\n");
		sizes &= range->size >= 20;
		ram |= range->start == 0x100000 && range->length == 63 << 20 && range->type == 1;
		range = (const struct range *)((uint32_t)range + range->size + 4);
	}
	check((info->flags & 0x40) && sizes && (uint32_t)range == end && ram, "3.3: mmap_addr, mmap_length");
}

static bool good_module(const struct module *m, const char *name, const char *string)
{
	print_hex("# module ", m->start);
	print_hex(" to ", m->end);
	print(": ");
	print(text(m->string));
	print("\n");
	return !(m->start & 0xfff) && m->end > m->start && m->start >= (uint32_t)bss_end &&
	       ends_with(text(m->string), string) && begins_with(text(m->start), name) && text(m->end)[-1] == '.';
}

static void check_strings_and_modules(const struct information *info)
{
	const struct module *m = (const struct module *)info->modules;

	print("# command line: ");
	print(text(info->command_line));
	print("\n# loader: ");
	print(text(info->loader_name));
	print("\n");
	check((info->flags & 4) && ends_with(text(info->command_line), " guest one  two"), "3.3: cmdline");
	check((info->flags & 0x200) && *text(info->loader_name), "3.3: boot_loader_name");
	check((info->flags & 8) && info->module_count == 2, "3.3: mods_count");
	if (info->module_count != 2)
		return;
	check(good_module(&m[0], "first", "first a,b c"), "3.3: the first module");
	check(good_module(&m[1], "second", "second"), "3.3: the second module");
	check(m[1].start >= m[0].end, "3.3: modules do not overlap");
}

void main(void)
{
	bool zero = true;

	check_machine_state();
	for (size_t i = 0; i < sizeof(bss); i++)
		zero &= !bss[i];
	check(zero, "3.1.3: the bss is cleared");
	check_memory((const struct information *)entry_state.ebx);
	check_strings_and_modules((const struct information *)entry_state.ebx);
	print("1..");
	print_number(checks, 10);
	print("\n");
	out8(DEBUG_EXIT, 0);
}
