/*
 * The record of a machine, with bytes changed and its checksums right again: it is refused, with a sentence and the machine as it was;
 * or it is loaded, and saved again it is a record that is loaded.
 */
#include "machine/machine.h"

#include <errno.h>
#include <stdlib.h>

#define HEADER 12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int no_guest(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	(void)opaque, (void)mem, (void)state, (void)err;
	return 0;
}

static struct machine *create(void)
{
	static const struct machine_guest guest = { .load = no_guest };
	struct machine_config config = {
		.guest = &guest,
		.memory = 1 << 20,
		.cpus = 2,
		.engine = "interp",
		.cpu_model = "v2",
		.clock = CLOCK_VIRTUAL,
		.devices = { { .spec = "debug-exit" } },
		.device_count = 1,
	};
	struct machine *m;

	log_set_level(LOG_ERROR);
	if (machine_create(&m, &config, NULL))
		abort();
	return m;
}

static struct writer save(struct machine *m)
{
	struct writer writer = { 0 };

	if (machine_save(m, &writer, NULL))
		abort();
	return writer;
}

/* Right checksums of records, as far as their frames are whole. */
static void seal(uint8_t *record, size_t size)
{
	size_t at = HEADER;

	while (range_ok(at, 1, size) && record[at] && record[at] < 32) {
		size_t head = 1 + record[at] + 6u, end;

		if (!range_ok(at, head, size))
			return;
		end = at + head + load_le32(record + at + head - 4);
		if (!range_ok(at, end - at, size) || !range_ok(end, 4, size))
			return;
		store_le32(record + end, state_checksum(0, record + at, end - at));
		at = end + 4;
	}
}

static int load(struct machine *m, const struct writer *record, struct error *err)
{
	struct reader reader = { record->data, record->size, 0 };

	return machine_load(m, &reader, err);
}

/* The input: triples of two bytes of offset and one that is put there. An odd one behind them cuts off. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine *m;
	static struct writer good;
	struct writer record = { 0 }, before, after;
	struct error err = { 0 };

	if (!m) {
		m = create();
		good = save(m);
	}
	if (load(m, &good, &err))
		abort();
	writer_bytes(&record, good.data, good.size);
	for (size_t i = 0; i + 3 <= size; i += 3)
		record.data[load_le16(data + i) % record.size] = data[i + 2];
	seal(record.data, record.size);
	if (size % 3 == 2)
		record.size = load_le16(data + size - 2) % record.size;
	before = save(m);
	if (load(m, &record, &err)) {
		after = save(m);
		if (err.code != EINVAL || !err.text[0] || before.size != after.size ||
		    memcmp(before.data, after.data, after.size) != 0)
			abort();
	} else {
		after = save(m);
		if (load(m, &after, &err))
			abort();
	}
	writer_free(&after);
	writer_free(&before);
	writer_free(&record);
	return 0;
}
