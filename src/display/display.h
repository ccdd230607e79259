/*
 * display: the host's side of a machine's screens, keyboards and pointers. Devices show pictures and accept keys on one side; viewers (RFB, a web
 * page, PNG files, text) look and type on the other. Knows of pixels, keys and sockets, not of guests.
 *
 * All of it is called in the event loop's thread, or while that does not run. A device's ops are called without locks: it takes its own.
 */
#ifndef DOPPEL_DISPLAY_H
#define DOPPEL_DISPLAY_H

#include "base/base.h"
#include "host/host.h"

struct display;

/* One a machine. */
struct display *display_create(struct event_loop *, struct error *);
/* When its screens, inputs and viewers are gone. */
void display_destroy(struct display *);

/* ---- screens ---- */

#define PICTURE_MAX_WIDTH  2560
#define PICTURE_MAX_HEIGHT 1600

/* Rows from the top, each of `width` pixels 0x00RRGGBB, without gaps. */
struct picture {
	uint32_t width, height;
	uint32_t *pixels;
};
struct rectangle {
	uint32_t x, y, width, height;
};

/* A screen of characters, for who wants no pixels: code page 437, attributes as the VGA's. Rows from the top, without gaps. */
struct text_picture {
	uint32_t columns, rows;
	struct {
		uint8_t character, attribute;
	} * cells;
	uint32_t cursor_column, cursor_row; /* cursor_row >= rows: there is none */
};

struct screen;
struct screen_ops {
	/*
	 * Brings the picture up to what the guest shows now: screen_set_size() where that changed, pixels, screen_changed() for what differs. These are
	 * called here alone.
	 */
	void (*draw)(void *opaque, struct screen *);
	/* False: it shows no text. Cells are the caller's, columns and rows are what they have room for, and then what there is. NULL: never text. */
	bool (*read_text)(void *opaque, struct text_picture *);
	/* A viewer would like this size. NULL: the guest alone decides. */
	void (*wish_size)(void *opaque, uint32_t width, uint32_t height);
};

/* The one created last is what viewers see. NULL when there is no display (NULL), which the functions below accept. */
struct screen *screen_create(struct display *, const struct screen_ops *, void *opaque);
void screen_destroy(struct screen *);
/* What viewers have. Contents are kept if the size does not change, otherwise black. Sizes beyond the limits are cut. */
struct picture *screen_picture(struct screen *);
void screen_set_size(struct screen *, uint32_t width, uint32_t height);
void screen_changed(struct screen *, struct rectangle);

/* ---- viewers ---- */

struct viewer_ops {
	/* Of one that was drawn. The picture has another size, or is another screen's: all of it changed. Viewers stay while one is told. */
	void (*resized)(void *opaque, const struct picture *);
	void (*changed)(void *opaque, const struct picture *, struct rectangle);
	/* The keyboard's (below) are others now. NULL: it does not matter. */
	void (*lamps)(void *opaque, unsigned lamps);
};
struct viewer {
	const struct viewer_ops *ops;
	void *opaque;
	struct list node; /* private */
};
/*
 * While there are viewers, the screen is drawn up to 30 times a second; seldom while nothing changes, at once again behind a key. A new one hears of what
 * changes from now on; what there is display_picture() knows.
 */
void viewer_add(struct display *, struct viewer *);
void viewer_remove(struct display *, struct viewer *);
/* Draws now; the picture, or NULL if there is no screen. It is valid until the loop goes on. */
const struct picture *display_picture(struct display *);
/* As screen_ops.read_text; false, too, if there is no screen. */
bool display_read_text(struct display *, struct text_picture *);
/* A viewer's wish. */
void display_wish_size(struct display *, uint32_t width, uint32_t height);

/* ---- pictures as files (png.c) ---- */

/* A PNG, which takes the place of what was there when it is whole. 0 or -errno. */
int picture_write_png(const struct picture *, const char *path, struct error *);

