/*
 * Choosing an engine by name, its options, and a machine's use of it.
 */
#include "engine/engine.h"

#include <errno.h>

static const struct engine_ops *best_engine(struct error *err)
{
	const struct engine_ops *best = NULL;

	for (size_t i = 0; engines[i]; i++)
		if (!engines[i]->probe(err))
			best = engines[i];
	if (!best)
		error_prefix(err, "no engine works on this host");
	return best;
}

static const struct engine_ops *find_by_name(const char *name, size_t length, struct error *err)
{
	char names[128] = "auto";
	size_t used = strlen(names);

	if (length == strlen(names) && !strncmp(name, names, length))
		return best_engine(err);
	for (size_t i = 0; engines[i]; i++) {
		if (strlen(engines[i]->name) == length && !strncmp(name, engines[i]->name, length)) {
			if (!engines[i]->probe(err))
				return engines[i];
			error_prefix(err, "engine '%s'", engines[i]->name);
			return NULL;
		}
		used += (size_t)snprintf(names + used, sizeof(names) - used, ", %s", engines[i]->name);
		BUG_ON(used >= sizeof(names));
	}
	error_set(err, EINVAL, "engine '%.*s' is unknown; there are: %s", (int)length, name, names);
	return NULL;
}

/* ---- a machine's ---- */

int engine_open(struct engine *e, const struct engine_ops *ops, const struct engine_options *options,
		struct guest_mem *mem, struct error *err)
{
	int ret;

	*e = (struct engine){ .ops = ops, .options = *options, .mem = mem };
	ret = ops->open ? ops->open(e, err) : 0;
	if (ret)
		e->ops = NULL;
	return ret;
}

void engine_close(struct engine *e)
{
	if (e->ops->close)
		e->ops->close(e);
}

int engine_add_vcpu(struct engine *e, struct vcpu *v, struct error *err)
{
	int ret;

	v->engine = e;
	ret = e->ops->create(v, err);
	if (ret)
		v->engine = NULL;
	else
		v->hooks = e->ops->hooks;
	return ret;
}

void engine_remove_vcpu(struct vcpu *v)
{
	const struct engine_ops *ops = v->engine->ops;

	v->hooks = &vcpu_no_hooks;
	ops->destroy(v);
	v->engine = NULL;
}

/* ---- options ---- */

static const struct option {
	const char *engine, *name, *values;
	unsigned least, most;
	size_t field;
} options[] = {
#define _(engine, name, values, least, most, by_default, what)                                                         \
	{ #engine, #name, values, least, most, offsetof(struct engine_options, name) },
	ENGINE_OPTIONS(_)
#undef _
};

const struct engine_options engine_defaults = {
#define _(engine, name, values, least, most, by_default, what) .name = by_default,
	ENGINE_OPTIONS(_)
#undef _
};

static bool is_option_of(const struct option *o, const struct engine_ops *ops)
{
	return !strcmp(o->engine, ops->name) || !strcmp(o->engine, "all");
}

static const struct option *find_option(const struct engine_ops *ops, const char *name, size_t length,
					struct error *err)
{
	char names[128] = "";
	size_t used = 0;

	for (size_t n = 0; n < ARRAY_SIZE(options); n++) {
		if (!is_option_of(&options[n], ops))
			continue;
		if (strlen(options[n].name) == length && !strncmp(options[n].name, name, length))
			return &options[n];
		used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s", used ? ", " : "", options[n].name);
		BUG_ON(used >= sizeof(names));
	}
	error_set(err, EINVAL, "engine '%s' has no option '%.*s'; there are: %s", ops->name, (int)length, name, names);
	return NULL;
}

static int parse_value(const struct option *o, const char *value, size_t length, unsigned *number)
{
	bool is_switch = o->least == 0 && o->most == 1;

	*number = 0;
	if (is_switch && ((length == 2 && !strncmp(value, "on", 2)) || (length == 3 && !strncmp(value, "off", 3)))) {
		*number = length == 2;
		return 0;
	}
	if (is_switch || !length || length > 7 || strspn(value, "0123456789") < length)
		return -EINVAL;
	for (size_t n = 0; n < length; n++)
		*number = 10 * *number + (unsigned)(value[n] - '0');
	return *number >= o->least && *number <= o->most ? 0 : -EINVAL;
}

/* "NAME=VALUE" of this length. */
static int parse_option(const struct engine_ops *ops, const char *text, size_t length, struct engine_options *result,
			struct error *err)
{
	size_t name = MIN(strcspn(text, "="), length), value = MIN(name + 1, length);
	const struct option *o = find_option(ops, text, name, err);
	unsigned number;

	if (!o)
		return -EINVAL;
	if (parse_value(o, text + value, length - value, &number))
		return error_set(err, EINVAL, "option %s of engine '%s' is '%.*s'; expected %s", o->name, ops->name,
				 (int)(length - value), text + value, o->values);
	*(unsigned *)((char *)result + o->field) = number;
	return 0;
}

const struct engine_ops *engine_find(const char *spec, struct engine_options *result, struct error *err)
{
	size_t length = strcspn(spec, ",");
	const struct engine_ops *ops = find_by_name(spec, length, err);

	*result = engine_defaults;
	while (ops && spec[length]) {
		spec += length + 1;
		length = strcspn(spec, ",");
		if (parse_option(ops, spec, length, result, err))
			return NULL;
	}
	return ops;
}
