/* gdb: what its files share. */
#ifndef DOPPEL_GDB_PRIVATE_H
#define DOPPEL_GDB_PRIVATE_H

#include "gdb/gdb.h"

/* ---- packet.c: "$DATA#CHECKSUM", acknowledged or not, and the byte that interrupts ---- */

#define PACKET_MOST 0x4000u /* bytes of a packet's data as it is sent */

enum packet_result {
	PACKET_MORE,	  /* all is used, nothing is whole */
	PACKET_WHOLE,	  /* data and size are one, its escapes resolved */
	PACKET_BAD,	  /* its checksum is wrong */
	PACKET_INTERRUPT, /* a byte of 0x03 between packets */
	PACKET_NAK,	  /* '-': what was sent is wanted again */
	PACKET_TOO_LONG,
};
/* Begins as zeros. */
struct packet_reader {
	enum { BETWEEN, IN_DATA, IN_CHECKSUM } state;
	uint8_t data[PACKET_MOST + 1]; /* a NUL behind it */
	size_t size;
	uint8_t sum;
	char digits[2];
	unsigned digit_count;
};
/* Takes bytes from *used on. */
enum packet_result packet_next(struct packet_reader *, const uint8_t *bytes, size_t size, size_t *used);
/* Appends a packet with this data. False: no memory. */
bool packet_add(struct bytes *, const void *data, size_t size);

/* One that is built piece by piece; overlong ones are cut. */
struct reply {
	char data[PACKET_MOST / 2]; /* all of it may be escaped */
	size_t size;
};
void reply_text(struct reply *, const char *format, ...) printf_like(2, 3);
void reply_bytes(struct reply *, const void *, size_t);
void reply_hex(struct reply *, const void *, size_t);
/* A number in hex at *at, which moves behind it. False: there is none, or it has more than 64 bits. */
bool parse_hex(const char **at, uint64_t *value);
/* So many bytes from hex; false: there are not. */
bool parse_hex_bytes(const char *text, size_t text_size, uint8_t *bytes, size_t size);

/* ---- registers.c: what GDB knows as registers ---- */

enum view { VIEW_X86_64, VIEW_I386, VIEW_I8086, VIEW_COUNT };
extern const char *const view_names[VIEW_COUNT];
/* False: none has this name. */
bool view_find(const char *name, enum view *);

#define REGISTER_SIZE_MOST 16
/* How many there are of this view, and a register's size in bytes. */
unsigned register_count(enum view, bool avx);
unsigned register_size(enum view, unsigned number);
void register_read(const struct cpu_state *, enum view, unsigned number, uint8_t *bytes);
/* False: this one cannot be changed. What it comes to is not checked. */
bool register_write(struct cpu_state *, enum view, unsigned number, const uint8_t *bytes);
/* The target description, XML. */
bool register_describe(enum view, bool avx, struct bytes *);

/* ---- session.c: a debugger's packets, and what follows from them ---- */

struct point {
	unsigned kind; /* of Z packets */
	uint64_t address, size;
};

struct session {
	struct machine *machine;
	enum view view, next_view;     /* of who comes next */
	bool no_ack, swbreak, hwbreak; /* as agreed */
	bool runs;		       /* the debugger waits for a stop */
	bool detached, over;	       /* nothing more is to come; over: it ended the machine */
	bool loud;		       /* interrupts come in steps, too */
	bool physical;		       /* addresses are physical ones */
	unsigned cpu;		       /* of g, m and their like */
	unsigned cpu_to_step;	       /* of s */
	struct point points[STOPS_MOST];
	unsigned point_count;
	struct packet_reader reader;
	struct bytes description;
	struct bytes last; /* packet sent last, until it is acknowledged */
	struct bytes out;  /* for who sends it: takes from the front */
};
/* Zeroed before. Has the machine stand still. stopped: as of machine_debug_attach(), for session_stopped(). -EBUSY: it has a debugger. */
int session_begin(struct session *, struct machine *, enum view, void (*stopped)(void *), void *opaque, struct error *);
/* A vCPU has stopped by itself: the debugger hears of it. */
void session_stopped(struct session *);
/* The machine goes on without. */
void session_end(struct session *);
/* False: that was the end of it, behind what is in out. */
bool session_input(struct session *, const uint8_t *, size_t);
/* The machine has ended with this status. */
void session_machine_ended(struct session *, int status);

/* Appends to out, and keeps it in case it gets lost. */
void session_send(struct session *, const void *data, size_t size);
/* How much may wait for a debugger that does not read. */
#define OUTPUT_MOST (1u << 20)

/* ---- monitor.c: commands of a person ("monitor" of GDB's) ---- */

/* Carries out a line, its output as O packets. False: there is no such command, which was said. */
void monitor_execute(struct session *, const char *line);

#endif
