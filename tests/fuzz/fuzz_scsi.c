/*
 * SCSI commands of the input's choice, with data in memory that is just as large as they say, for a disk and a CD that are there all the time: each ends in one of the ways there are.
 */
#define _GNU_SOURCE
#include "devices/scsi/scsi.h"
#include "lib/fuzz.h"
#include "lib/no_cpus.h"

#define CPUS	      1
#define COMMANDS      64
#define PIECES	      3
#define DATA_MOST     0x4000u
#define REQUESTS_MOST 4096 /* of one command: WRITE SAME and UNMAP of all that is allowed */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bus *create(void)
{
	static struct trace trace;
	struct bus *bus = bus_create(NULL, clock_create(CLOCK_VIRTUAL, 0, NULL), &trace, NULL);
	void *cpus[CPUS] = { bus };

	if (irq_chip_create(bus, CPUS, &no_cpus, cpus, NULL) || pci_bus_create(bus, NULL) ||
	    piix_type.create(bus, NULL, NULL))
		abort();
	fuzz_plug_disk(bus, "scsi-disk,file=/proc/self/fd/%d,format=raw,discard,serial=1");
	fuzz_plug_disk(bus, "scsi-disk,file=/proc/self/fd/%d,readonly");
	fuzz_plug_disk(bus, "scsi-cd,file=/proc/self/fd/%d");
	return bus;
}

/* Memory of its own for each piece: what is read or written beside it is found. */
static struct scsi_data make_data(struct reader *input, struct iovec *iov)
{
	struct scsi_data data = { .iov = iov, .count = 1 + (int)(fuzz_take(input, 1) % PIECES) };

	for (int n = 0; n < data.count; n++) {
		iov[n].iov_len = fuzz_take(input, 2) % DATA_MOST;
		iov[n].iov_base = malloc(MAX(iov[n].iov_len, 1));
		for (size_t i = 0; i < iov[n].iov_len; i++)
			((uint8_t *)iov[n].iov_base)[i] = i < 48 ? (uint8_t)fuzz_take(input, 1) : 0;
		data.size += iov[n].iov_len;
	}
	return data;
}

static void check(const struct scsi_command *c)
{
	bool failed = c->status == SCSI_CHECK_CONDITION;

	if (c->buffer || c->next || c->moved > c->in.size + c->out.size || ((failed || c->overrun) && c->moved) ||
	    failed != (c->sense_size != 0) || c->sense_size > SCSI_SENSE_SIZE || (failed && c->overrun))
		abort();
}

static void command(struct scsi_bus *bus, struct reader *input)
{
	struct iovec iov[PIECES], mine[PIECES];
	struct scsi_command c = { .target = bus->targets[fuzz_take(input, 1) % 3] };
	unsigned choice = (unsigned)fuzz_take(input, 1), requests = 0;
	struct scsi_data data;
	bool more;

	c.other_unit = !(choice & 0xf0);
	for (unsigned n = 0; n < SCSI_CDB_SIZE; n++)
		c.cdb[n] = (uint8_t)fuzz_take(input, 1);
	data = make_data(input, iov);
	memcpy(mine, iov, sizeof(mine));
	if (choice & 1)
		c.in = data;
	else
		c.out = data;
	for (more = scsi_begin(&c); more; more = scsi_go_on(&c)) {
		if (++requests > REQUESTS_MOST)
			abort();
		block_do(scsi_block(c.target), &c.block);
	}
	check(&c);
	for (int n = 0; n < data.count; n++)
		free(mine[n].iov_base);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct bus *bus; /* made once */
	struct reader input = { data, size, 0 };

	log_set_level(LOG_ERROR);
	if (!bus)
		bus = create();
	bus_reset(bus);
	for (unsigned n = 0; n < COMMANDS && input.offset < input.size; n++)
		command(virtio_scsi_bus(bus, NULL), &input);
	return 0;
}
