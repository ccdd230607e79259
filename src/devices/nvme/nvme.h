/*
 * NVMe (NVM Express 1.4): a controller with one namespace, an image. nvme.c has the registers and the queues, admin.c what drivers ask about, io.c the namespace's commands.
 *
 * A command is fetched when there is one of ours free for it and room for its completion, which so never waits; the others stay in the guest's queues. Those that were fetched are done
 * when a machine is saved.
 */
#ifndef DOPPEL_DEVICES_NVME_H
#define DOPPEL_DEVICES_NVME_H

#include "devices/disk.h"

#define NVME_QUEUES	   17u /* with the admin queues */
#define NVME_ENTRIES_MOST  1024u
#define NVME_COMMANDS	   64u /* that are done at the same time */
#define NVME_PAGE	   4096u
#define NVME_TRANSFER_LOG  7u /* pages of one transfer, at most, as a power of two */
#define NVME_TRANSFER_MOST (NVME_PAGE << NVME_TRANSFER_LOG)
#define NVME_PIECES	   ((1u << NVME_TRANSFER_LOG) + 1)
#define NVME_SECTOR	   512u
#define NVME_EVENTS	   4u	      /* requests for them, at most */
#define NVME_ALL	   UINT32_MAX /* namespaces */

/* Status codes with their types, 4.6.1 */
enum nvme_status {
	NVME_OK = 0x000,
	NVME_INVALID_OPCODE = 0x001,
	NVME_INVALID_FIELD = 0x002,
	NVME_DATA_TRANSFER = 0x004,
	NVME_INTERNAL = 0x006,
	NVME_INVALID_NAMESPACE = 0x00b,
	NVME_INVALID_OFFSET = 0x013,
	NVME_LBA_RANGE = 0x080,
	NVME_CAPACITY = 0x081,
	NVME_NO_COMPLETION_QUEUE = 0x100,
	NVME_QUEUE_NUMBER = 0x101,
	NVME_QUEUE_SIZE = 0x102,
	NVME_EVENT_LIMIT = 0x105,
	NVME_VECTOR = 0x108,
	NVME_LOG_PAGE = 0x109,
	NVME_QUEUE_DELETION = 0x10c,
	NVME_NOT_SAVEABLE = 0x10d,
	NVME_READ_ONLY = 0x182,
	NVME_WRITE_FAULT = 0x280,
	NVME_UNREADABLE = 0x281,
	/* Ours: */
	NVME_LATER = 0x1000, /* its completion comes by itself */
	NVME_AGAIN = 0x1001, /* it is to stay in its queue until something else is done */
};
#define NVME_DO_NOT_RETRY 0x4000u

/* Asynchronous events, by their type: 5.2 */
enum { NVME_EVENT_ERROR, NVME_EVENT_HEALTH, NVME_EVENT_TYPES };

/* Features, 5.21.1, by number */
enum {
	NVME_FEATURE_ARBITRATION = 0x01,
	NVME_FEATURE_POWER = 0x02,
	NVME_FEATURE_TEMPERATURE = 0x04,
	NVME_FEATURE_RECOVERY = 0x05,
	NVME_FEATURE_CACHE = 0x06,
	NVME_FEATURE_QUEUES = 0x07,
	NVME_FEATURE_COALESCING = 0x08,
	NVME_FEATURE_VECTOR = 0x09,
	NVME_FEATURE_ATOMICITY = 0x0a,
	NVME_FEATURE_EVENTS = 0x0b,
	NVME_FEATURES,
};
_Static_assert(NVME_QUEUES == 17 && NVME_FEATURES == 12 && NVME_EVENTS == 4 && NVME_EVENT_TYPES == 2,
	       "as in the list below");

