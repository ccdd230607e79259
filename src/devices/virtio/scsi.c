/*
 * virtio-scsi (virtio 1.2, 5.6): the controller that SCSI targets (devices/scsi/) are on. Commands are served as virtio-blk's requests are: where the driver kicks if the host
 * has the data in memory, else by a worker, which completes them itself. What a worker has cannot be taken from it: a task management function that ends commands waits until they
 * are done.
 */
#include "devices/scsi/scsi.h"
#include "devices/virtio/held.h"

#include <errno.h>
#include <stdlib.h>

#define REQUEST_QUEUES_MOST HELD_QUEUES
#define HERE_MOST                                                                                                      \
	(1u << 20) /* bytes that one kick reads and writes where the driver kicks: other vCPUs may wait for it */

#define F_HOTPLUG BIT(1)

enum { CONTROL, EVENT, REQUESTS };

/* Configuration space, virtio 1.2, 5.6.4 */
enum {
	CONFIG_QUEUES = 0,
	CONFIG_SEG_MAX = 4,
	CONFIG_MAX_SECTORS = 8,
	CONFIG_CMD_PER_LUN = 12,
	CONFIG_EVENT_SIZE = 16,
	CONFIG_SENSE_SIZE = 20,
	CONFIG_CDB_SIZE = 24,
	CONFIG_MAX_CHANNEL = 28,
	CONFIG_MAX_TARGET = 30,
	CONFIG_MAX_LUN = 32,
	CONFIG_SIZE = 36,
};
#define SENSE_SIZE  96u
#define CDB_SIZE    32u
#define MAX_SECTORS 0xffffu
#define MAX_LUN	    16383u /* what an address has room for */

/* A command's header in front of its CDB, and what is in front of its sense data: 5.6.6.1 */
#define HEADER_SIZE   19u
#define RESPONSE_SIZE 12u

/* Responses, 5.6.6.1.1 and 5.6.6.2 */
enum {
	RESPONSE_OK = 0, /* of a task management function: complete */
	RESPONSE_OVERRUN = 1,
	RESPONSE_ABORTED = 2,
	RESPONSE_BAD_TARGET = 3,
	RESPONSE_BUSY = 5,
	RESPONSE_FAILURE = 9,
	RESPONSE_SUCCEEDED = 10,
	RESPONSE_REJECTED = 11,
	RESPONSE_INCORRECT_LUN = 12,
};

/* Control requests, 5.6.6.2 */
enum { TYPE_TMF = 0, TYPE_AN_QUERY = 1, TYPE_AN_SUBSCRIBE = 2 };
#define TMF_SIZE 24u
#define AN_SIZE	 16u
enum {
	ABORT_TASK = 0,
	ABORT_TASK_SET = 1,
	CLEAR_TASK_SET = 3,
	I_T_NEXUS_RESET = 4,
	LOGICAL_UNIT_RESET = 5,
	QUERY_TASK = 6,
	QUERY_TASK_SET = 7,
};

/* Events, 5.6.6.3 */
#define EVENT_SIZE	      16u
#define EVENT_TRANSPORT_RESET 1u
#define REASON_RESCAN	      1u
#define REASON_REMOVED	      2u

#define SCSI_STATE(_, T)                                                                                               \
	_(T, uint32_t, sense_size, 1, 1, SENSE_SIZE, UINT32_MAX)                                                       \
	_(T, uint32_t, cdb_size, 1, 2, CDB_SIZE, UINT32_MAX)                                                           \
	_(T, uint8_t, to_tell, 64, 3, 0, 2) /* the reason of the event that each target has for the driver */

struct request {
	struct scsi_command command;
	struct virtio_scsi *scsi;
	struct virtio_queue *queue;
	struct virtio_chain chain;
	size_t response_size;
	bool again; /* it was held, and counts as that */
	uint64_t tag, number;
	unsigned target;
	struct list node;      /* while a worker has it */
	struct iovec pieces[]; /* the chain's, and as many again for the command's data */
};

/* A task management function that waits for what was there before it. */
struct waiting {
	struct virtio_chain chain;
	uint64_t number;
	unsigned target;
	struct list node;
	struct iovec pieces[];
};

