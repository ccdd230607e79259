/*
 * virtio-pmem (virtio 1.2, 5.19): a file of the host's that the guest sees as memory, above all RAM: the host's page cache is the guest's. The guest writes to it
 * directly and asks for a flush when that is to be on the disk, which a thread does (under virtual time where it asks).
 *
 * The contents are the file's: they are no part of a saved machine.
 */
#define _GNU_SOURCE
#include "devices/virtio/virtio.h"
#include "devices/virtio/worker.h"

#include "block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST	   4
#define QUEUE_SIZE 64
#define UNIT	   (2 * MIB)   /* what operating systems map it by */
#define ALIGNMENT  (128 * MIB) /* Linux' unit of memory that comes */

#define CONFIG_START 0u
#define CONFIG_BYTES 8u
#define CONFIG_SIZE  16u

#define REQUEST_FLUSH 0u
#define REPLY_OK      0u
#define REPLY_FAILED  1u

#define PMEM_STATE(_, T)                                                                                               \
	_(T, uint64_t, start, 1, 1, 0, UINT64_MAX) /* where the guest has it; not the driver's to change */            \
	_(T, uint64_t, size, 1, 2, 0, UINT64_MAX)

/* clang-format off */
#define PMEM_OPTIONS(_, T)                                                                                             \
	_(T, TEXT, file, 0, 0, NULL, "the file, of a multiple of 2 MiB")                                               \
	_(T, SWITCH, readonly, 0, 0, "off", "what the guest writes is dropped")                                        \
	VIRTIO_OPTIONS(_, T)
/* clang-format on */

struct pmem_options {
	DEVICE_OPTION_FIELDS(PMEM_OPTIONS)
};

struct virtio_pmem {
	struct virtio_device virtio;
	STATE_FIELDS(PMEM_STATE)
	struct memory *memory; /* NULL: there is none yet */
	struct mem_layer layer;
	struct virtio_worker worker;
	bool in_line; /* virtual time: there is no worker */
};

static struct virtio_pmem *of(struct virtio_device *v) { return (struct virtio_pmem *)v; }

/* ---- requests ---- */

static uint32_t flush(const struct virtio_pmem *p)
{
	if (p->memory->kind == MEMORY_KIND_ROM || !fdatasync(p->memory->file.fd))
		return REPLY_OK;
	log_guest("virtio-pmem: flush: %s", strerror(errno));
	return REPLY_FAILED;
}

/* Returns how much of the reply was written. */
static size_t serve(const struct virtio_pmem *p, const struct virtio_chain *c)
{
	uint8_t request[4], reply[4];

	if (virtio_chain_read(c, 0, request, sizeof(request)) != sizeof(request))
		return 0;
	store_le32(reply, load_le32(request) == REQUEST_FLUSH ? flush(p) : REPLY_FAILED);
	return virtio_chain_write(c, 0, reply, sizeof(reply));
}

/* The next chain. The queue's lock is held. */
static bool take(struct virtio_pmem *p, struct virtio_queue *q, struct virtio_chain *c)
{
	if (p->worker.paused)
		return false;
	while (!virtqueue_pop(q, c))
		if (!virtqueue_want_kicks(q, true))
			return false;
	return true;
}

/* False: there is none. */
static bool serve_one(struct virtio_pmem *p, struct virtio_queue *q)
{
	struct iovec pieces[VIRTIO_MAX_PIECES];
	struct virtio_chain popped, c;
	size_t written;
	bool there;

	lock_take(&q->lock);
	there = take(p, q, &popped);
	if (there)
		virtio_chain_copy(&c, &popped, pieces);
	lock_drop(&q->lock);
	if (!there)
		return false;
	written = serve(p, &c);
	lock_take(&q->lock);
	virtqueue_push(q, &c, written);
	virtqueue_publish(q);
	lock_drop(&q->lock);
	return true;
}

static void serve_all(void *opaque)
{
	struct virtio_pmem *p = opaque;

	while (serve_one(p, &p->virtio.queues[0]))
		;
}

static void serve_in_line(struct virtio_queue *q, const struct virtio_chain *c)
{
	virtqueue_push(q, c, serve(of(q->virtio), c));
}

static void kick(struct virtio_queue *q)
{
	if (of(q->virtio)->in_line)
		virtqueue_serve(q, serve_in_line);
	else
		virtio_worker_kick(&of(q->virtio)->worker);
}

/* ---- the machine's ---- */

static void pmem_pause(struct virtio_device *v) { virtio_worker_pause(&of(v)->worker); }
static void pmem_resume(struct virtio_device *v) { virtio_worker_resume(&of(v)->worker); }

static const struct virtio_ops pmem_ops = {
	.id = VIRTIO_ID_PMEM,
	.pci_name = "virtio-pmem-pci",
	.pci_class = 0x00ff0000,
	.modern_only = true,
	.pause = pmem_pause,
	.resume = pmem_resume,
};

static void pmem_saving(const void *object)
{
	struct virtio_pmem *p = (struct virtio_pmem *)object;

	p->start = p->layer.start;
	p->size = p->layer.size;
	virtio_saving(object);
}

static int pmem_loaded(void *object, uint16_t version, struct error *err)
{
	const struct virtio_pmem *p = object;

	if (p->start != p->layer.start || p->size != p->layer.size)
		return error_set(err, EINVAL,
				 "virtio-pmem: a file of %" PRIu64 " bytes at 0x%" PRIx64
				 " was saved; here is one of %" PRIu64 " at 0x%" PRIx64,
				 p->size, p->start, p->layer.size, p->layer.start);
	return virtio_loaded(object, version, err);
}

