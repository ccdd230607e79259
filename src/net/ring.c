/*
 * The rings of a channel. A record is a header and a frame, rounded up; records follow each other without a gap.
 */
#define _GNU_SOURCE
#include "net/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

struct record {
	uint32_t size; /* of the frame */
	struct net_offload offload;
	uint16_t unused;
};
#define RECORD_ALIGN	  16u
#define RECORD_SIZE(size) ((uint32_t)align_up(sizeof(struct record) + (size), RECORD_ALIGN))

/* ---- memory ---- */

#define SHARED_SIZE  align_up(sizeof(struct channel_shared), PAGE_SIZE)
#define CHANNEL_SIZE (SHARED_SIZE + 2 * (size_t)RING_SIZE)
#define MAPPED_SIZE  (SHARED_SIZE + 4 * (size_t)RING_SIZE)

/* Both rings' data, twice each. */
static int map_rings(struct channel *ch)
{
	for (unsigned i = 0; i < 4; i++) {
		uint8_t *at = ch->mapped + SHARED_SIZE + (size_t)i * RING_SIZE;
		off_t offset = (off_t)(SHARED_SIZE + (size_t)(i / 2) * RING_SIZE);

		if (mmap(at, RING_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ch->fd, offset) == MAP_FAILED)
			return -errno;
	}
	return 0;
}

static int map_channel(struct channel *ch, struct error *err)
{
	int rc;

	ch->mapped = mmap(NULL, MAPPED_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ch->mapped == MAP_FAILED) {
		ch->mapped = NULL;
		return error_set_errno(err, errno, "cannot reserve the memory for frames");
	}
	if (mmap(ch->mapped, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, ch->fd, 0) == MAP_FAILED)
		return error_set_errno(err, errno, "cannot map the memory for frames");
	rc = map_rings(ch);
	if (rc)
		return error_set_errno(err, -rc, "cannot map the memory for frames");
	ch->shared = (struct channel_shared *)ch->mapped;
	ch->to_guest = (struct ring){ .shared = &ch->shared->to_guest, .data = ch->mapped + SHARED_SIZE };
	ch->from_guest =
		(struct ring){ .shared = &ch->shared->from_guest, .data = ch->to_guest.data + 2 * (size_t)RING_SIZE };
	return 0;
}

