/*
 * state, private: one field's values, wherever its bytes are (in a struct or in scratch).
 */
#ifndef DOPPEL_STATE_PRIVATE_H
#define DOPPEL_STATE_PRIVATE_H

#include "state/state.h"

static inline size_t state_field_bytes(const struct state_field *field) { return (size_t)field->size * field->count; }

uint64_t state_get(const struct state_field *, const void *bytes, size_t index);
void state_put(const struct state_field *, void *bytes, size_t index, uint64_t value);
void state_reset_field(const struct state_field *, void *bytes);

#endif
