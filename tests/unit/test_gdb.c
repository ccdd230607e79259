/*
 * GDB's protocol without GDB: packets in pieces, wrong and overlong ones, what a debugger reads and writes, on a machine whose processors stand still. What it does
 * to a guest is tests/gdb's.
 */
#include "gdb/private.h"

#include <setjmp.h>
#include <stdlib.h>

#include <cmocka.h>

static struct machine *machine;
static struct session *session;

static int no_guest(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	(void)opaque, (void)mem, (void)state, (void)err;
	return 0;
}

static void nothing(void *opaque) { (void)opaque; }

static int set_up(void **state)
{
	static const struct machine_guest guest = { .load = no_guest };
	const struct machine_config config = {
		.guest = &guest,
		.memory = 1 << 20,
		.cpus = 3,
		.engine = "interp",
		.cpu_model = "v3",
		.clock = CLOCK_VIRTUAL,
	};

	(void)state;
	session = calloc(1, sizeof(*session));
	return !session || machine_create(&machine, &config, NULL) ||
	       session_begin(session, machine, VIEW_X86_64, nothing, NULL, NULL);
}

static int tear_down(void **state)
{
	(void)state;
	session_end(session);
	free(session);
	machine_destroy(machine);
	return 0;
}

/* What comes back, without the acknowledgement and the packet's frame. */
static const char *answer_to_bytes(const void *data, size_t size)
{
	static char text[2 * PACKET_MOST];
	struct bytes packet = { 0 };
	const char *begin;
	size_t length;

	session->out.size = 0;
	assert_true(packet_add(&packet, data, size));
	session_input(session, packet.data, packet.size);
	free(packet.data);
	assert_true(session->out.size < sizeof(text));
	memcpy(text, session->out.data, session->out.size);
	text[session->out.size] = 0;
	begin = strchr(text, '$');
	if (!begin)
		return "nothing";
	length = strcspn(begin + 1, "#");
	((char *)(uintptr_t)begin)[1 + length] = 0;
	return begin + 1;
}

static const char *answer(const char *text) { return answer_to_bytes(text, strlen(text)); }

#define ANSWERS(text, wanted) assert_string_equal(answer(text), wanted)

/* ---- packets ---- */

static enum packet_result feed(struct packet_reader *r, const char *text, size_t size)
{
	enum packet_result result = PACKET_MORE;

	/* Byte by byte: pieces make no difference. */
	for (size_t n = 0; n < size && result == PACKET_MORE; n++) {
		size_t used = 0;

		result = packet_next(r, (const uint8_t *)text + n, 1, &used);
	}
	return result;
}
#define FEED(text) feed(r, text, sizeof(text) - 1)

static void test_packets(void **state)
{
	struct packet_reader *r = calloc(1, sizeof(*r));

	(void)state;
	assert_int_equal(FEED("noise+$g#67"), PACKET_WHOLE);
	assert_string_equal(r->data, "g");
	assert_int_equal(FEED("$g#68"), PACKET_BAD);
	assert_int_equal(FEED("$g#zz"), PACKET_BAD);
	assert_int_equal(FEED("$lost its end$c#63"), PACKET_WHOLE);
	assert_string_equal(r->data, "c");
	assert_int_equal(FEED("\3"), PACKET_INTERRUPT);
	assert_int_equal(FEED("-"), PACKET_NAK);
	assert_int_equal(FEED("$}\3}]a\3#be"), PACKET_WHOLE);
	assert_int_equal(r->size, 4);
	assert_memory_equal(r->data, "#}a\3", 4);
	assert_int_equal(FEED("$}#7d"), PACKET_WHOLE); /* an escape of nothing */
	assert_int_equal(r->size, 0);
	assert_int_equal(FEED("$"), PACKET_MORE);
	for (unsigned n = 0; n < PACKET_MOST; n++)
		assert_int_equal(FEED("a"), PACKET_MORE);
	assert_int_equal(FEED("a"), PACKET_TOO_LONG);
	free(r);
}

static void test_acknowledgements(void **state)
{
	(void)state;
	session->out.size = 0;
	session_input(session, (const uint8_t *)"$?#00", 5);
	assert_memory_equal(session->out.data, "-", 1);
	assert_int_equal(session->out.size, 1);
	ANSWERS("vMustReplyEmpty", "");
	assert_int_equal(session->out.data[0], '+');
	session->out.size = 0;
	session_input(session, (const uint8_t *)"-", 1);
	assert_int_equal(session->out.size, 4);
	assert_memory_equal(session->out.data, "$#00", 4);
	ANSWERS("QStartNoAckMode", "OK");
	ANSWERS("vMustReplyEmpty", "");
	assert_int_equal(session->out.data[0], '$');
}

