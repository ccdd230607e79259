/*
 * Pictures as PNG files: one at the end, or by a timer. A file is there as a whole or not at all: it takes the place of the one before when it is written.
 * Only this file sees libpng.
 */
#include "display/display.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <png.h>

/* The least work: the event loop waits for it. */
#define COMPRESSION 1

/* ---- a file ---- */

struct writing {
	FILE *out;
	char text[128]; /* what libpng says is wrong */
};

static void failed(png_structp png, png_const_charp text)
{
	struct writing *w = png_get_error_ptr(png);

	snprintf(w->text, sizeof(w->text), "%s", text);
	png_longjmp(png, 1);
}

static void ignored(png_structp png, png_const_charp text) { (void)png, (void)text; }

static void write_rows(png_structp png, png_infop info, const struct writing *w, const struct picture *p)
{
	png_init_io(png, w->out);
	png_set_compression_level(png, COMPRESSION);
	png_set_filter(png, 0, PNG_FILTER_NONE);
	png_set_IHDR(png, info, p->width, p->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
		     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_write_info(png, info);
	png_set_filler(png, 0, PNG_FILLER_AFTER);
	png_set_bgr(png);
	for (uint32_t y = 0; y < p->height; y++)
		png_write_row(png, (png_const_bytep)(p->pixels + (size_t)y * p->width));
	png_write_end(png, info);
}

/* 0 or -errno. */
static int write_png(struct writing *w, const struct picture *p)
{
	png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, w, failed, ignored);
	png_infop info = png ? png_create_info_struct(png) : NULL;
	volatile int rc = info ? 0 : -ENOMEM;

	if (info && setjmp(png_jmpbuf(png)))
		rc = errno ? -errno : -EIO;
	else if (info)
		write_rows(png, info, w, p);
	png_destroy_write_struct(&png, &info);
	return rc;
}

/* A new file beside the one that it will be; its name in `name`. A descriptor, or -errno. */
static int make_temporary(const char *path, char *name, size_t size, struct error *err)
{
	int fd;

	if ((size_t)snprintf(name, size, "%s.XXXXXX", path) >= size)
		return error_set(err, ENAMETOOLONG, "screenshot '%.128s...': the name is too long", path);
	fd = mkstemp(name);
	return fd >= 0 ? fd : error_set_errno(err, errno, "cannot write screenshot '%s'", path);
}

static int write_and_close(int fd, const struct picture *p, const char *path, struct error *err)
{
	struct writing w = { .out = fdopen(fd, "wb") };
	mode_t mask = umask(0);
	int rc;

	umask(mask);
	errno = 0;
	rc = w.out ? write_png(&w, p) : -errno;
	if (!rc && fchmod(fd, 0666 & ~mask))
		rc = -errno;
	if (w.out ? fclose(w.out) && !rc : close(fd))
		rc = -errno;
	return rc ? error_set_errno(err, -rc, "cannot write screenshot '%s'%s%s", path, *w.text ? ": " : "", w.text)
		  : 0;
}

int picture_write_png(const struct picture *p, const char *path, struct error *err)
{
	char name[4096];
	int fd = make_temporary(path, name, sizeof(name), err), rc;

	if (fd < 0)
		return fd;
	rc = write_and_close(fd, p, path, err);
	if (!rc && rename(name, path))
		rc = error_set_errno(err, errno, "cannot write screenshot '%s'", path);
	if (rc)
		unlink(name);
	return rc;
}

/* ---- when ---- */

#define SECONDS_MOST 1000000.0

struct screenshot {
	struct display *display;
	struct event_loop *loop;
	char *path;
	double at, every; /* seconds; 0: not so */
	bool taken;
	struct event_source timer;
};

static void take(struct screenshot *s)
{
	const struct picture *p = display_picture(s->display);
	struct error err;

	s->taken = true;
	if (p && p->width && picture_write_png(p, s->path, &err))
		log_error("%s", err.text);
}

