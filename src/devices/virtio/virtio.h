/*
 * virtio: what all virtio devices have in common (Virtual I/O Device version 1.2; "virtio 1.2" below): status and features, configuration space, queues.
 * How a driver gets at them is a transport's (pci.c, mmio.c); what is done with what it sends is a device's.
 *
 * To write a device: a struct whose first member is a struct virtio_device; a list of its own state; its struct virtio_ops; and
 *
 *	virtio_init()         gives it its name, its functions, and a lock of its own
 *	virtio_add_queue()    for each queue, with the function that serves it
 *	virtio.features       bits of its own that it offers; virtio.config what its configuration space says
 *	virtio_plug()         gives it a transport: puts it on PCI, or in a window of memory
 *
 * as rng.c, the smallest one, shows. A queue is served in the thread of the vCPU that kicks it: what may block goes to a thread of the device's, which takes the
 * queue's lock to complete it. Chains that were popped are pushed again, all of them: pause() of its virtio_ops waits until they are, for a saved machine has none.
 *
 * Locks, in this order: the device's (registers, configuration space) and a queue's, both LOCK_QUEUE; then those of other ranks. What is said to be under a
 * queue's lock is called with or without the device's.
 */
#ifndef DOPPEL_DEVICES_VIRTIO_VIRTIO_H
#define DOPPEL_DEVICES_VIRTIO_VIRTIO_H

#include "devices/devices.h"

#define VIRTIO_MAX_QUEUES     64
#define VIRTIO_MAX_QUEUE_SIZE 1024
#define VIRTIO_QUEUE_SIZE     256 /* what firmware can cope with, and enough */
#define VIRTIO_CONFIG_SIZE    256
/* Pieces of host memory that a chain comes to at most: what preadv() takes. */
#define VIRTIO_MAX_PIECES 1024

/* Device types, virtio 1.2, 5 */
enum virtio_id {
	VIRTIO_ID_NET = 1,
	VIRTIO_ID_BLOCK = 2,
	VIRTIO_ID_CONSOLE = 3,
	VIRTIO_ID_RNG = 4,
	VIRTIO_ID_BALLOON = 5,
	VIRTIO_ID_SCSI = 8,
	VIRTIO_ID_9P = 9,
	VIRTIO_ID_VSOCK = 19,
	VIRTIO_ID_FS = 26,
	VIRTIO_ID_PMEM = 27,
};

/* Feature bits that are no device's own, virtio 1.2, 6 */
#define VIRTIO_F_ANY_LAYOUT    27 /* legacy only */
#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32
#define VIRTIO_F_RING_PACKED   34
#define VIRTIO_F_RING_RESET    40

/* Device status, virtio 1.2, 2.1 */
#define VIRTIO_ACKNOWLEDGE 0x01u
#define VIRTIO_DRIVER	   0x02u
#define VIRTIO_DRIVER_OK   0x04u
#define VIRTIO_FEATURES_OK 0x08u
#define VIRTIO_NEEDS_RESET 0x40u
#define VIRTIO_FAILED	   0x80u

#define VIRTIO_ISR_QUEUE  1u
#define VIRTIO_ISR_CONFIG 2u

struct virtio_device;
struct virtio_queue;

struct virtio_ops {
	enum virtio_id id;
	const char *
		pci_name; /* of what puts it on PCI, which is a device of its own: one a type, so that a saved one is found whatever else is plugged */
	uint32_t pci_class; /* class code << 8 */
	bool modern_only;   /* there never was a legacy device of its kind */
	/* The driver is ready (DRIVER_OK): features are what they will be. The device's lock is held. NULL: nothing. */
	void (*started)(struct virtio_device *);
	/*
	 * Chains of the queue that wait for something other than the device's own threads are given up, by virtqueue_drop() if they were not dropped before: it is
	 * about to be reset. The others are waited for behind this. The queue's lock is held. NULL: there are none.
	 */
	void (*queue_stops)(struct virtio_queue *);
	/*
	 * Chains have not been pushed for a while, and the driver waits for its reset: they are soon, whatever becomes of them. No queue's lock is held. NULL: there is
	 * nothing to be done about it.
	 */
	void (*give_up)(struct virtio_device *);
	/* The device as it was when it was new: by the driver, or with the machine. All queues are. The device's lock is held. NULL: that is all. */
	void (*reset)(struct virtio_device *);
	/* The driver wrote to bytes of config that config_mask lets it. The device's lock is held. NULL: that is all. */
	void (*config_written)(struct virtio_device *, unsigned offset, unsigned size);
	/* All fields were loaded: config follows from them. NULL: it is what it always is. */
	void (*loaded)(struct virtio_device *);
	/* As in device_ops. pause: no chain is popped when it returns, or will be until resume. NULL: chains are pushed where they are popped. */
	void (*pause)(struct virtio_device *);
	void (*resume)(struct virtio_device *);
};

