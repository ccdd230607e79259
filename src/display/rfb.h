/*
 * A session of the Remote Framebuffer protocol (RFC 6143, and the community's extensions), between bytes and a display. Knows no sockets.
 */
#ifndef DOPPEL_DISPLAY_RFB_H
#define DOPPEL_DISPLAY_RFB_H

#include "display/private.h"

/* ---- pixels (rfb_encode.c) ---- */

struct pixel_format {
	uint8_t bits, depth; /* a pixel's, 8, 16 or 32; those of them that count */
	bool big_endian, palette;
	uint16_t red_max, green_max, blue_max;
	uint8_t red_shift, green_shift, blue_shift;
};

struct encoder {
	struct pixel_format format;
	uint32_t red[256], green[256],
		blue[256];	 /* what each of the picture's becomes, in the order of the viewer's bytes */
	unsigned compact_size;	 /* bytes of a compressed pixel, */
	unsigned compact_first;	 /* from this one of a pixel's on */
	struct z_stream_s *zlib; /* NULL until it is needed */
	struct bytes tiles;	 /* before they are compressed */
};
/* The picture's own. */
void encoder_init(struct encoder *);
void encoder_end(struct encoder *);
/* False: there is no such format. */
bool encoder_set_format(struct encoder *, const struct pixel_format *);
/* Rectangles of at most these many points, which may lie beyond the picture (NULL: all does): it is black there. False: no memory. */
#define ENCODE_MOST_WIDTH  512
#define ENCODE_MOST_HEIGHT 64
bool encode_raw(struct encoder *, const struct picture *, struct rectangle, struct bytes *out);
bool encode_zrle(struct encoder *, const struct picture *, struct rectangle, struct bytes *out);

/* ---- authentication (rfb_auth.c) ---- */

#define RFB_CHALLENGE 16
#define RFB_PASSWORD  8 /* bytes that count */
void rfb_challenge(uint8_t challenge[RFB_CHALLENGE]);
bool rfb_answers(const char *password, const uint8_t challenge[RFB_CHALLENGE], const uint8_t answer[RFB_CHALLENGE]);

/* ---- sessions (rfb.c) ---- */

struct rfb_options {
	const char *password; /* NULL: none is asked for */
	bool readonly;
	/* There is something to be said: rfb_produce() has it. NULL: nobody cares. */
	void (*waits)(void *opaque);
	/* The viewer wants to be the only one. NULL: it does not get that. */
	void (*alone)(void *opaque);
	void *opaque;
};

struct rfb;
struct rfb *rfb_create(struct display *, const struct rfb_options *);
void rfb_destroy(struct rfb *);
/* What came; -EPROTO and others: the session is over, when what was produced is sent. */
int rfb_receive(struct rfb *, const uint8_t *, size_t);
/* Adds the next piece of what is to be sent, of bounded size; to be called when the last one is gone. Nothing may be added. */
int rfb_produce(struct rfb *, struct bytes *out);
/* Would it add something? */
bool rfb_waits(const struct rfb *);
/* Has it come as far as to see the picture? */
bool rfb_is_open(const struct rfb *);

#endif
