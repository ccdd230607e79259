/*
 * Commands that all targets understand (SPC-4, 6), and START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL (SBC-3, MMC-6).
 */
#include "devices/scsi/target.h"

#include <stdlib.h>

#define VENDOR	 "DOPPEL  "
#define REVISION "1   "
/* Version descriptors, SPC-4, table 142 */
#define SAM_5 0x00a0
#define SPC_4 0x0460

static void put_text(uint8_t *to, const char *text, size_t size)
{
	memset(to, ' ', size);
	for (size_t n = 0; n < size && text[n]; n++)
		to[n] = (uint8_t)text[n];
}

/* ---- readiness ---- */

void scsi_test_unit_ready(struct scsi_command *c) { (void)c; /* it is, or this would not be called */ }

static enum scsi_sense_code sense_of(const struct scsi_command *c)
{
	enum scsi_sense_code code;

	if (c->other_unit)
		return SENSE_INVALID_UNIT;
	code = scsi_take_attention(c->target);
	return code == SENSE_NONE ? scsi_not_ready(c->target) : code;
}

void scsi_request_sense(struct scsi_command *c)
{
	uint8_t sense[SCSI_SENSE_SIZE];
	unsigned size = scsi_sense(sense, sense_of(c), c->cdb[1] & 1);

	scsi_reply(c, sense, size, c->cdb[4]);
}

static void stop_behind_flush(struct scsi_command *c)
{
	if (c->block.result)
		scsi_fail_block(c, c->block.result);
	else
		c->target->stopped = 1;
}

static void move_tray(struct scsi_command *c, bool in)
{
	struct scsi_target *t = c->target;

	if (!in && t->prevented) {
		scsi_fail(c, SENSE_REMOVAL_PREVENTED);
		return;
	}
	if (t->open == !in)
		return;
	t->open = !in;
	t->news = in ? NEWS_MEDIUM : NEWS_REMOVED;
	if (in)
		t->attention |= ATTENTION_MEDIUM;
}

/* Byte 4: power condition, NO_FLUSH bit 2, LOEJ bit 1, START bit 0. A CD turns when it is read. */
void scsi_start_stop(struct scsi_command *c)
{
	bool start = c->cdb[4] & 1;

	if (c->cdb[4] >> 4) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 4, 7);
	} else if (c->target->kind->removable) {
		if (c->cdb[4] & 2)
			move_tray(c, start);
	} else if (start || c->cdb[4] & 4) {
		c->target->stopped = !start;
	} else {
		c->block.op = BLOCK_FLUSH;
		c->next = stop_behind_flush;
	}
}

void scsi_prevent_removal(struct scsi_command *c) { c->target->prevented = c->cdb[4] & 1; }

/* ---- INQUIRY ---- */

#define PAGES	     0x00
#define SERIAL	     0x80
#define IDENTITY     0x83
#define CONTENT_MOST 64u

static unsigned list_pages(const struct scsi_target *t, uint8_t *content)
{
	unsigned size = 0;

	content[size++] = PAGES;
	if (*t->serial)
		content[size++] = SERIAL;
	content[size++] = IDENTITY;
	for (const uint8_t *page = t->kind->vital_pages; *page; page++)
		content[size++] = *page;
	return size;
}

/* T10 vendor ID based: the serial number, or what tells targets of one machine apart. */
static unsigned identify(const struct scsi_target *t, uint8_t *content)
{
	char name[DISK_SERIAL_SIZE + 16];
	unsigned size;

	if (*t->serial)
		snprintf(name, sizeof(name), "%s", t->serial);
	else
		snprintf(name, sizeof(name), "target-%u", t->number);
	size = 8 + (unsigned)strlen(name);
	content[0] = 2; /* ASCII */
	content[1] = 1;
	content[3] = (uint8_t)size;
	put_text(content + 4, VENDOR, 8);
	memcpy(content + 12, name, size - 8);
	return 4 + size;
}

static unsigned vital(const struct scsi_target *t, unsigned page, uint8_t *content)
{
	switch (page) {
	case PAGES: return list_pages(t, content);
	case SERIAL: memcpy(content, t->serial, strlen(t->serial)); return (unsigned)strlen(t->serial);
	case IDENTITY: return identify(t, content);
	default: return t->kind->vital(t, page, content);
	}
}