static void timer_ready(void *opaque, short revents)
{
	struct screenshot *s = opaque;
	uint64_t expired;

	(void)revents;
	if (read(s->timer.fd, &expired, sizeof(expired)) > 0)
		take(s);
}

static int parse_seconds(const char *text, double *seconds, struct error *err)
{
	char *rest;

	*seconds = strtod(text, &rest);
	if (*text >= '0' && *text <= '9' && !*rest && *seconds >= 0.01 && *seconds <= SECONDS_MOST)
		return 0;
	return error_set(err, EINVAL, "'%.64s' is not possible; expected a number of seconds from 0.01 to 1000000",
			 text);
}

static int parse(struct screenshot *s, char *spec, struct error *err)
{
	int rc = 0;

	s->path = strdup(strsep(&spec, ","));
	if (!s->path)
		return error_set_errno(err, ENOMEM, "screenshot");
	if (!*s->path)
		return error_set(err, EINVAL, "no file; expected FILE[,at=SECONDS][,every=SECONDS]");
	while (!rc && spec) {
		const char *option = strsep(&spec, ",");

		if (!strncmp(option, "at=", 3))
			rc = parse_seconds(option + 3, &s->at, err);
		else if (!strncmp(option, "every=", 6))
			rc = parse_seconds(option + 6, &s->every, err);
		else
			rc = error_set(err, EINVAL, "option '%.64s' is unknown; expected at=SECONDS or every=SECONDS",
				       option);
	}
	return rc;
}

static struct screenshot *parse_spec(const char *spec, struct error *err)
{
	struct screenshot *s = calloc(1, sizeof(*s));
	char *copy = strdup(spec);

	if (!s || !copy) {
		error_set_errno(err, ENOMEM, "screenshot");
	} else {
		s->timer.fd = -1;
		if (!parse(s, copy, err)) {
			free(copy);
			return s;
		}
		free(s->path);
	}
	free(copy);
	free(s);
	return NULL;
}

static struct timespec to_timespec(double seconds)
{
	return (struct timespec){ (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
}

static int start_timer(struct screenshot *s, struct error *err)
{
	struct itimerspec when = { .it_value = to_timespec(s->at ? s->at : s->every),
				   .it_interval = to_timespec(s->every) };

	s->timer = (struct event_source){ .fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC),
					  .events = POLLIN,
					  .ready = timer_ready,
					  .opaque = s };
	if (s->timer.fd < 0 || timerfd_settime(s->timer.fd, 0, &when, NULL))
		return error_set_errno(err, errno, "screenshot: cannot create a timer");
	event_loop_add(s->loop, &s->timer);
	return 0;
}

/* What cannot be written is found at once, not at the end of a run. */
static int try_to_write(const char *path, struct error *err)
{
	char name[4096];
	int fd = make_temporary(path, name, sizeof(name), err);

	if (fd < 0)
		return fd;
	close(fd);
	unlink(name);
	return 0;
}

int screenshot_check(const char *spec, struct error *err)
{
	struct screenshot *s = parse_spec(spec, err);

	if (!s)
		return -EINVAL;
	free(s->path);
	free(s);
	return 0;
}

struct screenshot *screenshot_open(struct display *d, struct event_loop *loop, const char *spec, struct error *err)
{
	struct screenshot *s = parse_spec(spec, err);

	if (!s)
		return NULL;
	s->display = d;
	s->loop = loop;
	if (try_to_write(s->path, err) || ((s->at || s->every) && start_timer(s, err))) {
		screenshot_close(s);
		return NULL;
	}
	return s;
}

void screenshot_end(struct screenshot *s)
{
	if (s->every || !s->taken)
		take(s);
}

void screenshot_close(struct screenshot *s)
{
	if (!s)
		return;
	event_loop_remove(s->loop, &s->timer);
	if (s->timer.fd >= 0)
		close(s->timer.fd);
	free(s->path);
	free(s);
}
