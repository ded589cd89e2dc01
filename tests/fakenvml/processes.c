/* Running processes, their utilization, and the boards' buffered samples. */
#include "fakenvml.h"

enum { UTIL_CAPACITY = 72, STALE_PID = 4194303 };

static bool listed(const Call *call, const Process *process, char kind)
{
    if (process->gpu >= 0 && process->gpu != (int)call->gpu->index)
        return false;
    return process->kind == kind &&
           (call->mig == NULL || process->gpu_instance == call->mig->gpu_instance);
}

/* 535.43 to 535.86 took the entries for 8 bytes longer than their callers did. */
static size_t entry_bytes(const Scenario *scenario)
{
    int driver = scenario->driver_number;
    return sizeof(nvmlProcessInfo_t) + (driver >= 535043 && driver <= 535086 ? 8 : 0);
}

static nvmlReturn_t running(const Call *call, char kind, unsigned int *count,
                            nvmlProcessInfo_t *out)
{
    const Scenario *scenario = call->scenario;
    unsigned int found = 0, room;
    char *slot = (char *)out;
    NOT_NULL(count);
    REQUIRE(out != NULL || *count == 0, NVML_ERROR_INVALID_ARGUMENT);
    room = *count;
    for (unsigned int i = 0; i < scenario->processes_count; i++)
        found += listed(call, &scenario->processes[i], kind);
    *count = found;
    REQUIRE(found <= room, NVML_ERROR_INSUFFICIENT_SIZE);
    for (unsigned int i = 0; i < scenario->processes_count; i++) {
        const Process *process = &scenario->processes[i];
        if (!listed(call, process, kind))
            continue;
        *(nvmlProcessInfo_t *)slot = (nvmlProcessInfo_t){
            process->pid, process->bytes, process->gpu_instance,
            process->gpu_instance == NO_INSTANCE ? NO_INSTANCE : 0};
        slot += entry_bytes(scenario);
    }
    return NVML_SUCCESS;
}

#define RUNNING(function, kind)                                                                   \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)     \
    {                                                                                             \
        ENTER(function, device);                                                                  \
        return running(&call, kind, count, infos);                                                \
    }

RUNNING(nvmlDeviceGetComputeRunningProcesses_v3, 'c')
RUNNING(nvmlDeviceGetGraphicsRunningProcesses_v3, 'g')
RUNNING(nvmlDeviceGetMPSComputeRunningProcesses_v3, 'm')
RUNNING(nvmlDeviceGetComputeRunningProcesses_v2, 'c')
RUNNING(nvmlDeviceGetGraphicsRunningProcesses_v2, 'g')
RUNNING(nvmlDeviceGetMPSComputeRunningProcesses_v2, 'm')

static bool utilized(const Call *call, const Process *process)
{
    return process->sm_percent > 0 &&
           (process->gpu < 0 || process->gpu == (int)call->gpu->index);
}

/* A sample each 1/6 s. Sizing answers the buffer's capacity, not the number; a cursor of 0 also
 * finds what the buffer kept of a process that is long gone. */
nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
                                             nvmlProcessUtilizationSample_t *samples,
                                             unsigned int *count, unsigned long long last_seen)
{
    ENTER(nvmlDeviceGetProcessUtilization, device);
    const Scenario *scenario = call.scenario;
    unsigned int found = 0, written = 0, room;
    NOT_NULL(count);
    CAN(CAP_PROCESS_UTIL);
    room = *count;
    *count = UTIL_CAPACITY;
    REQUIRE(samples != NULL, NVML_ERROR_INSUFFICIENT_SIZE);
    unsigned long long now = epoch_us(scenario, now_of(scenario)), stamp = now - now % 166667;
    for (unsigned int i = 0; i < scenario->processes_count; i++)
        found += utilized(&call, &scenario->processes[i]);
    REQUIRE(found > 0 && stamp > last_seen, NVML_ERROR_NOT_FOUND);
    *count = found + (last_seen == 0);
    REQUIRE(*count <= room, NVML_ERROR_INSUFFICIENT_SIZE);
    for (unsigned int i = 0; i < scenario->processes_count; i++) {
        const Process *process = &scenario->processes[i];
        if (utilized(&call, process))
            samples[written++] = (nvmlProcessUtilizationSample_t){
                process->pid, stamp, process->sm_percent, process->sm_percent / 2, 0, 0};
    }
    if (last_seen == 0)
        samples[written] =
            (nvmlProcessUtilizationSample_t){STALE_PID, stamp - 3600000000ull, 90, 40, 0, 0};
    return NVML_SUCCESS;
}

