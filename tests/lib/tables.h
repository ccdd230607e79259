/*
 * Memory with the tables that systems look for below 1 MiB, and a copy of where they do.
 */
#ifndef TABLES_H
#define TABLES_H

#include "boot/boot.h"

#include "devices/devices.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define AREA	  0xe0000u
#define AREA_SIZE 0x20000u

struct guest {
	struct guest_mem *mem;
	uint8_t area[AREA_SIZE]; /* a copy */
	gpa_t rsdp;
};

static inline struct guest *build(const struct boot_config *config, uint64_t memory)
{
	struct guest *g = calloc(1, sizeof(*g));

	assert_non_null(g);
	g->mem = mem_create(memory, NULL);
	assert_non_null(g->mem);
	assert_int_equal(bios_map(g->mem, NULL), 0);
	g->rsdp = boot_write_tables(config, g->mem);
	assert_int_equal(mem_read(g->mem, gpa(AREA), g->area, sizeof(g->area)), 0);
	return g;
}

static inline void destroy(struct guest *g)
{
	mem_destroy(g->mem);
	free(g);
}

static inline uint8_t sum(const uint8_t *p, size_t size)
{
	uint8_t total = 0;

	while (size--)
		total = (uint8_t)(total + *p++);
	return total;
}

static inline const uint8_t *at(const struct guest *g, uint64_t address, size_t size)
{
	assert_true(address >= AREA && range_ok(address - AREA, size, AREA_SIZE));
	return g->area + (address - AREA);
}

#endif
