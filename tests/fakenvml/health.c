/* ECC, retired pages, remapped rows. */
#include "fakenvml.h"

/* What happened since the driver was loaded is part of what ever happened. */
unsigned long long ecc_count(const Gpu *gpu, bool uncorrected, bool aggregate)
{
    long long now = uncorrected ? value_or(gpu, OV_ecc_uncorrected_volatile, 0)
                                : value_or(gpu, OV_ecc_corrected_volatile, 0);
    long long ever = uncorrected ? value_or(gpu, OV_ecc_uncorrected_aggregate, 0)
                                 : value_or(gpu, OV_ecc_corrected_aggregate, 0);
    return (unsigned long long)(aggregate && ever > now ? ever : now);
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *now,
                                  nvmlEnableState_t *pending)
{
    ENTER(nvmlDeviceGetEccMode, device);
    NOT_NULL(now);
    NOT_NULL(pending);
    CAN(CAP_ECC);
    *now = ecc_on(call.gpu) ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    *pending = value_or(call.gpu, OV_ecc_pending, *now) != 0 ? NVML_FEATURE_ENABLED
                                                             : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type,
                                         nvmlEccCounterType_t counter, unsigned long long *count)
{
    ENTER(nvmlDeviceGetTotalEccErrors, device);
    NOT_NULL(count);
    REQUIRE((unsigned int)type < NVML_MEMORY_ERROR_TYPE_COUNT &&
                (unsigned int)counter < NVML_ECC_COUNTER_TYPE_COUNT,
            NVML_ERROR_INVALID_ARGUMENT);
    REQUIRE(ecc_on(call.gpu), NVML_ERROR_NOT_SUPPORTED);
    *count = ecc_count(call.gpu, type == NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                       counter == NVML_AGGREGATE_ECC);
    return NVML_SUCCESS;
}

/* Errors in SRAM, all of them since the driver was loaded; those that are not are in DRAM. */
static unsigned long long sram_count(const Gpu *gpu, bool uncorrected)
{
    return (unsigned long long)value_or(
        gpu, uncorrected ? OV_sram_uncorrected : OV_sram_corrected, 0);
}

/* The places that boards before Turing told apart are refused. */
nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t type,
                                             nvmlEccCounterType_t counter,
                                             nvmlMemoryLocation_t location,
                                             unsigned long long *count)
{
    ENTER(nvmlDeviceGetMemoryErrorCounter, device);
    bool uncorrected = type == NVML_MEMORY_ERROR_TYPE_UNCORRECTED;
    NOT_NULL(count);
    REQUIRE((unsigned int)type < NVML_MEMORY_ERROR_TYPE_COUNT &&
                (unsigned int)counter < NVML_ECC_COUNTER_TYPE_COUNT &&
                (unsigned int)location < NVML_MEMORY_LOCATION_COUNT,
            NVML_ERROR_INVALID_ARGUMENT);
    REQUIRE(ecc_on(call.gpu), NVML_ERROR_NOT_SUPPORTED);
    REQUIRE(location == NVML_MEMORY_LOCATION_SRAM ||
                (location == NVML_MEMORY_LOCATION_DRAM && call.mig == NULL),
            NVML_ERROR_NOT_SUPPORTED);
    REQUIRE(call.mig == NULL || (uncorrected && counter == NVML_VOLATILE_ECC),
            NVML_ERROR_NOT_SUPPORTED);
    unsigned long long all = ecc_count(call.gpu, uncorrected, counter == NVML_AGGREGATE_ECC);
    unsigned long long sram = sram_count(call.gpu, uncorrected);
    *count = location == NVML_MEMORY_LOCATION_SRAM ? sram : all > sram ? all - sram : 0;
    return NVML_SUCCESS;
}

