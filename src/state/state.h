/*
 * state: how any device's or CPU's guest-visible state is named, reset, saved, checked, loaded and shown.
 *
 * A device declares its state once, as a list:
 *
 *	#define RTC_STATE(_, T)                                                        \
 *		_(T, uint8_t, index, 1, 1, 0, 127)                                     \
 *		_(T, uint8_t, cmos, 128, 2, 0, 0xff)
 *
 * with columns (struct type, C type, field name, count, tag, reset value, largest value allowed), and from it come
 * the struct's fields and the table:
 *
 *	struct rtc {
 *		struct device device;
 *		STATE_FIELDS(RTC_STATE)
 *		struct timer periodic;   // not in the list: armed again by the owner when all records are in (bus.h, attach)
 *	};
 *	STATE_DESC(rtc_state_desc, "rtc", 1, struct rtc, RTC_STATE, .loaded = rtc_loaded);
 *
 * C types are unsigned integers of 1, 2, 4 or 8 bytes, or bool. Tags are 1..65535, never reused. A loader accepts
 * records with unknown tags missing (reset values are kept) but refuses unknown tags, wrong sizes, values over max.
 * Guest times (deadlines) are saved as vtime_t (ns of guest time), as any uint64_t.
 */
#ifndef DOPPEL_STATE_H
#define DOPPEL_STATE_H

#include "base/base.h"

struct state_field {
	const char *name;
	uint16_t tag;
	uint8_t size;	 /* bytes of one element: 1, 2, 4, 8 */
	uint32_t count;	 /* elements */
	uint32_t offset; /* in the struct */
	uint64_t reset;
	uint64_t max;
};

struct state_desc {
	const char *name; /* record name, unique among the kinds of a machine */
	uint16_t version;
	const struct state_field *fields;
	size_t field_count;
	/*
	 * With a record's values in the object's fields: check what a range cannot say. NULL: nothing. `version` is the record's, at most
	 * the one above. It looks at this object alone, because others may not be loaded yet, and changes nothing, because the values are
	 * taken out again when it, or another record of the machine, is refused. 0 or -errno.
	 */
	int (*loaded)(void *object, uint16_t version, struct error *);
	/* Brings host-side things up to date before a save. NULL: nothing. */
	void (*saving)(const void *object);
};

/*
 * A count of 1 declares a plain member, any other an array; the count must be a literal number, because token pasting
 * makes the choice.
 */
#define STATE_PASTE_(a, b)				 a##b
#define STATE_PASTE(a, b)				 STATE_PASTE_(a, b)
#define STATE_IS_1_1					 ,
#define STATE_THIRD_(a, b, c, ...)			 c
#define STATE_THIRD(...)				 STATE_THIRD_(__VA_ARGS__)
#define STATE_DIM(n)					 STATE_THIRD(STATE_PASTE(STATE_IS_1_, n), , [n], )
#define STATE_FIELD_(T, type, field, n, tag, reset, max) type field STATE_DIM(n);
#define STATE_ENTRY_(T, type, field, n, tag, reset, max)                                                               \
	{ #field, tag, sizeof(type), n, offsetof(T, field), reset, max },

#define STATE_FIELDS(LIST) LIST(STATE_FIELD_, void)
#define STATE_DESC(ident, name_, version_, T, LIST, ...)                                                               \
	static const struct state_field ident##_fields[] = { LIST(STATE_ENTRY_, T) };                                  \
	static const struct state_desc ident = { .name = name_,                                                        \
						 .version = version_,                                                  \
						 .fields = ident##_fields,                                             \
						 .field_count = ARRAY_SIZE(ident##_fields),                            \
						 ##__VA_ARGS__ }

/* Set every field of the list to its reset value. */
void state_reset(const struct state_desc *, void *object);

/* A growing byte buffer; a failed allocation sets `failed` and later writes do nothing. */
struct writer {
	uint8_t *data;
	size_t size, capacity;
	bool failed;
};
void writer_free(struct writer *);
void writer_bytes(struct writer *, const void *, size_t);

/* A cursor over bytes that may be hostile. */
struct reader {
	const uint8_t *data;
	size_t size, offset;
};

/*
 * Record: name length (1), name, version (2), payload length (4), then per field: tag (2), element size (1), count (4),
 * values; all little endian. The name is "<desc->name>.<instance>": `instance` distinguishes several devices of one kind.
 */
int state_save(const struct state_desc *, unsigned instance, const void *object, struct writer *);
/* Decodes into scratch, checks every field, then commits; on any error nothing changed. Advances the reader. */
int state_load(const struct state_desc *, unsigned instance, void *object, struct reader *, struct error *);

/*
 * Of the record at the reader, whatever it is: its name, with ? for what is not printable, and how many bytes it has. False: it is not all there. The record may
 * still be wrong in any way.
 */
#define STATE_NAME_SIZE 256
bool state_peek(const struct reader *, char name[STATE_NAME_SIZE], size_t *size);

/*
 * Records that are loaded together or not at all. Starts zeroed. state_load_part() is state_load(), but that the object's old
 * values are kept: until state_load_undo() gives them back to all objects, or state_load_keep() forgets them.
 */
struct state_changes {
	struct state_change *list;
	size_t count, capacity;
};
int state_load_part(struct state_changes *, const struct state_desc *, unsigned instance, void *object, struct reader *,
		    struct error *);
void state_load_undo(struct state_changes *);
void state_load_keep(struct state_changes *);

/* CRC-32 (ISO 3309) of bytes behind those whose CRC is `before`; 0: behind none. */
uint32_t state_checksum(uint32_t before, const void *, size_t);
/* One line a field, "name = value", arrays as ranges of equal values; for `info` and traces. */
void state_print(const struct state_desc *, const void *object, FILE *);

#endif
