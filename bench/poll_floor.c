/* The least that a poll can cost: the NVML calls of one tick of the exporter's poller, in C.
 *
 *     poll_floor TICKS FAST_SECONDS SLOW_SECONDS
 *
 * Every FAST_SECONDS the readings of the fast tier of every GPU; those of the slow tier every
 * SLOW_SECONDS, spread over the GPUs as the poller spreads them. It writes the mean CPU seconds of
 * a tick's calls after the first WARM_UP ticks. bench/floor.py checks that they are the same calls.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <nvml.h>

enum { MAX_GPUS = 64, LINKS = 18, MAX_FIELDS = 128, MOST_PROCESSES = 128,
       MOST_SAMPLES = 4096, WARM_UP = 3 };

/* Loaded as pynvml loads it, so that LD_LIBRARY_PATH and a driver's own library work alike. */
#define CALLS(X)                                                                                  \
    X(nvmlInit_v2) X(nvmlDeviceGetCount_v2) X(nvmlDeviceGetHandleByIndex_v2)                      \
    X(nvmlDeviceGetMemoryInfo_v2) X(nvmlDeviceGetUtilizationRates) X(nvmlDeviceGetTemperatureV)   \
    X(nvmlDeviceGetPowerUsage) X(nvmlDeviceGetClockInfo) X(nvmlDeviceGetPerformanceState)         \
    X(nvmlDeviceGetSamples)                                                                       \
    X(nvmlDeviceGetCurrentClocksEventReasons) X(nvmlDeviceGetFieldValues) X(nvmlGpmSampleAlloc)   \
    X(nvmlGpmSampleGet) X(nvmlGpmMetricsGet) X(nvmlDeviceGetBAR1MemoryInfo)                       \
    X(nvmlDeviceGetEncoderUtilization) X(nvmlDeviceGetDecoderUtilization)                         \
    X(nvmlDeviceGetJpgUtilization) X(nvmlDeviceGetOfaUtilization)                                 \
    X(nvmlDeviceGetEnforcedPowerLimit) X(nvmlDeviceGetCurrPcieLinkGeneration)                     \
    X(nvmlDeviceGetMaxPcieLinkGeneration) X(nvmlDeviceGetGpuMaxPcieLinkGeneration)                \
    X(nvmlDeviceGetCurrPcieLinkWidth) X(nvmlDeviceGetMaxPcieLinkWidth)                            \
    X(nvmlDeviceGetSramEccErrorStatus) X(nvmlDeviceGetRowRemapperHistogram)                       \
    X(nvmlDeviceGetRepairStatus) X(nvmlDeviceGetGpuFabricInfoV) X(nvmlDeviceGetPersistenceMode)   \
    X(nvmlDeviceGetComputeMode) X(nvmlDeviceGetMigMode) X(nvmlSystemGetConfComputeState)          \
    X(nvmlDeviceGetMarginTemperature)                                                             \
    X(nvmlDeviceGetComputeRunningProcesses_v3) X(nvmlDeviceGetGraphicsRunningProcesses_v3)        \
    X(nvmlDeviceGetMPSComputeRunningProcesses_v3) X(nvmlDeviceGetProcessesUtilizationInfo)

static struct {
#define MEMBER(name) __typeof__(&name) name;
    CALLS(MEMBER)
} nvml;

static const unsigned int fast_fields[] = {
    NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, NVML_FI_DEV_PERF_POLICY_POWER,
    NVML_FI_DEV_PERF_POLICY_THERMAL, NVML_FI_DEV_PERF_POLICY_SYNC_BOOST,
    NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT, NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION,
    NVML_FI_DEV_PERF_POLICY_RELIABILITY, 269, 270, 271,
    NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX};
