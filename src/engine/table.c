/*
 * The engines there are. A program that has this array in an object of its own gets that one instead: so tests have engines more.
 */
#include "engine/engine.h"

/* Best last: "auto" takes the last whose probe succeeds. */
const struct engine_ops *const engines[] = { &interp_engine, &bt_engine, NULL };
