/*
 * virtio-9p (virtio 1.2, 5.9 names it; the layout is Linux' virtio_9p.h): a folder of the host's, served by share/. What does not keep a vCPU waiting for a disk is done
 * where the driver kicks, all else by a thread. A share serves one request at a time, in their order: while the thread has some, it gets them all. Under virtual time
 * everything is done where the driver kicks.
 */
#include "devices/virtio/fs.h"

#include "share/share.h"
#include "vhost/vhost.h"

#include <errno.h>
#include <stdlib.h>

#define QUEUE_SIZE  128
#define TAG_SIZE    32u /* bytes */
#define SHARES_MOST 8

#define F_MOUNT_TAG BIT(0)

#define SHARE_STATE(_, T) _(T, uint32_t, fids, 1, 1, 0, UINT32_MAX) /* that the driver had when the machine was saved */

/* clang-format off */
#define SHARE_OPTIONS(_, T)                                                                                            \
	_(T, TEXT, folder, 0, 0, NULL, "the folder, or vhost-user:PATH: virtio-fs")                                    \
	_(T, TEXT, tag, 0, 0, NULL, "what the guest mounts; by default the folder's name, at most 32 bytes")           \
	_(T, SWITCH, readonly, 0, 0, "off", "the guest cannot change anything in it")                                  \
	_(T, TEXT, security, 0, 0, "none", "files are the user's; mapped: owner and mode are in attributes")           \
	VIRTIO_OPTIONS(_, T)
/* clang-format on */

struct virtio_9p_options {
	DEVICE_OPTION_FIELDS(SHARE_OPTIONS)
};

struct work {
	struct list node;
	struct virtio_chain chain;
	struct iovec pieces[];
};

struct virtio_9p {
	struct virtio_device virtio;
	STATE_FIELDS(SHARE_STATE)
	struct share *share; /* of who has the queue's lock, while there is no work; else the thread's */
	bool in_line;	     /* virtual time */
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock; /* what follows; taken with the queue's held */
	pthread_cond_t some, none;
	struct list work;
	unsigned left; /* in the list, and in the thread's hand */
	bool stops;
};

static struct virtio_9p *of(struct virtio_device *v) { return (struct virtio_9p *)v; }

/* ---- one request ---- */

static struct share_message message_of(const struct virtio_chain *c)
{
	return (struct share_message){ c->out, c->in, c->out_count, c->in_count, c->out_size, c->in_size };
}

/* Under the queue's lock. */
static void finish(struct virtio_queue *q, const struct virtio_chain *c, int rc, size_t written)
{
	if (rc) {
		virtio_break(q->virtio, "a request without a header, or without room for a reply");
		virtqueue_drop(q);
	} else {
		virtqueue_push(q, c, written);
	}
}

/* ---- the thread ---- */

static struct work *next_work(struct virtio_9p *p)
{
	struct work *work = NULL;

	pthread_mutex_lock(&p->lock);
	while (list_empty(&p->work) && !p->stops)
		pthread_cond_wait(&p->some, &p->lock);
	if (!list_empty(&p->work)) {
		work = list_entry(p->work.next, struct work, node);
		list_remove(&work->node);
	}
	pthread_mutex_unlock(&p->lock);
	return work;
}

static void one_less(struct virtio_9p *p)
{
	pthread_mutex_lock(&p->lock);
	if (!--p->left)
		pthread_cond_broadcast(&p->none);
	pthread_mutex_unlock(&p->lock);
}

static void *serve_work(void *opaque)
{
	struct virtio_9p *p = opaque;
	struct virtio_queue *q = &p->virtio.queues[0];
	struct work *work;

	while ((work = next_work(p))) {
		struct share_message m = message_of(&work->chain);
		size_t written = 0;
		int rc = share_serve(p->share, &m, true, &written);

		lock_take(&q->lock);
		finish(q, &work->chain, rc, written);
		virtqueue_publish(q);
		lock_drop(&q->lock);
		free(work);
		one_less(p);
	}
	return NULL;
}

static bool is_idle(struct virtio_9p *p)
{
	bool idle;

	pthread_mutex_lock(&p->lock);
	idle = !p->left;
	pthread_mutex_unlock(&p->lock);
	return idle;
}