struct virtio_scsi {
	struct virtio_device virtio;
	STATE_FIELDS(SCSI_STATE)
	struct scsi_bus bus;
	struct virtio_held held;
	bool in_line;			       /* virtual time */
	size_t here_left[REQUEST_QUEUES_MOST]; /* bytes */
	pthread_mutex_t tasks_lock;	       /* what follows; no other lock is taken under it */
	struct list tasks[SCSI_TARGETS_MOST];  /* requests that workers have, in order of number */
	struct list waiting;
	uint64_t next_number;
	/* Under the control queue's lock: commands that a task management function ends. */
	struct ended {
		unsigned target;
		uint64_t tag;
		bool any;
	} ended;
};
_Static_assert(SCSI_TARGETS_MOST == 64, "to_tell has one for each");

static struct virtio_scsi *of(struct virtio_device *v) { return (struct virtio_scsi *)v; }

/* ---- addresses of logical units: 5.6.6.1 ---- */

struct unit {
	struct scsi_target *target; /* NULL: there is none */
	unsigned number;
	bool other; /* not 0 */
};

static struct unit find_unit(struct virtio_scsi *scsi, const uint8_t lun[8])
{
	struct unit unit = { .number = lun[1], .other = (load_be16(lun + 2) & 0x3fff) || load_be32(lun + 4) };

	if (lun[0] == 1 && lun[1] < SCSI_TARGETS_MOST)
		unit.target = scsi->bus.targets[lun[1]];
	return unit;
}

/* ---- outcome ---- */

static void respond(struct virtio_queue *q, const struct virtio_chain *c, uint8_t response)
{
	uint8_t bytes[RESPONSE_SIZE] = { [11] = response };

	virtio_chain_write(c, 0, bytes, RESPONSE_SIZE);
	virtqueue_push(q, c, RESPONSE_SIZE);
}

static void finish(struct request *r)
{
	const struct scsi_command *c = &r->command;
	size_t all = c->in.size + c->out.size, sense = MIN(c->sense_size, r->response_size - RESPONSE_SIZE);
	uint8_t bytes[RESPONSE_SIZE + SCSI_SENSE_SIZE] = { 0 };

	store_le32(bytes, (uint32_t)sense);
	store_le32(bytes + 4, (uint32_t)MIN(all - c->moved, UINT32_MAX));
	bytes[10] = (uint8_t)c->status;
	bytes[11] = c->overrun ? RESPONSE_OVERRUN : RESPONSE_OK;
	memcpy(bytes + RESPONSE_SIZE, c->sense, sense);
	virtio_chain_write(&r->chain, 0, bytes, RESPONSE_SIZE + sense);
	/* Also of a read that failed some bytes may have been written. */
	virtqueue_push(r->queue, &r->chain, c->in.size ? r->chain.in_size : r->response_size);
	if (r->again)
		disk_hold_done(&r->scsi->held.hold, scsi_block(c->target));
}

/* ---- what workers have ---- */

static void add_task(struct request *r)
{
	pthread_mutex_lock(&r->scsi->tasks_lock);
	r->number = r->scsi->next_number++;
	list_append(&r->scsi->tasks[r->target], &r->node);
	pthread_mutex_unlock(&r->scsi->tasks_lock);
}

static bool has_older_task(const struct virtio_scsi *scsi, const struct waiting *w)
{
	const struct list *tasks = &scsi->tasks[w->target];

	return !list_empty(tasks) && list_entry(tasks->next, struct request, node)->number < w->number;
}

/* Those that wait for nothing any more. */
static void remove_task(struct request *r, struct list *ready)
{
	struct virtio_scsi *scsi = r->scsi;
	struct waiting *w, *next;

	pthread_mutex_lock(&scsi->tasks_lock);
	list_remove(&r->node);
	list_for_each_safe (w, next, &scsi->waiting, node) {
		if (w->target != r->target || has_older_task(scsi, w))
			continue;
		list_remove(&w->node);
		list_append(ready, &w->node);
	}
	pthread_mutex_unlock(&scsi->tasks_lock);
}

/* Does a task management function wait for it? */
static bool is_waited_for(const struct request *r)
{
	struct virtio_scsi *scsi = r->scsi;
	const struct waiting *w;
	bool found = false;

	pthread_mutex_lock(&scsi->tasks_lock);
	list_for_each (w, &scsi->waiting, node)
		found |= w->target == r->target;
	pthread_mutex_unlock(&scsi->tasks_lock);
	return found;
}

