/*
 * What the files of audit/ share: a check, and the snippet of code it executes.
 */
#ifndef DOPPEL_AUDIT_PRIVATE_H
#define DOPPEL_AUDIT_PRIVATE_H

#include "audit/audit.h"
#include "audit/guest.h"
#include "cpu/cpu.h"

/* Where a snippet runs. COMPAT is 32-bit code under a 64-bit kernel; LEGACY the same in 32-bit protected mode, paging off. */
enum audit_mode { USER_64, USER_COMPAT, USER_LEGACY, VIRTUAL_8086, KERNEL_64, KERNEL_LEGACY };

struct snippet {
	const uint8_t *start, *end; /* behind it comes INT VECTOR_END */
};

enum field { NO_FIELD, FIELD_RAX, FIELD_RBX, FIELD_FLAGS, FIELD_CS };

/* One value that the guest must see. */
struct value {
	uint8_t field;	   /* enum field */
	const char *name;  /* "base" */
	uint64_t expected; /* of the bits in mask */
	uint64_t mask;	   /* 0: all */
};

struct check {
	const char *instruction, *where, *naive;
	struct snippet code;
	uint8_t mode;	   /* enum audit_mode */
	uint16_t feature;  /* enum cpu_feature: without it the check is not made; 0: always made */
	uint32_t flags;	   /* RFLAGS at the start, besides bit 1 */
	uint32_t cr4;	   /* besides PAE */
	uint64_t argument; /* RAX at the start */
	/* The exception, or where the kernel was entered, and the error code; 0: the snippet's end is reached. */
	uint16_t vector, error;
	struct value values[3];
};

extern const struct check audit_checks[];
extern const unsigned audit_check_count;
/* Address of the n-th check's snippet. */
static inline uint64_t snippet_address(unsigned n) { return GUEST_CODE + (uint64_t)n * SNIPPET_SLOT; }

/* The image of guest.S. */
extern const uint8_t audit_kernel[], audit_kernel_end[];

#endif