/* ---- life ---- */

static void pmem_destroy(struct device *device)
{
	struct virtio_pmem *p = (struct virtio_pmem *)device;
	struct guest_mem *mem = device->bus->mem;

	virtio_worker_end(&p->worker);
	if (p->memory) {
		mem_layer_remove(mem, &p->layer);
		mem_commit(mem);
		memory_destroy(mem, p->memory);
	}
	virtio_fini(&p->virtio);
	free(p);
}

#define PMEM_ALL_STATE(_, T)                                                                                           \
	VIRTIO_STATE(_, T)                                                                                             \
	PMEM_STATE(_, T)
STATE_DESC(pmem_state_desc, "virtio-pmem", 1, struct virtio_pmem, PMEM_ALL_STATE, .loaded = pmem_loaded,
	   .saving = pmem_saving);

static const struct device_ops pmem_device_ops = { .state = &pmem_state_desc,
						   VIRTIO_DEVICE_OPS,
						   .destroy = pmem_destroy };

/* A descriptor, or -errno. All of it has room on the disk: memory cannot say that there is none. */
static int open_file(const char *path, bool readonly, uint64_t *size, struct error *err)
{
	int fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK), rc;
	struct stat st;

	if (fd < 0)
		return error_set_errno(err, errno, "cannot open '%s'", path);
	rc = fstat(fd, &st) ? error_set_errno(err, errno, "cannot examine '%s'", path) : 0;
	if (!rc && !S_ISREG(st.st_mode))
		rc = error_set(err, EINVAL, "'%s' is no regular file", path);
	else if (!rc && (!st.st_size || st.st_size % (off_t)UNIT))
		rc = error_set(err, EINVAL,
			       "'%s' has %lld bytes; expected a multiple of 2 MiB, as by: truncate -s %%2M '%s'", path,
			       (long long)st.st_size, path);
	if (!rc)
		rc = file_lock(fd, path, readonly, err);
	if (!rc && !readonly && fallocate(fd, 0, 0, st.st_size) && errno != EOPNOTSUPP)
		rc = error_set_errno(err, errno, "no room for all of '%s'", path);
	*size = (uint64_t)st.st_size;
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

/* Behind all that there is. */
static int show(struct virtio_pmem *p, uint64_t size, struct error *err)
{
	struct guest_mem *mem = p->virtio.device.bus->mem;
	uint64_t start = align_up(MAX(mem_top(mem), MEM_HIGH_BASE), ALIGNMENT);
	int rc;

	if (!range_ok(start, size, MEM_TOP))
		return error_set(err, ENOSPC,
				 "virtio-pmem: %" PRIu64 " MiB at 0x%" PRIx64 " are beyond the guest's addresses",
				 size >> 20, start);
	p->layer = (struct mem_layer){ .memory = p->memory,
				       .start = start,
				       .size = size,
				       .priority = MEM_PRIORITY_RAM,
				       .reads = true,
				       .writes = true };
	rc = mem_layer_add(mem, &p->layer, err);
	if (rc)
		return rc;
	bus_remap(p->virtio.device.bus);
	store_le64(p->virtio.config + CONFIG_START, start);
	store_le64(p->virtio.config + CONFIG_BYTES, size);
	p->virtio.config_size = CONFIG_SIZE;
	return 0;
}

static int open_memory(struct virtio_pmem *p, const struct pmem_options *o, struct error *err)
{
	uint64_t size = 0;
	int fd;

	if (!o->file || !*o->file)
		return error_set(err, EINVAL, "virtio-pmem: option 'file' is not given; expected a file");
	fd = open_file(o->file, o->readonly, &size, err);
	if (fd < 0)
		return error_prefix(err, "virtio-pmem");
	p->memory = memory_create_of(p->virtio.device.bus->mem, o->readonly ? MEMORY_KIND_ROM : MEMORY_KIND_FILE,
				     "pmem", fd, size, err);
	if (!p->memory) {
		close(fd);
		return error_prefix(err, "virtio-pmem: '%.128s'", o->file);
	}
	return show(p, size, err);
}

static int pmem_create(struct bus *bus, const void *options, struct error *err)
{
	const struct pmem_options *o = options;
	struct virtio_pmem *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return error_set_errno(err, ENOMEM, "virtio-pmem");
	virtio_init(&p->virtio, bus, "virtio-pmem", &pmem_device_ops, &pmem_ops);
	p->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	rc = open_memory(p, o, err);
	if (!rc)
		rc = virtio_add_queue(&p->virtio, QUEUE_SIZE, kick, err);
	if (!rc && !p->in_line)
		rc = virtio_worker_start(&p->worker, "pmem", serve_all, p, err);
	return rc ? rc : virtio_plug(&p->virtio, VIRTIO_OPTIONS_OF(o), err);
}

const struct device_type virtio_pmem_type = {
	.name = "virtio-pmem",
	.help = "a file that the guest sees as memory",
	.most = MOST,
	DEVICE_OPTIONS(PMEM_OPTIONS, struct pmem_options),
	.short_form = { .name = "--pmem",
			.option = "file",
			.options_follow = true,
			.argument = "FILE[,...]",
			.help = "a file as memory of the guest's (virtio-pmem; /dev/pmem0), with OPTION=VALUE as for "
				"--device; "
				"again for more" },
	.create = pmem_create,
};
