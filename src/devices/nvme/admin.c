/*
 * NVMe: admin commands (5): queues, identification, features, logs, events.
 */
#include "devices/nvme/nvme.h"

#include <inttypes.h>

enum {
	DELETE_SQ = 0x00,
	CREATE_SQ = 0x01,
	GET_LOG = 0x02,
	DELETE_CQ = 0x04,
	CREATE_CQ = 0x05,
	IDENTIFY = 0x06,
	ABORT = 0x08,
	SET_FEATURES = 0x09,
	GET_FEATURES = 0x0a,
	EVENT_REQUEST = 0x0c,
};
enum { LOG_ERRORS = 1, LOG_HEALTH = 2, LOG_FIRMWARE = 3 };
enum { IDENTIFY_NAMESPACE = 0, IDENTIFY_CONTROLLER = 1, IDENTIFY_ACTIVE = 2, IDENTIFY_DESCRIPTORS = 3 };
#define CONTIGUOUS	 BIT(0)
#define INTERRUPTS	 BIT(1)
#define KEEP_EVENT	 BIT(15) /* GET LOG PAGE: RAE */
#define SAVE		 BIT(31)
#define TEMPERATURE	 313u /* K */
#define TEMPERATURE_WARN 343u
#define TEMPERATURE_MOST 373u
#define WARN_TEMPERATURE BIT(1)
#define UNIT_READ	 512000u /* bytes, that the health log counts in */
#define DESCRIPTOR_EUI64 1
#define REFUSE(status)	 ((status) | NVME_DO_NOT_RETRY)

/* ---- queues ---- */

/* As CC has them, of which there is one choice each. */
static bool entry_sizes_ok(const struct nvme *nvme) { return bits(nvme->configuration, 23, 16) == 0x46; }

/* A new queue's number, size, and memory. */
static unsigned check_queue(const struct nvme_command *c, const uint16_t *sizes, unsigned *queue, unsigned *entries)
{
	uint32_t word = nvme_word(c, 10);

	*queue = word & 0xffff;
	*entries = (word >> 16) + 1;
	if (!*queue || *queue >= NVME_QUEUES || sizes[*queue])
		return REFUSE(NVME_QUEUE_NUMBER);
	if (*entries < 2 || *entries > NVME_ENTRIES_MOST)
		return REFUSE(NVME_QUEUE_SIZE);
	if (!(nvme_word(c, 11) & CONTIGUOUS) || !entry_sizes_ok(c->nvme))
		return REFUSE(NVME_INVALID_FIELD);
	return nvme_prp1(c) & (NVME_PAGE - 1) ? REFUSE(NVME_INVALID_OFFSET) : NVME_OK;
}

static unsigned create_cq(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;
	unsigned queue, entries, vector = nvme_word(c, 11) >> 16,
				 status = check_queue(c, nvme->cq_size, &queue, &entries);

	if (status)
		return status;
	if (vector >= NVME_QUEUES)
		return REFUSE(NVME_VECTOR);
	nvme->cq_address[queue] = nvme_prp1(c);
	nvme->cq_size[queue] = (uint16_t)entries;
	nvme->cq_head[queue] = nvme->cq_tail[queue] = 0;
	nvme->cq_phase[queue] = true;
	nvme->cq_interrupts[queue] = nvme_word(c, 11) & INTERRUPTS;
	nvme->cq_vector[queue] = (uint8_t)vector;
	return NVME_OK;
}

static unsigned create_sq(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;
	unsigned queue, entries, cq = nvme_word(c, 11) >> 16, status = check_queue(c, nvme->sq_size, &queue, &entries);

	if (!cq || cq >= NVME_QUEUES || !nvme->cq_size[cq])
		return REFUSE(NVME_NO_COMPLETION_QUEUE);
	if (status)
		return status;
	nvme->sq_address[queue] = nvme_prp1(c);
	nvme->sq_size[queue] = (uint16_t)entries;
	nvme->sq_head[queue] = nvme->sq_tail[queue] = 0;
	nvme->sq_cq[queue] = (uint8_t)cq;
	return NVME_OK;
}

