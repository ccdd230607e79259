/*
 * From the entry to the test: what PVH's start information leads to, and the C library's few functions that the compiler wants.
 */
#include "private.h"

#define START_INFO_MAGIC 0x336ec578
#define START_INFO_RSDP	 32

void *memset(void *to, int value, size_t size)
{
	asm volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
	void *start_of_copy = to;

	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
	return start_of_copy;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const u8 *x = a, *y = b;

	for (; size; size--, x++, y++)
		if (*x != *y)
			return *x < *y ? -1 : 1;
	return 0;
}

/* The RSDT's or, where there is one, the XSDT's. */
u64 acpi_table(const char *signature)
{
	const u8 *rsdp = *(const u8 *const *)(start_info + START_INFO_RSDP);
	bool wide = rsdp[15] >= 2 && *(const u64 *)(rsdp + 24);
	const u8 *root = wide ? *(const u8 *const *)(rsdp + 24) : (const u8 *)(u64) * (const u32 *)(rsdp + 16);
	u32 size = *(const u32 *)(root + 4);

	for (u32 at = 36; at < size; at += wide ? 8 : 4) {
		const u8 *table = wide ? *(const u8 *const *)(root + at) : (const u8 *)(u64) * (const u32 *)(root + at);

		if (!memcmp(table, signature, 4))
			return (u64)table;
	}
	return 0;
}

void start(void)
{
	if (*(const u32 *)start_info != START_INFO_MAGIC)
		die("no start information");
	paging_init();
	idt_init();
	cpu_init(0);
	pic_init();
	apic_init();
	guest();
	finish();
}
