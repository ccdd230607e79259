/* The contents of the DSDT, without the table's header. */
#ifndef DOPPEL_BOOT_DSDT_H
#define DOPPEL_BOOT_DSDT_H

#include "boot/aml.h"

void dsdt_build(struct aml *, unsigned cpu_count);

#endif
