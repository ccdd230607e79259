/*
 * What the files of mem/ share.
 */
#ifndef DOPPEL_MEM_PRIVATE_H
#define DOPPEL_MEM_PRIVATE_H

#include "mem/mem.h"

/* ---- code.c ---- */

/* What mem_note_page() does about code: these bytes are no more what they were. */
bool code_forget(struct guest_mem *, struct mem_page *, gpa_t, size_t);

/* ---- origin.c ---- */

/* Only while mem_has_origins(): the page is there when this returns; false: mem_loss(). */
bool origin_fetch(struct guest_mem *, const struct mem_page *);
bool origin_fetch_all(struct guest_mem *, struct memory *);
void origin_forget(struct guest_mem *, struct memory *);

/* ---- map.c ---- */

/* Everybody lets go of everything, as if all of the map had changed. */
void map_renew(struct guest_mem *);

/* Records of pages for RAM of mem->ram_size and what else there will be; an empty map. */
int mem_map_create(struct guest_mem *, struct error *);
/* With all memories that are left. */
void mem_map_destroy(struct guest_mem *);
/* memory_create(), in a record of the caller's; memory_fini() is its end. */
int memory_init(struct guest_mem *, struct memory *, enum memory_kind, const char *name, uint64_t size, struct error *);
void memory_fini(struct guest_mem *, struct memory *);

/*
 * The map that copies look into stays while they are counted, and what it shows. Nobody waits for anything in between, so that who changes
 * the map can wait for them in an exclusive section.
 */
static inline void map_enter(struct guest_mem *mem) { atomic_fetch_add(&mem->readers, 1); }
static inline void map_leave(struct guest_mem *mem) { atomic_fetch_sub(&mem->readers, 1); }

/* Of so many bytes, how many mem_find() has answered for. */
static inline size_t map_part(const struct guest_mem *mem, const struct mem_region *region, gpa_t addr, size_t len)
{
	len = MIN(len, region->start + region->size - addr.v);
	return mem_has_origins(mem) ? MIN(len, PAGE_SIZE - (addr.v & (PAGE_SIZE - 1))) : len;
}

#endif
