/* Power, energy, clocks, clock event reasons, PCIe. */
#include "fakenvml.h"

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts)
{
    ENTER(nvmlDeviceGetPowerUsage, device);
    NOT_NULL(milliwatts);
    CAN(CAP_POWER);
    *milliwatts = power_at(call.gpu, now_of(call.scenario));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device,
                                                 unsigned long long *millijoules)
{
    ENTER(nvmlDeviceGetTotalEnergyConsumption, device);
    NOT_NULL(millijoules);
    CAN(CAP_ENERGY);
    *millijoules = (unsigned long long)count_at(call.gpu, &call.gpu->energy_mj,
                                                now_of(call.scenario));
    return NVML_SUCCESS;
}

unsigned int power_limit_of(const Gpu *gpu)
{
    return (unsigned int)value_or(gpu, OV_power_limit_mw, gpu->board->limit_mw);
}

static nvmlReturn_t power_limit(const Call *call, unsigned int value, unsigned int *out)
{
    NOT_NULL(out);
    REQUIRE((call->gpu->board->caps & CAP_POWER_LIMITS) != 0, NVML_ERROR_NOT_SUPPORTED);
    *out = value;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit)
{
    ENTER(nvmlDeviceGetEnforcedPowerLimit, device);
    return power_limit(&call, power_limit_of(call.gpu), limit);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *limit)
{
    ENTER(nvmlDeviceGetPowerManagementLimit, device);
    return power_limit(&call, power_limit_of(call.gpu), limit);
}

nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned int *limit)
{
    ENTER(nvmlDeviceGetPowerManagementDefaultLimit, device);
    return power_limit(&call, call.gpu->board->limit_mw, limit);
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *least,
                                                          unsigned int *most)
{
    ENTER(nvmlDeviceGetPowerManagementLimitConstraints, device);
    NOT_NULL(most);
    nvmlReturn_t ret = power_limit(&call, call.gpu->board->limit_min_mw, least);
    if (ret == NVML_SUCCESS)
        *most = call.gpu->board->limit_mw;
    return ret;
}

