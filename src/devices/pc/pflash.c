/*
 * Flash memory below a UEFI firmware's ROM, where it keeps its variables: Intel's command set (AP-646, "Common Flash Interface"), one byte wide, blocks of 4 KiB. It is read as
 * memory; writes are commands. Contents are a file's, and change byte by byte with it, as a chip's would: who is interrupted in the middle finds what was
 * written so far, which firmware is prepared for.
 */
#include "devices/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK	  0x1000u
#define SIZE_MOST (16u << 20)

enum command {
	READ_ARRAY = 0xff,
	READ_ID = 0x90,
	READ_STATUS = 0x70,
	CLEAR_STATUS = 0x50,
	PROGRAM = 0x10,
	PROGRAM_TOO = 0x40,
	ERASE = 0x20,
	CONFIRM = 0xd0,
};

#define STATUS_READY	BIT(7)
#define STATUS_SEQUENCE (BIT(5) | BIT(4)) /* commands that do not belong together */

#define PFLASH_STATE(_, T)                                                                                             \
	_(T, uint8_t, command, 1, 1, READ_ARRAY, 0xff) /* what reads see, or what the next write belongs to */         \
	_(T, uint8_t, status, 1, 2, STATUS_READY, 0xff)

/* clang-format off */
#define PFLASH_OPTIONS(_, T)                                                                                           \
	_(T, TEXT, file, 0, 0, NULL, "the variables; made if it is not there; by default they end with the machine")   \
	_(T, TEXT, template, 0, 0, "/usr/share/OVMF/OVMF_VARS_4M.fd", "what they are at first")
/* clang-format on */

struct pflash_options {
	DEVICE_OPTION_FIELDS(PFLASH_OPTIONS)
};

struct pflash {
	struct device device;
	STATE_FIELDS(PFLASH_STATE)
	struct memory *memory;
	struct mem_layer layer;
	struct bus_range range;
};

static struct pflash *of(struct device *device) { return (struct pflash *)device; }

/* ---- commands ---- */

/* Reads are the memory's, or answered here. */
static void show(struct pflash *p)
{
	mem_layer_set(p->device.bus->mem, &p->layer, p->layer.start, p->command == READ_ARRAY, false);
	bus_remap(p->device.bus);
}

static void set_command(struct pflash *p, uint8_t command)
{
	bool was_array = p->command == READ_ARRAY;

	p->command = command;
	if (was_array != (command == READ_ARRAY))
		show(p);
}

static uint64_t flash_read(struct device *device, uint64_t offset, unsigned size)
{
	static const uint8_t id[] = { 0x89, 0x18 };
	struct pflash *p = of(device);
	uint64_t value = 0;

	if (p->command == READ_ID)
		return offset < ARRAY_SIZE(id) ? id[offset] : 0;
	if (p->command != READ_ARRAY)
		return p->status;
	memcpy(&value, p->memory->file.base + offset, size); /* the map does not say so yet */
	return value;
}

/* Bits that are 0 stay so until their block is erased. */
static void program(struct pflash *p, uint64_t offset, unsigned size, uint64_t value)
{
	uint8_t *to = p->memory->file.base + offset;

	for (unsigned n = 0; n < size; n++, value >>= 8)
		to[n] &= (uint8_t)value;
	mem_dma_written(p->device.bus->mem, to, size);
}

static void erase(struct pflash *p, uint64_t offset)
{
	uint8_t *block = p->memory->file.base + align_down(offset, BLOCK);

	memset(block, 0xff, BLOCK);
	mem_dma_written(p->device.bus->mem, block, BLOCK);
}

static void begin(struct pflash *p, uint8_t command)
{
	switch (command) {
	case CLEAR_STATUS:
		/* As firmware knows flash from other monitors: nothing is set, not even that it is ready. */
		p->status = 0;
		set_command(p, READ_ARRAY);
		break;
	case PROGRAM:
	case PROGRAM_TOO:
	case ERASE:
	case READ_ID:
	case READ_STATUS: set_command(p, command); break;
	default: set_command(p, READ_ARRAY); break;
	}
}

static void flash_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct pflash *p = of(device);

	switch (p->command) {
	case PROGRAM:
	case PROGRAM_TOO:
		program(p, offset, size, value);
		p->status |= STATUS_READY;
		set_command(p, READ_STATUS);
		break;
	case ERASE:
		if ((uint8_t)value == CONFIRM)
			erase(p, offset);
		p->status |= STATUS_READY | ((uint8_t)value == CONFIRM ? 0 : STATUS_SEQUENCE);
		set_command(p, READ_STATUS);
		break;
	default: begin(p, (uint8_t)value); break;
	}
}

/* ---- the file ---- */

static int write_template(int fd, const char *template, struct error *err)
{
	uint8_t *data = NULL;
	size_t size = 0;
	int rc = host_file_read(template, SIZE_MOST, &data, &size, err);

	if (!rc)
		rc = host_write_all(fd, data, size);
	free(data);
	if (rc && (!err || !err->code))
		error_set_errno(err, -rc, "write the variables' file");
	return rc;
}

/* A new one beside its place, and then there: what is there is complete. */
static int make_file(const char *file, const char *template, struct error *err)
{
	char path[4096];
	int fd, rc;

	if ((size_t)snprintf(path, sizeof(path), "%s.new", file) >= sizeof(path))
		return error_set_errno(err, ENAMETOOLONG, "'%s'", file);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set_errno(err, errno, "create '%s'", path);
	rc = write_template(fd, template, err);
	if (!rc && (fdatasync(fd) || rename(path, file)))
		rc = error_set_errno(err, errno, "create '%s'", file);
	close(fd);
	if (rc)
		unlink(path);
	return rc;
}

