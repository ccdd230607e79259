/*
 * display/screen.c: who sees which screen, what viewers are told, and how often a screen is drawn.
 */
#include "display/display.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

struct fake {
	struct screen *screen;
	uint32_t width, height, colour;
	bool still; /* draws change nothing */
	unsigned draws, wishes;
};

struct watcher {
	struct viewer viewer;
	struct event_loop *loop;
	unsigned resized, changed, stop_after;
	struct picture picture;
	struct rectangle last;
};

static void fake_draw(void *opaque, struct screen *screen)
{
	struct fake *f = opaque;
	struct picture *p = screen_picture(screen);

	f->draws++;
	screen_set_size(screen, f->width, f->height);
	if (f->still)
		return;
	p->pixels[0] = f->colour;
	screen_changed(screen, (struct rectangle){ 1, 2, 0xffffffff, 3 });
	screen_changed(screen, (struct rectangle){ p->width, 0, 1, 1 });
	screen_changed(screen, (struct rectangle){ 0, 0, 0, 1 });
}

static bool fake_read_text(void *opaque, struct text_picture *text)
{
	(void)opaque;
	text->columns = 80;
	return true;
}

static void fake_wish(void *opaque, uint32_t width, uint32_t height)
{
	struct fake *f = opaque;

	assert_int_equal(width, 800);
	assert_int_equal(height, 600);
	f->wishes++;
}

static const struct screen_ops fake_ops = { fake_draw, fake_read_text, fake_wish };
static const struct screen_ops plain_ops = { .draw = fake_draw };

static void note(struct watcher *w, const struct picture *p)
{
	w->picture = *p;
	if (w->stop_after && w->resized + w->changed >= w->stop_after)
		event_loop_stop(w->loop);
}

static void watcher_resized(void *opaque, const struct picture *p)
{
	struct watcher *w = opaque;

	w->resized++;
	note(w, p);
}

static void watcher_changed(void *opaque, const struct picture *p, struct rectangle r)
{
	struct watcher *w = opaque;

	w->changed++;
	w->last = r;
	note(w, p);
}

static const struct viewer_ops watcher_ops = { .resized = watcher_resized, .changed = watcher_changed };

struct fixture {
	struct event_loop *loop;
	struct display *display;
	struct fake fake;
	struct watcher watcher;
};

static struct fixture *create(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->loop = event_loop_create(NULL);
	assert_non_null(f->loop);
	f->display = display_create(f->loop, NULL);
	assert_non_null(f->display);
	f->fake = (struct fake){ .width = 320, .height = 200, .colour = 0x112233 };
	f->watcher = (struct watcher){ .viewer = { .ops = &watcher_ops, .opaque = &f->watcher }, .loop = f->loop };
	return f;
}

static void destroy(struct fixture *f)
{
	screen_destroy(f->fake.screen);
	display_destroy(f->display);
	event_loop_destroy(f->loop);
	free(f);
}

static void test_no_display(void **state)
{
	struct fake fake = { 0 };
	struct screen *s = screen_create(NULL, &fake_ops, &fake);

	(void)state;
	assert_null(s);
	assert_null(screen_picture(s));
	screen_set_size(s, 1, 1);
	screen_changed(s, (struct rectangle){ 0, 0, 1, 1 });
	screen_destroy(s);
	display_destroy(NULL);
}

static void test_picture(void **state)
{
	struct fixture *f = create();
	struct text_picture text = { 0 };
	const struct picture *p;

	(void)state;
	assert_null(display_picture(f->display));
	assert_false(display_read_text(f->display, &text));
	display_wish_size(f->display, 800, 600);

	f->fake.screen = screen_create(f->display, &fake_ops, &f->fake);
	p = display_picture(f->display);
	assert_int_equal(p->width, 320);
	assert_int_equal(p->height, 200);
	assert_int_equal(p->pixels[0], 0x112233);
	assert_true(display_read_text(f->display, &text));
	assert_int_equal(text.columns, 80);
	display_wish_size(f->display, 800, 600);
	assert_int_equal(f->fake.wishes, 1);

	/* The same size keeps what there was, another one is black; too large ones are cut. */
	f->fake.still = true;
	assert_int_equal(display_picture(f->display)->pixels[0], 0x112233);
	f->fake.width = 100000;
	f->fake.height = 100000;
	p = display_picture(f->display);
	assert_int_equal(p->width, PICTURE_MAX_WIDTH);
	assert_int_equal(p->height, PICTURE_MAX_HEIGHT);
	for (size_t i = 0; i < (size_t)p->width * p->height; i++)
		assert_int_equal(p->pixels[i], 0);
	destroy(f);
}