/* Steps of 15 MHz, as the boards have them. */
static double core_clock(const Board *board, double load)
{
    double span = (double)board->clock_max_mhz - board->clock_min_mhz;
    return board->clock_min_mhz + 15 * (int)(span * load / 15);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *mhz)
{
    ENTER(nvmlDeviceGetClockInfo, device);
    const Board *board = call.gpu->board;
    double load = load_at(&call.gpu->load, now_of(call.scenario));
    NOT_NULL(mhz);
    REQUIRE((unsigned int)type < NVML_CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    if (type == NVML_CLOCK_MEM) {
        CAN(CAP_MEMORY_CLOCK);
        *mhz = (unsigned int)value_or(call.gpu, OV_clock_memory, board->clock_memory_mhz);
    } else if (type == NVML_CLOCK_VIDEO) {
        *mhz = (unsigned int)value_or(call.gpu, OV_clock_video, board->clock_video_mhz * load);
    } else {
        OverrideId id = type == NVML_CLOCK_SM ? OV_clock_sm : OV_clock_graphics;
        *mhz = (unsigned int)value_or(call.gpu, id, core_clock(board, load));
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type,
                                       unsigned int *mhz)
{
    ENTER(nvmlDeviceGetMaxClockInfo, device);
    const Board *board = call.gpu->board;
    NOT_NULL(mhz);
    REQUIRE((unsigned int)type < NVML_CLOCK_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    const unsigned int most[] = {board->clock_max_mhz, board->clock_max_mhz,
                                 board->clock_memory_mhz, board->clock_video_mhz};
    REQUIRE(most[type] > 0, NVML_ERROR_NOT_SUPPORTED);
    *mhz = most[type];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t *state)
{
    ENTER(nvmlDeviceGetPerformanceState, device);
    double load = load_at(&call.gpu->load, now_of(call.scenario));
    NOT_NULL(state);
    *state = (nvmlPstates_t)value_or(call.gpu, OV_pstate, load > 0.02 ? 0 : 8);
    return NVML_SUCCESS;
}

static nvmlReturn_t reasons(const Call *call, unsigned long long *mask)
{
    NOT_NULL(mask);
    REQUIRE((call->gpu->board->caps & CAP_REASONS) != 0, NVML_ERROR_NOT_SUPPORTED);
    *mask = reasons_at(call->gpu, now_of(call->scenario));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *mask)
{
    ENTER(nvmlDeviceGetCurrentClocksEventReasons, device);
    return reasons(&call, mask);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device,
                                                       unsigned long long *mask)
{
    ENTER(nvmlDeviceGetCurrentClocksThrottleReasons, device);
    return reasons(&call, mask);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device,
                                                      unsigned long long *mask)
{
    ENTER(nvmlDeviceGetSupportedClocksEventReasons, device);
    NOT_NULL(mask);
    CAN(CAP_REASONS);
    *mask = 0x1FF;
    return NVML_SUCCESS;
}

/* Which bit of the reasons a policy's time belongs to; thermal is software's and hardware's. */
nvmlReturn_t policy_ns(const Call *call, unsigned int policy, unsigned long long *ns)
{
    static const signed char bit_of[] = {2, 5, 4, 9, 0, 10, -1, -1, -1, -1, 1, -1};
    double t = now_of(call->scenario), seconds = 0;
    REQUIRE((call->gpu->board->caps & CAP_REASON_TIME) != 0, NVML_ERROR_NOT_SUPPORTED);
    REQUIRE(policy < sizeof bit_of && (policy < 6 || policy > 9), NVML_ERROR_INVALID_ARGUMENT);
    if (bit_of[policy] >= 0)
        seconds = reason_seconds_at(call->gpu, (unsigned int)bit_of[policy], t);
    if (policy == NVML_PERF_POLICY_THERMAL)
        seconds += reason_seconds_at(call->gpu, 6, t);
    *ns = (unsigned long long)(seconds * 1e9);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, nvmlPerfPolicyType_t policy,
                                          nvmlViolationTime_t *violation)
{
    ENTER(nvmlDeviceGetViolationStatus, device);
    NOT_NULL(violation);
    violation->referenceTime = epoch_us(call.scenario, now_of(call.scenario));
    return policy_ns(&call, (unsigned int)policy, &violation->violationTime);
}

nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, nvmlPcieUtilCounter_t direction,
                                         unsigned int *kib_per_second)
{
    ENTER(nvmlDeviceGetPcieThroughput, device);
    NOT_NULL(kib_per_second);
    REQUIRE((unsigned int)direction < NVML_PCIE_UTIL_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    CAN(CAP_PCIE_THROUGHPUT);
    const Counter *counter = direction == NVML_PCIE_UTIL_TX_BYTES ? &call.gpu->pcie_tx_bytes
                                                                  : &call.gpu->pcie_rx_bytes;
    double load = load_at(&call.gpu->load, now_of(call.scenario));
    *kib_per_second =
        (unsigned int)((counter->per_second + counter->per_load_second * load) / 1024);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPcieReplayCounter(nvmlDevice_t device, unsigned int *count)
{
    ENTER(nvmlDeviceGetPcieReplayCounter, device);
    NOT_NULL(count);
    CAN(CAP_PCIE_ERRORS);
    *count = (unsigned int)value_or(call.gpu, OV_pcie_replays, 0);
    return NVML_SUCCESS;
}

static nvmlReturn_t pcie_link(const Call *call, long long value, unsigned int *out)
{
    NOT_NULL(out);
    REQUIRE((call->gpu->board->caps & CAP_PCIE_LINK) != 0, NVML_ERROR_NOT_SUPPORTED);
    *out = (unsigned int)value;
    return NVML_SUCCESS;
}

#define PCIE_LINK(function, value)                                                                \
    nvmlReturn_t function(nvmlDevice_t device, unsigned int *out)                                 \
    {                                                                                             \
        ENTER(function, device);                                                                  \
        return pcie_link(&call, value, out);                                                      \
    }

PCIE_LINK(nvmlDeviceGetCurrPcieLinkGeneration,
          value_or(call.gpu, OV_pcie_gen, call.gpu->board->pcie_gen))
PCIE_LINK(nvmlDeviceGetCurrPcieLinkWidth,
          value_or(call.gpu, OV_pcie_width, call.gpu->board->pcie_width))
PCIE_LINK(nvmlDeviceGetMaxPcieLinkGeneration, call.gpu->board->pcie_gen)
PCIE_LINK(nvmlDeviceGetGpuMaxPcieLinkGeneration, call.gpu->board->pcie_gen)
PCIE_LINK(nvmlDeviceGetMaxPcieLinkWidth, call.gpu->board->pcie_width)