int channel_create(struct channel *ch, struct error *err)
{
	int rc;

	*ch = (struct channel){ .fd = memfd_create("doppel-net", MFD_CLOEXEC | MFD_ALLOW_SEALING),
				.monitor_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
				.helper_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	/* The helper must not be able to make it smaller: touching it would end the monitor. */
	if (ch->fd < 0 || ch->monitor_event < 0 || ch->helper_event < 0 || ftruncate(ch->fd, (off_t)CHANNEL_SIZE) ||
	    fcntl(ch->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		rc = error_set_errno(err, errno, "cannot make the memory for frames");
	else
		rc = map_channel(ch, err);
	if (rc) {
		channel_close(ch);
		return rc;
	}
	ch->to_guest.wake_fd = ch->helper_event;
	ch->from_guest.wake_fd = ch->helper_event;
	return 0;
}

int channel_open(struct channel *ch, int fd, int monitor_event, int helper_event, struct error *err)
{
	int rc;

	*ch = (struct channel){ .fd = fd, .monitor_event = monitor_event, .helper_event = helper_event };
	rc = map_channel(ch, err);
	if (rc)
		return rc;
	ch->to_guest.wake_fd = ch->monitor_event;
	ch->from_guest.wake_fd = ch->monitor_event;
	return 0;
}

void channel_close(struct channel *ch)
{
	const int fds[] = { ch->fd, ch->monitor_event, ch->helper_event };

	if (ch->mapped)
		munmap(ch->mapped, MAPPED_SIZE);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	*ch = (struct channel){ .fd = -1, .monitor_event = -1, .helper_event = -1 };
}

/* ---- waking ---- */

void wake_event(int fd)
{
	const uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, which wakes as well. */
	}
}

void drain_event(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0) {
		/* EAGAIN: nothing to drain. */
	}
}

/* ---- the writer ---- */

/* More than there can be when the other end broke the ring: what ring_reserve() looks for. */
static uint32_t used(const struct ring *r) { return r->at - atomic_load(&r->shared->read); }

bool ring_has_room(struct ring *r, uint32_t bytes)
{
	if (used(r) <= RING_SIZE - bytes)
		return true;
	atomic_store(&r->shared->writer_waits, 1);
	/* The reader may have been faster. */
	return used(r) <= RING_SIZE - bytes;
}

uint8_t *ring_reserve(struct ring *r, size_t size, int *code)
{
	uint32_t before = used(r);

	*code = before > RING_SIZE || before % RECORD_ALIGN ? -EPROTO : 0;
	if (*code || !ring_has_room(r, RECORD_SIZE(size)))
		return NULL;
	return r->data + r->at % RING_SIZE + sizeof(struct record);
}

void ring_write(struct ring *r, size_t size, const struct net_offload *offload)
{
	struct record record = { .size = (uint32_t)size, .offload = *offload };

	memcpy(r->data + r->at % RING_SIZE, &record, sizeof(record));
	r->at += RECORD_SIZE(size);
	atomic_store(&r->shared->written, r->at);
}

void ring_wake(struct ring *r)
{
	if (atomic_load(&r->shared->reader_waits) && atomic_exchange(&r->shared->reader_waits, 0))
		wake_event(r->wake_fd);
}

/* ---- the reader ---- */

/* Once: what is checked is what is used. */
static struct record fetch_record(const uint8_t *data)
{
	const volatile uint64_t *words = (const volatile uint64_t *)data;
	uint64_t copy[2] = { words[0], words[1] };
	struct record record;

	_Static_assert(sizeof(record) == sizeof(copy), "a record's header is two words");
	memcpy(&record, copy, sizeof(record));
	return record;
}

int ring_peek(struct ring *r, struct net_frame *frames, unsigned most)
{
	uint32_t left = atomic_load_explicit(&r->shared->written, memory_order_acquire) - r->at, at = r->at;
	unsigned count;

	if (left > RING_SIZE || left % RECORD_ALIGN)
		return -EPROTO;
	for (count = 0; left && count < most; count++) {
		struct record record = fetch_record(r->data + at % RING_SIZE);

		if (record.size < NET_FRAME_MIN || record.size > NET_FRAME_MAX || RECORD_SIZE(record.size) > left)
			return -EPROTO;
		frames[count] = (struct net_frame){ .data = r->data + at % RING_SIZE + sizeof(record),
						    .size = record.size,
						    .offload = record.offload };
		at += RECORD_SIZE(record.size);
		left -= RECORD_SIZE(record.size);
	}
	return (int)count;
}

void ring_release(struct ring *r, const struct net_frame *frames, unsigned count)
{
	uint32_t left;

	for (unsigned i = 0; i < count; i++)
		r->at += RECORD_SIZE(frames[i].size);
	atomic_store(&r->shared->read, r->at);
	left = atomic_load(&r->shared->written) - r->at;
	/* Not for each single frame: the writer goes on when it has something to do. */
	if (left <= RING_SIZE / 2 && atomic_load(&r->shared->writer_waits) &&
	    atomic_exchange(&r->shared->writer_waits, 0))
		wake_event(r->wake_fd);
}

bool ring_has_frames(const struct ring *r) { return atomic_load(&r->shared->written) != r->at; }

bool ring_sleep(struct ring *r)
{
	atomic_store(&r->shared->reader_waits, 1);
	if (!ring_has_frames(r))
		return true;
	atomic_store(&r->shared->reader_waits, 0);
	return false;
}

void ring_awake(struct ring *r) { atomic_store_explicit(&r->shared->reader_waits, 0, memory_order_relaxed); }
