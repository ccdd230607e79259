/*
 * base: errors, bits and ranges, lists, what the log prints and when it stops, trace categories.
 */
#include "base/base.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- errors ---- */

static void error_sets_sentence_and_code(void **state)
{
	struct error err;

	(void)state;
	assert_int_equal(error_set(&err, EINVAL, "size is %d; expected %s", 3, "4"), -EINVAL);
	assert_int_equal(err.code, EINVAL);
	assert_string_equal(err.text, "size is 3; expected 4");
	assert_int_equal(error_set_errno(&err, ENOENT, "open '%s'", "x"), -ENOENT);
	assert_string_equal(err.text, "open 'x': No such file or directory");
	assert_int_equal(error_prefix(&err, "disk %d", 0), -ENOENT);
	assert_string_equal(err.text, "disk 0: open 'x': No such file or directory");
	error_set(&err, EIO, "again: %s", err.text);
	assert_string_equal(err.text, "again: disk 0: open 'x': No such file or directory");
}

static void error_without_struct(void **state)
{
	(void)state;
	assert_int_equal(error_set(NULL, EINVAL, "x"), -EINVAL);
	assert_int_equal(error_set_errno(NULL, ENOMEM, "x"), -ENOMEM);
	assert_true(error_prefix(NULL, "x") < 0);
}

static void error_cuts_long_sentences(void **state)
{
	char long_text[2000];
	struct error err;

	(void)state;
	memset(long_text, 'a', sizeof(long_text));
	long_text[sizeof(long_text) - 1] = 0;
	error_set_errno(&err, EIO, "%s", long_text);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	error_prefix(&err, "%s", long_text);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

/* ---- bits, ranges, lists ---- */

static void bits_and_ranges(void **state)
{
	(void)state;
	assert_int_equal(bits(0x1234, 7, 4), 3);
	assert_true(bits(~0ull, 63, 0) == ~0ull);
	assert_int_equal(bits(1ull << 63, 63, 63), 1);
	assert_true(sign_extend(0x80, 8) == -128);
	assert_true(sign_extend(0x7f, 8) == 127);
	assert_true(range_ok(0, 0, 0));
	assert_true(range_ok(4, 4, 8));
	assert_false(range_ok(4, 5, 8));
	assert_false(range_ok(9, 0, 8));
	assert_false(range_ok(UINT64_MAX, 2, UINT64_MAX));
	assert_false(range_ok(2, UINT64_MAX, UINT64_MAX));
	assert_true(align_up(4097, 4096) == 8192);
	assert_true(align_down(4097, 4096) == 4096);
}

struct item {
	int value;
	struct list node;
};

static void lists(void **state)
{
	struct item items[3] = { { .value = 0 }, { .value = 1 }, { .value = 2 } }, *item, *next;
	struct list head;
	int i, expected = 0;

	(void)state;
	list_init(&head);
	assert_true(list_empty(&head));
	for (i = 0; i < 3; i++)
		list_append(&head, &items[i].node);
	list_for_each (item, &head, node)
		assert_int_equal(item->value, expected++);
	assert_int_equal(expected, 3);
	list_for_each_safe (item, next, &head, node)
		if (item->value != 1)
			list_remove(&item->node);
	assert_ptr_equal(list_entry(head.next, struct item, node), &items[1]);
	assert_ptr_equal(head.prev, &items[1].node);
	list_remove(&items[0].node);
	list_remove(&items[1].node);
	assert_true(list_empty(&head));
}

/* ---- log ---- */

static int real_stderr;
static FILE *captured;

static void capture_begin(void)
{
	fflush(stderr);
	captured = tmpfile();
	assert_non_null(captured);
	real_stderr = dup(STDERR_FILENO);
	dup2(fileno(captured), STDERR_FILENO);
}

/* What was written to standard error since capture_begin(); malloc'ed. */
static char *capture_end(void)
{
	char *text;
	long size;

	fflush(stderr);
	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	fseek(captured, 0, SEEK_END);
	size = ftell(captured);
	rewind(captured);
	text = calloc(1, (size_t)size + 1);
	assert_non_null(text);
	assert_int_equal(fread(text, 1, (size_t)size, captured), size);
	fclose(captured);
	return text;
}

static unsigned count_lines(const char *text)
{
	unsigned lines = 0;

	for (; *text; text++)
		lines += *text == '\n';
	return lines;
}

static void log_obeys_its_level(void **state)
{
	char *text;

	(void)state;
	capture_begin();
	log_info("shown");
	log_debug("not shown");
	log_set_level(LOG_WARNING);
	log_info("not shown");
	log_warning("careful %d", 1);
	log_error("wrong");
	log_set_level(LOG_INFO);
	text = capture_end();
	assert_string_equal(text, "doppel: shown\ndoppel: warning: careful 1\ndoppel: error: wrong\n");
	free(text);
}

static void guest_cannot_flood_the_log(void **state)
{
	char *text;
	int i;

	(void)state;
	capture_begin();
	for (i = 0; i < 1000; i++)
		log_guest("port %d", i);
	log_guest("another place");
	text = capture_end();
	assert_int_equal(count_lines(text), 12);
	assert_non_null(strstr(text, "port 9\n"));
	assert_null(strstr(text, "port 10\n"));
	assert_non_null(strstr(text, "further messages suppressed\n"));
	assert_non_null(strstr(text, "another place\n"));
	free(text);
}

static void *log_many(void *arg)
{
	struct log_limit *limit = arg;
	int i;

	for (i = 0; i < 200; i++) {
		log_warning("0123456789");
		log_guest_print(limit, "0123456789");
	}
	return NULL;
}

static void log_keeps_lines_whole(void **state)
{
	struct log_limit limit = { 0 };
	pthread_t threads[4];
	char *text, *line, *rest;
	unsigned lines = 0;
	size_t i;

	(void)state;
	capture_begin();
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_create(&threads[i], NULL, log_many, &limit);
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	text = capture_end();
	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		assert_true(!strcmp(line, "doppel: warning: 0123456789") || strstr(line, "suppressed"));
		lines++;
	}
	assert_int_equal(lines, 4 * 200 + 10 + 1);
	free(text);
}

