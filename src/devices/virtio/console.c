/*
 * virtio-console (virtio 1.2, 5.3): a device with one port, which is a console (hvc0), or a channel with a name between a program in the guest and one of the host's
 * (/dev/virtio-ports/NAME). Each port is a device, so that none waits for another's queues.
 *
 * Bytes for the guest are taken as it has room; bytes of the guest's as the host has.
 */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <stdlib.h>

#define PORTS_MOST	 8	  /* of each kind, in a machine */
#define RETRY		 1000000u /* ns: then there may be room in the host again */
#define ROOM_LEAST	 0x10000u /* bytes of it, for what is sent at once */
#define NAME_MOST	 64u
#define F_MULTIPORT	 BIT(1)
#define F_EMERGENCY	 BIT(2)
#define CONFIG_PORTS	 4
#define CONFIG_EMERGENCY 8
#define CONFIG_SIZE	 12

enum { RECEIVE, TRANSMIT, CONTROL_RECEIVE, CONTROL_TRANSMIT };

/* Control messages, virtio 1.2, 5.3.6.2 */
#define CONTROL_SIZE 8u
enum {
	CONTROL_DEVICE_READY = 0,
	CONTROL_PORT_ADD = 1,
	CONTROL_PORT_READY = 3,
	CONTROL_CONSOLE_PORT = 4,
	CONTROL_PORT_OPEN = 6,
	CONTROL_PORT_NAME = 7,
};
#define CONTROL_MOST 8u

#define CONSOLE_STATE(_, T)                                                                                            \
	_(T, uint8_t, opened, 1, 1, 0, 1)    /* a program of the guest's has the port */                               \
	_(T, uint8_t, to_say, 1, 2, 0, 0xff) /* bits of control messages, sent in their order */

struct virtio_console {
	struct virtio_device virtio;
	STATE_FIELDS(CONSOLE_STATE)
	struct chardev *chardev; /* NULL: nothing is connected */
	const char *name;	 /* NULL: a console */
};

static struct virtio_console *of(struct virtio_device *v) { return (struct virtio_console *)v; }

/* ---- to the host ---- */

static void send_piece(struct virtio_console *console, const struct iovec *piece)
{
	if (console->chardev)
		chardev_write(console->chardev, piece->iov_base, piece->iov_len);
}

static bool host_has_room(const struct virtio_console *console)
{
	return !console->chardev || chardev_write(console->chardev, "", 0) >= ROOM_LEAST;
}

static void transmit(struct virtio_queue *q, const struct virtio_chain *c)
{
	for (unsigned n = 0; n < c->out_count; n++)
		send_piece(of(q->virtio), &c->out[n]);
	virtqueue_push(q, c, 0);
}

static void kick_transmit(struct virtio_queue *q)
{
	if (host_has_room(of(q->virtio)))
		virtqueue_serve(q, transmit);
	else
		timer_arm(&q->again, clock_now(q->virtio->device.bus->clock) + RETRY);
}

static void config_written(struct virtio_device *v, unsigned offset, unsigned size)
{
	if (offset == CONFIG_EMERGENCY && size && of(v)->chardev)
		chardev_write(of(v)->chardev, &v->config[CONFIG_EMERGENCY], 1);
}

/* ---- to the guest ---- */

static bool guest_listens(struct virtio_console *console)
{
	return __atomic_load_n(&console->opened, __ATOMIC_RELAXED) || !(console->virtio.features & F_MULTIPORT);
}

static size_t receive_locked(struct virtio_queue *q, const uint8_t *data, size_t size)
{
	struct virtio_chain c;
	size_t done = 0;

	while (done < size) {
		if (virtqueue_pop(q, &c)) {
			size_t part = virtio_chain_write(&c, 0, data + done, size - done);

			virtqueue_push(q, &c, part);
			done += part;
		} else if (!virtqueue_want_kicks(q, true)) {
			break;
		}
	}
	virtqueue_publish(q);
	return done;
}

/* In the event loop's thread. */
static size_t receive(void *opaque, const uint8_t *data, size_t size)
{
	struct virtio_console *console = opaque;
	struct virtio_queue *q = &console->virtio.queues[RECEIVE];
	size_t done = 0;

	lock_take(&q->lock);
	if (guest_listens(console))
		done = receive_locked(q, data, size);
	lock_drop(&q->lock);
	return done;
}

static bool receive_break(void *opaque)
{
	(void)opaque;
	return true; /* there is no such thing */
}