static uint8_t peripheral(const struct scsi_command *c) { return c->other_unit ? 0x7f : c->target->kind->type; }

static void inquire_page(struct scsi_command *c)
{
	uint8_t data[4 + CONTENT_MOST] = { peripheral(c), c->cdb[2] };
	unsigned size = c->other_unit ? 0 : vital(c->target, c->cdb[2], data + 4);

	if (!size) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 2, -1);
		return;
	}
	store_be16(data + 2, (uint16_t)size);
	scsi_reply(c, data, 4 + size, load_be16(c->cdb + 3));
}

void scsi_inquiry(struct scsi_command *c)
{
	const struct scsi_kind *kind = c->target->kind;
	/* SPC-4, standard INQUIRY data, HiSup, command queuing */
	uint8_t data[74] = { peripheral(c), kind->removable ? 0x80 : 0, 6, 0x12, sizeof(data) - 5, 0, 0, 0x02 };

	if (c->cdb[1] & 1) {
		inquire_page(c);
		return;
	}
	if (c->cdb[2]) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 2, -1);
		return;
	}
	put_text(data + 8, VENDOR, 8);
	put_text(data + 16, kind->product, 16);
	put_text(data + 32, REVISION, 4);
	store_be16(data + 58, SAM_5);
	store_be16(data + 60, SPC_4);
	store_be16(data + 62, kind->standard);
	scsi_reply(c, data, sizeof(data), load_be16(c->cdb + 3));
}

/* ---- REPORT LUNS ---- */

void scsi_report_luns(struct scsi_command *c)
{
	uint8_t data[16] = { 0 };
	bool well_known = c->cdb[2] == 1; /* only: there are none */

	if (c->cdb[2] > 2) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 2, -1);
		return;
	}
	data[3] = well_known ? 0 : 8;
	scsi_reply(c, data, well_known ? 8 : 16, load_be32(c->cdb + 6));
}

/* ---- REPORT SUPPORTED OPERATION CODES ---- */

#define TIMEOUTS_SIZE 12u

static bool is_supported(const struct scsi_command *c, const struct scsi_opcode *op)
{
	return !(op->when & SCSI_DISCARDS) || scsi_discards(c->target);
}

/* Of which nothing is said. */
static size_t put_timeouts(uint8_t *to)
{
	store_be16(to, TIMEOUTS_SIZE - 2);
	return TIMEOUTS_SIZE;
}

static void report_all(struct scsi_command *c, bool timeouts)
{
	const struct scsi_kind *kind = c->target->kind;
	uint8_t data[4 + 48 * (8 + TIMEOUTS_SIZE)] = { 0 };
	size_t size = 4;

	BUG_ON(kind->opcode_count > 48);
	for (unsigned n = 0; n < kind->opcode_count; n++) {
		const struct scsi_opcode *op = &kind->opcodes[n];

		if (!is_supported(c, op))
			continue;
		data[size] = op->code;
		if (op->action != NO_ACTION)
			store_be16(data + size + 2, op->action);
		data[size + 5] = (timeouts ? 2 : 0) | (op->action != NO_ACTION);
		store_be16(data + size + 6, op->size);
		size += 8;
		if (timeouts)
			size += put_timeouts(data + size);
	}
	store_be32(data, (uint32_t)(size - 4));
	scsi_reply(c, data, size, load_be32(c->cdb + 6));
}

static size_t put_usage(uint8_t *to, const struct scsi_opcode *op)
{
	memcpy(to, op->usage, op->size);
	to[0] = op->code;
	if (op->action != NO_ACTION)
		to[1] = (uint8_t)((to[1] & ~0x1f) | op->action);
	return op->size;
}

static const struct scsi_opcode *look_up(const struct scsi_command *c, uint8_t code, unsigned action)
{
	const struct scsi_kind *kind = c->target->kind;

	for (const struct scsi_opcode *op = kind->opcodes; op < kind->opcodes + kind->opcode_count; op++)
		if (op->code == code && (op->action == NO_ACTION || op->action == action) && is_supported(c, op))
			return op;
	return NULL;
}