/* What is the transport's. Any thread; a queue's lock, the device's, or none are held. */
struct virtio_transport {
	void (*queue_interrupt)(struct virtio_device *, unsigned queue);
	void (*config_interrupt)(struct virtio_device *);
};

/*
 * A queue's registers, as they are saved. Of a split queue next_available and next_used count without end; of a packed one they are positions in its ring, with
 * VIRTIO_PACKED_WRAP in every other turn, the first one among them.
 */
#define VIRTIO_PACKED_WRAP 0x8000u
#define VIRTIO_QUEUE_REGISTERS(_)                                                                                      \
	_(uint16_t, size)                                                                                              \
	_(bool, enabled)                                                                                               \
	_(uint64_t, descriptors) /* guest physical addresses of the three parts */                                     \
	_(uint64_t, available)                                                                                         \
	_(uint64_t, used)                                                                                              \
	_(uint16_t, next_available) /* indices of what is to be popped, and pushed, next */                            \
	_(uint16_t, next_used)

struct virtio_queue {
	struct virtio_device *virtio;
	unsigned index;
	uint16_t most; /* descriptors that it has room for */
	void (*kick)(struct virtio_queue *);
	struct lock lock; /* all that follows */
#define _(type, name) type name;
	VIRTIO_QUEUE_REGISTERS(_)
#undef _
	/* Private to queue.c and its rings */
	uint16_t published; /* next_used as the driver was told */
	uint16_t looked; /* next_available as it was when last looked at: what was unpopped since is in front of it */
	uint16_t first_flags;  /* packed: what publish() stores behind what was published last */
	unsigned popped;       /* chains */
	pthread_cond_t pushed; /* popped is 0 */
	uint64_t map_generation;
	bool mapped;
	uint8_t *descriptor_part, *available_part, *used_part; /* in the host, while the map is of that generation */
	struct timer again;
	struct iovec *pieces;
};

/* As they are saved: one array each. */
struct virtio_registers {
#define _(type, name) type name[VIRTIO_MAX_QUEUES];
	VIRTIO_QUEUE_REGISTERS(_)
#undef _
};

struct virtio_device {
	struct device device;
	const struct virtio_ops *ops;
	const struct virtio_transport *transport;
	void *transport_opaque;
	struct lock lock;
	uint64_t offered;  /* features: the device's own, set before virtio_plug(), and those of queues */
	uint64_t features; /* that the driver took; they are fixed when FEATURES_OK is set */
	_Atomic uint8_t status;
	_Atomic uint8_t config_generation;
	uint8_t config[VIRTIO_CONFIG_SIZE];
	uint8_t config_mask[VIRTIO_CONFIG_SIZE]; /* bits that the driver may write */
	unsigned config_size;
	unsigned queue_count;
	struct virtio_queue queues[VIRTIO_MAX_QUEUES];
	struct virtio_registers saved; /* by saving(), for loaded() */
};

/*
 * Goes in front of the device's own list where STATE_DESC is used, which names .loaded = virtio_loaded and .saving = virtio_saving, or functions that call those. Fields
 * of queues that the device does not have stay 0.
 */
#define VIRTIO_STATE(_, T)                                                                                             \
	_(T, uint64_t, virtio.features, 1, 2000, 0, UINT64_MAX)                                                        \
	_(T, uint8_t, virtio.status, 1, 2001, 0, 0xcf)                                                                 \
	_(T, uint8_t, virtio.config_generation, 1, 2002, 0, 0xff)                                                      \
	_(T, uint16_t, virtio.saved.size, 64, 2003, 0, VIRTIO_MAX_QUEUE_SIZE)                                          \
	_(T, bool, virtio.saved.enabled, 64, 2004, 0, 1)                                                               \
	_(T, uint64_t, virtio.saved.descriptors, 64, 2005, 0, UINT64_MAX)                                              \
	_(T, uint64_t, virtio.saved.available, 64, 2006, 0, UINT64_MAX)                                                \
	_(T, uint64_t, virtio.saved.used, 64, 2007, 0, UINT64_MAX)                                                     \
	_(T, uint16_t, virtio.saved.next_available, 64, 2008, 0, UINT16_MAX)                                           \
	_(T, uint16_t, virtio.saved.next_used, 64, 2009, 0, UINT16_MAX)

