/*
 * PCI capabilities, and MSI-X by the book (PCI Local Bus Specification 3.0, 6.7 and 6.8.2): its registers, masks and pending bits, what it does to INTx,
 * and that no message is lost or sent twice: not by threads, nor by a record loaded elsewhere.
 */
#include "lib/board.h"

#include <errno.h>
#include <sched.h>

#define VECTORS 65
#define PART	0x800 /* of the BAR is MSI-X's */

struct card {
	struct pci_device pci;
	struct msix msix;
};

static uint64_t card_read(struct device *device, uint64_t offset, unsigned size)
{
	return offset < PART ? 0x55 : msix_read(device, offset - PART, size);
}

static void card_write(struct device *device, uint64_t offset, unsigned size, uint64_t value)
{
	if (offset >= PART)
		msix_write(device, offset - PART, size, value);
}

#define CARD_STATE(_, T) PCI_CONFIG_STATE(_, T) MSIX_STATE(_, T)
#include "lib/card.h"

#define DEVFN	  0x18
#define BAR	  0xe0000000
#define CAP	  0x4c /* behind the card's own capability, of 10 bytes */
#define CONTROL	  (CAP + 2)
#define ENABLE	  0x8000
#define MASK_ALL  0x4000
#define ENTRY(n)  (BAR + PART + 16ull * (n))
#define PENDING	  ENTRY(VECTORS)
#define VECTOR(n) (0x40u + (n))

static struct card *plug(struct board *b)
{
	struct card *card = calloc(1, sizeof(*card));
	uint8_t own;

	device_init(&card->pci.device, b->bus, "card", &card_ops);
	pci_init_config(&card->pci, 0x1234, 0x5678, 0xff000000, 0, 0, 1);
	card->pci.bars[1].size = 0x2000;
	card->pci.bars[1].range = (struct bus_range){ .sizes = 1 | 2 | 4 | 8, .read = card_read, .write = card_write };
	own = pci_add_capability(&card->pci, 0x09, 10);
	assert_int_equal(own, 0x40);
	card->pci.config[own + 2] = 10;
	card->pci.config_mask[own + 9] = 0x0f;
	msix_init(&card->msix, &card->pci, VECTORS, 1, PART);
	assert_int_equal(pci_add(b->bus, &card->pci, 3, 0, NULL), 0);
	return card;
}

static struct board *board(struct card **card)
{
	struct board *b = board_create(1);

	assert_int_equal(pci_bus_create(b->bus, NULL), 0);
	*card = plug(b);
	lapic_wr(b, 0, 0xf0, 0x1ff);
	board_config_write(b, DEVFN, 0x14, 4, BAR);
	board_config_write(b, DEVFN, 4, 2, 6);
	return b;
}

static int setup(void **state)
{
	struct card *card;

	*state = board(&card);
	return 0;
}

static struct card *card_of(struct board *b) { return (struct card *)bus_find_device(b->bus, "card", 0); }

static uint64_t rd(struct board *b, uint64_t address, unsigned size) { return board_read(b, BUS_MMIO, address, size); }

static void wr(struct board *b, uint64_t address, unsigned size, uint64_t value)
{
	board_write(b, BUS_MMIO, address, size, value);
}

static void set_vector(struct board *b, unsigned n, uint32_t masked)
{
	wr(b, ENTRY(n), 4, 0xfee00000);
	wr(b, ENTRY(n) + 4, 4, 0);
	wr(b, ENTRY(n) + 8, 4, VECTOR(n));
	wr(b, ENTRY(n) + 12, 4, masked);
}

static void control(struct board *b, uint16_t value) { board_config_write(b, DEVFN, CONTROL, 2, value); }

/* What the processor gets now; it says at once that it has served it. */
static int take(struct board *b)
{
	int vector = board_take(b);

	if (vector >= 0)
		lapic_wr(b, 0, 0xb0, 0);
	return vector;
}

static bool pends(struct board *b, unsigned n) { return rd(b, PENDING + n / 64 * 8, 8) >> n % 64 & 1; }

/* ---- registers ---- */