static const unsigned int slow_fields[] = {
    NVML_FI_DEV_PCIE_REPLAY_COUNTER, NVML_FI_DEV_PCIE_L0_TO_RECOVERY_COUNTER,
    NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS, NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED,
    NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR, NVML_FI_DEV_PCIE_COUNT_BAD_TLP,
    NVML_FI_DEV_PCIE_COUNT_NAKS_SENT, NVML_FI_DEV_PCIE_COUNT_BAD_DLLP,
    NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR, NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR,
    NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ, NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR,
    NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL, NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL,
    NVML_FI_DEV_POWER_MIN_LIMIT, NVML_FI_DEV_POWER_MAX_LIMIT,
    NVML_FI_DEV_POWER_DEFAULT_LIMIT, NVML_FI_DEV_POWER_CURRENT_LIMIT,
    NVML_FI_DEV_POWER_REQUESTED_LIMIT, NVML_FI_DEV_ECC_CURRENT, NVML_FI_DEV_ECC_PENDING,
    NVML_FI_DEV_ECC_SBE_VOL_TOTAL, NVML_FI_DEV_ECC_DBE_VOL_TOTAL, NVML_FI_DEV_ECC_SBE_AGG_TOTAL,
    NVML_FI_DEV_ECC_DBE_AGG_TOTAL, NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_UNC,
    NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_FAILURE,
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION};
static const unsigned int link_fields[] = {
    NVML_FI_DEV_NVLINK_GET_STATE, NVML_FI_DEV_NVLINK_GET_SPEED,
    NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY, NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY,
    NVML_FI_DEV_NVLINK_ERROR_DL_CRC, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
    NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX};
static const unsigned int profiled[] = {
    NVML_GPM_METRIC_GRAPHICS_UTIL,    NVML_GPM_METRIC_SM_UTIL,
    NVML_GPM_METRIC_SM_OCCUPANCY,     NVML_GPM_METRIC_INTEGER_UTIL,
    NVML_GPM_METRIC_ANY_TENSOR_UTIL,  NVML_GPM_METRIC_HMMA_TENSOR_UTIL,
    NVML_GPM_METRIC_IMMA_TENSOR_UTIL, NVML_GPM_METRIC_DRAM_BW_UTIL,
    NVML_GPM_METRIC_FP64_UTIL,        NVML_GPM_METRIC_FP32_UTIL,
    NVML_GPM_METRIC_FP16_UTIL,        NVML_GPM_METRIC_PCIE_TX_PER_SEC,
    NVML_GPM_METRIC_PCIE_RX_PER_SEC};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef struct {
    nvmlDevice_t handle;
    nvmlFieldValue_t fast[COUNT(fast_fields)];
    nvmlFieldValue_t slow[COUNT(slow_fields) + LINKS * COUNT(link_fields)];
    nvmlGpmMetricsGet_t profile;
    int sampled;
    double slow_turn;
    unsigned long long process_cursor, sample_cursor;
    unsigned int sample_room;
} Gpu;