/* ---- trace ---- */

static void trace_writes_what_was_asked_for(void **state)
{
	char path[] = "/tmp/doppel-trace-XXXXXX", text[256];
	int fd = mkstemp(path);
	struct trace trace = { 0 };
	struct error err;
	ssize_t n;

	(void)state;
	assert_false(trace_on(&trace, TRACE_PIO));
	assert_int_equal(trace_open(&trace, "pio,page-faults", path, UINT64_MAX, &err), 0);
	assert_true(trace_on(&trace, TRACE_PIO));
	assert_true(trace_on(&trace, TRACE_PAGE_FAULTS));
	assert_false(trace_on(&trace, TRACE_MMIO));
	TRACE(&trace, PIO, "out 0x%x", 0x80);
	TRACE(&trace, MMIO, "not this");
	TRACE(&trace, PAGE_FAULTS, "at %d", 7);
	trace_close(&trace);
	assert_false(trace_on(&trace, TRACE_PIO));
	n = read(fd, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = 0;
	assert_string_equal(text, "pio: out 0x80\npage-faults: at 7\n");
	close(fd);
	unlink(path);
}

static void trace_parses_categories(void **state)
{
	struct trace trace = { 0 };
	struct error err;
	char *text;

	(void)state;
	assert_int_equal(trace_open(&trace, "all", "/dev/null", UINT64_MAX, &err), 0);
	assert_int_equal(trace.mask, BIT(TRACE_COUNT) - 1);
	trace_close(&trace);
	assert_int_equal(trace_open(&trace, "help", NULL, UINT64_MAX, &err), -EINVAL);
#define _(id, name, what) assert_non_null(strstr(err.text, name));
	TRACE_CATEGORIES(_)
#undef _
	assert_int_equal(trace_open(&trace, "pio,nonsense", NULL, UINT64_MAX, &err), -EINVAL);
	assert_non_null(strstr(err.text, "'nonsense'"));
	assert_int_equal(trace_open(&trace, "", NULL, UINT64_MAX, &err), -EINVAL);
	assert_int_equal(trace_open(&trace, "pio,", NULL, UINT64_MAX, &err), -EINVAL);
	assert_int_equal(trace_open(&trace, "pi", NULL, UINT64_MAX, &err), -EINVAL);
	assert_int_equal(trace_open(&trace, "pio", "/nonexistent/x", UINT64_MAX, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent/x"));
	capture_begin();
	assert_int_equal(trace_open(&trace, "cpuid", NULL, UINT64_MAX, &err), 0);
	TRACE(&trace, CPUID, "leaf 1");
	trace_close(&trace);
	fprintf(stderr, "still open\n");
	text = capture_end();
	assert_string_equal(text, "cpuid: leaf 1\nstill open\n");
	free(text);
}

static void lines_wait_while_output_is_held(void **state)
{
	struct trace trace = { 0 };
	char *text;

	(void)state;
	capture_begin();
	assert_int_equal(trace_open(&trace, "irq", NULL, UINT64_MAX, NULL), 0);
	output_hold();
	output_hold();
	log_info("first %d", 1);
	TRACE(&trace, IRQ, "second");
	assert_false(output_release());
	log_warning("third");
	fprintf(stderr, "held\n");
	assert_true(output_release());
	output_write();
	log_info("no more");
	trace_close(&trace);
	text = capture_end();
	assert_string_equal(text, "held\ndoppel: first 1\nirq: second\ndoppel: warning: third\ndoppel: no more\n");
	free(text);
}

static void so_many_lines_wait(void **state)
{
	char *text;

	(void)state;
	capture_begin();
	output_hold();
	for (unsigned n = 0; n < 1234; n++)
		log_info("%u", n);
	assert_true(output_release());
	output_write();
	text = capture_end();
	assert_non_null(strstr(text, "doppel: 999\ndoppel: warning: 234 lines of the log or a trace were too many"));
	free(text);
}

static void trace_ends_at_its_limit(void **state)
{
	struct trace trace = { 0 };
	char *text;

	(void)state;
	capture_begin();
	assert_int_equal(trace_open(&trace, "pio", NULL, 15, NULL), 0);
	trace_lock(&trace);
	for (unsigned n = 0; n < 9; n++)
		TRACE(&trace, PIO, "%u", n); /* 7 bytes */
	trace_unlock(&trace);
	assert_false(trace_on(&trace, TRACE_PIO));
	trace_close(&trace);
	text = capture_end();
	assert_string_equal(text, "pio: 0\npio: 1\npio: 2\ntrace: its limit is reached, it ends here\n");
	free(text);
}

/* ---- symbols ---- */

static void symbols_by_address(void **state)
{
	static const char text[] = "ffffffff81000300 t third\t[module]\n"
				   "no line of a table\n"
				   "0000000000000000 T nowhere\n"
				   "ffffffff81000000 T _stext\n"
				   "ffffffff81000280 D data\n"
				   "ffffffff81000200 W second\r\n"
				   "ffffffff81000290";
	struct symbols *s;
	struct error err;
	uint64_t offset;

	(void)state;
	s = symbols_parse(text, &err);
	assert_non_null(s);
	assert_null(symbols_find(s, 0xffffffff80ffffff, &offset));
	assert_string_equal(symbols_find(s, 0xffffffff81000000, &offset), "_stext");
	assert_int_equal(offset, 0);
	assert_string_equal(symbols_find(s, 0xffffffff810002ff, &offset), "second");
	assert_int_equal(offset, 0xff);
	assert_string_equal(symbols_find(s, 0xffffffff81000301, &offset), "third");
	assert_null(symbols_find(s, 0xffffffff82000000, &offset));
	assert_null(symbols_find(s, 0, &offset));
	symbols_free(s);

	assert_null(symbols_find(NULL, 1, &offset));
	assert_null(symbols_parse("0000000000000000 T _stext\n", &err));
	assert_int_equal(err.code, EINVAL);
	assert_null(symbols_parse("", &err));
}

/* ---- bugs ---- */

static void bug_names_its_place_and_aborts(void **state)
{
	char *text;
	int status;
	pid_t child;

	(void)state;
	capture_begin();
	child = fork();
	if (!child) {
		signal(SIGABRT, SIG_DFL);
		BUG_ON(1 + 1 == 2);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	text = capture_end();
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_non_null(strstr(text, "test_base.c"));
	assert_non_null(strstr(text, "1 + 1 == 2"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_sets_sentence_and_code),
		cmocka_unit_test(error_without_struct),
		cmocka_unit_test(error_cuts_long_sentences),
		cmocka_unit_test(bits_and_ranges),
		cmocka_unit_test(lists),
		cmocka_unit_test(log_obeys_its_level),
		cmocka_unit_test(guest_cannot_flood_the_log),
		cmocka_unit_test(log_keeps_lines_whole),
		cmocka_unit_test(trace_writes_what_was_asked_for),
		cmocka_unit_test(trace_parses_categories),
		cmocka_unit_test(lines_wait_while_output_is_held),
		cmocka_unit_test(so_many_lines_wait),
		cmocka_unit_test(trace_ends_at_its_limit),
		cmocka_unit_test(symbols_by_address),
		cmocka_unit_test(bug_names_its_place_and_aborts),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
