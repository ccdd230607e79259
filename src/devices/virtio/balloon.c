/*
 * virtio-balloon (virtio 1.2, 5.5): memory that the guest does without. Pages that it puts into the balloon are given back to the host where it kicks, one chain of them each
 * time; free ones that it reports, which are many more, by a thread (under virtual time where it kicks, too). They are zeros when they are touched again. The driver's
 * statistics are asked for every now and then.
 *
 * The thread pops a chain when it serves it: a pause or a reset waits for one.
 */
#include "devices/virtio/virtio.h"
#include "devices/virtio/worker.h"

#include <errno.h>
#include <stdlib.h>

#define F_STATS		 BIT(1)
#define F_DEFLATE_ON_OOM BIT(2)
#define F_PAGE_POISON	 BIT(4)
#define F_REPORTING	 BIT(5)

#define CONFIG_PAGES  0u
#define CONFIG_ACTUAL 4u
#define CONFIG_POISON 12u
#define CONFIG_SIZE   16u

#define QUEUES	   5u
#define AT_ONCE	   256u	 /* page numbers */
#define PAGES_MOST 1024u /* page numbers in a chain: as many as drivers send */
#define PART	   (2 * MIB)
#define STAT_SIZE  10u

/* What a queue is for. Which one is the reports' the specification and drivers see in two ways: there are numbers for queues that a driver has no use for, or not. */
enum purpose { INFLATE, DEFLATE, STATS, REPORTS };

#define BALLOON_STATE(_, T)                                                                                            \
	_(T, uint32_t, pages, 1, 1, 0, UINT32_MAX)		 /* that are wanted in the balloon */                  \
	_(T, uint32_t, actual, 1, 2, 0, UINT32_MAX)		 /* that the driver says are in it */                  \
	_(T, uint32_t, poison, 1, 3, 0, UINT32_MAX)		 /* what the driver fills free pages with */           \
	_(T, uint64_t, stats_due, 1, 4, VTIME_NEVER, UINT64_MAX) /* when they are asked for next */                    \
	_(T, uint64_t, stats, 10, 5, 0, UINT64_MAX)                                                                    \
	_(T, uint32_t, stats_known, 1, 6, 0, 0x3ff) /* bits of them */

/* clang-format off */
#define BALLOON_OPTIONS(_, T)                                                                                          \
	_(T, NUMBER, size, 0, MEM_MAX >> 20, "0", "MiB that the guest is to do without")                               \
	_(T, NUMBER, stats, 0, 86400, "0", "seconds after which its statistics are asked for again; 0: only at first") \
	VIRTIO_OPTIONS(_, T)
/* clang-format on */

struct balloon_options {
	DEVICE_OPTION_FIELDS(BALLOON_OPTIONS)
};

struct virtio_balloon {
	struct virtio_device virtio;
	STATE_FIELDS(BALLOON_STATE)
	struct timer stats_timer; /* under the statistics queue's lock, as stats* of the state */
	vtime_t stats_period;
	uint32_t wanted;	     /* pages, by the host */
	_Atomic uint64_t given_back; /* bytes, so far */
	bool in_line;		     /* virtual time: there is no worker */
	struct virtio_worker worker;
	_Atomic bool queue_stops; /* the report that is under way is to come to its end: it asks for a favour */
};

static struct virtio_balloon *of(struct virtio_device *v) { return (struct virtio_balloon *)v; }

static enum purpose purpose_of(const struct virtio_queue *q)
{
	if (q->index < 2)
		return q->index ? DEFLATE : INFLATE;
	return q->index == 2 && (q->virtio->features & F_STATS) ? STATS : REPORTS;
}

/* ---- pages ---- */

