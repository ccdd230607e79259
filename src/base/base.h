/*
 * base: what every folder may use and nothing that knows of a machine: errors, address types, bits,
 * lists, the log and trace points. Depends on libc only.
 */
#ifndef DOPPEL_BASE_H
#define DOPPEL_BASE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define likely(x)			__builtin_expect(!!(x), 1)
#define unlikely(x)			__builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a)			(sizeof(a) / sizeof((a)[0]))
#define printf_like(f, a)		__attribute__((format(printf, f, a)))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define DOPPEL_VERSION			"0.1"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* ---- bytes that grow; begins as zeros, data is freed by who has it ---- */

struct bytes {
	uint8_t *data;
	size_t size, capacity;
};
/* `size` more at the end, to be filled; NULL: no memory. */
uint8_t *bytes_extend(struct bytes *, size_t size);
bool bytes_add(struct bytes *, const void *, size_t size);
/* Without so many at the beginning. */
void bytes_cut_front(struct bytes *, size_t size);

/* ---- GUIDs ---- */

#define GUID_SIZE 16
/* "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87" as firmware stores it: the first three groups are numbers with their lowest byte first. False: it is none; any bytes then. */
bool guid_parse(const char *text, uint8_t guid[GUID_SIZE]);

/* ---- addresses: types that the compiler refuses to mix ---- */

typedef struct {
	uint64_t v;
} gpa_t; /* guest physical */
typedef struct {
	uint64_t v;
} gva_t; /* guest virtual: a linear address, after segmentation */

static inline gpa_t gpa(uint64_t v) { return (gpa_t){ v }; }
static inline gva_t gva(uint64_t v) { return (gva_t){ v }; }

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096u
#define PAGE_MASK  (~(uint64_t)0xfff)
#define CACHE_LINE 64u /* of all processors of the architecture so far, and of the guest's */

#define MIB	 ((uint64_t)1 << 20)
#define NS_PER_S 1000000000ull

/* ---- errors ---- */

/*
 * What went wrong, as a sentence its reader can act on. Functions that can fail return 0 or -errno and fill the
 * `struct error *` they were given (which may be NULL).
 */
struct error {
	int code; /* positive errno */
	char text[512];
};

/* Set the sentence; returns -code. */
int error_set(struct error *err, int code, const char *fmt, ...) printf_like(3, 4);
/* The same, with ": <strerror(code)>" appended. */
int error_set_errno(struct error *err, int code, const char *fmt, ...) printf_like(3, 4);
/* Put "<context>: " in front of a sentence already there; returns -err->code. */
int error_prefix(struct error *err, const char *fmt, ...) printf_like(2, 3);