/* ---- virtio.c: for devices ---- */

/* Members of the device's struct device_ops; state and destroy are its own. */
#define VIRTIO_DEVICE_OPS .reset = virtio_reset, .attach = virtio_attach, .pause = virtio_pause, .resume = virtio_resume

/* The struct is zero. Before anything else; when it fails there is nothing to destroy. */
void virtio_init(struct virtio_device *, struct bus *, const char *name, const struct device_ops *,
		 const struct virtio_ops *);
/*
 * The next queue, of at most `size` descriptors (a power of two). kick: the driver may have put something there; under the queue's lock, in any thread.
 * 0, or -ENOMEM.
 */
int virtio_add_queue(struct virtio_device *, unsigned size, void (*kick)(struct virtio_queue *), struct error *);
/* From the device's destroy, before its memory is freed. */
void virtio_fini(struct virtio_device *);

static inline bool virtio_has(const struct virtio_device *v, unsigned feature) { return v->features & BIT(feature); }
static inline bool virtio_is_legacy(const struct virtio_device *v) { return !virtio_has(v, VIRTIO_F_VERSION_1); }
static inline bool virtio_is_started(const struct virtio_device *v) { return v->status & VIRTIO_DRIVER_OK; }

/* config has changed: the driver is told. The device's lock is held. */
void virtio_config_changed(struct virtio_device *);
/*
 * The driver has broken a rule, in a way that the device cannot go on from: DEVICE_NEEDS_RESET (virtio 1.2, 2.1.2). No queue is served until it is reset. What:
 * for the log. A queue's lock may be held.
 */
void virtio_break(struct virtio_device *, const char *what, ...) printf_like(2, 3);

/* Of struct device_ops, and of the state's description. */
void virtio_reset(struct device *);
void virtio_attach(struct device *);
void virtio_pause(struct device *);
void virtio_resume(struct device *);
void virtio_saving(const void *virtio);
int virtio_loaded(void *virtio, uint16_t version, struct error *);

/* ---- virtio.c: for transports; the device's lock is held ---- */

/* What the driver may choose from: legacy, or by the modern interface. */
uint64_t virtio_offered(const struct virtio_device *, bool legacy);
/* Until FEATURES_OK. */
void virtio_choose(struct virtio_device *, uint64_t features);
/* 32 bits at a time: half 0 is the low one; behind 1 there is none. */
uint32_t virtio_feature_half(uint64_t features, uint32_t half);
void virtio_choose_half(struct virtio_device *, uint32_t half, uint32_t features);
/* 0 is a reset: when it returns nothing is under way. */
void virtio_set_status(struct virtio_device *, uint8_t status, bool legacy);
/* NULL: there is none. */
struct virtio_queue *virtio_queue_at(struct virtio_device *, unsigned index);
/* Of queues that are not enabled; what is no size is not taken. */
void virtio_queue_set_size(struct virtio_queue *, unsigned size);
enum virtio_part { VIRTIO_DESCRIPTORS, VIRTIO_AVAILABLE, VIRTIO_USED };
/* Half a guest physical address. */
uint32_t virtio_queue_address(struct virtio_queue *, enum virtio_part, bool high);
void virtio_queue_set_address(struct virtio_queue *, enum virtio_part, bool high, uint32_t);
/* From its beginning; one that is enabled stays as it is. */
void virtio_queue_enable(struct virtio_queue *);
/* Addresses of a legacy queue, whose parts follow one another (virtio 1.2, 2.7.2): 0 disables it. */
void virtio_queue_set_page(struct virtio_queue *, uint32_t page_number);
/* When it returns nothing of it is under way. */
void virtio_queue_reset(struct virtio_queue *);
/* The driver's notification. Without the device's lock, or with it. */
void virtio_queue_kick(struct virtio_queue *);
/* Bytes of config; reads behind its end are 0. */
uint32_t virtio_config_read(const struct virtio_device *, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio_device *, uint64_t offset, unsigned size, uint32_t value);

/* ---- queue.c: under the queue's lock ---- */

/*
 * What the driver has put into a queue: first what the device reads, then what it writes. Host addresses, as mem_dma_map() gives them. They are the queue's, until
 * the next chain is popped: who needs it for longer copies it (virtio_chain_copy).
 */
