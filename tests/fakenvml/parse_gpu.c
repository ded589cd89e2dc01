/* The keys of one GPU: `gpu<N>.<key>`, or `gpu*.<key>` for all of them. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parse.h"

static const char *const override_names[OV_COUNT] = {
#define OVERRIDE(name) #name,
    OVERRIDES(OVERRIDE)
#undef OVERRIDE
};

/* `<id>[.<scope>].<what>`, of a field or a GPM metric */
static bool set_value(ValueRule **rules, unsigned int *count, int gpu, const char *key,
                      const char *value)
{
    unsigned int id = 0, scope = ALL_SCOPES;
    char what[8];
    char *end;
    if (sscanf(key, "%u.%u.%7[a-z]", &id, &scope, what) != 3) {
        scope = ALL_SCOPES;
        if (sscanf(key, "%u.%7[a-z]", &id, what) != 2)
            return false;
    }
    ValueRule *rule = NULL;
    for (unsigned int i = 0; i < *count; i++)
        if ((*rules)[i].gpu == gpu && (*rules)[i].id == id && (*rules)[i].scope == scope)
            rule = &(*rules)[i];
    if (rule == NULL)
        rule = grow((void **)rules, count, sizeof *rule);
    rule->gpu = gpu;
    rule->id = id;
    rule->scope = scope;
    double real = strtod(value, &end);
    if (end == value || *end != '\0')
        return false;
    if (strcmp(what, "ret") == 0) {
        rule->has_ret = true;
        rule->ret = (nvmlReturn_t)real;
    } else if (strcmp(what, "type") == 0) {
        rule->has_type = true;
        rule->type = (int)real;
    } else if (strcmp(what, "value") == 0) {
        rule->has_value = true;
        rule->real = real;
        rule->whole = strtoull(value, NULL, 0);
    } else {
        return false;
    }
    return true;
}

/* `<bytes>[,c|g|m[,<sm percent>[,<GPU instance>]]]`; bytes `na` is the driver's "not available" */
static bool set_process(Scenario *scenario, int gpu, const char *pid, const char *value)
{
    const char *comma = strchr(value, ',');
    long long id;
    Process *process = NULL;
    if (!whole(pid, &id) || id <= 0)
        return false;
    for (unsigned int i = 0; i < scenario->processes_count; i++)
        if (scenario->processes[i].gpu == gpu && scenario->processes[i].pid == (unsigned int)id)
            process = &scenario->processes[i];
    if (process == NULL)
        process = grow((void **)&scenario->processes, &scenario->processes_count, sizeof *process);
    *process = (Process){.gpu = gpu, .pid = (unsigned int)id, .sm_percent = 50, .kind = 'c'};
    process->gpu_instance = NO_INSTANCE;
    process->bytes = strncmp(value, "na", 2) == 0 ? ~0ull : strtoull(value, NULL, 0);
    if (comma != NULL)
        sscanf(comma, ",%c,%u,%u", &process->kind, &process->sm_percent, &process->gpu_instance);
    return (*value == 'n' || (*value >= '0' && *value <= '9')) && strchr("cgm", process->kind);
}

/* `<index>:<GPU instance>:<slices>,...` */
static void set_mig(Gpu *gpu, const char *value)
{
    gpu->mig_text = value;
    gpu->mig_count = 0;
    for (const char *at = value; at != NULL && gpu->mig_count < MAX_MIG;) {
        MigInstance mig;
        if (sscanf(at, "%u:%u:%u", &mig.index, &mig.gpu_instance, &mig.slices) == 3 &&
            mig.index < MAX_MIG)
            gpu->mig[gpu->mig_count++] = mig;
        at = strchr(at, ',');
        at = at != NULL ? at + 1 : NULL;
    }
}

static bool set_gpu_text(Gpu *gpu, const char *key, const char *value)
{
    if (strcmp(key, "block") == 0)
        gpu->block = value;
    else if (strcmp(key, "xid") == 0)
        gpu->xid_text = value;
    else if (strcmp(key, "reset") == 0)
        gpu->reset = value;
    else if (strcmp(key, "reset_counters") == 0)
        gpu->reset_counters = value;
    else if (strcmp(key, "mig") == 0)
        set_mig(gpu, value);
    else
        return false;
    return true;
}

static bool set_gpu_number(Gpu *gpu, const char *key, const char *value)
{
    long long n = 0;
    if (!whole(value, &n))
        return false;
    if (strcmp(key, "lost") == 0)
        gpu->status = n != 0 ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
    else if (strcmp(key, "ret") == 0)
        gpu->status = (nvmlReturn_t)n;
    else if (strcmp(key, "delay_ms") == 0 && n >= 0)
        gpu->delay_ms = (unsigned int)n;
    else
        for (int i = 0;; i++) {
            if (i == OV_COUNT)
                return false;
            if (strcmp(key, override_names[i]) == 0) {
                gpu->set[i] = true;
                gpu->value[i] = n;
                break;
            }
        }
    return true;
}

/* `gpu<N>.<key>` or `gpu*.<key>` */
bool set_gpu(Scenario *scenario, char *key, const char *value)
{
    char *rest = strchr(key, '.');
    int gpu = -1;
    if (rest == NULL || (key[3] != '*' && sscanf(key, "gpu%d.", &gpu) != 1) || gpu >= MAX_GPUS)
        return false;
    rest++;
    if (strncmp(rest, "call.", 5) == 0)
        return set_call(scenario, gpu, rest + 5, value);
    if (strncmp(rest, "field.", 6) == 0)
        return set_value(&scenario->fields, &scenario->fields_count, gpu, rest + 6, value);
    if (strncmp(rest, "gpm.", 4) == 0)
        return set_value(&scenario->gpm, &scenario->gpm_count, gpu, rest + 4, value);
    if (strncmp(rest, "process.", 8) == 0)
        return set_process(scenario, gpu, rest + 8, value);
    for (int i = 0; i < MAX_GPUS; i++)
        if ((gpu < 0 || gpu == i) && !set_gpu_text(&scenario->gpus[i], rest, value) &&
            !set_gpu_number(&scenario->gpus[i], rest, value))
            return false;
    return true;
}