/* SEC-DED finds them, in the SMs; whether the caller is root is for the scenario to say. */
nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_t *status)
{
    ENTER(nvmlDeviceGetSramEccErrorStatus, device);
    NOT_NULL(status);
    REQUIRE(status->version == nvmlEccSramErrorStatus_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    CAN(CAP_REMAP);
    REQUIRE(ecc_on(call.gpu), NVML_ERROR_NOT_SUPPORTED);
    *status = (nvmlEccSramErrorStatus_t){.version = nvmlEccSramErrorStatus_v1};
    status->aggregateCor = status->volatileCor = sram_count(call.gpu, false);
    status->aggregateUncSecDed = status->volatileUncSecDed = sram_count(call.gpu, true);
    status->aggregateUncBucketSm = status->aggregateUncSecDed;
    status->bThresholdExceeded = (unsigned int)value_or(call.gpu, OV_sram_threshold, 0);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRepairStatus(nvmlDevice_t device, nvmlRepairStatus_t *status)
{
    ENTER(nvmlDeviceGetRepairStatus, device);
    NOT_NULL(status);
    REQUIRE(status->version == nvmlRepairStatus_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    CAN(CAP_REMAP);
    status->bChannelRepairPending = (unsigned int)value_or(call.gpu, OV_repair_channel, 0);
    status->bTpcRepairPending = (unsigned int)value_or(call.gpu, OV_repair_tpc, 0);
    return NVML_SUCCESS;
}

/* pynvml's sizing call leaves `times` undefined: it is touched only with `addresses`. */
static nvmlReturn_t retired_pages(const Call *call, nvmlPageRetirementCause_t cause,
                                  unsigned int *count, unsigned long long *addresses,
                                  unsigned long long *times)
{
    OverrideId id = cause == NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR ? OV_retired_dbe
                                                                             : OV_retired_sbe;
    unsigned int pages = (unsigned int)value_or(call->gpu, id, 0), room;
    NOT_NULL(count);
    REQUIRE((unsigned int)cause < NVML_PAGE_RETIREMENT_CAUSE_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    REQUIRE((call->gpu->board->caps & CAP_RETIRED) != 0, NVML_ERROR_NOT_SUPPORTED);
    room = addresses != NULL ? *count : 0;
    *count = pages;
    REQUIRE(pages <= room, NVML_ERROR_INSUFFICIENT_SIZE);
    for (unsigned int i = 0; i < pages; i++) {
        addresses[i] = 0x1000ull * (0x5A5 + 97 * i);
        if (times != NULL)
            times[i] = 1700000000ull + 86400 * i;
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, nvmlPageRetirementCause_t cause,
                                       unsigned int *count, unsigned long long *addresses)
{
    ENTER(nvmlDeviceGetRetiredPages, device);
    return retired_pages(&call, cause, count, addresses, NULL);
}

nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, nvmlPageRetirementCause_t cause,
                                          unsigned int *count, unsigned long long *addresses,
                                          unsigned long long *times)
{
    ENTER(nvmlDeviceGetRetiredPages_v2, device);
    return retired_pages(&call, cause, count, addresses, times);
}

nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device,
                                                    nvmlEnableState_t *pending)
{
    ENTER(nvmlDeviceGetRetiredPagesPendingStatus, device);
    NOT_NULL(pending);
    CAN(CAP_RETIRED);
    *pending = value_or(call.gpu, OV_retired_pending, 0) != 0 ? NVML_FEATURE_ENABLED
                                                              : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected,
                                       unsigned int *uncorrected, unsigned int *pending,
                                       unsigned int *failed)
{
    ENTER(nvmlDeviceGetRemappedRows, device);
    REQUIRE(corrected != NULL && uncorrected != NULL && pending != NULL && failed != NULL,
            NVML_ERROR_INVALID_ARGUMENT);
    CAN(CAP_REMAP);
    *corrected = (unsigned int)value_or(call.gpu, OV_remapped_correctable, 0);
    *uncorrected = (unsigned int)value_or(call.gpu, OV_remapped_uncorrectable, 0);
    *pending = (unsigned int)value_or(call.gpu, OV_remapped_pending, 0);
    *failed = (unsigned int)value_or(call.gpu, OV_remapped_failure, 0);
    return NVML_SUCCESS;
}

/* One bank a remapped row. */
nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device,
                                               nvmlRowRemapperHistogramValues_t *histogram)
{
    ENTER(nvmlDeviceGetRowRemapperHistogram, device);
    NOT_NULL(histogram);
    CAN(CAP_REMAP);
    unsigned int used = (unsigned int)(value_or(call.gpu, OV_remapped_correctable, 0) +
                                       value_or(call.gpu, OV_remapped_uncorrectable, 0));
    *histogram = (nvmlRowRemapperHistogramValues_t){.max = 2560 - used, .high = used};
    return NVML_SUCCESS;
}