static void capabilities_are_a_list(void **state)
{
	struct board *b = *state;

	assert_int_equal(board_config_read(b, DEVFN, 6, 2) & 0x10, 0x10);
	assert_int_equal(board_config_read(b, DEVFN, 0x34, 1), 0x40);
	assert_int_equal(board_config_read(b, DEVFN, 0x40, 2), CAP << 8 | 0x09);
	assert_int_equal(board_config_read(b, DEVFN, CAP, 2), 0x11); /* the last one */
	board_config_write(b, DEVFN, 0x40, 4, 0xffffffff);
	board_config_write(b, DEVFN, 0x48, 4, 0xffffffff);
	assert_int_equal(board_config_read(b, DEVFN, 0x40, 4), 10 << 16 | CAP << 8 | 0x09);
	assert_int_equal(board_config_read(b, DEVFN, 0x48, 4), 0x0f00);
	assert_int_equal(board_config_read(b, 0, 6, 2) & 0x10, 0); /* the host bridge has none */
}

static void the_capability_names_its_places(void **state)
{
	struct board *b = *state;

	board_config_write(b, DEVFN, CAP, 4, 0x3fffffff);
	for (unsigned offset = 4; offset < 12; offset += 4)
		board_config_write(b, DEVFN, CAP + offset, 4, 0);
	assert_int_equal(board_config_read(b, DEVFN, CONTROL, 2), VECTORS - 1);
	assert_int_equal(board_config_read(b, DEVFN, CAP + 4, 4), PART | 1);
	assert_int_equal(board_config_read(b, DEVFN, CAP + 8, 4), (PART + 16 * VECTORS) | 1);
	control(b, 0xffff);
	assert_int_equal(board_config_read(b, DEVFN, CONTROL, 2), ENABLE | MASK_ALL | (VECTORS - 1));
}

static void the_table(void **state)
{
	struct board *b = *state;

	for (unsigned n = 0; n < VECTORS; n++) {
		assert_int_equal(rd(b, ENTRY(n), 8), 0);
		assert_int_equal(rd(b, ENTRY(n) + 8, 8), 1ull << 32);
		wr(b, ENTRY(n), 8, 0x100000000ull * n + 0xfee01003);
		wr(b, ENTRY(n) + 8, 4, 0x12340000 + n);
		wr(b, ENTRY(n) + 12, 4, 0xfffffffe);
	}
	for (unsigned n = 0; n < VECTORS; n++) {
		assert_int_equal(rd(b, ENTRY(n), 4), 0xfee01000);
		assert_int_equal(rd(b, ENTRY(n) + 4, 4), n);
		assert_int_equal(rd(b, ENTRY(n) + 8, 8), 0x12340000 + n);
	}
	wr(b, ENTRY(7) + 8, 8, 0x700000005);
	assert_int_equal(rd(b, ENTRY(7) + 8, 8), 0x100000005);
	wr(b, PENDING, 8, ~0ull);
	assert_int_equal(rd(b, PENDING, 8), 0);
	wr(b, PENDING + 16, 8, ~0ull); /* behind all of it */
	assert_int_equal(rd(b, PENDING + 16, 8), 0);
	/* Smaller accesses are not defined: none does anything. */
	wr(b, ENTRY(7) + 8, 2, 0xffff);
	wr(b, ENTRY(7) + 12, 1, 0);
	assert_int_equal(rd(b, ENTRY(7) + 8, 8), 0x100000005);
	assert_int_equal(rd(b, ENTRY(7) + 8, 1), 0);
	assert_int_equal(rd(b, BAR, 4), 0x55); /* the device's own part */
	bus_reset(b->bus);
	board_config_write(b, DEVFN, 0x14, 4, BAR);
	board_config_write(b, DEVFN, 4, 2, 6);
	assert_int_equal(rd(b, ENTRY(7), 8), 0);
	assert_int_equal(rd(b, ENTRY(7) + 8, 8), 1ull << 32);
	assert_int_equal(board_config_read(b, DEVFN, CONTROL, 2), VECTORS - 1);
}

/* ---- messages ---- */