struct virtio_chain {
	uint16_t head;	/* what the driver knows it by */
	uint16_t slots; /* descriptors of a packed ring */
	unsigned out_count, in_count;
	const struct iovec *out, *in;
	size_t out_size, in_size;
};
/* Room in `pieces` for all of the chain's. */
static inline size_t virtio_chain_pieces(const struct virtio_chain *c) { return c->out_count + c->in_count; }
void virtio_chain_copy(struct virtio_chain *to, const struct virtio_chain *from, struct iovec *pieces);
/* Copies from what the device reads, to what it writes; returns how many bytes there were. */
size_t virtio_chain_read(const struct virtio_chain *, size_t offset, void *, size_t size);
size_t virtio_chain_write(const struct virtio_chain *, size_t offset, const void *, size_t size);

/* The next chain. False: there is none, or the queue is not to be served. */
bool virtqueue_pop(struct virtio_queue *, struct virtio_chain *);
/*
 * This chain, of those that are popped the last one, is popped again next time. Kicks are wanted, if they are, for what the driver adds then.
 */
void virtqueue_unpop(struct virtio_queue *, const struct virtio_chain *);
/* The chain is the driver's again, of what the device may write the first `written` bytes were. It knows behind virtqueue_publish(). */
void virtqueue_push(struct virtio_queue *, const struct virtio_chain *, size_t written);
/* Any of what the device may write of the chain may have been written, whatever virtqueue_push() says, or virtqueue_drop(). */
void virtqueue_note(struct virtio_queue *, const struct virtio_chain *);
/* The driver gets to know what was pushed, and an interrupt if it wants one. */
void virtqueue_publish(struct virtio_queue *);
/* The chain is never pushed: in queue_stops; or later, popped again by its head, in a machine perhaps that was loaded in between. */
void virtqueue_drop(struct virtio_queue *);
/* False: it cannot be, and the device is broken, or the queue is not to be served. Of split rings alone: in others it may be overwritten. */
bool virtqueue_pop_again(struct virtio_queue *, uint16_t head, struct virtio_chain *);
/* Is the driver to kick when it adds something? True: it has, already. */
bool virtqueue_want_kicks(struct virtio_queue *, bool);
/*
 * What a kick function does where each chain is served at once, or handed over: serve() is called with one after the other, which pushes it or sees that somebody does. One
 * interrupt for all of them. A driver that adds and adds does not keep the thread for ever: the rest is done later.
 */
void virtqueue_serve(struct virtio_queue *, void (*serve)(struct virtio_queue *, const struct virtio_chain *));

/* kick() is called soon, by the clock, as if the driver had kicked. */
void virtqueue_later(struct virtio_queue *);

/* For virtio.c: */
int virtqueue_init(struct virtio_queue *, struct virtio_device *, unsigned size);
void virtqueue_fini(struct virtio_queue *);
/* Waits until all chains are pushed; then it is as new. */
void virtqueue_stop(struct virtio_queue *);
/* Registers are set: what was derived is not valid any more. */
void virtqueue_forget(struct virtio_queue *);

/* ---- transports ---- */

/* clang-format off */
/* Behind the options of each device that virtio_plug() gets, as VIRTIO_OPTIONS_OF(options). */
#define VIRTIO_OPTIONS(_, T)                                                                                           \
	_(T, TEXT, transport, 0, 0, "pci", "pci, or mmio: a window of memory, for kernels without PCI")                \
	_(T, SWITCH, packed, 0, 0, "off", "packed rings, for drivers that know them")                                  \
	_(T, SWITCH, legacy, 0, 0, "on", "drivers from before virtio 1.0 find it, too; on PCI")
/* clang-format on */

struct virtio_options {
	DEVICE_OPTION_FIELDS(VIRTIO_OPTIONS)
};
#define VIRTIO_OPTION_OF_(o, kind, name, least, most, by_default, help) .name = (o)->name,
#define VIRTIO_OPTIONS_OF(o)						(&(struct virtio_options){ VIRTIO_OPTIONS(VIRTIO_OPTION_OF_, o) })

/*
 * All queues are added; the transport is a device of its own, which ends before this one. On PCI it is at the next free slot; else in the first window that is free
 * (devices.h). transport NULL is "pci".
 */
int virtio_plug(struct virtio_device *, const struct virtio_options *, struct error *);

/* pci_boot_path() of a device that is on PCI; false: it is not. */
bool virtio_boot_path(const struct virtio_device *, const char *name, const char *behind, struct device_boot *);

/* For virtio.c: */
int virtio_plug_pci(struct virtio_device *, bool legacy, struct error *);
int virtio_plug_mmio(struct virtio_device *, struct error *);

#endif