/* What was not fetched is gone; what was is done before. */
static unsigned delete_sq(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;
	unsigned queue = nvme_word(c, 10) & 0xffff;

	if (!queue || queue >= NVME_QUEUES || !nvme->sq_size[queue])
		return REFUSE(NVME_QUEUE_NUMBER);
	nvme->sq_tail[queue] = nvme->sq_head[queue];
	if (nvme->sq_used[queue])
		return NVME_AGAIN;
	nvme->sq_size[queue] = nvme->sq_head[queue] = nvme->sq_tail[queue] = 0;
	return NVME_OK;
}

static unsigned delete_cq(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;
	unsigned queue = nvme_word(c, 10) & 0xffff;

	if (!queue || queue >= NVME_QUEUES || !nvme->cq_size[queue])
		return REFUSE(NVME_QUEUE_NUMBER);
	for (unsigned n = 1; n < NVME_QUEUES; n++)
		if (nvme->sq_size[n] && nvme->sq_cq[n] == queue)
			return REFUSE(NVME_QUEUE_DELETION);
	nvme->cq_size[queue] = nvme->cq_head[queue] = nvme->cq_tail[queue] = 0;
	return NVME_OK;
}

/* ---- identification ---- */

static void put_text(uint8_t *data, const char *text, unsigned size)
{
	size_t length = strlen(text);

	for (unsigned n = 0; n < size; n++)
		data[n] = n < length ? (uint8_t)text[n] : ' ';
}

/* A name that two disks of a machine do not share: FNV-1a of the serial number and of which controller it is. */
static uint64_t eui64(const struct nvme *nvme)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (const char *s = nvme->serial; *s; s++)
		hash = (hash ^ (uint8_t)*s) * 0x100000001b3ull;
	hash = (hash ^ nvme->pci.device.instance) * 0x100000001b3ull;
	return (uint64_t)0x525400 << 40 | (hash & 0xffffffffff);
}

static void identify_controller(const struct nvme *nvme, uint8_t *data)
{
	store_le16(data, load_le16(nvme->pci.config));
	store_le16(data + 2, load_le16(nvme->pci.config + 0x2c));
	put_text(data + 4, nvme->serial, 20);
	put_text(data + 24, "DOPPEL NVME", 40);
	put_text(data + 64, "1", 8);
	data[72] = 6; /* commands at once that it likes, as a power of two */
	data[75] = 0x52;
	data[76] = 0x54;
	data[77] = NVME_TRANSFER_LOG;
	store_le32(data + 80, 0x00010400);
	data[111] = 1; /* an I/O controller */
	data[258] = 3; /* ABORTs at once, less one; requests for events, less one */
	data[259] = NVME_EVENTS - 1;
	data[260] = 0x03; /* a firmware that stays */
	store_le16(data + 266, TEMPERATURE_WARN);
	store_le16(data + 268, TEMPERATURE_MOST);
	data[512] = 0x66; /* bytes of entries, as powers of two */
	data[513] = 0x44;
	store_le32(data + 516, 1); /* namespaces */
	store_le16(data + 520, (uint16_t)((nvme->info->can_discard ? 4 : 0) | (nvme->info->readonly ? 0 : 8)));
	data[525] = 0x07; /* a cache; FLUSH of all namespaces */
	snprintf((char *)data + 768, 256, "nqn.2014-08.org.nvmexpress:uuid:52540000-0000-4000-8000-%012" PRIx64,
		 (uint64_t)bits(eui64(nvme), 47, 0));
	store_le16(data + 2048, 2500); /* 10 mW: the only power state */
}

static void identify_namespace(const struct nvme *nvme, uint8_t *data)
{
	uint16_t write = (uint16_t)(nvme->info->physical_size / NVME_SECTOR - 1);
	uint16_t discard = (uint16_t)(nvme->info->discard_size / NVME_SECTOR - 1);

	for (unsigned n = 0; n < 3; n++)
		store_le64(data + (size_t)8 * n, nvme->sectors);
	data[24] = (uint8_t)(0x10 | (nvme->info->can_discard ? 1 : 0));
	store_le16(data + 64, write);
	store_le16(data + 66, write);
	store_le16(data + 68, discard);
	store_le16(data + 70, discard);
	data[99] = nvme->info->readonly;
	store_be64(data + 120, eui64(nvme));
	data[130] = 9; /* bytes of a sector, as a power of two */
}