static bool has_actions(const struct scsi_command *c, uint8_t code)
{
	const struct scsi_kind *kind = c->target->kind;

	for (unsigned n = 0; n < kind->opcode_count; n++)
		if (kind->opcodes[n].code == code && kind->opcodes[n].action != NO_ACTION)
			return true;
	return false;
}

static void report_one(struct scsi_command *c, bool timeouts)
{
	const struct scsi_opcode *op = look_up(c, c->cdb[3], load_be16(c->cdb + 4));
	uint8_t data[4 + SCSI_CDB_SIZE + TIMEOUTS_SIZE] = { 0, op ? 3 : 1 };
	size_t size = 4;

	if (op) {
		store_be16(data + 2, op->size);
		size += put_usage(data + size, op);
	}
	if (op && timeouts) {
		data[1] |= 0x80;
		size += put_timeouts(data + size);
	}
	scsi_reply(c, data, size, load_be32(c->cdb + 6));
}

void scsi_report_opcodes(struct scsi_command *c)
{
	bool timeouts = c->cdb[2] & 0x80, actions = has_actions(c, c->cdb[3]);

	switch (c->cdb[2] & 7) {
	case 0: report_all(c, timeouts); return;
	case 1:
		if (!actions) {
			c->cdb[4] = c->cdb[5] = 0;
			report_one(c, timeouts);
			return;
		}
		break;
	case 2:
		if (!actions)
			break;
		report_one(c, timeouts);
		return;
	case 3: report_one(c, timeouts); return;
	default: break;
	}
	scsi_fail_field(c, SENSE_INVALID_FIELD, 2, 2);
}

/* ---- mode parameters ---- */

#define ALL_PAGES      0x3f
#define MODE_DATA_MOST 256u
#define DESCRIPTOR     8u /* of blocks, short */

enum page_control { CURRENT, CHANGEABLE, DEFAULT, SAVED };

static unsigned put_page(const struct scsi_target *t, const struct scsi_mode_page *page, enum page_control control,
			 uint8_t *to)
{
	struct scsi_target values = *t;

	if (control == DEFAULT) {
		values.cached = 1;
		values.descriptors = 0;
	}
	memset(to, 0, 2u + page->size);
	to[0] = page->code;
	to[1] = page->size;
	if (control != CHANGEABLE)
		page->get(&values, to + 2);
	else if (page->changeable)
		memcpy(to + 2, page->changeable, page->size);
	return 2u + page->size;
}

/* Of a direct access device: a disk's. */
static unsigned put_block_descriptor(const struct scsi_target *t, uint8_t *to)
{
	store_be32(to, (uint32_t)MIN(t->blocks, UINT32_MAX));
	store_be32(to + 4, t->block_size);
	return DESCRIPTOR;
}

static bool is_disk(const struct scsi_target *t) { return !t->kind->removable; }

static uint8_t device_specific(const struct scsi_target *t)
{
	return is_disk(t) ? (t->info->readonly ? 0x80 : 0) | 0x10 : 0; /* WP, DPOFUA */
}

static unsigned put_pages(const struct scsi_target *t, unsigned code, enum page_control control, uint8_t *to)
{
	unsigned size = 0;

	for (unsigned n = 0; n < t->kind->page_count; n++)
		if (code == ALL_PAGES || code == t->kind->pages[n].code)
			size += put_page(t, &t->kind->pages[n], control, to + size);
	return size;
}

void scsi_mode_sense(struct scsi_command *c)
{
	const struct scsi_target *t = c->target;
	bool longer = c->cdb[0] == 0x5a, no_descriptor = c->cdb[1] & 8;
	unsigned code = c->cdb[2] & 0x3f, control = c->cdb[2] >> 6, header = longer ? 8 : 4, size = header, pages;
	uint8_t data[MODE_DATA_MOST] = { 0 };

	if (control == SAVED) {
		scsi_fail(c, SENSE_NO_SAVED_PARAMETERS);
		return;
	}
	if (!no_descriptor && is_disk(t))
		size += put_block_descriptor(t, data + header);
	pages = put_pages(t, code, control, data + size);
	if (!pages || (c->cdb[3] && !(code == ALL_PAGES && c->cdb[3] == 0xff))) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, pages ? 3 : 2, pages ? -1 : 5);
		return;
	}
	if (longer) {
		store_be16(data, (uint16_t)(size + pages - 2));
		data[3] = device_specific(t);
		store_be16(data + 6, (uint16_t)(size - header));
	} else {
		data[0] = (uint8_t)(size + pages - 1);
		data[2] = device_specific(t);
		data[3] = (uint8_t)(size - header);
	}
	scsi_reply(c, data, size + pages, longer ? load_be16(c->cdb + 7) : c->cdb[4]);
}