/* The host's error is waited for: the command is begun anew later. The queue's lock is held. */
static bool hold(struct request *r)
{
	struct scsi_command *c = &r->command;

	if (!scsi_waits(c) || !r->queue->enabled || is_waited_for(r))
		return false;
	scsi_give_up(c);
	virtio_hold(&r->scsi->held, r->queue, &r->chain, r->again, scsi_device(c->target), scsi_block(c->target),
		    &c->block);
	return true;
}

static void push_response(struct virtio_queue *q, const struct virtio_chain *c, uint8_t response)
{
	virtqueue_push(q, c, virtio_chain_write(c, 0, &response, 1));
}

static void end_waiting(struct virtio_scsi *scsi, struct list *ready)
{
	struct virtio_queue *q = &scsi->virtio.queues[CONTROL];
	struct waiting *w, *next;

	if (list_empty(ready))
		return;
	lock_take(&q->lock);
	list_for_each_safe (w, next, ready, node) {
		push_response(q, &w->chain, RESPONSE_OK);
		free(w);
	}
	virtqueue_publish(q);
	lock_drop(&q->lock);
}

/* In a worker's thread. */
static void done(struct block_request *block)
{
	struct request *r = container_of(block, struct request, command.block);
	struct virtio_queue *q = r->queue;
	struct virtio_scsi *scsi = r->scsi;
	struct list ready;

	lock_take(&q->lock);
	if (!hold(r)) {
		if (scsi_go_on(&r->command)) {
			lock_drop(&q->lock);
			block_submit(scsi_block(r->command.target), block);
			return;
		}
		finish(r);
	}
	virtqueue_publish(q);
	lock_drop(&q->lock);
	list_init(&ready);
	remove_task(r, &ready);
	free(r);
	end_waiting(scsi, &ready);
}

/* ---- commands ---- */

/* Done without waiting for anything? */
static bool done_here(struct request *r)
{
	size_t *left = &r->scsi->here_left[r->queue->index - REQUESTS];
	struct block_request *block = &r->command.block;
	size_t size = block->op == BLOCK_READ || block->op == BLOCK_WRITE ? block->size : 0;

	if (size > *left || block_try(scsi_block(r->command.target), block))
		return false;
	*left -= size;
	return true;
}

/* A worker has it, or it is at its end. */
static void run(struct request *r)
{
	bool more = scsi_begin(&r->command);

	while (more) {
		struct block *block = scsi_block(r->command.target);

		if (r->scsi->in_line) {
			block_do(block, &r->command.block);
		} else if (!done_here(r)) {
			add_task(r);
			block_submit(block, &r->command.block);
			return;
		}
		if (hold(r)) {
			free(r);
			return;
		}
		more = scsi_go_on(&r->command);
	}
	finish(r);
	free(r);
}

/* The pieces behind the first `skip` bytes. */
static struct scsi_data data_of(const struct iovec *from, unsigned count, size_t size, size_t skip, struct iovec *to)
{
	struct scsi_data data = { .iov = to, .size = size - skip };

	for (unsigned n = 0; n < count; n++) {
		size_t cut = MIN(skip, from[n].iov_len);

		skip -= cut;
		if (from[n].iov_len > cut)
			to[data.count++] = (struct iovec){ (uint8_t *)from[n].iov_base + cut, from[n].iov_len - cut };
	}
	return data;
}

static struct request *new_request(struct virtio_queue *q, const struct virtio_chain *c, size_t header_size,
				   size_t response_size)
{
	size_t pieces = virtio_chain_pieces(c);
	struct request *r = malloc(sizeof(*r) + 2 * pieces * sizeof(r->pieces[0]));

	if (!r)
		return NULL;
	memset(r, 0, sizeof(*r));
	r->scsi = of(q->virtio);
	r->queue = q;
	r->again = virtio_held_again(&r->scsi->held, q);
	r->response_size = response_size;
	r->command.block.done = done;
	virtio_chain_copy(&r->chain, c, r->pieces);
	r->command.out = data_of(c->out, c->out_count, c->out_size, header_size, r->pieces + pieces);
	r->command.in = data_of(c->in, c->in_count, c->in_size, response_size, r->pieces + pieces + c->out_count);
	return r;
}