static unsigned identify(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;
	uint32_t namespace = nvme_namespace(c);
	uint8_t data[NVME_PAGE] = { 0 };

	switch (nvme_word(c, 10) & 0xff) {
	case IDENTIFY_NAMESPACE:
		if (namespace != 1)
			return REFUSE(NVME_INVALID_NAMESPACE);
		identify_namespace(nvme, data);
		break;
	case IDENTIFY_CONTROLLER: identify_controller(nvme, data); break;
	case IDENTIFY_ACTIVE:
		if (namespace >= NVME_ALL - 1)
			return REFUSE(NVME_INVALID_NAMESPACE);
		data[0] = namespace < 1;
		break;
	case IDENTIFY_DESCRIPTORS:
		if (namespace != 1)
			return REFUSE(NVME_INVALID_NAMESPACE);
		data[0] = DESCRIPTOR_EUI64;
		data[1] = 8;
		store_be64(data + 4, eui64(nvme));
		break;
	default: return REFUSE(NVME_INVALID_FIELD);
	}
	return nvme_copy(c, data, sizeof(data), true);
}

/* ---- features ---- */

void nvme_reset_features(struct nvme *nvme)
{
	memset(nvme->features, 0, sizeof(nvme->features));
	nvme->features[NVME_FEATURE_CACHE] = 1;
	nvme->features[NVME_FEATURE_QUEUES] = (NVME_QUEUES - 2) | (NVME_QUEUES - 2) << 16;
	nvme->hot = TEMPERATURE_WARN;
	nvme->cold = 0;
}

static bool is_too_warm(const struct nvme *nvme) { return TEMPERATURE >= nvme->hot || TEMPERATURE <= nvme->cold; }

/* Composite temperature, or all, is the only one: NULL for another. */
static uint16_t *threshold(struct nvme *nvme, uint32_t word)
{
	unsigned sensor = (unsigned)bits(word, 19, 16), kind = (unsigned)bits(word, 21, 20);

	if ((sensor && sensor != 15) || kind > 1)
		return NULL;
	return kind ? &nvme->cold : &nvme->hot;
}

static bool has_feature(unsigned feature)
{
	return feature && feature < NVME_FEATURES && feature != 0x03; /* no LBA range types */
}

/* Interrupts are not coalesced, whatever is asked for. */
static unsigned get_features(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;
	unsigned feature = nvme_word(c, 10) & 0xff;
	uint16_t *limit = threshold(nvme, nvme_word(c, 11));

	if (!has_feature(feature) || (feature == NVME_FEATURE_TEMPERATURE && !limit))
		return REFUSE(NVME_INVALID_FIELD);
	c->result = nvme->features[feature];
	if (feature == NVME_FEATURE_TEMPERATURE)
		c->result = *limit;
	if (feature == NVME_FEATURE_VECTOR) {
		c->result = nvme_word(c, 11) & 0xffff;
		if (c->result >= NVME_QUEUES)
			return REFUSE(NVME_INVALID_FIELD);
		c->result |= 1u << 16;
	}
	return NVME_OK;
}

static unsigned set_features(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;
	uint32_t word = nvme_word(c, 10), value = nvme_word(c, 11);
	unsigned feature = word & 0xff;
	uint16_t *limit = threshold(nvme, value);

	if (word & SAVE)
		return REFUSE(NVME_NOT_SAVEABLE);
	if (!has_feature(feature) || (feature == NVME_FEATURE_TEMPERATURE && !limit))
		return REFUSE(NVME_INVALID_FIELD);
	switch (feature) {
	case NVME_FEATURE_TEMPERATURE:
		*limit = (uint16_t)value;
		if (is_too_warm(nvme) && nvme->features[NVME_FEATURE_EVENTS] & WARN_TEMPERATURE)
			nvme_event(nvme, NVME_EVENT_HEALTH, 1, LOG_HEALTH);
		break;
	case NVME_FEATURE_QUEUES:
		if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff)
			return REFUSE(NVME_INVALID_FIELD);
		c->result = nvme->features[feature];
		break;
	case NVME_FEATURE_POWER: return value & 0x1f ? REFUSE(NVME_INVALID_FIELD) : NVME_OK;
	case NVME_FEATURE_CACHE: nvme->features[feature] = value & 1; break;
	case NVME_FEATURE_VECTOR: break;
	default: nvme->features[feature] = value;
	}
	return NVME_OK;
}

