/*
 * The map of physical addresses: memories, the layers that show them, and what the layers come to: a flat list, looked up without a lock.
 *
 * There are two lists. mem_commit() makes the one that nobody looks into what the layers say, with all vCPUs stopped, and lets it take the other's
 * place. Threads that are no vCPU count themselves while they look (mem.c), and are waited for.
 */
#include "mem/private.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

/* A page of a memory at a multiple of this much may be at an address that is one too. */
#define ALIGN_PAGES 512u

/* ---- memories ---- */

/* Numbers for so many pages that nobody has; UINT64_MAX: there are none. */
static uint64_t free_numbers(const struct guest_mem *mem, uint64_t count)
{
	uint64_t first = 0;
	const struct memory *other;

	list_for_each (other, &mem->memories, node) {
		uint64_t end = align_up(other->first + (other->file.size >> PAGE_SHIFT), ALIGN_PAGES);

		if (other->first >= first && other->first - first >= count)
			break;
		first = MAX(first, end);
	}
	return range_ok(first, count, mem->page_count) ? first : UINT64_MAX;
}

static bool has_instance(const struct guest_mem *mem, const char *name, unsigned instance)
{
	const struct memory *other;

	list_for_each (other, &mem->memories, node)
		if (other->instance == instance && !strcmp(other->name, name))
			return true;
	return false;
}

static unsigned free_instance(const struct guest_mem *mem, const char *name)
{
	unsigned instance = 0;

	while (has_instance(mem, name, instance))
		instance++;
	return instance;
}

/* Sorted by number. */
static void insert_memory(struct guest_mem *mem, struct memory *memory)
{
	struct memory *other;

	list_for_each (other, &mem->memories, node)
		if (other->first > memory->first)
			break;
	list_insert_before(&other->node, &memory->node);
}

static int name_memory(struct guest_mem *mem, struct memory *memory, enum memory_kind kind, const char *name,
		       uint64_t size, struct error *err)
{
	if (!size || size & (PAGE_SIZE - 1))
		return error_set(err, EINVAL, "memory '%s' of %" PRIu64 " bytes: expected whole pages of %u bytes",
				 name, size, PAGE_SIZE);
	memory->kind = kind;
	snprintf(memory->name, sizeof(memory->name), "%s", name);
	memory->instance = free_instance(mem, memory->name);
	memory->first = free_numbers(mem, size >> PAGE_SHIFT);
	if (memory->first == UINT64_MAX)
		return error_set(err, ENOSPC, "memory '%s' of %" PRIu64 " KiB: devices have %" PRIu64 " MiB in all",
				 name, size >> 10, (uint64_t)MEM_MAX_OTHER >> 20);
	return 0;
}

int memory_init(struct guest_mem *mem, struct memory *memory, enum memory_kind kind, const char *name, uint64_t size,
		struct error *err)
{
	int rc = name_memory(mem, memory, kind, name, size, err);

	if (!rc)
		rc = host_memory_create(&memory->file, name, size, err);
	if (!rc)
		insert_memory(mem, memory);
	return rc;
}

/* Files may be large: what is known of each page counts. */
static int open_memory(struct guest_mem *mem, struct memory *memory, int fd, uint64_t size, struct error *err)
{
	uint64_t records = overhead_of_pages(size);
	int rc;

	if (!overhead_take(&mem->overhead, OVERHEAD_PAGES, records))
		return error_set(err, ENOMEM,
				 "records of %" PRIu64 " MiB take %" PRIu64
				 " MiB beyond the guest's memory; --overhead says "
				 "how much may be taken",
				 size >> 20, (records >> 20) + 1);
	rc = host_memory_open(&memory->file, memory->name, fd, size, memory->kind == MEMORY_KIND_ROM, err);
	if (rc) {
		overhead_give(&mem->overhead, OVERHEAD_PAGES, records);
		return rc;
	}
	memory->records = records;
	insert_memory(mem, memory);
	return 0;
}