static void messages_are_sent(void **state)
{
	struct board *b = *state;
	struct card *card = card_of(b);

	set_vector(b, 0, 0);
	set_vector(b, VECTORS - 1, 0);
	assert_false(msix_enabled(&card->msix));
	msix_notify(&card->msix, 0);
	control(b, ENABLE);
	assert_true(msix_enabled(&card->msix));
	assert_int_equal(take(b), -1); /* it was not enabled */
	msix_notify(&card->msix, 0);
	assert_int_equal(take(b), VECTOR(0));
	assert_int_equal(take(b), -1);
	msix_notify(&card->msix, VECTORS - 1);
	assert_int_equal(take(b), VECTOR(VECTORS - 1));
	assert_int_equal(rd(b, PENDING, 8) | rd(b, PENDING + 8, 8), 0);
}

/* Each way to keep a message back: it is pending, and is sent once when it is let go. */
static void kept_back(struct board *b, unsigned n, void (*let)(struct board *, unsigned, bool))
{
	struct card *card = card_of(b);

	let(b, n, false);
	for (unsigned i = 0; i < 3; i++) {
		msix_notify(&card->msix, n);
		assert_int_equal(take(b), -1);
		assert_true(pends(b, n));
	}
	let(b, n, true);
	assert_int_equal(take(b), VECTOR(n));
	assert_int_equal(take(b), -1);
	assert_false(pends(b, n));
	let(b, n, false);
	let(b, n, true);
	assert_int_equal(take(b), -1);
	/* What was served meanwhile is not told. */
	let(b, n, false);
	msix_notify(&card->msix, n);
	msix_withdraw(&card->msix, n);
	assert_false(pends(b, n));
	let(b, n, true);
	assert_int_equal(take(b), -1);
}

static void let_vector(struct board *b, unsigned n, bool go) { wr(b, ENTRY(n) + 12, 4, !go); }

static void let_eight_bytes(struct board *b, unsigned n, bool go)
{
	wr(b, ENTRY(n) + 8, 8, (uint64_t)!go << 32 | (go ? VECTOR(n) : 0));
}

static void let_function(struct board *b, unsigned n, bool go)
{
	(void)n;
	control(b, go ? ENABLE : ENABLE | MASK_ALL);
}

static void let_master(struct board *b, unsigned n, bool go)
{
	(void)n;
	board_config_write(b, DEVFN, 4, 2, go ? 6 : 2);
}

static void masked_messages_wait(void **state)
{
	struct board *b = *state;

	control(b, ENABLE);
	for (unsigned n = 0; n < VECTORS; n += 16) {
		set_vector(b, n, 0);
		kept_back(b, n, let_vector);
		kept_back(b, n, let_eight_bytes);
		kept_back(b, n, let_function);
		kept_back(b, n, let_master);
	}
}

static void all_masks_must_be_off(void **state)
{
	struct board *b = *state;
	struct card *card = card_of(b);

	set_vector(b, 3, 1);
	control(b, ENABLE | MASK_ALL);
	msix_notify(&card->msix, 3);
	let_vector(b, 3, true);
	assert_true(pends(b, 3));
	let_vector(b, 3, false);
	control(b, ENABLE);
	assert_true(pends(b, 3));
	control(b, 0);
	let_vector(b, 3, true);
	assert_true(pends(b, 3));
	assert_int_equal(take(b), -1);
	control(b, ENABLE);
	assert_int_equal(take(b), VECTOR(3));
	let_vector(b, 3, false);
	msix_notify(&card->msix, 3);
	bus_reset(b->bus);
	assert_int_equal(card->msix.pending[0], 0);
}

static void enabled_it_replaces_intx(void **state)
{
	struct board *b = *state;
	struct card *card = card_of(b);

	board_pic_init(b);
	outb(b, 0x4d1, 0x0c);
	lapic_wr(b, 0, 0x350, 0x700); /* the 8259s come in by LINT0 */
	pci_set_pirqs(b->bus, (const int[PIRQS]){ -1, -1, 11, -1 });
	irq_set(&card->pci.intx, true);
	control(b, ENABLE);
	assert_int_equal(board_take(b), -1);
	assert_int_equal(board_config_read(b, DEVFN, 6, 2) & 8, 8);
	control(b, 0);
	assert_int_equal(board_take(b), 0x2b);
}

/* ---- records ---- */