static void quit(void *opaque)
{
	struct bus *bus = ((struct virtio_console *)opaque)->virtio.device.bus;

	if (bus->request)
		bus->request(bus->request_opaque, BUS_REQUEST_QUIT);
}

static const struct chardev_ops chardev_ops = { receive, receive_break, quit };

static void kick_receive(struct virtio_queue *q)
{
	if (of(q->virtio)->chardev)
		chardev_resume(of(q->virtio)->chardev);
}

/* ---- control ---- */

static size_t control_message(const struct virtio_console *console, unsigned event,
			      uint8_t message[CONTROL_SIZE + NAME_MOST])
{
	memset(message, 0, CONTROL_SIZE); /* port 0 */
	store_le16(message + 4, (uint16_t)event);
	store_le16(message + 6, 1);
	if (event != CONTROL_PORT_NAME)
		return CONTROL_SIZE;
	memcpy(message + CONTROL_SIZE, console->name, strlen(console->name));
	return CONTROL_SIZE + strlen(console->name);
}

/* The next message that is to be said; false: there is none, or no room for it. */
static bool say_one(struct virtio_console *console, struct virtio_queue *q)
{
	uint8_t message[CONTROL_SIZE + NAME_MOST], to_say = __atomic_load_n(&console->to_say, __ATOMIC_RELAXED);
	struct virtio_chain c;
	unsigned event = 0;
	size_t size;

	if (!to_say || !virtqueue_pop(q, &c))
		return false;
	while (!(to_say & BIT(event)))
		event++;
	size = control_message(console, event, message);
	virtqueue_push(q, &c, virtio_chain_write(&c, 0, message, size));
	__atomic_fetch_and(&console->to_say, (uint8_t)~BIT(event), __ATOMIC_RELAXED);
	return true;
}

static void kick_control_receive(struct virtio_queue *q)
{
	for (unsigned n = 0; n < CONTROL_MOST && say_one(of(q->virtio), q); n++)
		;
	virtqueue_publish(q);
	virtqueue_want_kicks(q, true);
}

/* By the clock: this is another queue's lock. */
static void say(struct virtio_console *console, unsigned events)
{
	__atomic_fetch_or(&console->to_say, (uint8_t)events, __ATOMIC_RELAXED);
	virtqueue_later(&console->virtio.queues[CONTROL_RECEIVE]);
}

static void set_opened(struct virtio_console *console, bool opened)
{
	__atomic_store_n(&console->opened, opened, __ATOMIC_RELAXED);
	if (opened && console->chardev)
		chardev_resume(console->chardev);
}

static void hear(struct virtio_queue *q, const struct virtio_chain *c)
{
	struct virtio_console *console = of(q->virtio);
	uint8_t message[CONTROL_SIZE] = { 0 };
	bool good = virtio_chain_read(c, 0, message, CONTROL_SIZE) == CONTROL_SIZE;
	uint16_t value = load_le16(message + 6);

	virtqueue_push(q, c, 0);
	if (!good)
		return;
	switch (load_le16(message + 4)) {
	case CONTROL_DEVICE_READY:
		if (value)
			say(console, BIT(CONTROL_PORT_ADD));
		break;
	case CONTROL_PORT_READY:
		if (value)
			say(console,
			    BIT(CONTROL_PORT_OPEN) | BIT(console->name ? CONTROL_PORT_NAME : CONTROL_CONSOLE_PORT));
		break;
	case CONTROL_PORT_OPEN: set_opened(console, value); break;
	default: break;
	}
}

static void kick_control_transmit(struct virtio_queue *q) { virtqueue_serve(q, hear); }

/* ---- life ---- */

static void console_reset(struct virtio_device *v)
{
	__atomic_store_n(&of(v)->opened, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&of(v)->to_say, 0, __ATOMIC_RELAXED);
}

static void console_destroy(struct device *device)
{
	struct virtio_console *console = (struct virtio_console *)device;

	if (console->chardev)
		chardev_attach(console->chardev, NULL, NULL);
	virtio_fini(&console->virtio);
	free(console);
}

#define CONSOLE_ALL_STATE(_, T)                                                                                        \
	VIRTIO_STATE(_, T)                                                                                             \
	CONSOLE_STATE(_, T)
STATE_DESC(console_state_desc, "virtio-console", 1, struct virtio_console, CONSOLE_ALL_STATE, .loaded = virtio_loaded,
	   .saving = virtio_saving);
STATE_DESC(port_state_desc, "virtio-port", 1, struct virtio_console, CONSOLE_ALL_STATE, .loaded = virtio_loaded,
	   .saving = virtio_saving);