void memory_fini(struct guest_mem *mem, struct memory *memory)
{
	struct mem_page *page = &mem->pages[memory->first], *end = page + (memory->file.size >> PAGE_SHIFT);

	/* A generation is never used again. */
	for (; page < end; page++) {
		atomic_store(&page->code_chunks, 0);
		atomic_store(&page->direct, 0);
	}
	origin_forget(mem, memory);
	overhead_give(&mem->overhead, OVERHEAD_PAGES, memory->records);
	list_remove(&memory->node);
	host_memory_destroy(&memory->file);
}

struct memory *memory_create(struct guest_mem *mem, enum memory_kind kind, const char *name, uint64_t size,
			     struct error *err)
{
	struct memory *memory = calloc(1, sizeof(*memory));

	if (!memory) {
		error_set_errno(err, ENOMEM, "memory '%s'", name);
		return NULL;
	}
	if (memory_init(mem, memory, kind, name, size, err)) {
		free(memory);
		return NULL;
	}
	return memory;
}

struct memory *memory_create_of(struct guest_mem *mem, enum memory_kind kind, const char *name, int fd, uint64_t size,
				struct error *err)
{
	struct memory *memory = calloc(1, sizeof(*memory));

	if (!memory) {
		error_set_errno(err, ENOMEM, "memory '%s'", name);
		return NULL;
	}
	if (name_memory(mem, memory, kind, name, size, err) || open_memory(mem, memory, fd, size, err)) {
		free(memory);
		return NULL;
	}
	return memory;
}

void memory_destroy(struct guest_mem *mem, struct memory *memory)
{
	if (!memory)
		return;
	memory_fini(mem, memory);
	free(memory);
}

struct memory *mem_memory_of(struct guest_mem *mem, uint64_t page)
{
	struct memory *memory;

	list_for_each (memory, &mem->memories, node)
		if (page - memory->first < memory->file.size >> PAGE_SHIFT)
			return memory;
	return NULL;
}

/* ---- layers ---- */

int mem_layer_add(struct guest_mem *mem, struct mem_layer *layer, struct error *err)
{
	struct mem_layer *other;

	if (!layer->size || (layer->start | layer->size | layer->offset) & (PAGE_SIZE - 1) ||
	    !range_ok(layer->start, layer->size, UINT64_MAX) ||
	    (layer->memory && !range_ok(layer->offset, layer->size, layer->memory->file.size)))
		return error_set(err, EINVAL,
				 "memory of 0x%" PRIx64 " bytes at 0x%" PRIx64 ": not whole pages that there are",
				 layer->size, layer->start);
	pthread_mutex_lock(&mem->layers_lock);
	if (mem->layer_count == MEM_MAX_LAYERS) {
		pthread_mutex_unlock(&mem->layers_lock);
		return error_set(err, ENOSPC, "memory at 0x%" PRIx64 ": there are %d already", layer->start,
				 MEM_MAX_LAYERS);
	}
	/* From the bottom up. */
	list_for_each (other, &mem->layers, node)
		if (other->priority > layer->priority)
			break;
	list_insert_before(&other->node, &layer->node);
	mem->layer_count++;
	layer->added = true;
	atomic_store(&mem->stale, true);
	pthread_mutex_unlock(&mem->layers_lock);
	return 0;
}

void mem_layer_set(struct guest_mem *mem, struct mem_layer *layer, uint64_t start, bool reads, bool writes)
{
	BUG_ON(start & (PAGE_SIZE - 1) || !range_ok(start, layer->size, UINT64_MAX));
	pthread_mutex_lock(&mem->layers_lock);
	if (layer->start != start || layer->reads != reads || layer->writes != writes) {
		layer->start = start;
		layer->reads = reads;
		layer->writes = writes;
		if (layer->added)
			atomic_store(&mem->stale, true);
	}
	pthread_mutex_unlock(&mem->layers_lock);
}