static void serve_unit(struct virtio_queue *q, const struct virtio_chain *c, const uint8_t *header, size_t header_size,
		       size_t response_size)
{
	struct unit unit = find_unit(of(q->virtio), header);
	struct request *r;

	if (!unit.target) {
		respond(q, c, RESPONSE_BAD_TARGET);
		return;
	}
	/* Both ways would be F_INOUT. */
	if (c->out_size > header_size && c->in_size > response_size) {
		respond(q, c, RESPONSE_FAILURE);
		return;
	}
	r = new_request(q, c, header_size, response_size);
	if (!r) {
		respond(q, c, RESPONSE_BUSY);
		return;
	}
	r->target = unit.number;
	r->tag = load_le64(header + 8);
	r->command.target = unit.target;
	r->command.other_unit = unit.other;
	memcpy(r->command.cdb, header + HEADER_SIZE, MIN(header_size - HEADER_SIZE, SCSI_CDB_SIZE));
	run(r);
}

static void serve(struct virtio_queue *q, const struct virtio_chain *c)
{
	struct virtio_scsi *scsi = of(q->virtio);
	size_t header_size = HEADER_SIZE + (size_t)__atomic_load_n(&scsi->cdb_size, __ATOMIC_RELAXED);
	size_t response_size = RESPONSE_SIZE + (size_t)__atomic_load_n(&scsi->sense_size, __ATOMIC_RELAXED);
	uint8_t header[HEADER_SIZE + SCSI_CDB_SIZE];

	if (c->out_size < header_size || c->in_size < response_size) {
		virtio_break(q->virtio, "a command without a header, or without room for its response");
		virtqueue_drop(q);
		return;
	}
	virtio_chain_read(c, 0, header, MIN(header_size, sizeof(header)));
	serve_unit(q, c, header, header_size, response_size);
}

static void kick(struct virtio_queue *q)
{
	of(q->virtio)->here_left[q->index - REQUESTS] = HERE_MOST;
	virtqueue_serve(q, serve);
}

static void serve_again(struct virtio_queue *q, const struct virtio_chain *c)
{
	of(q->virtio)->here_left[q->index - REQUESTS] = HERE_MOST;
	serve(q, c);
}

static void retry(struct bus_hold *hold)
{
	virtio_held_serve(container_of(hold, struct virtio_held, hold.hold), serve_again);
}

/* ---- control ---- */

static bool has_task(struct virtio_scsi *scsi, unsigned target, uint64_t tag, bool any)
{
	const struct request *r;
	bool found = false;

	pthread_mutex_lock(&scsi->tasks_lock);
	list_for_each (r, &scsi->tasks[target], node)
		found |= any || r->tag == tag;
	pthread_mutex_unlock(&scsi->tasks_lock);
	return found;
}

static struct waiting *new_waiting(const struct virtio_chain *c, unsigned target)
{
	struct waiting *w = malloc(sizeof(*w) + virtio_chain_pieces(c) * sizeof(w->pieces[0]));

	if (!w)
		return NULL;
	w->target = target;
	virtio_chain_copy(&w->chain, c, w->pieces);
	return w;
}

/* One that waits for the host, if it is to end; else it waits again. */
static void end_held(struct virtio_queue *q, const struct virtio_chain *c)
{
	struct virtio_scsi *scsi = of(q->virtio);
	uint8_t header[HEADER_SIZE];
	bool is_one = virtio_chain_read(c, 0, header, HEADER_SIZE) == HEADER_SIZE &&
		      find_unit(scsi, header).number == scsi->ended.target &&
		      (scsi->ended.any || load_le64(header + 8) == scsi->ended.tag);

	if (is_one && c->in_size >= RESPONSE_SIZE)
		respond(q, c, RESPONSE_ABORTED);
	else
		virtio_hold(&scsi->held, q, c, virtio_held_again(&scsi->held, q), NULL, NULL, NULL);
}

/* The answer comes when all is done that is under way; those that wait for the host end. */
static void answer_behind_tasks(struct virtio_queue *q, const struct virtio_chain *c, unsigned target, uint64_t tag,
				bool any)
{
	struct virtio_scsi *scsi = of(q->virtio);
	struct waiting *w = new_waiting(c, target);
	bool waits;

	if (!w) {
		push_response(q, c, RESPONSE_FAILURE);
		return;
	}
	pthread_mutex_lock(&scsi->tasks_lock);
	w->number = scsi->next_number;
	waits = has_older_task(scsi, w);
	if (waits)
		list_append(&scsi->waiting, &w->node);
	pthread_mutex_unlock(&scsi->tasks_lock);
	/* A command that fails from here on is not held. */
	scsi->ended = (struct ended){ target, tag, any };
	virtio_held_serve(&scsi->held, end_held);
	if (waits)
		return;
	push_response(q, c, RESPONSE_OK);
	free(w);
}

