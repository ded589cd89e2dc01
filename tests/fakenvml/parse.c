/* The text of a scenario: one `key=value` a line, `#` starts a comment. `gpu*.` speaks for every
 * GPU and gives way to `gpuN.`, wherever it stands. The keys are listed in fake_nvml.py. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parse.h"

bool whole(const char *text, long long *out)
{
    char *end;
    *out = (long long)strtoull(text, &end, 0);
    return end != text && *end == '\0';
}

/* One more, zeroed, at the end of a growing array. */
void *grow(void **array, unsigned int *count, size_t size)
{
    char *bigger = realloc(*array, (*count + 1) * size);
    if (bigger == NULL)
        abort();
    *array = bigger;
    return memset(bigger + (*count)++ * size, 0, size);
}

static CallRule *rule_for(Scenario *scenario, int gpu, SymbolId symbol)
{
    for (unsigned int i = 0; i < scenario->rules_count; i++)
        if (scenario->rules[i].symbol == symbol && scenario->rules[i].gpu == gpu)
            return &scenario->rules[i];
    CallRule *rule = grow((void **)&scenario->rules, &scenario->rules_count, sizeof *rule);
    rule->symbol = symbol;
    rule->gpu = gpu;
    rule->every = 1;
    rule->times = ~0u;
    scenario->ruled[symbol] = true;
    return rule;
}

static bool set_rule(CallRule *rule, const char *what, const char *value)
{
    long long n = 0;
    if (strcmp(what, "block_until_removed") == 0) {
        rule->block = value;
        return true;
    }
    if (!whole(value, &n) || n < 0)
        return false;
    if (strcmp(what, "ret") == 0)
        rule->ret = (nvmlReturn_t)n;
    else if (strcmp(what, "delay_ms") == 0)
        rule->delay_ms = (unsigned int)n;
    else if (strcmp(what, "every") == 0 && n > 0)
        rule->every = (unsigned int)n;
    else if (strcmp(what, "times") == 0)
        rule->times = (unsigned int)n;
    else
        return false;
    return true;
}

/* `<symbol>.<what>` */
bool set_call(Scenario *scenario, int gpu, char *key, const char *value)
{
    char *dot = strchr(key, '.');
    if (dot == NULL)
        return false;
    for (unsigned int i = 0; i < SYM_COUNT; i++)
        if (strlen(symbols[i].name) == (size_t)(dot - key) &&
            strncmp(symbols[i].name, key, (size_t)(dot - key)) == 0)
            return set_rule(rule_for(scenario, gpu, (SymbolId)i), dot + 1, value);
    return false;
}

static bool set_version(char *out, const char *value)
{
    snprintf(out, MAX_DRIVER, "%s", value);
    return driver_number(value) > 0;
}

static bool set_machine(Scenario *scenario, char *key, const char *value)
{
    long long n = 0;
    if (strncmp(key, "gpu", 3) == 0)
        return set_gpu(scenario, key, value);
    if (strncmp(key, "call.", 5) == 0)
        return set_call(scenario, -1, key + 5, value);
    if (strncmp(key, "init.", 5) == 0)
        return set_rule(rule_for(scenario, -1, SYM_nvmlInitWithFlags), key + 5, value);
    if (strcmp(key, "profile") == 0)
        return find_profile(value) != NULL && (scenario->profile = find_profile(value)) != NULL;
    if (strcmp(key, "driver") == 0)
        return set_version(scenario->driver, value);
    if (strcmp(key, "nvml_version") == 0)
        return set_version(scenario->nvml_version, value);
    if (strcmp(key, "latency") == 0) {
        scenario->real_latency = strcmp(value, "real") == 0;
        return scenario->real_latency || strcmp(value, "zero") == 0;
    }
    if (strcmp(key, "time") == 0) {
        scenario->frozen = true;
        return sscanf(value, "%lf", &scenario->frozen_at) == 1;
    }
    if (!whole(value, &n) || n < 0)
        return false;
    if (strcmp(key, "count") == 0 && n <= MAX_GPUS)
        scenario->count = (int)n;
    else if (strcmp(key, "ret") == 0)
        scenario->status = (nvmlReturn_t)n;
    else if (strcmp(key, "serial") == 0)
        scenario->serial = (unsigned int)n;
    else
        return false;
    return true;
}

static void parse_line(Scenario *scenario, unsigned int number, char *line)
{
    char key[128] = "", message[256];
    char *equals = strchr(line, '=');
    if (equals != NULL && (size_t)(equals - line) < sizeof key)
        memcpy(key, line, (size_t)(equals - line));
    if (*key != '\0' && set_machine(scenario, key, equals + 1))
        return;
    scenario->errors++;
    if (scenario->quiet)
        return;
    snprintf(message, sizeof message, "scenario line %u: not understood: %s", number, line);
    log_error(message);
}

static void parse_lines(Scenario *scenario)
{
    char *end = scenario->text + strlen(scenario->text);
    for (char *at = scenario->text; at < end; at++)
        if (*at == '\n')
            *at = '\0';
    for (int wildcards = 1; wildcards >= 0; wildcards--) {
        unsigned int number = 0;
        for (char *line = scenario->text; line < end; line += strlen(line) + 1) {
            number++;
            if (*line != '\0' && *line != '#' && (strncmp(line, "gpu*", 4) == 0) == wildcards)
                parse_line(scenario, number, line);
        }
    }
}

void parse_scenario(Scenario *scenario)
{
    const char *profile = getenv("FAKE_NVML_PROFILE");
    scenario->profile = find_profile(profile != NULL && *profile != '\0' ? profile : "h100x8");
    if (scenario->profile == NULL) {
        if (!scenario->quiet)
            log_error("FAKE_NVML_PROFILE: no such profile");
        scenario->errors++;
        scenario->profile = find_profile("none");
    }
    scenario->count = -1;
    set_version(scenario->driver, "580.95.05");
    parse_lines(scenario);
}

/* "580.95.05" is 580095; 0 for what is no version. */
int driver_number(const char *version)
{
    int major = 0, minor = 0;
    return sscanf(version, "%d.%d", &major, &minor) >= 1 ? major * 1000 + minor : 0;
}