static void give_back(struct virtio_balloon *b, const struct iovec *pieces, unsigned count)
{
	struct guest_mem *mem = b->virtio.device.bus->mem;

	for (unsigned n = 0; n < count; n++) {
		struct iovec part = pieces[n];

		for (size_t left = part.iov_len; left && !b->worker.paused && !b->queue_stops; left -= part.iov_len) {
			part.iov_len = MIN(left, PART);
			mem_dma_discard(mem, &part);
			b->given_back += part.iov_len;
			part.iov_base = (uint8_t *)part.iov_base + part.iov_len;
		}
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Neighbours are given back together: a hole costs the host more than its pages. */
static void inflate(struct virtio_balloon *b, uint32_t *numbers, size_t count)
{
	struct guest_mem *mem = b->virtio.device.bus->mem;
	struct iovec pieces[AT_ONCE];
	unsigned used = 0, wrong = 0;

	qsort(numbers, count, sizeof(*numbers), compare);
	for (size_t n = 0; n < count; n++)
		if (mem_dma_map(mem, gpa((uint64_t)numbers[n] << PAGE_SHIFT), PAGE_SIZE, true, pieces, &used, AT_ONCE))
			wrong++;
	if (wrong)
		log_guest("virtio-balloon: %u pages that are no memory", wrong);
	give_back(b, pieces, used);
}

static void serve_inflate(struct virtio_balloon *b, const struct virtio_chain *c)
{
	uint32_t numbers[AT_ONCE];

	for (size_t at = 0; at + 4 <= c->out_size; at += sizeof(numbers))
		inflate(b, numbers, virtio_chain_read(c, at, numbers, sizeof(numbers)) / 4);
}

/* What the driver has filled itself is to stay so. */
static void serve_report(struct virtio_balloon *b, const struct virtio_chain *c)
{
	if (!(b->virtio.features & F_REPORTING))
		return;
	if (!(b->virtio.features & F_PAGE_POISON) || !__atomic_load_n(&b->poison, __ATOMIC_RELAXED))
		give_back(b, c->in, c->in_count);
}

/* ---- reports: the thread ---- */

/* The next chain. The queue's lock is held. */
static bool take_report(struct virtio_balloon *b, struct virtio_queue *q, struct virtio_chain *c)
{
	if (b->worker.paused)
		return false;
	while (!virtqueue_pop(q, c))
		if (!virtqueue_want_kicks(q, true))
			return false;
	b->queue_stops = false;
	return true;
}

/* False: there is none. */
static bool serve_one(struct virtio_balloon *b, struct virtio_queue *q)
{
	struct iovec pieces[VIRTIO_MAX_PIECES];
	struct virtio_chain popped, c;
	bool there;

	lock_take(&q->lock);
	there = take_report(b, q, &popped);
	if (there)
		virtio_chain_copy(&c, &popped, pieces);
	lock_drop(&q->lock);
	if (!there)
		return false;
	serve_report(b, &c);
	lock_take(&q->lock);
	virtqueue_push(q, &c, 0);
	virtqueue_publish(q);
	lock_drop(&q->lock);
	return true;
}

static void serve_reports(void *opaque)
{
	struct virtio_balloon *b = opaque;

	for (unsigned n = 0; n < QUEUES; n++) {
		struct virtio_queue *q = &b->virtio.queues[n];

		while (purpose_of(q) == REPORTS && serve_one(b, q))
			;
	}
}

/* ---- the other queues ---- */

static void report_in_line(struct virtio_queue *q, const struct virtio_chain *c)
{
	serve_report(of(q->virtio), c);
	virtqueue_push(q, c, 0);
}

/* Drivers wait for one before they send the next. */
static void kick_inflate(struct virtio_queue *q)
{
	struct virtio_chain c;

	if (virtqueue_pop(q, &c)) {
		if (c.out_size > 4 * PAGES_MOST) {
			virtio_break(q->virtio, "%zu bytes of page numbers; at most %u are served", c.out_size,
				     4 * PAGES_MOST);
			virtqueue_drop(q);
			return;
		}
		of(q->virtio)->queue_stops = false; /* an earlier one's */
		serve_inflate(of(q->virtio), &c);
		virtqueue_push(q, &c, 0);
		virtqueue_publish(q);
	}
	if (virtqueue_want_kicks(q, true))
		virtqueue_later(q);
}

/* What is not in the balloon any more is there when it is touched. */
static void deflate(struct virtio_queue *q, const struct virtio_chain *c) { virtqueue_push(q, c, 0); }

/* ---- statistics; the queue's lock is held ---- */

static void arm_stats(struct virtio_balloon *b)
{
	b->stats_due = b->stats_period ? clock_now(b->virtio.device.bus->clock) + b->stats_period : VTIME_NEVER;
	timer_arm(&b->stats_timer, b->stats_due);
}

/* Of each only what is known of it; the driver says how many there are. */
static void read_stats(struct virtio_balloon *b, const struct virtio_chain *c)
{
	uint8_t stats[4 * BALLOON_STATS * STAT_SIZE];
	size_t size = virtio_chain_read(c, 0, stats, sizeof(stats));

	for (size_t at = 0; at + STAT_SIZE <= size; at += STAT_SIZE) {
		unsigned tag = load_le16(stats + at);

		if (tag >= BALLOON_STATS)
			continue;
		b->stats[tag] = load_le64(stats + at + 2);
		b->stats_known |= 1u << tag;
	}
}

/* A chain with the answer stays in the ring until it is given back, which asks again: none is held. */
static void hear_stats(struct virtio_queue *q)
{
	struct virtio_chain c;

	if (virtqueue_pop(q, &c)) {
		read_stats(of(q->virtio), &c);
		virtqueue_unpop(q, &c);
		if (of(q->virtio)->stats_due == VTIME_NEVER)
			arm_stats(of(q->virtio));
	}
	virtqueue_want_kicks(q, true);
}

static void ask_for_stats(void *opaque)
{
	struct virtio_balloon *b = opaque;
	struct virtio_queue *q = &b->virtio.queues[STATS];
	struct virtio_chain c;

	b->stats_due = VTIME_NEVER;
	if (purpose_of(q) != STATS || !virtqueue_pop(q, &c))
		return;
	virtqueue_push(q, &c, 0);
	virtqueue_publish(q);
	arm_stats(b);
}

static void kick(struct virtio_queue *q)
{
	struct virtio_balloon *b = of(q->virtio);

	switch (purpose_of(q)) {
	case DEFLATE: virtqueue_serve(q, deflate); break;
	case STATS: hear_stats(q); break;
	case INFLATE: kick_inflate(q); break;
	case REPORTS:
		if (b->in_line)
			virtqueue_serve(q, report_in_line);
		else
			virtio_worker_kick(&b->worker);
		break;
	}
}

/* ---- configuration space; the device's lock is held ---- */

static void set_config(struct virtio_balloon *b)
{
	store_le32(b->virtio.config + CONFIG_PAGES, b->pages);
	store_le32(b->virtio.config + CONFIG_ACTUAL, b->actual);
	store_le32(b->virtio.config + CONFIG_POISON, b->poison);
}

static void config_written(struct virtio_device *v, unsigned offset, unsigned size)
{
	struct virtio_balloon *b = of(v);

	(void)offset, (void)size;
	b->actual = load_le32(v->config + CONFIG_ACTUAL);
	__atomic_store_n(&b->poison, load_le32(v->config + CONFIG_POISON), __ATOMIC_RELAXED);
}

/* ---- virtio_ops ---- */

/* The statistics are the last that were heard: drivers reset their devices when a system goes down. */
static void balloon_reset(struct virtio_device *v)
{
	struct virtio_balloon *b = of(v);
	struct virtio_queue *q = &v->queues[STATS];

	b->actual = 0;
	__atomic_store_n(&b->poison, 0, __ATOMIC_RELAXED);
	set_config(b);
	lock_take(&q->lock);
	timer_disarm(&b->stats_timer);
	b->stats_due = VTIME_NEVER;
	lock_drop(&q->lock);
}

static void balloon_loaded(struct virtio_device *v)
{
	set_config(of(v));
	timer_arm(&of(v)->stats_timer, of(v)->stats_due);
}

static void queue_stops(struct virtio_queue *q) { of(q->virtio)->queue_stops = true; }

static void balloon_pause(struct virtio_device *v) { virtio_worker_pause(&of(v)->worker); }
static void balloon_resume(struct virtio_device *v) { virtio_worker_resume(&of(v)->worker); }

static const struct virtio_ops balloon_ops = {
	.id = VIRTIO_ID_BALLOON,
	.pci_name = "virtio-balloon-pci",
	.pci_class = 0x00ff0000,
	.queue_stops = queue_stops,
	.reset = balloon_reset,
	.config_written = config_written,
	.loaded = balloon_loaded,
	.pause = balloon_pause,
	.resume = balloon_resume,
};

/* ---- life ---- */

static void balloon_destroy(struct device *device)
{
	struct virtio_balloon *b = (struct virtio_balloon *)device;

	virtio_worker_end(&b->worker);
	timer_disarm(&b->stats_timer);
	virtio_fini(&b->virtio);
	free(b);
}

#define BALLOON_ALL_STATE(_, T)                                                                                        \
	VIRTIO_STATE(_, T)                                                                                             \
	BALLOON_STATE(_, T)
STATE_DESC(balloon_state_desc, "virtio-balloon", 1, struct virtio_balloon, BALLOON_ALL_STATE, .loaded = virtio_loaded,
	   .saving = virtio_saving);

/* The size that is wanted is the host's: it outlives a reset. */
static void reset(struct device *device)
{
	struct virtio_balloon *b = (struct virtio_balloon *)device;

	b->pages = b->wanted;
	virtio_reset(device);
}

static const struct device_ops balloon_device_ops = { .state = &balloon_state_desc,
						      .reset = reset,
						      .attach = virtio_attach,
						      .pause = virtio_pause,
						      .resume = virtio_resume,
						      .destroy = balloon_destroy };

static int balloon_create(struct bus *bus, const void *options, struct error *err)
{
	const struct balloon_options *o = options;
	struct virtio_balloon *b;
	int rc = 0;

	if (o->size > bus->mem->ram_size >> 20)
		return error_set(err, EINVAL, "virtio-balloon: option 'size' is %llu; the guest has %llu MiB",
				 (unsigned long long)o->size, (unsigned long long)bus->mem->ram_size >> 20);
	b = calloc(1, sizeof(*b));
	if (!b)
		return error_set_errno(err, ENOMEM, "virtio-balloon");
	virtio_init(&b->virtio, bus, "virtio-balloon", &balloon_device_ops, &balloon_ops);
	timer_init(&b->stats_timer, bus->clock, "virtio-balloon", ask_for_stats, b);
	b->virtio.offered |= F_STATS | F_DEFLATE_ON_OOM | F_PAGE_POISON | F_REPORTING;
	b->virtio.config_size = CONFIG_SIZE;
	memset(b->virtio.config_mask + CONFIG_ACTUAL, 0xff, 4);
	memset(b->virtio.config_mask + CONFIG_POISON, 0xff, 4);
	b->wanted = (uint32_t)(o->size << 20 >> PAGE_SHIFT);
	b->stats_period = o->stats * NS_PER_S;
	b->stats_due = VTIME_NEVER;
	b->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	for (unsigned n = 0; !rc && n < QUEUES; n++)
		rc = virtio_add_queue(&b->virtio, VIRTIO_QUEUE_SIZE, kick, err);
	b->stats_timer.lock = &b->virtio.queues[STATS].lock;
	if (!rc && !b->in_line)
		rc = virtio_worker_start(&b->worker, "balloon", serve_reports, b, err);
	return rc ? rc : virtio_plug(&b->virtio, VIRTIO_OPTIONS_OF(o), err);
}

const struct device_type virtio_balloon_type = {
	.name = "virtio-balloon",
	.help = "memory that the guest does without",
	.most = 1,
	DEVICE_OPTIONS(BALLOON_OPTIONS, struct balloon_options),
	.short_form = { .name = "--balloon",
			.option = "size",
			.options_follow = true,
			.argument = "MIB[,...]",
			.help = "the guest gives free memory back, and does without so much (virtio-balloon; 0: "
				"none)" },
	.create = balloon_create,
};

/* ---- for others ---- */

static struct virtio_balloon *find(struct bus *bus, struct error *err)
{
	struct device *device = bus_find_device(bus, "virtio-balloon", 0);

	if (!device)
		error_set(err, ENOENT, "this machine has no balloon");
	return (struct virtio_balloon *)device;
}

int balloon_set(struct bus *bus, uint64_t bytes, struct error *err)
{
	struct virtio_balloon *b = find(bus, err);

	if (!b)
		return -ENOENT;
	if (bytes > bus->mem->ram_size || bytes % PAGE_SIZE)
		return error_set(err, EINVAL,
				 "a balloon of %llu bytes; expected whole pages, at most the guest's %llu MiB",
				 (unsigned long long)bytes, (unsigned long long)bus->mem->ram_size >> 20);
	lock_take(&b->virtio.lock);
	b->pages = b->wanted = (uint32_t)(bytes >> PAGE_SHIFT);
	set_config(b);
	virtio_config_changed(&b->virtio);
	lock_drop(&b->virtio.lock);
	return 0;
}

int balloon_query(struct bus *bus, struct balloon_info *info, struct error *err)
{
	struct virtio_balloon *b = find(bus, err);
	struct lock *stats_lock;

	if (!b)
		return -ENOENT;
	stats_lock = &b->virtio.queues[STATS].lock;
	lock_take(&b->virtio.lock);
	*info = (struct balloon_info){ .wanted = (uint64_t)b->pages << PAGE_SHIFT,
				       .actual = (uint64_t)b->actual << PAGE_SHIFT,
				       .given_back = b->given_back };
	lock_take(stats_lock);
	memcpy(info->stats, b->stats, sizeof(info->stats));
	info->stats_known = b->stats_known;
	lock_drop(stats_lock);
	lock_drop(&b->virtio.lock);
	return 0;
}

void balloon_print(struct bus *bus, FILE *out)
{
	static const char *const names[BALLOON_STATS] = {
#define _(id, name) name,
		BALLOON_STAT_NAMES(_)
#undef _
	};
	struct balloon_info info;

	if (balloon_query(bus, &info, NULL))
		return;
	fprintf(out, "balloon: %llu of %llu MiB; %llu MiB given back so far\n", (unsigned long long)info.actual >> 20,
		(unsigned long long)info.wanted >> 20, (unsigned long long)info.given_back >> 20);
	for (unsigned n = 0; n < BALLOON_STATS; n++)
		if (info.stats_known & 1u << n)
			fprintf(out, "  guest: %-25s %14llu\n", names[n], (unsigned long long)info.stats[n]);
}