static bool wrong_parameter(struct scsi_command *c, unsigned byte, int bit)
{
	scsi_fail_field(c, SENSE_INVALID_PARAMETER, byte, bit);
	return false;
}

/* How far the pages are from the beginning; 0: it has failed. */
static unsigned check_header(struct scsi_command *c, const uint8_t *list, unsigned length)
{
	bool longer = c->cdb[0] == 0x55;
	unsigned header = longer ? 8 : 4, descriptor;
	uint8_t expected[DESCRIPTOR];

	if (length < header) {
		scsi_fail(c, SENSE_LIST_LENGTH);
		return 0;
	}
	descriptor = longer ? load_be16(list + 6) : list[3];
	if (!descriptor)
		return header;
	if (descriptor != DESCRIPTOR || !is_disk(c->target)) {
		wrong_parameter(c, longer ? 6 : 3, -1);
		return 0;
	}
	if (length < header + DESCRIPTOR) {
		scsi_fail(c, SENSE_LIST_LENGTH);
		return 0;
	}
	/* As many blocks as there are, or 0, which means that; of their size. */
	put_block_descriptor(c->target, expected);
	if ((load_be32(list + header) && memcmp(list + header, expected, 4) != 0) ||
	    memcmp(list + header + 5, expected + 5, 3) != 0) {
		wrong_parameter(c, header, -1);
		return 0;
	}
	return header + DESCRIPTOR;
}

/* Nothing but what may be changed differs. */
static bool check_page(struct scsi_command *c, const struct scsi_mode_page *page, const uint8_t *list, unsigned at)
{
	uint8_t now[MODE_DATA_MOST];

	put_page(c->target, page, CURRENT, now);
	for (unsigned n = 2; n < 2u + page->size; n++) {
		unsigned differs = (now[n] ^ list[at + n]) & ~(page->changeable ? page->changeable[n - 2] : 0u);

		if (differs)
			return wrong_parameter(c, at + n, 31 - __builtin_clz(differs));
	}
	return true;
}

static const struct scsi_mode_page *find_page(const struct scsi_target *t, uint8_t code)
{
	for (unsigned n = 0; n < t->kind->page_count; n++)
		if (t->kind->pages[n].code == code)
			return &t->kind->pages[n];
	return NULL;
}

static bool check_pages(struct scsi_command *c, const uint8_t *list, unsigned at, unsigned length)
{
	while (at < length) {
		const struct scsi_mode_page *page = find_page(c->target, list[at]);

		if (!page)
			return wrong_parameter(c, at, -1);
		if (length - at < 2u + page->size) {
			scsi_fail(c, SENSE_LIST_LENGTH);
			return false;
		}
		if (list[at + 1] != page->size)
			return wrong_parameter(c, at + 1, -1);
		if (!check_page(c, page, list, at))
			return false;
		at += 2u + page->size;
	}
	return true;
}

void scsi_mode_select(struct scsi_command *c)
{
	unsigned length = c->cdb[0] == 0x55 ? load_be16(c->cdb + 7) : c->cdb[4], at;
	uint8_t list[MODE_DATA_MOST];

	/* Pages as in the standard (PF), and nothing to be kept (SP). */
	if ((c->cdb[1] & 0x11) != 0x10) {
		scsi_fail_field(c, SENSE_INVALID_FIELD, 1, c->cdb[1] & 1 ? 0 : 4);
		return;
	}
	if (!length)
		return;
	if (length > sizeof(list)) {
		scsi_fail(c, SENSE_LIST_LENGTH);
		return;
	}
	if (!scsi_fetch(c, 0, list, length))
		return;
	at = check_header(c, list, length);
	if (!at || !check_pages(c, list, at, length))
		return;
	while (at < length) {
		const struct scsi_mode_page *page = find_page(c->target, list[at]);

		if (page->set)
			page->set(c->target, list + at + 2);
		at += 2u + page->size;
	}
}
