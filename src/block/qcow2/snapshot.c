/*
 * Snapshots inside of an image: listed, and their tables found. doppel makes none and changes none.
 */
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdlib.h>

#define FIXED	  40   /* bytes of an entry before its extra data */
#define ENTRY_MAX 4096 /* of extra data, id and name together */

/* The entry at *offset, which goes behind it. */
static int read_entry(struct file *file, uint64_t *offset, struct qcow2_snapshot *s)
{
	uint8_t fixed[FIXED], rest[ENTRY_MAX];
	uint64_t extra, id, name;
	int rc = file_read_bytes(file, *offset, fixed, sizeof(fixed));

	if (rc)
		return rc;
	id = load_be16(fixed + 12);
	name = load_be16(fixed + 14);
	extra = load_be32(fixed + 36);
	if (!load_be64(fixed) || extra + id + name > ENTRY_MAX)
		return -EINVAL;
	rc = file_read_bytes(file, *offset + FIXED, rest, extra + id + name);
	if (rc)
		return rc;
	*s = (struct qcow2_snapshot){
		.l1_offset = load_be64(fixed),
		.l1_size = load_be32(fixed + 8),
		.seconds = load_be32(fixed + 16),
		.state_size = extra >= 8 ? load_be64(rest) : load_be32(fixed + 32),
		.disk_size = extra >= 16 ? load_be64(rest + 8) : 0,
	};
	snprintf(s->id, sizeof(s->id), "%.*s", (int)MIN(id, sizeof(s->id) - 1), (const char *)rest + extra);
	snprintf(s->name, sizeof(s->name), "%.*s", (int)MIN(name, sizeof(s->name) - 1),
		 (const char *)rest + extra + id);
	*offset += align_up(FIXED + extra + id + name, 8);
	return 0;
}

static bool is_possible(struct file *file, const struct qcow2_header *h, const struct qcow2_snapshot *s)
{
	uint64_t end = align_up(MIN(atomic_load(&file->size), (uint64_t)INT64_MAX), BIT(h->cluster_bits));

	return s->l1_size <= L1_MAX / 8 && !(s->l1_offset & (BIT(h->cluster_bits) - 1)) &&
	       range_ok(s->l1_offset, s->l1_size * 8ull, end);
}

int qcow2_snapshots(struct file *file, const struct qcow2_header *h, struct error *err,
		    int (*fn)(void *opaque, const struct qcow2_snapshot *, struct error *), void *opaque)
{
	uint64_t offset = h->snapshot_offset;
	struct qcow2_snapshot s;

	for (uint32_t n = 0; n < h->snapshot_count; n++) {
		int rc = read_entry(file, &offset, &s);

		if (rc && rc != -EINVAL)
			return error_set_errno(err, -rc, "cannot read the snapshots of '%s'", file->path);
		if (rc || !is_possible(file, h, &s))
			return error_set(err, EINVAL, "'%s' is damaged: its snapshot %u makes no sense", file->path,
					 n + 1);
		rc = fn(opaque, &s, err);
		if (rc)
			return rc;
	}
	return 0;
}

uint64_t qcow2_snapshot_table_size(struct file *file, const struct qcow2_header *h)
{
	uint64_t offset = h->snapshot_offset;
	struct qcow2_snapshot s;

	for (uint32_t n = 0; n < h->snapshot_count; n++)
		if (read_entry(file, &offset, &s))
			break;
	return offset - h->snapshot_offset;
}