/* ---- registers ---- */

static void test_registers(void **state)
{
	struct vcpu *v = machine_vcpu(machine, 1);
	size_t size = 0;
	char all[4096];

	(void)state;
	for (unsigned n = 0; n < register_count(VIEW_X86_64, true); n++)
		size += register_size(VIEW_X86_64, n);
	assert_int_equal(strlen(answer("g")), 2 * size);
	assert_string_equal(answer("Hg2"), "OK");
	ANSWERS("P0=4433221100000000", "OK");
	assert_int_equal(v->s.gpr[RAX], 0x11223344);
	ANSWERS("P0=8877665544332211", "E16"); /* not outside of 64-bit mode */
	ANSWERS("p0", "4433221100000000");
	ANSWERS("P10=3412000000000000", "OK");
	assert_int_equal(v->s.rip, 0x1234);
	ANSWERS("P11=d7080000", "OK");
	assert_int_equal(cpu_rflags(v), 0x8d7);
	/* Selectors are bases in real mode; a table's in others. */
	ANSWERS("P15=00120000", "OK");
	assert_int_equal(v->s.seg_base[ES], 0x12000);
	/* What no processor is in: paging without protection, an unknown flag, no selector. */
	snprintf(all, sizeof(all), "%s", answer("g"));
	for (unsigned n = 0; n < register_count(VIEW_X86_64, true); n++) {
		char packet[64];

		snprintf(packet, sizeof(packet), "P%x=%0*d", n, (int)(2 * register_size(VIEW_X86_64, n)), 0);
		memset(strchr(packet, '=') + 1, 'f', 2 * register_size(VIEW_X86_64, n));
		answer(packet); /* whatever it says */
	}
	ANSWERS("P15=00000100", "E01");
	ANSWERS("P0=00", "E16");
	ANSWERS("P999=00", "E16");
	ANSWERS("p", "E16");
	ANSWERS("G00", "E16");
	/* All of them at once, as they were. */
	memmove(all + 1, all, strlen(all) + 1);
	all[0] = 'G';
	assert_string_equal(answer(all), "OK");
	assert_string_equal(answer("g"), all + 1);
}

static void test_description(void **state)
{
	char whole[32768];
	size_t size = 0;

	(void)state;
	for (const char *piece = "m"; *piece == 'm'; size += strlen(piece + 1)) {
		char packet[64];

		snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%zx,123", size);
		piece = answer(packet);
		assert_true(*piece == 'm' || *piece == 'l');
		assert_true(size + strlen(piece) < sizeof(whole));
		strcpy(whole + size, piece + 1);
	}
	assert_non_null(strstr(whole, "<architecture>i386:x86-64</architecture>"));
	assert_non_null(strstr(whole, "ymm15h"));
	assert_string_equal(whole + size - strlen("</target>"), "</target>");
	ANSWERS("qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff", "l");
	ANSWERS("qXfer:features:read:other.xml:0,10", "E02");
	ANSWERS("qXfer:features:read:target.xml:0", "E16");
}

/* ---- memory ---- */

static void test_memory(void **state)
{
	char data[64];

	(void)state;
	ANSWERS("M1ffe,4:01020304", "OK");
	ANSWERS("m1ffe,4", "01020304");
	memcpy(data, "X2000,4:#$}\0", 12);
	assert_string_equal(answer_to_bytes(data, 12), "OK");
	ANSWERS("m2000,4", "23247d00");
	ANSWERS("X2000,0:", "OK");
	/* As far as it goes; nothing is written where not all of it can be. */
	ANSWERS("m9fffe,10", "0000");
	ANSWERS("M9fffe,4:01020304", "E0e");
	ANSWERS("m9fffe,2", "0000");
	ANSWERS("ma0000,10", "E0e");
	ANSWERS("m0,0", "");
	ANSWERS("M0,4:0102", "E16");
	ANSWERS("X0,5:abc", "E16");
	ANSWERS("m0", "E16");
	ANSWERS("mfffffffffffffffff,1", "E16");
	ANSWERS("Qqemu.PhyMemMode:1", "OK");
	ANSWERS("qqemu.PhyMemMode", "1");
	ANSWERS("m1ffe,4", "01022324");
	ANSWERS("mffffffffffffffff,4", "E0e");
	ANSWERS("Qqemu.PhyMemMode:2", "E16");
	ANSWERS("Qqemu.PhyMemMode:0", "OK");
	assert_true(strlen(answer("m0,fffff")) >= 0x1000);
}

