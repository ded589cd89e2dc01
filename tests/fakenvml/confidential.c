/* Confidential computing: one state for the node, which the scenario of GPU 0 decides. */
#include "fakenvml.h"

static bool can(const Call *call)
{
    return (call->scenario->live_profile->board->caps & CAP_CONF_COMPUTE) != 0;
}

static unsigned int flag(const Call *call, OverrideId id)
{
    return value_or(&call->scenario->gpus[0], id, 0) != 0;
}

nvmlReturn_t nvmlSystemGetConfComputeState(nvmlConfComputeSystemState_t *state)
{
    ENTER_SYSTEM(nvmlSystemGetConfComputeState);
    NOT_NULL(state);
    REQUIRE(can(&call), NVML_ERROR_NOT_SUPPORTED);
    state->ccFeature = flag(&call, OV_conf_compute);
    state->environment = state->ccFeature ? NVML_CC_SYSTEM_ENVIRONMENT_PROD
                                          : NVML_CC_SYSTEM_ENVIRONMENT_UNAVAILABLE;
    state->devToolsMode = flag(&call, OV_conf_compute_devtools);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetConfComputeGpusReadyState(unsigned int *accepting)
{
    ENTER_SYSTEM(nvmlSystemGetConfComputeGpusReadyState);
    NOT_NULL(accepting);
    REQUIRE(can(&call), NVML_ERROR_NOT_SUPPORTED);
    *accepting = flag(&call, OV_conf_compute_ready);
    return NVML_SUCCESS;
}

/* All of a GPU's memory, a quarter of it in use. */
nvmlReturn_t nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device,
                                                          nvmlMemory_t *memory)
{
    ENTER(nvmlDeviceGetConfComputeProtectedMemoryUsage, device);
    NOT_NULL(memory);
    CAN(CAP_CONF_COMPUTE);
    *memory = (nvmlMemory_t){0};
    if (flag(&call, OV_conf_compute)) {
        memory->total = memory_total_of(call.gpu);
        memory->used = memory->total / 4;
        memory->free = memory->total - memory->used;
    }
    return NVML_SUCCESS;
}
