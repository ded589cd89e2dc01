/* Event sets: a queue each, and a wait that really blocks. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <time.h>

#include "fakenvml.h"

enum { SETS = 16, QUEUED = 64, LOOK_MS = 1000 };

struct nvmlEventSet_st {
    bool used;
    unsigned int waiting, first, count;
    unsigned long long registered[MAX_GPUS];
    struct {
        unsigned int gpu, gpu_instance, compute_instance;
        unsigned long long xid;
    } queue[QUEUED];
};

static struct nvmlEventSet_st sets[SETS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the sets */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_cond_t changed;

static void prepare_condition(void)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

void events_wake(void)
{
    pthread_once(&once, prepare_condition);
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

/* Called by whoever loads the scenario. The oldest goes when a queue is full. */
void events_push(unsigned int gpu, unsigned long long xid, unsigned int gpu_instance,
                 unsigned int compute_instance)
{
    pthread_once(&once, prepare_condition);
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < SETS; i++) {
        struct nvmlEventSet_st *set = &sets[i];
        if (!set->used || (set->registered[gpu] & nvmlEventTypeXidCriticalError) == 0)
            continue;
        if (set->count == QUEUED) {
            set->first = (set->first + 1) % QUEUED;
            set->count--;
        }
        unsigned int at = (set->first + set->count++) % QUEUED;
        set->queue[at].gpu = gpu;
        set->queue[at].xid = xid;
        set->queue[at].gpu_instance = gpu_instance;
        set->queue[at].compute_instance = compute_instance;
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

void events_shutdown(void)
{
    pthread_once(&once, prepare_condition);
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < SETS; i++) {
        if (sets[i].used)
            log_add(LOG_EVENT_SETS, -1);
        if (sets[i].waiting > 0)
            log_add(LOG_SHUTDOWN_DURING_WAIT, 1);
        sets[i].used = false;
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static bool known(nvmlEventSet_t set)
{
    uintptr_t offset = (uintptr_t)set - (uintptr_t)sets;
    return set != NULL && offset < sizeof sets && offset % sizeof sets[0] == 0 && set->used;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    ENTER_SYSTEM(nvmlEventSetCreate);
    nvmlReturn_t ret = NVML_ERROR_MEMORY;
    NOT_NULL(set);
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < SETS && ret != NVML_SUCCESS; i++)
        if (!sets[i].used && sets[i].waiting == 0) {
            memset(&sets[i], 0, sizeof sets[i]);
            sets[i].used = true;
            *set = &sets[i];
            log_add(LOG_EVENT_SETS, 1);
            ret = NVML_SUCCESS;
        }
    pthread_mutex_unlock(&mutex);
    return ret;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    ENTER_SYSTEM(nvmlEventSetFree);
    nvmlReturn_t ret = NVML_ERROR_INVALID_ARGUMENT;
    pthread_once(&once, prepare_condition);
    pthread_mutex_lock(&mutex);
    if (known(set)) {
        set->used = false;
        log_add(LOG_EVENT_SETS, -1);
        pthread_cond_broadcast(&changed);
        ret = NVML_SUCCESS;
    }
    pthread_mutex_unlock(&mutex);
    return ret;
}

static unsigned long long supported(const Gpu *gpu)
{
    unsigned long long types = nvmlEventTypeXidCriticalError | nvmlEventTypePState |
                               nvmlEventTypeClock;
    if ((gpu->board->caps & CAP_EVENTS) == 0)
        return 0;
    return ecc_on(gpu) ? types | nvmlEventTypeSingleBitEccError | nvmlEventTypeDoubleBitEccError
                       : types;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    ENTER(nvmlDeviceGetSupportedEventTypes, device);
    NOT_NULL(types);
    *types = supported(call.gpu);
    return NVML_SUCCESS;
}

/* All or nothing: one type that the board lacks, and none is registered. */
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                      nvmlEventSet_t set)
{
    ENTER(nvmlDeviceRegisterEvents, device);
    nvmlReturn_t ret = NVML_ERROR_INVALID_ARGUMENT;
    REQUIRE((types & ~supported(call.gpu)) == 0, NVML_ERROR_NOT_SUPPORTED);
    pthread_mutex_lock(&mutex);
    if (known(set)) {
        set->registered[call.gpu->index] |= types;
        ret = NVML_SUCCESS;
    }
    pthread_mutex_unlock(&mutex);
    return ret;
}

static struct timespec after_ms(struct timespec t, unsigned int ms)
{
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000l;
    if (t.tv_nsec >= 1000000000l) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000l;
    }
    return t;
}

static bool earlier(struct timespec a, struct timespec b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

/* With a scenario file the wait looks at it now and then: nobody else may be calling. Mutex held
 * on entry and on return. */
static nvmlReturn_t wait_for_event(nvmlEventSet_t set, struct timespec deadline)
{
    while (set->used && set->count == 0) {
        struct timespec now, until = deadline;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (!earlier(now, deadline))
            return NVML_ERROR_TIMEOUT;
        if (scenario_is_watched() && earlier(after_ms(now, LOOK_MS), deadline))
            until = after_ms(now, LOOK_MS);
        pthread_cond_timedwait(&changed, &mutex, &until);
        pthread_mutex_unlock(&mutex);
        scenario_refresh();
        pthread_mutex_lock(&mutex);
    }
    return set->used ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout)
{
    ENTER_SYSTEM(nvmlEventSetWait_v2);
    struct timespec now;
    nvmlReturn_t ret = NVML_ERROR_INVALID_ARGUMENT;
    unsigned int gpu = 0;
    NOT_NULL(data);
    call_pause(&call);
    pthread_once(&once, prepare_condition);
    clock_gettime(CLOCK_MONOTONIC, &now);
    pthread_mutex_lock(&mutex);
    if (known(set)) {
        set->waiting++;
        ret = wait_for_event(set, after_ms(now, timeout));
        set->waiting--;
        if (ret == NVML_SUCCESS) {
            gpu = set->queue[set->first].gpu;
            data->eventType = nvmlEventTypeXidCriticalError;
            data->eventData = set->queue[set->first].xid;
            data->gpuInstanceId = set->queue[set->first].gpu_instance;
            data->computeInstanceId = set->queue[set->first].compute_instance;
            set->first = (set->first + 1) % QUEUED;
            set->count--;
        }
    }
    pthread_mutex_unlock(&mutex);
    call_resume(&call);
    if (ret == NVML_SUCCESS)
        data->device = handle_of_gpu(call.scenario, &call.scenario->gpus[gpu]);
    return ret;
}
