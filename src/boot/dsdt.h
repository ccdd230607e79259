/* The contents of the DSDT, without the table's header. */
#ifndef DOPPEL_BOOT_DSDT_H
#define DOPPEL_BOOT_DSDT_H

#include "boot/aml.h"
#include "boot/pc.h"

void dsdt_build(struct aml *, const struct pc *);

#endif