static void test_told(void **state)
{
	struct fixture *f = create();
	struct watcher *w = &f->watcher;

	(void)state;
	f->fake.screen = screen_create(f->display, &fake_ops, &f->fake);
	viewer_add(f->display, &w->viewer);
	/* The first picture is all new; then what changed, cut to the picture, and nothing that is outside or empty. */
	display_picture(f->display);
	assert_int_equal(w->resized, 1);
	assert_int_equal(w->changed, 0);
	assert_int_equal(w->picture.width, 320);
	assert_int_equal(w->picture.pixels[0], 0x112233);
	display_picture(f->display);
	assert_int_equal(w->resized, 1);
	assert_int_equal(w->changed, 1);
	assert_memory_equal(&w->last, &((struct rectangle){ 1, 2, 319, 3 }), sizeof(w->last));
	f->fake.height = 400;
	display_picture(f->display);
	assert_int_equal(w->resized, 2);
	assert_int_equal(w->changed, 1);
	assert_int_equal(w->picture.height, 400);
	viewer_remove(f->display, &w->viewer);
	display_picture(f->display);
	assert_int_equal(w->changed, 1);
	destroy(f);
}

static void test_two_screens(void **state)
{
	struct fixture *f = create();
	struct watcher *w = &f->watcher;
	struct fake second = { .width = 64, .height = 48, .colour = 0x445566 };
	struct text_picture text = { 0 };

	(void)state;
	f->fake.screen = screen_create(f->display, &fake_ops, &f->fake);
	viewer_add(f->display, &w->viewer);
	display_picture(f->display);
	second.screen = screen_create(f->display, &plain_ops, &second);
	assert_int_equal(display_picture(f->display)->pixels[0], 0x445566);
	assert_int_equal(w->resized, 2);
	assert_int_equal(w->picture.width, 64);
	assert_false(display_read_text(f->display, &text));
	display_wish_size(f->display, 800, 600);
	assert_int_equal(f->fake.wishes, 0);
	/* The other one again: of the size that it had, and yet all of it is new. */
	screen_destroy(second.screen);
	assert_int_equal(display_picture(f->display)->pixels[0], 0x112233);
	assert_int_equal(w->resized, 3);
	assert_int_equal(w->picture.width, 320);
	viewer_remove(f->display, &w->viewer);
	destroy(f);
}

static void stop(void *opaque) { event_loop_stop(((struct fixture *)opaque)->loop); }

static uint64_t time_of(struct fixture *f, unsigned events)
{
	uint64_t begin = host_monotonic_ns();

	f->watcher.stop_after = f->watcher.resized + f->watcher.changed + events;
	event_loop_run(f->loop);
	return host_monotonic_ns() - begin;
}

static void test_cadence(void **state)
{
	struct fixture *f = create();
	struct watcher *w = &f->watcher;

	(void)state;
	f->fake.screen = screen_create(f->display, &fake_ops, &f->fake);
	/* Without a viewer nothing is drawn. */
	event_loop_post(f->loop, stop, f);
	event_loop_run(f->loop);
	assert_int_equal(f->fake.draws, 0);
	/* With one it is drawn 30 times a second at most, however quick the host is. */
	viewer_add(f->display, &w->viewer);
	time_of(f, 1);
	assert_int_equal(w->resized, 1);
	assert_true(time_of(f, 10) >= 10 * 33000000ull * 9 / 10);
	assert_int_equal(f->fake.draws, 11);
	viewer_remove(f->display, &w->viewer);
	event_loop_post(f->loop, stop, f);
	event_loop_run(f->loop);
	assert_int_equal(f->fake.draws, 11);
	destroy(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_display),  cmocka_unit_test(test_picture), cmocka_unit_test(test_told),
		cmocka_unit_test(test_two_screens), cmocka_unit_test(test_cadence),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