/* Our own mistakes only, never a guest's: prints the place and aborts. */
#define BUG_ON(cond)                                                                                                   \
	do {                                                                                                           \
		if (unlikely(cond))                                                                                    \
			bug_report(__FILE__, __LINE__, #cond);                                                         \
	} while (0)
_Noreturn void bug_report(const char *file, int line, const char *what);

/* ---- bits and ranges ---- */

#define BIT(n) (1ull << (n))

/* The bits hi..lo of v, shifted down. 63 >= hi >= lo >= 0. */
static inline uint64_t bits(uint64_t v, unsigned hi, unsigned lo) { return (v >> lo) & (~0ull >> (63 - (hi - lo))); }

static inline int64_t sign_extend(uint64_t v, unsigned width) { return (int64_t)(v << (64 - width)) >> (64 - width); }

static inline uint64_t align_down(uint64_t v, uint64_t a) { return v & ~(a - 1); }
static inline uint64_t align_up(uint64_t v, uint64_t a) { return (v + a - 1) & ~(a - 1); }

/* Is [off, off + len) inside [0, cap)? Correct for every value, also those that would overflow. */
static inline bool range_ok(uint64_t off, uint64_t len, uint64_t cap) { return off <= cap && len <= cap - off; }

static inline uint16_t load_le16(const void *p)
{
	uint16_t v;
	memcpy(&v, p, 2);
	return v;
}
static inline uint32_t load_le32(const void *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}
static inline uint64_t load_le64(const void *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return v;
}
static inline void store_le16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void store_le32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void store_le64(void *p, uint64_t v) { memcpy(p, &v, 8); }
static inline uint16_t load_be16(const void *p) { return __builtin_bswap16(load_le16(p)); }
static inline uint32_t load_be32(const void *p) { return __builtin_bswap32(load_le32(p)); }
static inline uint64_t load_be64(const void *p) { return __builtin_bswap64(load_le64(p)); }
static inline void store_be16(void *p, uint16_t v) { store_le16(p, __builtin_bswap16(v)); }
static inline void store_be32(void *p, uint32_t v) { store_le32(p, __builtin_bswap32(v)); }
static inline void store_be64(void *p, uint64_t v) { store_le64(p, __builtin_bswap64(v)); }

/*
 * For who gives out parts of its own memory and takes them all back at once: nobody may touch what was taken back until it is given
 * out again. The address sanitizer sees to it where that was built in, otherwise these do nothing.
 */
#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
void __asan_poison_memory_region(void const volatile *, size_t);
void __asan_unpoison_memory_region(void const volatile *, size_t);
#define memory_taken_back(p, size) __asan_poison_memory_region(p, size)
#define memory_given_out(p, size)  __asan_unpoison_memory_region(p, size)
#else
#define memory_taken_back(p, size) ((void)(p), (void)(size))
#define memory_given_out(p, size)  ((void)(p), (void)(size))
#endif

/* ---- intrusive doubly linked list; a head points to itself when empty ---- */

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }

static inline void list_insert_before(struct list *at, struct list *n)
{
	n->next = at;
	n->prev = at->prev;
	at->prev->next = n;
	at->prev = n;
}

static inline void list_append(struct list *head, struct list *n) { list_insert_before(head, n); }