/* "FILE[,at=SECONDS][,every=SECONDS]", from now on in the host's time: what is seen then, or at the end; every so often, and at the end, too. */
struct screenshot;
/* -EINVAL with a sentence. */
int screenshot_check(const char *spec, struct error *);
struct screenshot *screenshot_open(struct display *, struct event_loop *, const char *spec, struct error *);
/* The machine's run is over. */
void screenshot_end(struct screenshot *);
void screenshot_close(struct screenshot *);

/* ---- keys and pointers: codes are Linux's (linux/input-event-codes.h: KEY_A, BTN_LEFT), which name keys by their place ---- */

enum input_kind { INPUT_KEYS, INPUT_RELATIVE, INPUT_ABSOLUTE, INPUT_KINDS };
#define INPUT_PLACES 0x8000 /* an absolute pointer's places are 0 to this - 1, from the left and from the top */

struct input_ops {
	void (*key)(void *opaque, unsigned code, bool down);
	/* Of INPUT_RELATIVE and INPUT_ABSOLUTE: */
	void (*button)(void *opaque, unsigned code, bool down);
	void (*move)(void *opaque, int32_t x, int32_t y);    /* INPUT_RELATIVE: so many counts to the right and down */
	void (*place)(void *opaque, uint32_t x, uint32_t y); /* INPUT_ABSOLUTE */
	void (*wheel)(void *opaque, int32_t up);	     /* notches; negative: down */
	void (*complete)(void *opaque); /* what came since the last one happened at once; or NULL */
};
/* A device that accepts input, the device's. The one of its kind added last that is wanted gets it. */
struct input {
	enum input_kind kind;
	const struct input_ops *ops;
	void *opaque;
	_Atomic bool unwanted; /* the guest does not use it now: the next one gets what comes; any thread */
	bool happened;	       /* private, as what follows: something, since it was last complete */
	struct list node;
};
/* No display (NULL): nothing is done. */
void input_add(struct display *, struct input *);
void input_remove(struct display *, struct input *);
/* From viewers. A key that is down already is not pressed again, nor one let go of that is up. Absolute places go to an absolute pointer, and where there is none, as differences, to a relative one. */
void display_key(struct display *, unsigned code, bool down);
void display_button(struct display *, unsigned code, bool down);
void display_move(struct display *, int32_t x, int32_t y);
void display_place(struct display *, uint32_t x, uint32_t y);
void display_wheel(struct display *, int32_t up);
void display_complete(struct display *);
/* Is there an absolute pointer that is wanted? */
bool display_points_absolutely(struct display *);
/* Lamps of the keyboard, as the guest set them; any thread. */
#define LAMP_SCROLL BIT(0)
#define LAMP_NUM    BIT(1)
#define LAMP_CAPS   BIT(2)
void display_set_lamps(struct display *, unsigned lamps);
unsigned display_lamps(struct display *);

/* ---- what is asked for: servers, for viewers that come by a socket, and the terminal ---- */

/* What keys make in the guest, for viewers that tell characters ("us" unless set). -EINVAL: there is no such layout. */
int display_set_keyboard(struct display *, const char *name, struct error *);
/* The n-th layout, NULL behind the last. */
const char *display_keyboard_name(unsigned n);
/*
 * "none", "vnc:[ADDRESS:]PORT", "vnc:unix:PATH", "web:[ADDRESS:]PORT", with options: password-file=FILE, password-env=NAME, readonly, exclusive; "text", with
 * readonly. It serves until display_destroy(), the terminal until display_end(); the log says where. -EINVAL names what is wrong.
 */
int display_show(struct display *, const char *spec, struct error *);
/* Is that the terminal? */
bool display_is_text(const char *spec);
/* Who sits at the terminal wants no more of the machine. */
void display_on_quit(struct display *, void (*quit)(void *), void *opaque);
/* The machine's run is over: the terminal is its user's again. */
void display_end(struct display *);
/* As far as that goes without opening anything. */
int display_check(const char *spec, struct error *);
#define DISPLAY_MOST 8 /* of them in a machine */

#endif
