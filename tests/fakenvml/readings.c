/* Memory, utilization, temperature, fans. */
#include "fakenvml.h"

unsigned long long mig_memory(const Gpu *gpu, const MigInstance *mig)
{
    return memory_total_of(gpu) / 8 * (mig->slices > 2 ? mig->slices + 1 : mig->slices);
}

/* Allocations come in 2 MiB pages. */
static nvmlMemory_v2_t memory_of(const Call *call)
{
    const Gpu *gpu = call->gpu;
    double load = load_at(&gpu->load, now_of(call->scenario));
    nvmlMemory_v2_t memory = {.total = memory_total_of(gpu)};
    memory.reserved = (unsigned long long)value_or(gpu, OV_memory_reserved,
                                                   (double)gpu->board->reserved_bytes);
    if (call->mig != NULL) {
        memory.total = mig_memory(gpu, call->mig);
        memory.reserved = 0;
    }
    if (memory.reserved > memory.total)
        memory.reserved = memory.total;
    memory.used = (unsigned long long)((0.25 + 0.5 * load) * (double)memory.total) >> 21 << 21;
    if (has(gpu, OV_memory_used) && call->mig == NULL)
        memory.used = (unsigned long long)gpu->value[OV_memory_used];
    if (memory.used > memory.total - memory.reserved)
        memory.used = memory.total - memory.reserved;
    memory.free = memory.total - memory.reserved - memory.used;
    return memory;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    ENTER(nvmlDeviceGetMemoryInfo, device);
    NOT_NULL(memory);
    CAN(CAP_MEMORY);
    nvmlMemory_v2_t now = memory_of(&call);
    memory->total = now.total;
    memory->free = now.free;
    memory->used = now.used + now.reserved;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    ENTER(nvmlDeviceGetMemoryInfo_v2, device);
    NOT_NULL(memory);
    REQUIRE(memory->version == nvmlMemory_v2, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    CAN(CAP_MEMORY);
    *memory = memory_of(&call);
    memory->version = nvmlMemory_v2;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *bar1)
{
    ENTER(nvmlDeviceGetBAR1MemoryInfo, device);
    NOT_NULL(bar1);
    CAN(CAP_BAR1);
    bar1->bar1Total = call.gpu->board->bar1_bytes;
    bar1->bar1Used = (unsigned long long)value_or(call.gpu, OV_bar1_used, 2 * 1048576.0);
    bar1->bar1Free = bar1->bar1Total - bar1->bar1Used;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    ENTER(nvmlDeviceGetUtilizationRates, device);
    double now = now_of(call.scenario), load = load_at(&call.gpu->load, now);
    bool pulses = has(call.gpu, OV_pulse_ms); /* the product's window is 1/6 s */
    NOT_NULL(utilization);
    if (pulses)
        load = 6 * load_between(&call.gpu->load, now - 1.0 / 6, now);
    utilization->gpu = pulses ? (unsigned int)(100 * load + 0.5)
                              : (unsigned int)value_or(call.gpu, OV_util, 100 * load);
    utilization->memory = (unsigned int)value_or(call.gpu, OV_memory_util, 60 * load);
    return NVML_SUCCESS;
}

static nvmlReturn_t engine(const Call *call, OverrideId id, uint64_t capability,
                           unsigned int *percent, unsigned int *period_us)
{
    NOT_NULL(percent);
    NOT_NULL(period_us);
    REQUIRE((call->gpu->board->caps & capability) != 0, NVML_ERROR_NOT_SUPPORTED);
    *percent = (unsigned int)value_or(call->gpu, id, 0);
    *period_us = 167000;
    return NVML_SUCCESS;
}

#define ENGINE(function, id, capability)                                                          \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *percent, unsigned int *period_us)    \
    {                                                                                             \
        ENTER(function, device);                                                                  \
        return engine(&call, id, capability, percent, period_us);                                 \
    }

ENGINE(nvmlDeviceGetEncoderUtilization, OV_encoder, CAP_CODEC)
ENGINE(nvmlDeviceGetDecoderUtilization, OV_decoder, CAP_CODEC)
ENGINE(nvmlDeviceGetJpgUtilization, OV_jpeg, CAP_JPEG_OFA)
ENGINE(nvmlDeviceGetOfaUtilization, OV_ofa, CAP_JPEG_OFA)

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    ENTER(nvmlDeviceGetTemperatureV, device);
    NOT_NULL(temperature);
    REQUIRE(temperature->version == nvmlTemperature_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    REQUIRE(temperature->sensorType == NVML_TEMPERATURE_GPU, NVML_ERROR_INVALID_ARGUMENT);
    REQUIRE(call.gpu->board->temp_full > 0, NVML_ERROR_NOT_SUPPORTED);
    temperature->temperature = temperature_at(call.gpu, now_of(call.scenario));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor,
                                      unsigned int *temperature)
{
    ENTER(nvmlDeviceGetTemperature, device);
    NOT_NULL(temperature);
    REQUIRE(sensor == NVML_TEMPERATURE_GPU, NVML_ERROR_INVALID_ARGUMENT);
    REQUIRE(call.gpu->board->temp_full > 0, NVML_ERROR_NOT_SUPPORTED);
    *temperature = (unsigned int)temperature_at(call.gpu, now_of(call.scenario));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device,
                                               nvmlTemperatureThresholds_t kind,
                                               unsigned int *temperature)
{
    ENTER(nvmlDeviceGetTemperatureThreshold, device);
    const Board *board = call.gpu->board;
    const unsigned int of_kind[] = {board->temp_shutdown, board->temp_slowdown,
                                    board->temp_memory_max, board->temp_max};
    NOT_NULL(temperature);
    REQUIRE((unsigned int)kind < NVML_TEMPERATURE_THRESHOLD_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    CAN(CAP_THRESHOLDS);
    REQUIRE((unsigned int)kind < 4 && of_kind[kind] > 0, NVML_ERROR_NOT_SUPPORTED);
    *temperature = of_kind[kind];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *margin)
{
    ENTER(nvmlDeviceGetMarginTemperature, device);
    int temperature = temperature_at(call.gpu, now_of(call.scenario));
    NOT_NULL(margin);
    REQUIRE(margin->version == nvmlMarginTemperature_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    CAN(CAP_TLIMIT);
    margin->marginTemperature = (int)value_or(call.gpu, OV_temp_margin,
                                              (double)call.gpu->board->temp_max - temperature);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNumFans(nvmlDevice_t device, unsigned int *fans)
{
    ENTER(nvmlDeviceGetNumFans, device);
    NOT_NULL(fans);
    REQUIRE(call.gpu->board->fans > 0, NVML_ERROR_NOT_SUPPORTED);
    *fans = call.gpu->board->fans;
    return NVML_SUCCESS;
}

static nvmlReturn_t fan_percent(const Call *call, unsigned int fan, unsigned int *percent)
{
    NOT_NULL(percent);
    REQUIRE(call->gpu->board->fans > 0, NVML_ERROR_NOT_SUPPORTED);
    REQUIRE(fan < call->gpu->board->fans, NVML_ERROR_INVALID_ARGUMENT);
    double load = load_at(&call->gpu->load, now_of(call->scenario));
    *percent = (unsigned int)value_or(call->gpu, OV_fan, 30 + 40 * load);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t device, unsigned int *percent)
{
    ENTER(nvmlDeviceGetFanSpeed, device);
    return fan_percent(&call, 0, percent);
}

nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t device, unsigned int fan, unsigned int *percent)
{
    ENTER(nvmlDeviceGetFanSpeed_v2, device);
    return fan_percent(&call, fan, percent);
}

nvmlReturn_t nvmlDeviceGetFanSpeedRPM(nvmlDevice_t device, nvmlFanSpeedInfo_t *speed)
{
    ENTER(nvmlDeviceGetFanSpeedRPM, device);
    unsigned int percent = 0;
    NOT_NULL(speed);
    REQUIRE(speed->version == nvmlFanSpeedInfo_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    nvmlReturn_t ret = fan_percent(&call, speed->fan, &percent);
    REQUIRE(ret == NVML_SUCCESS, ret);
    speed->speed = (unsigned int)value_or(call.gpu, OV_fan_rpm, 30.0 * percent);
    return NVML_SUCCESS;
}