void mem_layer_remove(struct guest_mem *mem, struct mem_layer *layer)
{
	pthread_mutex_lock(&mem->layers_lock);
	if (layer->added) {
		list_remove(&layer->node);
		mem->layer_count--;
		layer->added = false;
		atomic_store(&mem->stale, true);
	}
	pthread_mutex_unlock(&mem->layers_lock);
}

uint64_t mem_top(struct guest_mem *mem)
{
	const struct mem_layer *layer;
	uint64_t top = 0;

	pthread_mutex_lock(&mem->layers_lock);
	list_for_each (layer, &mem->layers, node)
		top = MAX(top, layer->start + layer->size);
	pthread_mutex_unlock(&mem->layers_lock);
	return top;
}

/* ---- the flat list ---- */

static int compare_edges(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* All starts and ends, sorted. */
static unsigned find_edges(const struct guest_mem *mem, uint64_t edges[2 * MEM_MAX_LAYERS])
{
	const struct mem_layer *layer;
	unsigned count = 0;

	list_for_each (layer, &mem->layers, node) {
		edges[count++] = layer->start;
		edges[count++] = layer->start + layer->size;
	}
	qsort(edges, count, sizeof(*edges), compare_edges);
	return count;
}

static const struct mem_layer *top_layer(const struct guest_mem *mem, uint64_t at, bool write)
{
	const struct mem_layer *layer, *top = NULL;

	list_for_each (layer, &mem->layers, node)
		if (at - layer->start < layer->size && (write ? layer->writes : layer->reads))
			top = layer;
	return top && top->memory ? top : NULL;
}

/* Between two edges that follow each other. */
static struct mem_region region_between(const struct guest_mem *mem, uint64_t start, uint64_t end)
{
	const struct mem_layer *read = top_layer(mem, start, false), *write = top_layer(mem, start, true);
	struct mem_region region = { .start = start, .size = end - start };

	if (read) {
		uint64_t offset = read->offset + (start - read->start);

		region.host = read->memory->file.base + offset;
		region.pages = &mem->pages[read->memory->first + (offset >> PAGE_SHIFT)];
	}
	if (write && write->memory->kind != MEMORY_KIND_ROM) {
		uint64_t offset = write->offset + (start - write->start);

		region.write_host = write->memory->file.base + offset;
		region.write_pages = &mem->pages[write->memory->first + (offset >> PAGE_SHIFT)];
	}
	region.writable = region.host && region.host == region.write_host;
	region.write_bus = region.host && !write;
	return region;
}

static bool goes_on(const uint8_t *a, const uint8_t *b, uint64_t size) { return a ? b == a + size : !b; }

/* Is b behind a, and more of the same? */
static bool continues(const struct mem_region *a, const struct mem_region *b)
{
	return b->start == a->start + a->size && a->write_bus == b->write_bus && goes_on(a->host, b->host, a->size) &&
	       goes_on(a->write_host, b->write_host, a->size) &&
	       (!a->pages || b->pages == a->pages + (a->size >> PAGE_SHIFT)) &&
	       (!a->write_pages || b->write_pages == a->write_pages + (a->size >> PAGE_SHIFT));
}

static void flatten(const struct guest_mem *mem, struct mem_map *map)
{
	uint64_t edges[2 * MEM_MAX_LAYERS];
	unsigned count = find_edges(mem, edges);

	map->count = 0;
	for (unsigned n = 0; n + 1 < count; n++) {
		struct mem_region region, *last = map->count ? &map->regions[map->count - 1] : NULL;

		if (edges[n] == edges[n + 1])
			continue;
		region = region_between(mem, edges[n], edges[n + 1]);
		if (!region.host && !region.write_host)
			continue;
		if (last && continues(last, &region))
			last->size += region.size;
		else
			map->regions[map->count++] = region;
	}
}

/* The region that holds the address or, if there is none, the first one behind it; or the end. */
static const struct mem_region *find_from(const struct mem_map *map, uint64_t at)
{
	unsigned low = 0, high = map->count;

	while (low < high) {
		unsigned middle = (low + high) / 2;
		const struct mem_region *region = &map->regions[middle];

		if (region->start + region->size - 1 < at)
			low = middle + 1;
		else
			high = middle;
	}
	return &map->regions[low];
}

/* What an address shows, on both sides. */
static bool fetch_page(const struct guest_mem *mem, const struct mem_region *region, gpa_t addr)
{
	struct guest_mem *changed = (struct guest_mem *)mem; /* nothing that the caller sees */
	uint64_t n = (addr.v - region->start) >> PAGE_SHIFT;

	return (!region->pages || origin_fetch(changed, &region->pages[n])) &&
	       (!region->write_pages || region->writable || origin_fetch(changed, &region->write_pages[n]));
}

const struct mem_region *mem_find(const struct guest_mem *mem, gpa_t addr)
{
	const struct mem_map *map = atomic_load_explicit(&mem->map, memory_order_acquire);
	const struct mem_region *region = find_from(map, addr.v);

	if (region == map->regions + map->count || region->start > addr.v)
		return NULL;
	return !mem_has_origins(mem) || fetch_page(mem, region, addr) ? region : NULL;
}

uint8_t *mem_map(struct guest_mem *mem, gpa_t addr, size_t len, bool write)
{
	const struct mem_region *region = mem_find(mem, addr);

	if (!region || !region->host || (write && !region->writable) ||
	    !range_ok(addr.v - region->start, len, region->size))
		return NULL;
	for (uint64_t at = (addr.v | (PAGE_SIZE - 1)) + 1; mem_has_origins(mem) && at - addr.v < len; at += PAGE_SIZE)
		if (!fetch_page(mem, region, gpa(at)))
			return NULL;
	return region->host + (addr.v - region->start);
}

struct mem_page *mem_page(struct guest_mem *mem, gpa_t addr)
{
	const struct mem_region *region = mem_find(mem, addr);

	return region && region->pages ? &region->pages[(addr.v - region->start) >> PAGE_SHIFT] : NULL;
}

/* ---- changing it ---- */

/* The region at an address as it goes on from there, up to `end` at most; without host addresses where there is none. */
static struct mem_region rest_of(const struct mem_map *map, uint64_t at, uint64_t end)
{
	const struct mem_region *region = find_from(map, at);
	struct mem_region rest = { .start = at, .size = end - at };
	uint64_t offset;

	if (region == map->regions + map->count)
		return rest;
	if (region->start > at) {
		rest.size = MIN(rest.size, region->start - at);
		return rest;
	}
	offset = at - region->start;
	rest.size = MIN(rest.size, region->size - offset);
	rest.host = region->host ? region->host + offset : NULL;
	rest.pages = region->pages ? region->pages + (offset >> PAGE_SHIFT) : NULL;
	rest.write_host = region->write_host ? region->write_host + offset : NULL;
	return rest;
}

/* The first range from `at` on in which two maps differ, and in which each is one region. False: there is none. */
static bool next_difference(const struct mem_map *a, const struct mem_map *b, uint64_t at, struct mem_region *was)
{
	while (at < UINT64_MAX) {
		struct mem_region x = rest_of(a, at, UINT64_MAX), y = rest_of(b, at, UINT64_MAX);

		x.size = MIN(x.size, y.size);
		if (x.host != y.host || x.write_host != y.write_host || x.pages != y.pages) {
			*was = x;
			return true;
		}
		at += x.size;
	}
	return false;
}

/* What engines have from there. Where nothing was they may have decoded what a bus without anybody answers. */
static void forget_code(struct guest_mem *mem, const struct mem_region *was)
{
	for (uint64_t n = 0; n < was->size >> PAGE_SHIFT; n++) {
		gpa_t at = gpa(was->start + (n << PAGE_SHIFT));

		if (was->pages)
			code_forget(mem, &was->pages[n], at, PAGE_SIZE);
		else if (mem->code_changed)
			mem->code_changed(mem->code_changed_opaque, at, PAGE_SIZE);
	}
}

static void announce(struct guest_mem *mem, const struct mem_map *next)
{
	const struct mem_map *now = atomic_load(&mem->map);
	struct mem_listener *listener;
	struct mem_region was;

	for (uint64_t at = 0; next_difference(now, next, at, &was); at = was.start + was.size) {
		list_for_each (listener, &mem->listeners, node)
			if (listener->changes)
				listener->changes(listener->opaque, was.start, was.size);
		forget_code(mem, &was);
	}
}

static void report(struct guest_mem *mem, const struct mem_map *before)
{
	const struct mem_map *now = atomic_load(&mem->map);
	struct mem_listener *listener;
	struct mem_region was;

	for (uint64_t at = 0; next_difference(before, now, at, &was); at = was.start + was.size)
		list_for_each (listener, &mem->listeners, node)
			if (listener->changed)
				listener->changed(listener->opaque, was.start, was.size);
}

void mem_commit(struct guest_mem *mem)
{
	struct mem_map *before = atomic_load(&mem->map);
	struct mem_map *next = before == &mem->maps[0] ? &mem->maps[1] : &mem->maps[0];

	pthread_mutex_lock(&mem->layers_lock);
	atomic_store(&mem->stale, false);
	flatten(mem, next);
	pthread_mutex_unlock(&mem->layers_lock);
	announce(mem, next);
	atomic_store(&mem->map, next);
	atomic_fetch_add(&mem->map_generation, 1);
	while (atomic_load(&mem->readers))
		sched_yield();
	report(mem, before);
}

void map_renew(struct guest_mem *mem)
{
	const struct mem_map *map = atomic_load(&mem->map);
	struct mem_listener *listener;

	atomic_fetch_add(&mem->map_generation, 1);
	for (unsigned n = 0; n < map->count; n++) {
		uint64_t start = map->regions[n].start, size = map->regions[n].size;

		list_for_each (listener, &mem->listeners, node)
			if (listener->changes)
				listener->changes(listener->opaque, start, size);
		forget_code(mem, &map->regions[n]);
		list_for_each (listener, &mem->listeners, node)
			if (listener->changed)
				listener->changed(listener->opaque, start, size);
	}
}

void mem_listen(struct guest_mem *mem, struct mem_listener *listener) { list_append(&mem->listeners, &listener->node); }

void mem_unlisten(struct mem_listener *listener) { list_remove(&listener->node); }

/* ---- life ---- */

/* With the log's bits. */
static size_t records_size(const struct guest_mem *mem)
{
	return mem->page_count * sizeof(*mem->pages) + mem->page_count / 8;
}

int mem_map_create(struct guest_mem *mem, struct error *err)
{
	void *records;

	list_init(&mem->layers);
	list_init(&mem->memories);
	list_init(&mem->listeners);
	atomic_store(&mem->map, &mem->maps[0]);
	mem->page_count = align_up(mem->ram_size >> PAGE_SHIFT, ALIGN_PAGES) + (MEM_MAX_OTHER >> PAGE_SHIFT);
	records = mmap(NULL, records_size(mem), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		       0);
	if (records == MAP_FAILED)
		return error_set_errno(err, ENOMEM, "cannot create the page records of %" PRIu64 " MiB of guest memory",
				       mem->ram_size >> 20);
	mem->pages = records;
	mem->dirty = (_Atomic uint64_t *)(mem->pages + mem->page_count);
	pthread_mutex_init(&mem->layers_lock, NULL);
	pthread_mutex_init(&mem->fetch_lock, NULL);
	return 0;
}

void mem_map_destroy(struct guest_mem *mem)
{
	struct memory *memory, *next;

	list_for_each_safe (memory, next, &mem->memories, node) {
		if (memory == &mem->ram)
			memory_fini(mem, memory);
		else
			memory_destroy(mem, memory);
	}
	munmap(mem->pages, records_size(mem));
	pthread_mutex_destroy(&mem->layers_lock);
	pthread_mutex_destroy(&mem->fetch_lock);
}