/* ---- points and threads ---- */

static void test_points(void **state)
{
	char packet[64];

	(void)state;
	ANSWERS("Z0,1234,1", "OK");
	ANSWERS("Z0,1234,1", "OK"); /* again: no other one */
	assert_int_equal(session->point_count, 1);
	ANSWERS("Z2,10,8", "OK");
	ANSWERS("z2,10,4", "OK"); /* there is none */
	assert_int_equal(session->point_count, 2);
	ANSWERS("z0,1234,1", "OK");
	ANSWERS("z2,10,8", "OK");
	assert_int_equal(session->point_count, 0);
	ANSWERS("Z5,0,1", "E16");
	ANSWERS("Z2,0,0", "E16");
	ANSWERS("Z2,ffffffffffffffff,2", "E16");
	ANSWERS("Z2,ffffffffffffffff,1", "OK");
	ANSWERS("Z0,0", "E16");
	for (unsigned n = session->point_count; n < STOPS_MOST; n++) {
		snprintf(packet, sizeof(packet), "Z1,%x,1", n);
		ANSWERS(packet, "OK");
	}
	ANSWERS("Z1,fffff,1", "E1c");
}

static void test_threads(void **state)
{
	(void)state;
	ANSWERS("qfThreadInfo", "m1,2,3");
	ANSWERS("qsThreadInfo", "l");
	ANSWERS("qC", "QC1");
	ANSWERS("Hg3", "OK");
	ANSWERS("qC", "QC3");
	ANSWERS("Hg0", "OK"); /* any */
	ANSWERS("qC", "QC3");
	ANSWERS("Hg4", "E16");
	ANSWERS("Hc-1", "OK");
	ANSWERS("H", "E16");
	ANSWERS("T3", "OK");
	ANSWERS("T4", "E16");
	ANSWERS("T0", "E16");
	ANSWERS("qThreadExtraInfo,1", "4350552030205b72756e6e696e675d"); /* CPU 0 [running] */
	ANSWERS("?", "T05thread:3;");
}

/* While it runs, the debugger may only interrupt. */
static void test_running(void **state)
{
	(void)state;
	ANSWERS("vCont?", "vCont;c;C;s;S");
	ANSWERS("vCont", "E16");
	ANSWERS("vCont;", "E16");
	ANSWERS("vCont;t", "E16");
	ANSWERS("vCont;C", "E16");
	ANSWERS("vCont;c:9", "E16");
	ANSWERS("vCont;c:1:2", "E16");
	ANSWERS("c12x", "E16");
	assert_true(machine_debug_stands(machine));
	ANSWERS("vCont;s:2;C05:3;c", "nothing");
	assert_false(machine_debug_stands(machine));
	assert_true(machine_vcpu(machine, 1)->stop.step);
	assert_false(machine_vcpu(machine, 2)->stop.step);
	ANSWERS("g", "E10");
	session->out.size = 0;
	session_input(session, (const uint8_t *)"\3", 1);
	assert_true(machine_debug_stands(machine));
	assert_int_equal(session->out.size, strlen("$T02thread:1;#00"));
	session_input(session, (const uint8_t *)"\3", 1); /* it stands already */
	assert_int_equal(session->out.size, strlen("$T02thread:1;#00"));
	ANSWERS("D", "OK");
	assert_true(session->detached);
}

static void test_monitor(void **state)
{
	(void)state;
	ANSWERS("qRcmd,zz", "E16");
	ANSWERS("qRcmd,7", "E16");
	assert_int_equal(*answer("qRcmd,68656c70"), 'O'); /* help */
	assert_int_equal(*answer("qRcmd,"), 'O');
	assert_int_equal(*answer("qRcmd,696e666f20726567697374657273"), 'O'); /* info registers */
	answer("qRcmd,696e7465727275707473206f6e");			      /* interrupts on */
	assert_true(session->loud);
	answer("qRcmd,696e7465727275707473206f"); /* interrupts o */
	assert_true(session->loud);
}

/* Who reads nothing is left. */
static void test_no_reader(void **state)
{
	bool more = true;

	(void)state;
	for (unsigned n = 0; n < 100000 && more; n++)
		more = session_input(session, (const uint8_t *)"$g#67", 5);
	assert_false(more);
	assert_true(session->out.size < 2 * OUTPUT_MOST);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_packets), TEST(test_acknowledgements), TEST(test_registers), TEST(test_description),
		TEST(test_memory),  TEST(test_points),		 TEST(test_threads),   TEST(test_running),
		TEST(test_monitor), TEST(test_no_reader),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