/* False: there is no memory for one more. */
static bool hand_over(struct virtio_9p *p, const struct virtio_chain *c)
{
	struct work *work = malloc(sizeof(*work) + virtio_chain_pieces(c) * sizeof(work->pieces[0]));

	if (!work)
		return false;
	virtio_chain_copy(&work->chain, c, work->pieces);
	pthread_mutex_lock(&p->lock);
	list_append(&p->work, &work->node);
	p->left++;
	pthread_cond_signal(&p->some);
	pthread_mutex_unlock(&p->lock);
	return true;
}

/* ---- the queue ---- */

static void serve(struct virtio_queue *q, const struct virtio_chain *c)
{
	struct virtio_9p *p = of(q->virtio);
	struct share_message m = message_of(c);
	size_t written = 0;
	int rc = is_idle(p) ? share_serve(p->share, &m, p->in_line, &written) : -EAGAIN;

	if (rc == -EAGAIN) {
		if (hand_over(p, c))
			return;
		rc = share_refuse(&m, ENOMEM, &written);
	}
	finish(q, c, rc, written);
}

static void kick(struct virtio_queue *q) { virtqueue_serve(q, serve); }

/* ---- the machine's ---- */

static void p9_pause(struct virtio_device *v)
{
	struct virtio_9p *p = of(v);

	pthread_mutex_lock(&p->lock);
	while (p->left)
		pthread_cond_wait(&p->none, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

/* All chains are pushed: the thread no longer has the share, or is about to say so. */
static void p9_reset(struct virtio_device *v)
{
	p9_pause(v);
	share_reset(of(v)->share);
}

static void p9_saving(const void *object)
{
	struct virtio_9p *p = (struct virtio_9p *)object;

	p->fids = share_fid_count(p->share);
	virtio_saving(object);
}

/* What a guest has open is descriptors of the process that it ran in. */
static int p9_loaded(void *object, uint16_t version, struct error *err)
{
	const struct virtio_9p *p = object;

	if (p->fids)
		return error_set(err, EINVAL,
				 "virtio-9p: the guest had mounted the share when it was saved (%u files); expected "
				 "one that had unmounted it before",
				 p->fids);
	return virtio_loaded(object, version, err);
}

/* ---- life ---- */

static void p9_destroy(struct device *device)
{
	struct virtio_9p *p = (struct virtio_9p *)device;

	if (p->has_thread) {
		pthread_mutex_lock(&p->lock);
		p->stops = true;
		pthread_cond_signal(&p->some);
		pthread_mutex_unlock(&p->lock);
		pthread_join(p->thread, NULL);
	}
	share_close(p->share);
	pthread_cond_destroy(&p->some);
	pthread_cond_destroy(&p->none);
	pthread_mutex_destroy(&p->lock);
	virtio_fini(&p->virtio);
	free(p);
}

#define SHARE_ALL_STATE(_, T)                                                                                          \
	VIRTIO_STATE(_, T)                                                                                             \
	SHARE_STATE(_, T)
STATE_DESC(p9_state_desc, "virtio-9p", 1, struct virtio_9p, SHARE_ALL_STATE, .loaded = p9_loaded, .saving = p9_saving);

static const struct device_ops p9_device_ops = { .state = &p9_state_desc, VIRTIO_DEVICE_OPS, .destroy = p9_destroy };
static const struct virtio_ops p9_ops = {
	.id = VIRTIO_ID_9P,
	.pci_name = "virtio-9p-pci",
	.pci_class = 0x00ff0000,
	.reset = p9_reset,
	.pause = p9_pause,
};

static int parse_security(const char *name, enum share_security *security, struct error *err)
{
	*security = strcmp(name, "mapped") ? SHARE_SECURITY_NONE : SHARE_SECURITY_MAPPED;
	if (*security == SHARE_SECURITY_NONE && strcmp(name, "none") != 0)
		return error_set(err, EINVAL, "virtio-9p: option 'security' is '%.64s'; expected none or mapped", name);
	return 0;
}

/* The last name of the folder's path. Of "/", "." and "..", which have none, it is "share". */
static void tag_of(const char *folder, char tag[TAG_SIZE + 1])
{
	size_t end = strlen(folder), start;

	while (end && folder[end - 1] == '/')
		end--;
	for (start = end; start && folder[start - 1] != '/'; start--)
		;
	snprintf(tag, TAG_SIZE + 1, "%.*s", (int)MIN(end - start, TAG_SIZE), folder + start);
	if (!*tag || !strcmp(tag, ".") || !strcmp(tag, ".."))
		strcpy(tag, "share");
}

static int set_tag(struct virtio_9p *p, const struct virtio_9p_options *o, struct error *err)
{
	char tag[TAG_SIZE + 1];
	size_t length;

	if (!o->folder || !*o->folder)
		return error_set(err, EINVAL, "virtio-9p: option 'folder' is not given; expected a folder");
	if (o->tag && (!*o->tag || strlen(o->tag) > TAG_SIZE))
		return error_set(err, EINVAL, "virtio-9p: option 'tag' is '%.64s'; expected 1 to %u bytes", o->tag,
				 TAG_SIZE);
	if (o->tag)
		strcpy(tag, o->tag);
	else
		tag_of(o->folder, tag);
	length = strlen(tag);
	store_le16(p->virtio.config, (uint16_t)length);
	memcpy(p->virtio.config + 2, tag, length);
	p->virtio.config_size = (unsigned)(2 + length);
	p->virtio.offered |= F_MOUNT_TAG;
	return 0;
}

static int open_share(struct virtio_9p *p, const struct virtio_9p_options *o, struct error *err)
{
	struct share_options options = { .folder = o->folder, .readonly = o->readonly };
	int rc = set_tag(p, o, err);

	if (!rc)
		rc = parse_security(o->security, &options.security, err);
	if (rc)
		return rc;
	p->share = share_open(&options, err);
	return p->share ? 0 : err ? -err->code : -EINVAL;
}

/* What there is to choose about the folder is the back end's to know, but for the tag. */
static int create_fs(struct bus *bus, const char *back_end, const struct virtio_9p_options *o, struct error *err)
{
	const char *name = o->readonly ? "readonly" : strcmp(o->security, "none") ? "security" : NULL;

	if (name)
		return error_set(err, EINVAL, "virtio-9p: option '%s' is for a folder; expected none with '%s'", name,
				 o->folder);
	if (!o->tag || !*o->tag || strlen(o->tag) > FS_TAG_SIZE)
		return error_set(
			err, EINVAL,
			"virtio-9p: option 'tag' is '%.64s'; expected 1 to %u bytes with a vhost-user back end",
			o->tag ? o->tag : "", FS_TAG_SIZE);
	return fs_create(bus, back_end, o->tag, err);
}

static int p9_create(struct bus *bus, const void *options, struct error *err)
{
	const struct virtio_9p_options *o = options;
	const char *back_end = o->folder ? vhost_path(o->folder) : NULL;
	struct virtio_9p *p;
	int rc;

	if (back_end)
		return create_fs(bus, back_end, o, err);
	p = calloc(1, sizeof(*p));
	if (!p)
		return error_set_errno(err, ENOMEM, "virtio-9p");
	virtio_init(&p->virtio, bus, "virtio-9p", &p9_device_ops, &p9_ops);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->some, NULL);
	pthread_cond_init(&p->none, NULL);
	list_init(&p->work);
	p->in_line = clock_kind(bus->clock) == CLOCK_VIRTUAL;
	rc = open_share(p, o, err);
	if (!rc)
		rc = virtio_add_queue(&p->virtio, QUEUE_SIZE, kick, err);
	if (!rc)
		rc = host_thread_create(&p->thread, "share", serve_work, p, err);
	if (rc)
		return rc;
	p->has_thread = true;
	return virtio_plug(&p->virtio, VIRTIO_OPTIONS_OF(o), err);
}

const struct device_type virtio_9p_type = {
	.name = "virtio-9p",
	.help = "a folder of the host's",
	.most = SHARES_MOST,
	DEVICE_OPTIONS(SHARE_OPTIONS, struct virtio_9p_options),
	.short_form = { .name = "--share",
			.option = "folder",
			.options_follow = true,
			.argument = "DIR[,...]",
			.help = "a folder of the host's (virtio-9p), with OPTION=VALUE as for --device; again for "
				"more" },
	.create = p9_create,
};
