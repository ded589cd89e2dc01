/* Init, shutdown, versions, and how a device handle is found. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fakenvml.h"

atomic_uint init_references;
atomic_bool forked_after_init;

static pthread_mutex_t initialising = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_watch = PTHREAD_ONCE_INIT;

static void in_child(void)
{
    if (atomic_load(&init_references) > 0)
        atomic_store(&forked_after_init, true);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, in_child);
}

/* Both names of init share the rules of the scenario's `init.` keys, but are counted apart. */
static nvmlReturn_t initialise(SymbolId counted)
{
    pthread_once(&fork_watch, watch_forks);
    log_open();
    if (atomic_load(&init_references) == 0)
        scenario_load(false);
    __attribute__((cleanup(call_leave))) Call call = {.symbol = SYM_nvmlInitWithFlags, .column = NO_GPU};
    call_resume(&call);
    call.counted = log_begin(counted, NO_GPU);
    nvmlReturn_t ret = call_faults(&call);
    REQUIRE(ret == NVML_SUCCESS, ret);
    call_pause(&call);
    pthread_mutex_lock(&initialising);
    if (atomic_load(&init_references) == 0)
        scenario_load(true);
    atomic_fetch_add(&init_references, 1);
    pthread_mutex_unlock(&initialising);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    return initialise(SYM_nvmlInitWithFlags);
}

nvmlReturn_t nvmlInit_v2(void)
{
    return initialise(SYM_nvmlInit_v2);
}

nvmlReturn_t nvmlShutdown(void)
{
    ENTER_SYSTEM(nvmlShutdown);
    unsigned int references = atomic_load(&init_references);
    do
        REQUIRE(references > 0, NVML_ERROR_UNINITIALIZED);
    while (!atomic_compare_exchange_weak(&init_references, &references, references - 1));
    if (references == 1) {
        events_shutdown();
        gpm_drop_all();
    }
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported",
        "Insufficient Permissions", "Already Initialized", "Not Found", "Insufficient Size",
        "Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
        "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost",
        "GPU requires reset", "The operating system has blocked the request",
        "Driver/library version mismatch", "In use by another client", "Insufficient memory",
        "No data", "The requested vgpu operation is not available on target device, because ECC "
        "is enabled", "Insufficient resources", "Frequency not supported",
        "Argument version mismatch", "Deprecated", "Not ready", "No GPUs were found",
        "Invalid state", "Reset type not supported"};
    if ((size_t)result < sizeof texts / sizeof *texts)
        return texts[result];
    return "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    ENTER_SYSTEM(nvmlSystemGetDriverVersion);
    return copy_string(call.scenario->live_driver, version, length);
}

/* "<major of NVML>.<driver>" */
nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    ENTER_SYSTEM(nvmlSystemGetNVMLVersion);
    char text[MAX_DRIVER + 8];
    const Scenario *scenario = call.scenario;
    if (scenario->nvml_version[0] != '\0')
        return copy_string(scenario->nvml_version, version, length);
    snprintf(text, sizeof text, "%d.%s", scenario->driver_number >= 580000 ? 13 : 12,
             scenario->live_driver);
    return copy_string(text, version, length);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    ENTER_SYSTEM(nvmlSystemGetCudaDriverVersion);
    static const struct { int driver, cuda; } table[] = {
        {610000, 13030}, {595000, 13020}, {590000, 13010}, {580000, 13000}, {575000, 12090},
        {570000, 12080}, {560000, 12060}, {550000, 12040}, {535000, 12020}, {0, 12000}};
    unsigned int i = 0;
    NOT_NULL(version);
    while (call.scenario->driver_number < table[i].driver)
        i++;
    *version = table[i].cuda;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    ENTER_SYSTEM(nvmlDeviceGetCount_v2);
    NOT_NULL(count);
    *count = (unsigned int)call.scenario->live_count;
    return NVML_SUCCESS;
}

static nvmlReturn_t give_handle(Call *call, unsigned int index, nvmlDevice_t *device)
{
    call_settle(call, index);
    REQUIRE(call->status == NVML_SUCCESS, call->status);
    *device = handle_of_gpu(call->scenario, &call->scenario->gpus[index]);
    return NVML_SUCCESS;
}

static nvmlReturn_t no_handle(Call *call, nvmlReturn_t why)
{
    call_settle(call, NO_GPU);
    return call->status != NVML_SUCCESS ? call->status : why;
}

#define ENTER_LOOKUP(name)                                                                        \
    __attribute__((cleanup(call_leave))) Call call = call_enter_lookup(SYM_##name)

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    ENTER_LOOKUP(nvmlDeviceGetHandleByIndex_v2);
    if (!call.holds || device == NULL || (int)index >= call.scenario->live_count)
        return no_handle(&call, NVML_ERROR_INVALID_ARGUMENT);
    return give_handle(&call, index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    ENTER_LOOKUP(nvmlDeviceGetHandleByUUID);
    if (!call.holds || device == NULL || uuid == NULL)
        return no_handle(&call, NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned int i = 0; (int)i < call.scenario->live_count; i++) {
        const Gpu *gpu = &call.scenario->gpus[i];
        char text[NVML_DEVICE_UUID_BUFFER_SIZE];
        gpu_uuid(gpu, text);
        if (strcmp(text, uuid) == 0)
            return give_handle(&call, i, device);
        for (unsigned int m = 0; gpu->mig_on && m < gpu->mig_count; m++) {
            mig_uuid(gpu, &gpu->mig[m], text);
            if (strcmp(text, uuid) != 0)
                continue;
            *device = handle_of_mig(call.scenario, gpu, &gpu->mig[m]);
            call_settle(&call, i);
            return call.status;
        }
    }
    return no_handle(&call, NVML_ERROR_NOT_FOUND);
}

/* Accepts the long form (00000000:1B:00.0) and the short one (0000:1b:00.0). */
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    ENTER_LOOKUP(nvmlDeviceGetHandleByPciBusId_v2);
    unsigned int domain, bus, slot, function;
    if (!call.holds || device == NULL || bus_id == NULL ||
        sscanf(bus_id, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
        return no_handle(&call, NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned int i = 0; (int)i < call.scenario->live_count; i++)
        if (domain == 0 && slot == 0 && function == 0 && bus == gpu_bus(i))
            return give_handle(&call, i, device);
    return no_handle(&call, NVML_ERROR_NOT_FOUND);
}