/* Safe on an element that is initialised and not on a list. */
static inline void list_remove(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

#define list_entry(ptr, type, member) container_of(ptr, type, member)
#define list_for_each(pos, head, member)                                                                               \
	for (pos = list_entry((head)->next, __typeof__(*pos), member); &pos->member != (head);                         \
	     pos = list_entry(pos->member.next, __typeof__(*pos), member))
#define list_for_each_reverse(pos, head, member)                                                                       \
	for (pos = list_entry((head)->prev, __typeof__(*pos), member); &pos->member != (head);                         \
	     pos = list_entry(pos->member.prev, __typeof__(*pos), member))
#define list_for_each_safe(pos, tmp, head, member)                                                                     \
	for (pos = list_entry((head)->next, __typeof__(*pos), member),                                                 \
	    tmp = list_entry(pos->member.next, __typeof__(*pos), member);                                              \
	     &pos->member != (head); pos = tmp, tmp = list_entry(tmp->member.next, __typeof__(*tmp), member))

/* ---- log: sentences for the person who runs doppel, on standard error ---- */

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* One log a process: what is printed before or without a machine too. Thread-safe. Default level LOG_INFO. */
void log_set_level(enum log_level);
void log_print(enum log_level, const char *fmt, ...) printf_like(2, 3);
#define log_error(...)	 log_print(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_print(LOG_WARNING, __VA_ARGS__)
#define log_info(...)	 log_print(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 log_print(LOG_DEBUG, __VA_ARGS__)

/* For what a guest can cause: at most `burst` lines a site, then one line that says that more were dropped. */
struct log_limit {
	unsigned count;
};
void log_guest_print(struct log_limit *, const char *fmt, ...) printf_like(2, 3);
#define log_guest(...)                                                                                                 \
	do {                                                                                                           \
		static struct log_limit limit_;                                                                        \
		log_guest_print(&limit_, __VA_ARGS__);                                                                 \
	} while (0)

/* ---- lines that wait (output.c) ---- */

/*
 * While a thread holds its output, its lines of the log and of traces are kept, in their order: host/lock.c does so for who has a device's lock.
 * Who lets go of it writes them, where nobody waits for him.
 */
struct output {
	unsigned holds, count, dropped;
	struct output_line *first, *last;
};
extern _Thread_local struct output this_output; /* private, as the struct */
static inline void output_hold(void) { this_output.holds++; }
/* As often as it was held. True: lines wait, and may be written now: output_write(). */
static inline bool output_release(void) { return !--this_output.holds && unlikely(this_output.count); }
void output_write(void);
/* Writes one line; what kind it is its own business. */
typedef void output_fn(void *opaque, int kind, const char *fmt, va_list);
/* For the log and traces: by write, now or as soon as the thread does not hold its output. */
void output_line(output_fn *write, void *opaque, int kind, const char *fmt, va_list);

/* ---- names of addresses ---- */

struct symbols;
/* From lines "ADDRESS TYPE NAME", in any order; others are passed over. NULL with a sentence when there is none of code. */
struct symbols *symbols_parse(const char *text, struct error *);
/* The symbol at or before the address, and how far before; NULL when none is near, or `s` is NULL. */
const char *symbols_find(const struct symbols *, uint64_t address, uint64_t *offset);
void symbols_free(struct symbols *);

/* ---- trace points: one bit test when off ---- */

/* _(ENUM suffix, name on the command line, what a line of it shows) */
#define TRACE_CATEGORIES(_)                                                                                            \
	_(EXITS, "exits", "what makes an engine return to the machine")                                                \
	_(INTERRUPTS, "interrupts", "interrupts and NMIs taken by a vCPU")                                             \
	_(EXCEPTIONS, "exceptions", "exceptions other than page faults")                                               \
	_(PAGE_FAULTS, "page-faults", "page faults with address and error code")                                       \
	_(PIO, "pio", "port accesses")                                                                                 \
	_(MMIO, "mmio", "memory-mapped device accesses")                                                               \
	_(MSR, "msr", "RDMSR and WRMSR")                                                                               \
	_(CPUID, "cpuid", "CPUID leaves asked for")                                                                    \
	_(CONTROL, "control", "writes of control registers, mode changes")                                             \
	_(APIC, "apic", "local APIC: IPIs, INIT, SIPI")                                                                \
	_(IRQ, "irq", "interrupt lines of devices")                                                                    \
	_(TIMERS, "timers", "guest timers armed and fired")                                                            \
	_(BLOCKS, "blocks", "decoded or translated blocks")                                                            \
	_(CODE, "code", "writes to pages that hold code")                                                              \
	_(DEVICE, "device", "what devices do that is worth a line")

enum trace_category {
#define _(id, name, what) TRACE_##id,
	TRACE_CATEGORIES(_)
#undef _
		TRACE_COUNT
};

/* Hangs off a machine; a NULL pointer is never passed, an all-zero one is "off". */
struct trace {
	_Atomic uint32_t mask; /* bit per category */
	FILE *out;	       /* owned */
	uint64_t left;	       /* bytes that may still be written: what a guest causes does not fill the host's disk */
};

/*
 * Parse "exits,pio" (or "all", or "help": fills err with the list) and open the file; 0 or -errno. When `limit` bytes are
 * written, a last line says so and tracing ends.
 */
int trace_open(struct trace *, const char *categories, const char *path, uint64_t limit, struct error *);
void trace_close(struct trace *);
void trace_emit(struct trace *, enum trace_category, const char *fmt, ...) printf_like(3, 4);
/* Lines between these belong together: no other thread's come in. The trace is open. */
void trace_lock(struct trace *);
void trace_unlock(struct trace *);
static inline bool trace_on(const struct trace *t, enum trace_category c)
{
	return unlikely(atomic_load_explicit(&t->mask, memory_order_relaxed) & BIT(c));
}
#define TRACE(t, cat, ...)                                                                                             \
	do {                                                                                                           \
		if (trace_on(t, TRACE_##cat))                                                                          \
			trace_emit(t, TRACE_##cat, __VA_ARGS__);                                                       \
	} while (0)

/*
 * Where it matters who comes first: builds that look for mistakes (Makefile: asan, tsan, debug) let another thread in here every now and
 * then. yield.c
 */
#ifdef DEBUG_YIELDS
void debug_yield(void);
#else
static inline void debug_yield(void) {}
#endif

#endif