static void query(struct virtio_queue *q, const struct virtio_chain *c, const struct unit *unit, uint64_t tag, bool any)
{
	push_response(q, c, has_task(of(q->virtio), unit->number, tag, any) ? RESPONSE_SUCCEEDED : RESPONSE_OK);
}

static void manage(struct virtio_queue *q, const struct virtio_chain *c, const uint8_t request[TMF_SIZE])
{
	uint32_t function = load_le32(request + 4);
	struct unit unit = find_unit(of(q->virtio), request + 8);
	uint64_t tag = load_le64(request + 16);

	if (!unit.target) {
		push_response(q, c, RESPONSE_BAD_TARGET);
		return;
	}
	if (unit.other && function != I_T_NEXUS_RESET) {
		push_response(q, c, RESPONSE_INCORRECT_LUN);
		return;
	}
	switch (function) {
	case ABORT_TASK: answer_behind_tasks(q, c, unit.number, tag, false); break;
	case ABORT_TASK_SET:
	case CLEAR_TASK_SET: answer_behind_tasks(q, c, unit.number, tag, true); break;
	case I_T_NEXUS_RESET:
	case LOGICAL_UNIT_RESET:
		scsi_target_reset(unit.target);
		answer_behind_tasks(q, c, unit.number, tag, true);
		break;
	case QUERY_TASK: query(q, c, &unit, tag, false); break;
	case QUERY_TASK_SET: query(q, c, &unit, tag, true); break;
	default: push_response(q, c, RESPONSE_REJECTED);
	}
}

/* Which events there are for a logical unit: none of the disk's own. */
static void notify(struct virtio_queue *q, const struct virtio_chain *c, const uint8_t request[AN_SIZE])
{
	struct unit unit = find_unit(of(q->virtio), request + 4);
	uint8_t answer[5] = { 0 };

	answer[4] = !unit.target ? RESPONSE_BAD_TARGET : unit.other ? RESPONSE_INCORRECT_LUN : RESPONSE_OK;
	virtqueue_push(q, c, virtio_chain_write(c, 0, answer, sizeof(answer)));
}

static void serve_control(struct virtio_queue *q, const struct virtio_chain *c)
{
	uint8_t request[TMF_SIZE] = { 0 };
	size_t size = virtio_chain_read(c, 0, request, TMF_SIZE);
	uint32_t type = load_le32(request);

	if (type == TYPE_TMF && size == TMF_SIZE && c->in_size) {
		manage(q, c, request);
	} else if ((type == TYPE_AN_QUERY || type == TYPE_AN_SUBSCRIBE) && size >= AN_SIZE && c->in_size >= 5) {
		notify(q, c, request);
	} else {
		virtio_break(q->virtio, "a control request of type %u and %zu bytes", type, size);
		virtqueue_drop(q);
	}
}

static void kick_control(struct virtio_queue *q) { virtqueue_serve(q, serve_control); }

/* ---- events ---- */

static void tell(struct virtio_queue *q, const struct virtio_chain *c, unsigned target, unsigned reason)
{
	uint8_t event[EVENT_SIZE] = { EVENT_TRANSPORT_RESET, [4] = 1, (uint8_t)target, 0x40, [12] = (uint8_t)reason };

	virtqueue_push(q, c, virtio_chain_write(c, 0, event, EVENT_SIZE));
}

static void kick_event(struct virtio_queue *q)
{
	struct virtio_scsi *scsi = of(q->virtio);
	struct virtio_chain c;

	for (unsigned n = 0; n < SCSI_TARGETS_MOST; n++) {
		if (!scsi->to_tell[n])
			continue;
		if (!virtqueue_pop(q, &c))
			break;
		tell(q, &c, n, scsi->to_tell[n]);
		scsi->to_tell[n] = 0;
	}
	virtqueue_publish(q);
	virtqueue_want_kicks(q, true);
}

/* With the machine paused. A driver that has not begun will find the target itself. */
static void target_changed(struct scsi_bus *bus, unsigned target, bool present)
{
	struct virtio_scsi *scsi = container_of(bus, struct virtio_scsi, bus);
	struct virtio_device *v = &scsi->virtio;

	if (!virtio_is_started(v) || !(v->features & F_HOTPLUG))
		return;
	scsi->to_tell[target] = present ? REASON_RESCAN : REASON_REMOVED;
	virtqueue_later(&v->queues[EVENT]);
}