/* ---- logs ---- */

void nvme_log_error(struct nvme *nvme, const struct nvme_command *c, unsigned status)
{
	uint8_t *log = nvme->error_log;

	memset(log, 0, sizeof(nvme->error_log));
	store_le64(log, ++nvme->error_count);
	store_le16(log + 8, c->queue);
	store_le16(log + 10, nvme_id(c));
	store_le16(log + 12, (uint16_t)(status << 1));
	store_le16(log + 14, UINT16_MAX); /* which bits are wrong is not said */
	store_le64(log + 16, c->queue ? load_le64(c->entry + 40) : 0);
	store_le32(log + 24, nvme_namespace(c));
}

static void put_health(const struct nvme *nvme, uint8_t *data)
{
	data[0] = is_too_warm(nvme) ? WARN_TEMPERATURE : 0;
	store_le16(data + 1, TEMPERATURE);
	data[3] = 100; /* spare blocks, in hundredths; how few are too few */
	data[4] = 10;
	store_le64(data + 32, nvme->bytes_read / UNIT_READ + (nvme->bytes_read % UNIT_READ != 0));
	store_le64(data + 48, nvme->bytes_written / UNIT_READ + (nvme->bytes_written % UNIT_READ != 0));
	store_le64(data + 64, nvme->reads);
	store_le64(data + 80, nvme->writes);
	store_le64(data + 176, nvme->error_count);
}

static unsigned get_log(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;
	unsigned page = nvme_word(c, 10) & 0xff;
	uint64_t wanted = ((uint64_t)(nvme_word(c, 10) >> 16) + ((uint64_t)(nvme_word(c, 11) & 0xffff) << 16) + 1) * 4;
	uint64_t offset = load_le64(c->entry + 48);
	uint8_t data[512] = { 0 };
	uint32_t size = sizeof(data);

	switch (page) {
	case LOG_ERRORS:
		size = sizeof(nvme->error_log);
		memcpy(data, nvme->error_log, size);
		break;
	case LOG_HEALTH: put_health(nvme, data); break;
	case LOG_FIRMWARE:
		data[0] = 1;
		put_text(data + 8, "1", 8);
		break;
	default: return REFUSE(NVME_LOG_PAGE);
	}
	if (offset & 3 || offset >= size)
		return REFUSE(NVME_INVALID_FIELD);
	if (page != LOG_FIRMWARE && !(nvme_word(c, 10) & KEEP_EVENT)) {
		nvme->event_told[page - LOG_ERRORS] = false;
		nvme_tell_events(nvme);
	}
	return nvme_copy(c, data + offset, (uint32_t)MIN(wanted, size - offset), true);
}

static unsigned request_event(struct nvme_command *c)
{
	struct nvme *nvme = c->nvme;

	if (nvme->event_count == NVME_EVENTS)
		return REFUSE(NVME_EVENT_LIMIT);
	nvme->event_ids[nvme->event_count++] = nvme_id(c);
	return NVME_LATER;
}

unsigned nvme_admin(struct nvme_command *c)
{
	switch (nvme_opcode(c)) {
	case DELETE_SQ: return delete_sq(c);
	case CREATE_SQ: return create_sq(c);
	case GET_LOG: return get_log(c);
	case DELETE_CQ: return delete_cq(c);
	case CREATE_CQ: return create_cq(c);
	case IDENTIFY: return identify(c);
	case ABORT: c->result = 1; return NVME_OK; /* what a worker has cannot be taken from it */
	case SET_FEATURES: return set_features(c);
	case GET_FEATURES: return get_features(c);
	case EVENT_REQUEST: return request_event(c);
	default: return REFUSE(NVME_INVALID_OPCODE);
	}
}
