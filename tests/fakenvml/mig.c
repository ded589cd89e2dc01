/* MIG: mode, and instances at sparse indexes. */
#include "fakenvml.h"

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *now, unsigned int *pending)
{
    ENTER(nvmlDeviceGetMigMode, device);
    NOT_NULL(now);
    NOT_NULL(pending);
    CAN(CAP_MIG);
    *now = call.gpu->mig_on ? NVML_DEVICE_MIG_ENABLE : NVML_DEVICE_MIG_DISABLE;
    *pending = (unsigned int)value_or(call.gpu, OV_mig_pending, *now);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    ENTER(nvmlDeviceGetMaxMigDeviceCount, device);
    NOT_NULL(count);
    *count = call.gpu->board->caps & CAP_MIG ? MAX_MIG : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index,
                                                 nvmlDevice_t *mig)
{
    ENTER(nvmlDeviceGetMigDeviceHandleByIndex, device);
    NOT_NULL(mig);
    CAN(CAP_MIG);
    REQUIRE(index < MAX_MIG, NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned int i = 0; call.gpu->mig_on && i < call.gpu->mig_count; i++)
        if (call.gpu->mig[i].index == index) {
            *mig = handle_of_mig(call.scenario, call.gpu, &call.gpu->mig[i]);
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device)
{
    ENTER(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, mig);
    NOT_NULL(device);
    REQUIRE(call.mig != NULL, NVML_ERROR_INVALID_ARGUMENT);
    *device = handle_of_gpu(call.scenario, call.gpu);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig)
{
    ENTER(nvmlDeviceIsMigDeviceHandle, device);
    NOT_NULL(is_mig);
    *is_mig = call.mig != NULL;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
    ENTER(nvmlDeviceGetGpuInstanceId, device);
    NOT_NULL(id);
    REQUIRE(call.mig != NULL, NVML_ERROR_INVALID_ARGUMENT);
    *id = call.mig->gpu_instance;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
    ENTER(nvmlDeviceGetComputeInstanceId, device);
    NOT_NULL(id);
    REQUIRE(call.mig != NULL, NVML_ERROR_INVALID_ARGUMENT);
    *id = 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    ENTER(nvmlDeviceGetAttributes_v2, device);
    NOT_NULL(attributes);
    REQUIRE(call.mig != NULL, NVML_ERROR_NOT_SUPPORTED);
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = call.gpu->board->mig_sms * call.mig->slices,
        .sharedCopyEngineCount = call.mig->slices,
        .sharedDecoderCount = call.mig->slices / 2 + 1,
        .gpuInstanceSliceCount = call.mig->slices,
        .computeInstanceSliceCount = call.mig->slices,
        .memorySizeMB = mig_memory(call.gpu, call.mig) >> 20};
    return NVML_SUCCESS;
}