/* The same samples, with two engines more; sizing is by the same capacity. */
nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                   nvmlProcessesUtilizationInfo_t *info)
{
    ENTER(nvmlDeviceGetProcessesUtilizationInfo, device);
    NOT_NULL(info);
    REQUIRE(info->version == nvmlProcessesUtilizationInfo_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    CAN(CAP_PROCESS_UTIL);
    const Scenario *scenario = call.scenario;
    unsigned int found = 0, written = 0, room = info->processSamplesCount;
    nvmlProcessUtilizationInfo_v1_t *samples = info->procUtilArray;
    unsigned long long now = epoch_us(scenario, now_of(scenario)), stamp = now - now % 166667;
    info->processSamplesCount = UTIL_CAPACITY;
    REQUIRE(samples != NULL, NVML_ERROR_INSUFFICIENT_SIZE);
    for (unsigned int i = 0; i < scenario->processes_count; i++)
        found += utilized(&call, &scenario->processes[i]);
    REQUIRE(found > 0 && stamp > info->lastSeenTimeStamp, NVML_ERROR_NOT_FOUND);
    bool stale = info->lastSeenTimeStamp == 0;
    info->processSamplesCount = found + stale;
    REQUIRE(found + stale <= room, NVML_ERROR_INSUFFICIENT_SIZE);
    for (unsigned int i = 0; i < scenario->processes_count; i++) {
        const Process *process = &scenario->processes[i];
        if (utilized(&call, process))
            samples[written++] = (nvmlProcessUtilizationInfo_v1_t){
                stamp, process->pid, process->sm_percent, process->sm_percent / 2, 0, 0, 0, 0};
    }
    if (stale)
        samples[written] =
            (nvmlProcessUtilizationInfo_v1_t){stamp - 3600000000ull, STALE_PID, 90, 40, 0, 0, 0, 0};
    return NVML_SUCCESS;
}

/* A sample is the mean of the `step` seconds before it. */
static unsigned int sampled(const Gpu *gpu, nvmlSamplingType_t type, double t, double step)
{
    const PastLoad *past = &gpu->past[0];
    for (unsigned int i = 1; i < gpu->past_count && t < past->since; i++)
        past = &gpu->past[i];
    double load = load_between(&past->load, t - step, t) / step;
    switch (type) {
    case NVML_TOTAL_POWER_SAMPLES: return (unsigned int)(past->idle_mw + past->span_mw * load);
    case NVML_GPU_UTILIZATION_SAMPLES: return (unsigned int)(100 * load + 0.5);
    case NVML_MEMORY_UTILIZATION_SAMPLES: return (unsigned int)(60 * load + 0.5);
    case NVML_ENC_UTILIZATION_SAMPLES: return (unsigned int)value_or(gpu, OV_encoder, 0);
    case NVML_DEC_UTILIZATION_SAMPLES: return (unsigned int)value_or(gpu, OV_decoder, 0);
    case NVML_JPG_UTILIZATION_SAMPLES: return (unsigned int)value_or(gpu, OV_jpeg, 0);
    default: return (unsigned int)value_or(gpu, OV_ofa, 0);
    }
}

/* Power every 20 ms, 119 of them; the rest every 200 ms, 71 of them. The two kinds of clock
 * samples are sized and then not supported, as the driver does it. */
nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type,
                                  unsigned long long last_seen, nvmlValueType_t *value_type,
                                  unsigned int *count, nvmlSample_t *samples)
{
    ENTER(nvmlDeviceGetSamples, device);
    bool power = type == NVML_TOTAL_POWER_SAMPLES;
    unsigned int most = power ? 119 : 71, written = 0;
    double step = power ? 0.02 : 0.2, now = now_of(call.scenario);
    NOT_NULL(count);
    NOT_NULL(value_type);
    REQUIRE((unsigned int)type < NVML_SAMPLINGTYPE_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    CAN(CAP_SAMPLES);
    REQUIRE(type != NVML_MODULE_POWER_SAMPLES, NVML_ERROR_NOT_SUPPORTED);
    *value_type = (nvmlValueType_t)value_or(call.gpu, OV_sample_type, NVML_VALUE_TYPE_UNSIGNED_INT);
    if (samples == NULL) {
        *count = most;
        return NVML_SUCCESS;
    }
    REQUIRE(*count > 0, NVML_ERROR_INVALID_ARGUMENT);
    REQUIRE(type != NVML_PROCESSOR_CLK_SAMPLES && type != NVML_MEMORY_CLK_SAMPLES,
            NVML_ERROR_NOT_SUPPORTED);
    long long newest = (long long)(now / step), first = newest - most + 1;
    for (long long i = first < 0 ? 0 : first; i <= newest && written < *count; i++) {
        double off = (double)value_or(call.gpu, OV_sample_clock_ms, 0) / 1000;
        unsigned long long stamp = epoch_us(call.scenario, (double)i * step + off);
        if (stamp <= last_seen)
            continue;
        samples[written].timeStamp = stamp;
        samples[written].sampleValue.ullVal = 0xDEADBEEF00000000ull; /* only uiVal is set */
        samples[written++].sampleValue.uiVal = sampled(call.gpu, type, (double)i * step, step);
    }
    *count = written;
    return written > 0 ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}