/* ---- configuration ---- */

static void set_sizes(struct virtio_scsi *scsi, uint32_t sense_size, uint32_t cdb_size)
{
	__atomic_store_n(&scsi->sense_size, sense_size, __ATOMIC_RELAXED);
	__atomic_store_n(&scsi->cdb_size, cdb_size, __ATOMIC_RELAXED);
	store_le32(scsi->virtio.config + CONFIG_SENSE_SIZE, sense_size);
	store_le32(scsi->virtio.config + CONFIG_CDB_SIZE, cdb_size);
}

static void config_written(struct virtio_device *v, unsigned offset, unsigned size)
{
	(void)offset, (void)size;
	set_sizes(of(v), load_le32(v->config + CONFIG_SENSE_SIZE), load_le32(v->config + CONFIG_CDB_SIZE));
}

static void scsi_config_loaded(struct virtio_device *v)
{
	set_sizes(of(v), of(v)->sense_size, of(v)->cdb_size);
	virtqueue_later(&v->queues[EVENT]); /* there may be something to tell */
	virtio_held_loaded(&of(v)->held);
}

static void set_config(struct virtio_scsi *scsi, unsigned queues)
{
	uint8_t *config = scsi->virtio.config;

	scsi->virtio.config_size = CONFIG_SIZE;
	memset(scsi->virtio.config_mask + CONFIG_SENSE_SIZE, 0xff, 8);
	store_le32(config + CONFIG_QUEUES, queues);
	store_le32(config + CONFIG_SEG_MAX, VIRTIO_QUEUE_SIZE - 2);
	store_le32(config + CONFIG_MAX_SECTORS, MAX_SECTORS);
	store_le32(config + CONFIG_CMD_PER_LUN, VIRTIO_QUEUE_SIZE / 2);
	store_le32(config + CONFIG_EVENT_SIZE, EVENT_SIZE);
	store_le16(config + CONFIG_MAX_TARGET, SCSI_TARGETS_MOST - 1);
	store_le32(config + CONFIG_MAX_LUN, MAX_LUN);
	set_sizes(scsi, SENSE_SIZE, CDB_SIZE);
}

/* ---- the machine's ---- */

static void scsi_reset(struct virtio_device *v)
{
	struct virtio_scsi *scsi = of(v);

	set_sizes(scsi, SENSE_SIZE, CDB_SIZE);
	lock_take(&v->queues[EVENT].lock);
	memset(scsi->to_tell, 0, sizeof(scsi->to_tell));
	lock_drop(&v->queues[EVENT].lock);
	for (unsigned n = 0; n < SCSI_TARGETS_MOST; n++)
		if (scsi->bus.targets[n])
			scsi_target_reset(scsi->bus.targets[n]);
}

static void for_all_disks(struct virtio_scsi *scsi, void (*fn)(struct block *))
{
	for (unsigned n = 0; n < SCSI_TARGETS_MOST; n++)
		if (scsi->bus.targets[n] && scsi_block(scsi->bus.targets[n]))
			fn(scsi_block(scsi->bus.targets[n]));
}

static void scsi_pause(struct virtio_device *v) { for_all_disks(of(v), block_drain); }

static void give_up(struct virtio_device *v) { for_all_disks(of(v), block_give_up); }

static void scsi_resume(struct virtio_device *v) { virtio_held_serve(&of(v)->held, serve_again); }

static void queue_stops(struct virtio_queue *q) { virtio_held_stop(&of(q->virtio)->held, q); }

static int scsi_loaded(void *object, uint16_t version, struct error *err)
{
	if (virtio_held_check(&((struct virtio_scsi *)object)->held, err))
		return -EINVAL;
	return virtio_loaded(object, version, err);
}

/* ---- life ---- */

static void scsi_destroy(struct device *device)
{
	struct virtio_scsi *scsi = (struct virtio_scsi *)device;

	virtio_held_fini(&scsi->held);
	scsi_bus_end(&scsi->bus);
	virtio_fini(&scsi->virtio);
	pthread_mutex_destroy(&scsi->tasks_lock);
	free(scsi);
}