/* With a lock: two firmwares in one would be none. A descriptor, or -errno. */
static int open_file(const char *file, const char *template, struct error *err)
{
	int fd = open(file, O_RDWR | O_CLOEXEC), rc;

	if (fd < 0 && errno == ENOENT) {
		rc = make_file(file, template, err);
		if (rc)
			return rc;
		fd = open(file, O_RDWR | O_CLOEXEC);
	}
	if (fd < 0)
		return error_set_errno(err, errno, "open '%s'", file);
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		rc = error_set(err, errno, "'%s' is in use by another machine", file);
		close(fd);
		return rc;
	}
	return fd;
}

static int check_size(const char *name, uint64_t size, struct error *err)
{
	if (size && size <= SIZE_MOST && size % BLOCK == 0)
		return 0;
	return error_set(err, EINVAL, "'%s' has %" PRIu64 " bytes; expected a multiple of %u, at most %u MiB", name,
			 size, BLOCK, SIZE_MOST >> 20);
}

static int create_of_file(struct pflash *p, const struct pflash_options *o, struct error *err)
{
	int fd = open_file(o->file, o->template, err), rc;
	struct stat status;

	if (fd < 0)
		return fd;
	rc = fstat(fd, &status) ? error_set_errno(err, errno, "'%s'", o->file)
				: check_size(o->file, (uint64_t)status.st_size, err);
	if (!rc) {
		p->memory = memory_create_of(p->device.bus->mem, MEMORY_KIND_FILE, "pflash", fd,
					     (uint64_t)status.st_size, err);
		rc = p->memory ? 0 : -err->code;
	}
	if (rc)
		close(fd);
	return rc;
}

/* A part of the machine, as a saved one is. */
static int create_of_template(struct pflash *p, const char *template, struct error *err)
{
	uint8_t *data = NULL;
	size_t size = 0;
	int rc = host_file_read(template, SIZE_MOST, &data, &size, err);

	if (!rc)
		rc = check_size(template, size, err);
	if (!rc) {
		p->memory = memory_create(p->device.bus->mem, MEMORY_KIND_DEVICE, "pflash", size, err);
		rc = p->memory ? 0 : -ENOMEM;
	}
	if (!rc)
		memcpy(p->memory->file.base, data, size);
	free(data);
	return rc;
}

/* ---- life ---- */

static void pflash_reset(struct device *device) { show(of(device)); }

static void pflash_destroy(struct device *device)
{
	struct pflash *p = of(device);

	bus_unmap(device->bus, BUS_MMIO, &p->range);
	if (p->layer.added) {
		mem_layer_remove(device->bus->mem, &p->layer);
		mem_commit(device->bus->mem);
	}
	memory_destroy(device->bus->mem, p->memory);
	free(p);
}

STATE_DESC(pflash_state_desc, "pflash", 1, struct pflash, PFLASH_STATE);

static const struct device_ops pflash_ops = {
	.state = &pflash_state_desc, .reset = pflash_reset, .attach = pflash_reset, .destroy = pflash_destroy
};

/* Where the firmware's ROM begins, the first one of those that end at 4 GiB. */
static uint64_t rom_start(const struct guest_mem *mem)
{
	for (unsigned n = 0; mem && n < mem->rom_count; n++)
		if (mem->rom_layers[n].start + mem->rom_layers[n].size == MEM_HIGH_BASE)
			return mem->rom_layers[n].start;
	return 0;
}

static int place(struct pflash *p, struct error *err)
{
	struct bus *bus = p->device.bus;
	uint64_t size = p->memory->file.size, start = rom_start(bus->mem);
	int rc;

	if (start < MEM_LOW_TOP + size)
		return error_set(err, EINVAL, "pflash: there is no firmware in whose front it could be");
	start -= size;
	p->layer = (struct mem_layer){
		.memory = p->memory, .start = start, .size = size, .priority = MEM_PRIORITY_ROM, .reads = true
	};
	rc = mem_layer_add(bus->mem, &p->layer, err);
	if (rc)
		return rc;
	mem_commit(bus->mem);
	p->range = (struct bus_range){ .start = start,
				       .size = size,
				       .sizes = 1 | 2 | 4 | 8,
				       .device = &p->device,
				       .read = flash_read,
				       .write = flash_write };
	return bus_map(bus, BUS_MMIO, &p->range, err);
}

static int pflash_create(struct bus *bus, const void *options, struct error *err)
{
	const struct pflash_options *o = options;
	struct pflash *p = calloc(1, sizeof(*p));
	struct error ignored = { 0 };
	int rc;

	err = err ? err : &ignored;
	err->code = 0;
	if (!p)
		return error_set_errno(err, ENOMEM, "pflash");
	device_init(&p->device, bus, "pflash", &pflash_ops);
	state_reset(&pflash_state_desc, p);
	rc = o->file ? create_of_file(p, o, err) : create_of_template(p, o->template, err);
	if (rc)
		return error_prefix(err, "pflash");
	return place(p, err);
}

const struct device_type pflash_type = {
	.name = "pflash",
	.help = "flash memory with a UEFI firmware's variables",
	.most = 1,
	DEVICE_OPTIONS(PFLASH_OPTIONS, struct pflash_options),
	.short_form = { .name = "--nvram",
			.option = "file",
			.argument = "FILE",
			.help = "where a UEFI firmware's variables are kept; made if it is not there" },
	.create = pflash_create,
};
