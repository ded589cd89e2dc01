/* The scenario: read when its file changes, published whole, freed when nobody holds it. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "fakenvml.h"

enum { CHECK_MS = 10, OVERLAY_BYTES = 65536 };

_Atomic(Scenario *) current;
atomic_uint holders;

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static Scenario *retired;                 /* guarded by loading */
static char *overlay;                     /* guarded by loading: set by fakenvml_set */
static struct stat seen;                  /* guarded by loading */
static _Atomic(const char *) watched;     /* path of the scenario file, or NULL */
static atomic_ullong next_check_ns;

static char *read_text(void)
{
    const char *path = atomic_load(&watched);
    size_t length = 0, extra = overlay != NULL ? strlen(overlay) : 0;
    FILE *file = path != NULL ? fopen(path, "re") : NULL;
    memset(&seen, 0, sizeof seen);
    if (file != NULL)
        fstat(fileno(file), &seen);
    char *text = calloc(1, (size_t)seen.st_size + extra + 2);
    if (text != NULL && file != NULL)
        length = fread(text, 1, (size_t)seen.st_size, file);
    if (text != NULL && extra > 0) {
        text[length] = '\n';
        memcpy(text + length + 1, overlay, extra);
    }
    if (file != NULL)
        fclose(file);
    return text;
}

static void free_scenario(Scenario *scenario)
{
    free(scenario->rules);
    free(scenario->fields);
    free(scenario->gpm);
    free(scenario->processes);
    free(scenario->text);
    free(scenario);
}

static bool changed(const char *now, const char *before)
{
    return now != NULL && (before == NULL || strcmp(now, before) != 0);
}

/* A rule that stands as it stood goes on counting. */
static void keep_hits(Scenario *scenario, const Scenario *before)
{
    for (unsigned int i = 0; i < scenario->rules_count; i++)
        for (unsigned int j = 0; j < before->rules_count; j++) {
            CallRule *rule = &scenario->rules[i], *old = &before->rules[j];
            if (rule->symbol == old->symbol && rule->gpu == old->gpu && rule->ret == old->ret &&
                rule->every == old->every && rule->times == old->times)
                for (int column = 0; column <= MAX_GPUS; column++)
                    rule->hits[column] = old->hits[column];
        }
}

static void prepare_gpu(Scenario *scenario, unsigned int index, const Gpu *before, double t)
{
    Gpu *gpu = &scenario->gpus[index];
    bool mig = scenario->live_profile->mig_gpus >> index & 1;
    gpu->index = index;
    gpu->board = scenario->live_profile->board;
    gpu->mig_on = (gpu->board->caps & CAP_MIG) != 0 && value_or(gpu, OV_mig_mode, mig) == 1;
    if (gpu->mig_text == NULL && mig)
        gpu->mig_count = default_mig(gpu->mig);
    if (before != NULL) {
        bool another = before->mig_on != gpu->mig_on || changed(gpu->mig_text, before->mig_text) ||
                       (gpu->mig_text == NULL && before->mig_text != NULL);
        gpu->epoch = before->epoch + changed(gpu->reset, before->reset);
        gpu->mig_epoch = before->mig_epoch + another;
    }
    model_prepare(gpu, before, t);
    if (before != NULL && (changed(gpu->reset_counters, before->reset_counters) ||
                           gpu->epoch != before->epoch))
        model_reset(gpu);
}

static void queue_xids(Gpu *gpu, const Gpu *before)
{
    unsigned int last = before != NULL ? before->xid_sequence : 0;
    gpu->xid_sequence = last;
    if (!changed(gpu->xid_text, before != NULL ? before->xid_text : NULL))
        return;
    for (const char *at = gpu->xid_text; at != NULL && *at != '\0';) {
        unsigned int sequence = 0, gi = NO_INSTANCE, ci = NO_INSTANCE;
        unsigned long long xid = 0;
        int fields = sscanf(at, "%llu:%u:%u:%u", &xid, &sequence, &gi, &ci);
        if (fields == 1 || sequence > last)
            events_push(gpu->index, xid, gi, ci);
        if (sequence > gpu->xid_sequence)
            gpu->xid_sequence = sequence;
        at = strchr(at, ',');
        at = at != NULL ? at + 1 : NULL;
    }
}