#define SCSI_ALL_STATE(_, T)                                                                                           \
	VIRTIO_STATE(_, T)                                                                                             \
	SCSI_STATE(_, T)                                                                                               \
	VIRTIO_HELD_STATE(_, T, 4)
STATE_DESC(scsi_state_desc, "virtio-scsi", 1, struct virtio_scsi, SCSI_ALL_STATE, .loaded = scsi_loaded,
	   .saving = virtio_saving);

static const struct device_ops scsi_device_ops = { .state = &scsi_state_desc,
						   VIRTIO_DEVICE_OPS,
						   .destroy = scsi_destroy };
static const struct virtio_ops scsi_ops = {
	.id = VIRTIO_ID_SCSI,
	.pci_name = "virtio-scsi-pci",
	.pci_class = 0x01000000,
	.reset = scsi_reset,
	.config_written = config_written,
	.loaded = scsi_config_loaded,
	.queue_stops = queue_stops,
	.give_up = give_up,
	.pause = scsi_pause,
	.resume = scsi_resume,
};

static bool boot_path(const struct scsi_bus *bus, unsigned target, struct device_boot *boot)
{
	char behind[32];

	snprintf(behind, sizeof(behind), "/channel@0/disk@%x,0", target);
	return virtio_boot_path(&container_of(bus, const struct virtio_scsi, bus)->virtio, "scsi", behind, boot);
}

static int add_queues(struct virtio_scsi *scsi, unsigned requests, struct error *err)
{
	int rc = virtio_add_queue(&scsi->virtio, VIRTIO_QUEUE_SIZE, kick_control, err);

	if (!rc)
		rc = virtio_add_queue(&scsi->virtio, VIRTIO_QUEUE_SIZE, kick_event, err);
	for (unsigned n = 0; !rc && n < requests; n++)
		rc = virtio_add_queue(&scsi->virtio, VIRTIO_QUEUE_SIZE, kick, err);
	return rc;
}

/* clang-format off */
#define SCSI_OPTIONS(_, T)                                                                                             \
	_(T, NUMBER, queues, 1, REQUEST_QUEUES_MOST, NULL, "of requests; by default one for each processor")           \
	VIRTIO_OPTIONS(_, T)
/* clang-format on */

struct scsi_options {
	DEVICE_OPTION_FIELDS(SCSI_OPTIONS)
};

static int scsi_create(struct bus *bus, const void *options, struct error *err)
{
	const struct scsi_options *o = options;
	unsigned queues = o->queues ? (unsigned)o->queues : MIN(irq_cpu_count(bus), REQUEST_QUEUES_MOST);
	struct virtio_scsi *scsi = calloc(1, sizeof(*scsi));
	int rc;

	if (!scsi)
		return error_set_errno(err, ENOMEM, "virtio-scsi");
	virtio_init(&scsi->virtio, bus, "virtio-scsi", &scsi_device_ops, &scsi_ops);
	scsi->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	scsi->bus.changed = target_changed;
	scsi->bus.boot_path = boot_path;
	scsi->bus.can_hold = !o->packed;
	virtio_held_init(&scsi->held, &scsi->virtio, REQUESTS, retry);
	pthread_mutex_init(&scsi->tasks_lock, NULL);
	list_init(&scsi->waiting);
	for (unsigned n = 0; n < SCSI_TARGETS_MOST; n++)
		list_init(&scsi->tasks[n]);
	rc = add_queues(scsi, queues, err);
	if (rc)
		return rc;
	set_config(scsi, queues);
	scsi->virtio.offered |= F_HOTPLUG;
	return virtio_plug(&scsi->virtio, VIRTIO_OPTIONS_OF(o), err);
}

struct scsi_bus *virtio_scsi_bus(struct bus *bus, struct error *err)
{
	struct device *device = bus_find_device(bus, "virtio-scsi", 0);

	/* Targets of others may be on it. */
	if (!device && device_create_own(bus, scsi_create, &(struct scsi_options){ .legacy = true }, err))
		return NULL;
	return &((struct virtio_scsi *)bus_find_device(bus, "virtio-scsi", 0))->bus;
}

const struct device_type virtio_scsi_type = {
	.name = "virtio-scsi",
	.help = "a SCSI controller, for --disk FILE,bus=scsi and --cdrom; made with the first of them otherwise",
	.most = 1,
	DEVICE_OPTIONS(SCSI_OPTIONS, struct scsi_options),
	.create = scsi_create,
};