static Gpu gpus[MAX_GPUS];
static unsigned int count;

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void must(nvmlReturn_t code, const char *what)
{
    if (code != NVML_SUCCESS)
        fail(what);
}
#define MUST(call) must(nvml.call, #call)

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void load(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (library == NULL)
        fail(dlerror());
#define RESOLVE(name)                                                                             \
    if ((*(void **)&nvml.name = dlsym(library, #name)) == NULL)                                   \
        fail(#name " is missing");
    CALLS(RESOLVE)
}

static void open_gpu(unsigned int index)
{
    Gpu *gpu = &gpus[index];
    nvmlFieldValue_t *slot = gpu->slow;
    MUST(nvmlDeviceGetHandleByIndex_v2(index, &gpu->handle));
    for (unsigned int i = 0; i < COUNT(fast_fields); i++) {
        gpu->fast[i].fieldId = fast_fields[i];
        if (i >= COUNT(fast_fields) - 2)
            gpu->fast[i].scopeId = 0xFFFFFFFFu; /* all links */
    }
    for (unsigned int i = 0; i < COUNT(slow_fields); i++)
        (slot++)->fieldId = slow_fields[i];
    for (unsigned int link = 0; link < LINKS; link++)
        for (unsigned int i = 0; i < COUNT(link_fields); i++, slot++) {
            slot->fieldId = link_fields[i];
            slot->scopeId = link;
        }
    gpu->profile.version = NVML_GPM_METRICS_GET_VERSION;
    gpu->profile.numMetrics = COUNT(profiled);
    for (unsigned int i = 0; i < COUNT(profiled); i++)
        gpu->profile.metrics[i].metricId = profiled[i];
    nvmlValueType_t type;
    MUST(nvmlDeviceGetSamples(gpu->handle, NVML_GPU_UTILIZATION_SAMPLES, 0, &type,
                              &gpu->sample_room, NULL));
    if (gpu->sample_room > MOST_SAMPLES)
        fail("too many samples");
    MUST(nvmlGpmSampleAlloc(&gpu->profile.sample1));
    MUST(nvmlGpmSampleAlloc(&gpu->profile.sample2));
    gpu->slow_turn = NAN;
}

/* Where an ECC error was is asked for only when there are new ones. */
static void read_health(nvmlDevice_t device)
{
    nvmlEccSramErrorStatus_t sram = {.version = nvmlEccSramErrorStatus_v1};
    nvmlRowRemapperHistogramValues_t banks;
    nvmlRepairStatus_t repair = {.version = nvmlRepairStatus_v1};
    nvmlGpuFabricInfoV_t fabric = {.version = nvmlGpuFabricInfo_v3};
    nvmlEnableState_t persistence;
    nvmlComputeMode_t compute;
    nvmlConfComputeSystemState_t confidential;
    nvmlMarginTemperature_t margin = {.version = nvmlMarginTemperature_v1};
    unsigned int mig, pending;
    MUST(nvmlDeviceGetSramEccErrorStatus(device, &sram));
    MUST(nvmlDeviceGetRowRemapperHistogram(device, &banks));
    MUST(nvmlDeviceGetRepairStatus(device, &repair));
    MUST(nvmlDeviceGetGpuFabricInfoV(device, &fabric));
    MUST(nvmlDeviceGetPersistenceMode(device, &persistence));
    MUST(nvmlDeviceGetComputeMode(device, &compute));
    MUST(nvmlDeviceGetMigMode(device, &mig, &pending));
    MUST(nvmlDeviceGetMigMode(device, &mig, &pending)); /* for its MIG devices, which it lacks */
    MUST(nvmlSystemGetConfComputeState(&confidential));
    MUST(nvmlDeviceGetMarginTemperature(device, &margin));
}

static void read_processes(Gpu *gpu)
{
    static nvmlProcessInfo_t listed[MOST_PROCESSES];
    static nvmlProcessUtilizationInfo_v1_t samples[MOST_PROCESSES];
    unsigned int count = MOST_PROCESSES;
    MUST(nvmlDeviceGetComputeRunningProcesses_v3(gpu->handle, &count, listed));
    count = MOST_PROCESSES;
    MUST(nvmlDeviceGetGraphicsRunningProcesses_v3(gpu->handle, &count, listed));
    count = MOST_PROCESSES;
    MUST(nvmlDeviceGetMPSComputeRunningProcesses_v3(gpu->handle, &count, listed));
    nvmlProcessesUtilizationInfo_t info = {.version = nvmlProcessesUtilizationInfo_v1,
                                           .processSamplesCount = MOST_PROCESSES,
                                           .lastSeenTimeStamp = gpu->process_cursor,
                                           .procUtilArray = samples};
    nvmlReturn_t code = nvml.nvmlDeviceGetProcessesUtilizationInfo(gpu->handle, &info);
    if (code == NVML_ERROR_NOT_FOUND) /* all are idle */
        return;
    must(code, "nvmlDeviceGetProcessesUtilizationInfo");
    for (unsigned int i = 0; i < info.processSamplesCount; i++)
        if (samples[i].timeStamp > gpu->process_cursor)
            gpu->process_cursor = samples[i].timeStamp;
}

static void read_samples(Gpu *gpu)
{
    static nvmlSample_t samples[MOST_SAMPLES];
    unsigned int count = gpu->sample_room;
    nvmlValueType_t type;
    nvmlReturn_t code =
        nvml.nvmlDeviceGetSamples(gpu->handle, NVML_GPU_UTILIZATION_SAMPLES, gpu->sample_cursor,
                                  &type, &count, samples);
    if (code == NVML_ERROR_NOT_FOUND) /* nothing new */
        return;
    must(code, "nvmlDeviceGetSamples");
    gpu->sample_cursor = samples[count - 1].timeStamp;
}

static void read_slow(Gpu *gpu)
{
    nvmlBAR1Memory_t bar1;
    nvmlPstates_t state;
    unsigned int value, period;
    MUST(nvmlDeviceGetBAR1MemoryInfo(gpu->handle, &bar1));
    MUST(nvmlDeviceGetEncoderUtilization(gpu->handle, &value, &period));
    MUST(nvmlDeviceGetDecoderUtilization(gpu->handle, &value, &period));
    MUST(nvmlDeviceGetJpgUtilization(gpu->handle, &value, &period));
    MUST(nvmlDeviceGetOfaUtilization(gpu->handle, &value, &period));
    for (unsigned int i = 0; i < COUNT(gpu->slow); i += MAX_FIELDS)
        MUST(nvmlDeviceGetFieldValues(
            gpu->handle, COUNT(gpu->slow) - i < MAX_FIELDS ? COUNT(gpu->slow) - i : MAX_FIELDS,
            gpu->slow + i));
    MUST(nvmlDeviceGetEnforcedPowerLimit(gpu->handle, &value));
    MUST(nvmlDeviceGetClockInfo(gpu->handle, NVML_CLOCK_GRAPHICS, &value));
    MUST(nvmlDeviceGetClockInfo(gpu->handle, NVML_CLOCK_VIDEO, &value));
    MUST(nvmlDeviceGetPerformanceState(gpu->handle, &state));
    MUST(nvmlDeviceGetCurrPcieLinkGeneration(gpu->handle, &value));
    MUST(nvmlDeviceGetMaxPcieLinkGeneration(gpu->handle, &value));
    MUST(nvmlDeviceGetGpuMaxPcieLinkGeneration(gpu->handle, &value));
    MUST(nvmlDeviceGetCurrPcieLinkWidth(gpu->handle, &value));
    MUST(nvmlDeviceGetMaxPcieLinkWidth(gpu->handle, &value));
    read_health(gpu->handle);
    read_processes(gpu);
}

static void read_fast(Gpu *gpu)
{
    nvmlMemory_v2_t memory = {.version = nvmlMemory_v2};
    nvmlUtilization_t utilization;
    nvmlTemperature_t temperature = {.version = nvmlTemperature_v1,
                                     .sensorType = NVML_TEMPERATURE_GPU};
    unsigned int value;
    unsigned long long reasons;
    nvmlGpmSample_t older = gpu->profile.sample2;
    MUST(nvmlDeviceGetMemoryInfo_v2(gpu->handle, &memory));
    MUST(nvmlDeviceGetUtilizationRates(gpu->handle, &utilization));
    read_samples(gpu);
    MUST(nvmlDeviceGetTemperatureV(gpu->handle, &temperature));
    MUST(nvmlDeviceGetFieldValues(gpu->handle, COUNT(gpu->fast), gpu->fast));
    MUST(nvmlDeviceGetPowerUsage(gpu->handle, &value));
    MUST(nvmlDeviceGetCurrentClocksEventReasons(gpu->handle, &reasons));
    MUST(nvmlDeviceGetClockInfo(gpu->handle, NVML_CLOCK_SM, &value));
    MUST(nvmlDeviceGetClockInfo(gpu->handle, NVML_CLOCK_MEM, &value));
    gpu->profile.sample2 = gpu->profile.sample1;
    gpu->profile.sample1 = older;
    MUST(nvmlGpmSampleGet(gpu->handle, gpu->profile.sample2));
    if (gpu->sampled++)
        MUST(nvmlGpmMetricsGet(&gpu->profile));
}

static void tick(double slow_seconds)
{
    double now = clock_seconds(CLOCK_MONOTONIC);
    for (unsigned int i = 0; i < count; i++) {
        double turn = floor(now / slow_seconds + (double)i / count);
        if (turn != gpus[i].slow_turn)
            read_slow(&gpus[i]);
        gpus[i].slow_turn = turn;
        read_fast(&gpus[i]);
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        fail("usage: poll_floor TICKS FAST_SECONDS SLOW_SECONDS");
    int ticks = atoi(argv[1]);
    double fast_seconds = atof(argv[2]), slow_seconds = atof(argv[3]), used = 0;
    load();
    MUST(nvmlInit_v2());
    MUST(nvmlDeviceGetCount_v2(&count));
    if (count > MAX_GPUS)
        fail("too many GPUs");
    for (unsigned int i = 0; i < count; i++)
        open_gpu(i);
    double start = clock_seconds(CLOCK_MONOTONIC);
    for (int i = 0; i < ticks; i++) {
        double due = start + i * fast_seconds;
        struct timespec t = {(time_t)due, (long)(fmod(due, 1) * 1e9)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        double before = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
        tick(slow_seconds);
        if (i >= WARM_UP)
            used += clock_seconds(CLOCK_THREAD_CPUTIME_ID) - before;
    }
    printf("%.9f\n", ticks > WARM_UP ? used / (ticks - WARM_UP) : 0);
    return 0;
}