#define NVME_STATE(_, T)                                                                                               \
	_(T, uint64_t, saved_sectors, 1, 1, 0, UINT64_MAX) /* of the disk that was saved with the machine */           \
	_(T, uint32_t, configuration, 1, 2, 0, 0x00ffffff) /* CC */                                                    \
	_(T, bool, ready, 1, 3, 0, 1)                                                                                  \
	_(T, bool, fatal, 1, 4, 0, 1)                                                                                  \
	_(T, uint8_t, shutdown, 1, 5, 0, 2)                                                                            \
	_(T, uint32_t, admin_sizes, 1, 6, 0, 0x0fff0fff) /* AQA */                                                     \
	_(T, uint64_t, admin_submission, 1, 7, 0, UINT64_MAX)                                                          \
	_(T, uint64_t, admin_completion, 1, 8, 0, UINT64_MAX)                                                          \
	_(T, uint32_t, interrupt_mask, 1, 9, 0, UINT32_MAX)                                                            \
	_(T, uint64_t, sq_address, 17, 10, 0, UINT64_MAX)                                                              \
	_(T, uint16_t, sq_size, 17, 11, 0, NVME_ENTRIES_MOST * 4) /* entries; 0: there is no such queue */             \
	_(T, uint16_t, sq_head, 17, 12, 0, NVME_ENTRIES_MOST * 4)                                                      \
	_(T, uint16_t, sq_tail, 17, 13, 0, NVME_ENTRIES_MOST * 4)                                                      \
	_(T, uint8_t, sq_cq, 17, 14, 0, NVME_QUEUES - 1)                                                               \
	_(T, uint64_t, cq_address, 17, 15, 0, UINT64_MAX)                                                              \
	_(T, uint16_t, cq_size, 17, 16, 0, NVME_ENTRIES_MOST * 4)                                                      \
	_(T, uint16_t, cq_head, 17, 17, 0, NVME_ENTRIES_MOST * 4)                                                      \
	_(T, uint16_t, cq_tail, 17, 18, 0, NVME_ENTRIES_MOST * 4)                                                      \
	_(T, bool, cq_phase, 17, 19, 0, 1)                                                                             \
	_(T, bool, cq_interrupts, 17, 20, 0, 1)                                                                        \
	_(T, uint8_t, cq_vector, 17, 21, 0, NVME_QUEUES - 1)                                                           \
	_(T, uint32_t, features, 12, 22, 0, UINT32_MAX)                                                                \
	_(T, uint16_t, hot, 1, 23, 0, UINT16_MAX)  /* K: thresholds of the temperature, over */                        \
	_(T, uint16_t, cold, 1, 24, 0, UINT16_MAX) /* and under */                                                     \
	_(T, uint16_t, event_ids, 4, 25, 0, UINT16_MAX)                                                                \
	_(T, uint8_t, event_count, 1, 26, 0, NVME_EVENTS)                                                              \
	_(T, uint32_t, events, 2, 27, 0, 0xffffff) /* by type: what waits to be told; 0: nothing */                    \
	_(T, bool, event_told, 2, 28, 0, 1)	   /* and its log page has not been read since */                      \
	_(T, uint64_t, error_count, 1, 29, 0, UINT64_MAX)                                                              \
	_(T, uint8_t, error_log, 64, 30, 0, 0xff)                                                                      \
	_(T, uint64_t, bytes_read, 1, 31, 0, UINT64_MAX)                                                               \
	_(T, uint64_t, bytes_written, 1, 32, 0, UINT64_MAX)                                                            \
	_(T, uint64_t, reads, 1, 33, 0, UINT64_MAX)                                                                    \
	_(T, uint64_t, writes, 1, 34, 0, UINT64_MAX)

struct nvme;

struct nvme_command {
	struct nvme *nvme;
	bool used;
	bool dropped; /* its queue is gone; so is its outcome */
	uint8_t queue;
	uint8_t entry[64]; /* as the guest has sent it */
	uint32_t result;   /* DW0 of the completion */
	struct block_request block;
	struct iovec iov[NVME_PIECES];
	unsigned pieces;
	/* DATASET MANAGEMENT: ranges, and which one is next */
	uint8_t ranges[NVME_PAGE];
	unsigned range, range_count;
};

struct nvme {
	struct pci_device pci;
	STATE_FIELDS(NVME_STATE)
	struct msix msix;
	_Atomic bool master; /* as the command register says */
	struct block *block;
	const struct block_info *info;
	uint64_t sectors, boot;
	char serial[DISK_SERIAL_SIZE + 1];
	bool in_line; /* virtual time */
	bool paused;
	bool flushes; /* a worker has what a shutdown waits for */
	struct block_request flush;
	size_t here_left; /* bytes that are moved where the guest asks */
	unsigned used;	  /* commands */
	unsigned sq_used[NVME_QUEUES];
	unsigned cq_used[NVME_QUEUES]; /* places for completions */
	struct nvme_command commands[NVME_COMMANDS];
};

static inline uint8_t nvme_opcode(const struct nvme_command *c) { return c->entry[0]; }
static inline uint16_t nvme_id(const struct nvme_command *c) { return load_le16(c->entry + 2); }
static inline uint32_t nvme_namespace(const struct nvme_command *c) { return load_le32(c->entry + 4); }
static inline uint64_t nvme_prp1(const struct nvme_command *c) { return load_le64(c->entry + 24); }
static inline uint64_t nvme_prp2(const struct nvme_command *c) { return load_le64(c->entry + 32); }
/* 10 to 15 */
static inline uint32_t nvme_word(const struct nvme_command *c, unsigned n) { return load_le32(c->entry + 4 * n); }

/* ---- nvme.c ---- */

/* A command that NVME_LATER was said of. */
void nvme_end(struct nvme_command *, unsigned status);
/* Something to be told, 5.2: its type's event information and log page. */
void nvme_event(struct nvme *, unsigned type, uint8_t information, uint8_t page);
/* Completes requests for events, as far as there are both. */
void nvme_tell_events(struct nvme *);

/* ---- admin.c ---- */

/* Status of an admin command. */
unsigned nvme_admin(struct nvme_command *);
void nvme_reset_features(struct nvme *);
/* A command has failed with that: it is in the error log. */
void nvme_log_error(struct nvme *, const struct nvme_command *, unsigned status);

/* ---- io.c ---- */

/* Status of a command of the namespace's. */
unsigned nvme_io(struct nvme_command *);
/* A block request is done. */
void nvme_io_done(struct nvme_command *);
/* So many bytes between the command's memory and data. 0, or the status. */
unsigned nvme_copy(struct nvme_command *, void *data, uint32_t size, bool to_memory);

#endif