static const struct device_ops console_device_ops = { .state = &console_state_desc,
						      VIRTIO_DEVICE_OPS,
						      .destroy = console_destroy };
static const struct device_ops port_device_ops = { .state = &port_state_desc,
						   VIRTIO_DEVICE_OPS,
						   .destroy = console_destroy };
static const struct virtio_ops console_ops = {
	.id = VIRTIO_ID_CONSOLE,
	.pci_name = "virtio-serial-pci",
	.pci_class = 0x07800000,
	.reset = console_reset,
	.config_written = config_written,
};

static int create(struct bus *bus, struct chardev *chardev, const char *name, const struct virtio_options *virtio,
		  struct error *err)
{
	static void (*const kicks[])(struct virtio_queue *) = {
		[RECEIVE] = kick_receive,
		[TRANSMIT] = kick_transmit,
		[CONTROL_RECEIVE] = kick_control_receive,
		[CONTROL_TRANSMIT] = kick_control_transmit,
	};
	struct virtio_console *console = calloc(1, sizeof(*console));
	int rc = 0;

	if (!console)
		return error_set_errno(err, ENOMEM, "a virtio console");
	if (name)
		virtio_init(&console->virtio, bus, "virtio-port", &port_device_ops, &console_ops);
	else
		virtio_init(&console->virtio, bus, "virtio-console", &console_device_ops, &console_ops);
	for (unsigned n = 0; !rc && n < ARRAY_SIZE(kicks); n++)
		rc = virtio_add_queue(&console->virtio, VIRTIO_QUEUE_SIZE, kicks[n], err);
	if (rc)
		return rc;
	console->name = name;
	console->chardev = chardev;
	console->virtio.offered |= F_MULTIPORT | F_EMERGENCY;
	console->virtio.config_size = CONFIG_SIZE;
	store_le32(console->virtio.config + CONFIG_PORTS, 1);
	memset(console->virtio.config_mask + CONFIG_EMERGENCY, 0xff, 4);
	if (chardev)
		chardev_attach(chardev, &chardev_ops, console);
	return virtio_plug(&console->virtio, virtio, err);
}

/* clang-format off */
#define CONSOLE_OPTIONS(_, T)                                                                                          \
	_(T, CHARDEV, chardev, 0, 0, NULL, "what is connected; by default nothing")                                    \
	VIRTIO_OPTIONS(_, T)
#define PORT_OPTIONS(_, T)                                                                                             \
	_(T, TEXT, name, 0, 0, NULL, "what the guest calls it, such as org.example.agent.0")                           \
	CONSOLE_OPTIONS(_, T)
/* clang-format on */

struct console_options {
	DEVICE_OPTION_FIELDS(CONSOLE_OPTIONS)
};
struct port_options {
	DEVICE_OPTION_FIELDS(PORT_OPTIONS)
};

static int console_create(struct bus *bus, const void *options, struct error *err)
{
	const struct console_options *o = options;

	return create(bus, o->chardev, NULL, VIRTIO_OPTIONS_OF(o), err);
}

static int port_create(struct bus *bus, const void *options, struct error *err)
{
	const struct port_options *o = options;

	if (!o->name || !*o->name || strlen(o->name) > NAME_MOST)
		return error_set(err, EINVAL, "virtio-port: option 'name' is '%.128s'; expected 1 to %u characters",
				 o->name ? o->name : "", NAME_MOST);
	return create(bus, o->chardev, o->name, VIRTIO_OPTIONS_OF(o), err);
}

const struct device_type virtio_console_type = {
	.name = "virtio-console",
	.help = "a console of the guest's (hvc0)",
	.most = PORTS_MOST,
	DEVICE_OPTIONS(CONSOLE_OPTIONS, struct console_options),
	.short_form = { .name = "--console",
			.option = "chardev",
			.argument = "SPEC",
			.help = "a virtio console: where it goes, as for --serial" },
	.create = console_create,
};

const struct device_type virtio_port_type = {
	.name = "virtio-port",
	.help = "a channel between programs of the guest's and the host's",
	.most = PORTS_MOST,
	DEVICE_OPTIONS(PORT_OPTIONS, struct port_options),
	.short_form = { .name = "--channel",
			.option = "name",
			.options_follow = true,
			.argument = "NAME,chardev=SPEC",
			.help = "/dev/virtio-ports/NAME in the guest: where it goes, as for --serial" },
	.create = port_create,
};