static void records_go_on_elsewhere(void **state)
{
	struct card *card;
	struct board *b = *state, *other = board(&card);
	struct writer records;

	control(b, ENABLE);
	set_vector(b, 2, 0);
	set_vector(b, 64, 1);
	msix_notify(&card_of(b)->msix, 64);
	records = board_save(b);
	assert_int_equal(board_load(other, &records, 0, NULL), 0);
	assert_true(msix_enabled(&card->msix));
	assert_int_equal(take(other), -1);
	msix_notify(&card->msix, 2);
	assert_int_equal(take(other), VECTOR(2));
	assert_true(pends(other, 64));
	let_vector(other, 64, true);
	assert_int_equal(take(other), VECTOR(64));
	assert_int_equal(take(other), -1);
	writer_free(&records);
	board_destroy(other);
}

static void refused(struct board *b, const char *says)
{
	struct card *card = card_of(b);
	struct writer record = { 0 };
	struct reader reader;
	struct error error;

	assert_int_equal(state_save(&card_state_desc, 0, card, &record), 0);
	pci_reset(&card->pci);
	reader = (struct reader){ record.data, record.size, 0 };
	assert_int_equal(state_load(&card_state_desc, 0, card, &reader, &error), -EINVAL);
	if (!strstr(error.text, says))
		fail_msg("'%s' does not say '%s'", error.text, says);
	writer_free(&record);
}

static void damaged_records_are_refused(void **state)
{
	struct board *b = *state;
	struct card *card = card_of(b);

	card->msix.address[1] = 1;
	refused(b, "vector 1 has the address 0x1");
	card->msix.masked[VECTORS] = 0;
	refused(b, "vector 65 is not as after a reset");
	card->msix.pending[1] = 2;
	refused(b, "vector 65 is not as after a reset");
	board_config_write(b, DEVFN, 4, 2, 6);
	control(b, ENABLE);
	card->msix.masked[9] = 0;
	card->msix.pending[0] = BIT(9);
	refused(b, "vector 9 is pending");
	card->pci.config[CAP + 4] = 2; /* in another BAR */
	refused(b, "byte 0x50");
}

/* ---- threads ---- */

#define MESSAGES 20000

struct sender {
	struct card *card;
	_Atomic uint32_t taken; /* the last one that the guest has served */
	_Atomic uint32_t sent;
};

/* Each but the first waits for the one before to be served: a message that is lost would hold up both for good, one that is sent twice is seen. */
static void *send_all(void *opaque)
{
	struct sender *s = opaque;

	for (uint32_t n = 1; n <= MESSAGES; n++) {
		atomic_store(&s->sent, n);
		msix_notify(&s->card->msix, 0);
		while (atomic_load(&s->taken) < n)
			sched_yield();
	}
	return NULL;
}

static void nothing_is_lost_between_threads(void **state)
{
	struct board *b = *state;
	struct sender s = { .card = card_of(b) };
	struct error error;
	pthread_t thread;
	uint32_t taken = 0;

	control(b, ENABLE);
	set_vector(b, 0, 0);
	assert_int_equal(host_thread_create(&thread, "sender", send_all, &s, &error), 0);
	for (unsigned i = 0; taken < MESSAGES; i++) {
		let_vector(b, 0, false);
		control(b, i & 1 ? ENABLE | MASK_ALL : ENABLE);
		let_vector(b, 0, true);
		control(b, ENABLE);
		if (take(b) < 0) {
			sched_yield();
			continue;
		}
		assert_int_equal(atomic_load(&s.sent), ++taken);
		atomic_store(&s.taken, taken);
	}
	pthread_join(thread, NULL);
	assert_int_equal(take(b), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, board_teardown)
	const struct CMUnitTest tests[] = {
		TEST(capabilities_are_a_list),
		TEST(the_capability_names_its_places),
		TEST(the_table),
		TEST(messages_are_sent),
		TEST(masked_messages_wait),
		TEST(all_masks_must_be_off),
		TEST(enabled_it_replaces_intx),
		TEST(records_go_on_elsewhere),
		TEST(damaged_records_are_refused),
		TEST(nothing_is_lost_between_threads),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