static void prepare(Scenario *scenario, const Scenario *before, bool latch)
{
    double t = before != NULL ? now_of(before) : 0;
    bool same = before != NULL;
    if (before != NULL && !latch && atomic_load(&init_references) > 0) {
        scenario->live_profile = before->live_profile;
        scenario->live_count = before->live_count;
        strcpy(scenario->live_driver, before->live_driver);
    } else {
        scenario->live_profile = scenario->profile;
        scenario->live_count =
            scenario->count >= 0 ? scenario->count : (int)scenario->profile->count;
        strcpy(scenario->live_driver, scenario->driver);
        same = before != NULL && before->live_profile == scenario->live_profile;
    }
    scenario->driver_number = driver_number(scenario->live_driver);
    scenario->init_epoch = before != NULL ? before->init_epoch + latch : 1;
    if (before != NULL)
        keep_hits(scenario, before);
    for (unsigned int i = 0; i < (unsigned int)scenario->live_count; i++) {
        const Gpu *old = same && (int)i < before->live_count ? &before->gpus[i] : NULL;
        prepare_gpu(scenario, i, old, t);
        queue_xids(&scenario->gpus[i], old);
    }
}

static void publish(Scenario *scenario)
{
    Scenario *before = atomic_exchange(&current, scenario);
    if (before != NULL) {
        before->retired = retired;
        retired = before;
    }
    /* Whoever takes hold from here on gets the new one. */
    while (retired != NULL && atomic_load(&holders) == 0) {
        Scenario *next = retired->retired;
        free_scenario(retired);
        retired = next;
    }
    log_set(LOG_SERIAL, scenario->serial);
}

static int load(bool latch)
{
    Scenario *scenario = calloc(1, sizeof *scenario);
    if (scenario == NULL || (scenario->text = read_text()) == NULL)
        abort();
    scenario->quiet = latch; /* the same text was just read: say its mistakes once */
    parse_scenario(scenario);
    prepare(scenario, atomic_load(&current), latch);
    int errors = (int)scenario->errors;
    publish(scenario);
    return errors;
}

void scenario_load(bool latch)
{
    const char *path = getenv("FAKE_NVML_SCENARIO");
    pthread_mutex_lock(&loading);
    atomic_store(&watched, path != NULL && *path != '\0' ? path : NULL);
    load(latch);
    pthread_mutex_unlock(&loading);
}

bool scenario_is_watched(void)
{
    return atomic_load_explicit(&watched, memory_order_relaxed) != NULL;
}

static bool file_is_another(const char *path)
{
    struct stat now;
    return stat(path, &now) == 0 &&
           (now.st_ino != seen.st_ino || now.st_size != seen.st_size ||
            now.st_mtim.tv_sec != seen.st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != seen.st_mtim.tv_nsec);
}

void scenario_refresh(void)
{
    const char *path = atomic_load_explicit(&watched, memory_order_relaxed);
    struct timespec t;
    if (path == NULL)
        return;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    unsigned long long ns = (unsigned long long)t.tv_sec * 1000000000u + (unsigned long)t.tv_nsec;
    unsigned long long due = atomic_load_explicit(&next_check_ns, memory_order_relaxed);
    if (ns < due ||
        !atomic_compare_exchange_strong(&next_check_ns, &due, ns + CHECK_MS * 1000000ull))
        return;
    if (pthread_mutex_trylock(&loading) != 0)
        return;
    if (file_is_another(path))
        load(false);
    pthread_mutex_unlock(&loading);
}

/* One line of the overlay: in place of the one with the same key. */
static bool overlay_line(const char *line, size_t length)
{
    size_t key = strcspn(line, "=\n") + 1, used = strlen(overlay);
    for (char *at = overlay, *end; *at != '\0'; at = end) {
        end = strchr(at, '\n') + 1;
        if (strncmp(at, line, key) != 0)
            continue;
        memmove(at, end, strlen(end) + 1);
        used = strlen(overlay);
        break;
    }
    if (used + length + 2 > OVERLAY_BYTES)
        return false;
    memcpy(overlay + used, line, length);
    strcpy(overlay + used + length, "\n");
    return true;
}

/* For use in the same process: sets `key=value` lines over those of the file; NULL takes all of
 * them back. Returns the number of lines that were not understood, or -1 when there are too many. */
__attribute__((visibility("default"))) int fakenvml_set(const char *lines)
{
    int errors;
    bool fits = true;
    pthread_mutex_lock(&loading);
    if (overlay == NULL && (overlay = calloc(1, OVERLAY_BYTES)) == NULL)
        abort();
    if (lines == NULL)
        overlay[0] = '\0';
    for (const char *at = lines; at != NULL && *at != '\0';) {
        size_t length = strcspn(at, "\n");
        fits = length == 0 || (overlay_line(at, length) && fits);
        at += length + (at[length] == '\n');
    }
    errors = load(false);
    pthread_mutex_unlock(&loading);
    events_wake();
    return fits ? errors : -1;
}
