/*
 * A debugger that sends whatever the input says: packets of lines of it, with right checksums, or (an odd first byte) bytes as they are. Nothing may crash, nothing
 * waits without bounds, and when it has gone the machine has no stops.
 */
#include "gdb/private.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int no_guest(void *opaque, struct guest_mem *mem, struct cpu_state *state, struct error *err)
{
	(void)opaque, (void)mem, (void)state, (void)err;
	return 0;
}

static void nothing(void *opaque) { (void)opaque; }

static struct machine *create(void)
{
	static const struct machine_guest guest = { .load = no_guest };
	const struct machine_config config = {
		.guest = &guest,
		.memory = 1 << 20,
		.cpus = 2,
		.engine = "interp",
		.cpu_model = "v3",
		.clock = CLOCK_VIRTUAL,
	};
	struct machine *m;

	log_set_level(LOG_ERROR);
	if (machine_create(&m, &config, NULL))
		abort();
	return m;
}

/* False: that was the end of it. */
static bool send_line(struct session *s, const uint8_t *line, size_t size)
{
	struct bytes packet = { 0 };
	bool more = packet_add(&packet, line, size) && session_input(s, packet.data, packet.size);

	free(packet.data);
	if (s->out.size > OUTPUT_MOST + 4 * PACKET_MOST)
		abort();
	s->out.size = 0;
	return more;
}

static void send_lines(struct session *s, const uint8_t *data, size_t size)
{
	bool more = true;

	while (more && size) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t length = end ? (size_t)(end - data) : size;

		more = send_line(s, data, length) && session_input(s, (const uint8_t *)"\3", 1);
		data += length + (end != NULL);
		size -= length + (end != NULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct machine *m;
	struct session *s = calloc(1, sizeof(*s));

	if (!m)
		m = create();
	if (!s || !size || session_begin(s, m, data[0] >> 1 & 1 ? VIEW_I386 : VIEW_X86_64, nothing, NULL, NULL)) {
		free(s);
		return 0;
	}
	if (data[0] & 1)
		session_input(s, data + 1, size - 1);
	else
		send_lines(s, data + 1, size - 1);
	session_end(s);
	free(s);
	for (unsigned n = 0; n < 2; n++)
		if (machine_vcpu(m, n)->stops || machine_vcpu(m, n)->stop.step || machine_debug_stands(m))
			abort();
	return 0;
}
