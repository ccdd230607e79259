/*
 * What the library's files share and guests do not need.
 */
#ifndef GUEST_PRIVATE_H
#define GUEST_PRIVATE_H

#include "guest.h"

/* A line of TAP. */
void check_list(bool good, const char *name, va_list);
void idt_init(void);
void cpu_init(unsigned number); /* its GDT, TSS and IDT registers, and control registers as every test finds them */
void start(void);
void ap_start(unsigned number);
extern const u8 *start_info;

#endif
