/* NVLink by its own calls, and the fabric. The counters are read as fields. */
#include <stdio.h>
#include <string.h>

#include "fakenvml.h"

static nvmlReturn_t check_link(const Call *call, unsigned int link, const void *out)
{
    NOT_NULL(out);
    REQUIRE(call->gpu->board->links > 0, NVML_ERROR_NOT_SUPPORTED);
    REQUIRE(link < call->gpu->board->links, NVML_ERROR_INVALID_ARGUMENT);
    return NVML_SUCCESS;
}

#define LINK(out)                                                                                 \
    nvmlReturn_t checked = check_link(&call, link, out);                                          \
    REQUIRE(checked == NVML_SUCCESS, checked)

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link,
                                      nvmlEnableState_t *active)
{
    ENTER(nvmlDeviceGetNvLinkState, device);
    LINK(active);
    *active = link_active(call.gpu, link) ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int link,
                                        unsigned int *version)
{
    ENTER(nvmlDeviceGetNvLinkVersion, device);
    LINK(version);
    *version = call.gpu->board->link_version;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link,
                                                 nvmlIntNvLinkDeviceType_t *type)
{
    ENTER(nvmlDeviceGetNvLinkRemoteDeviceType, device);
    LINK(type);
    REQUIRE(link_active(call.gpu, link), NVML_ERROR_NOT_SUPPORTED);
    *type = NVML_NVLINK_DEVICE_TYPE_SWITCH;
    return NVML_SUCCESS;
}

/* Links go to the switches of the board in turn. */
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link,
                                                 nvmlPciInfo_t *pci)
{
    ENTER(nvmlDeviceGetNvLinkRemotePciInfo_v2, device);
    LINK(pci);
    REQUIRE(link_active(call.gpu, link), NVML_ERROR_NOT_SUPPORTED);
    memset(pci, 0, sizeof *pci);
    pci->bus = 5 + link % 4;
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", pci->bus);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned int link,
                                             nvmlNvLinkErrorCounter_t counter,
                                             unsigned long long *count)
{
    ENTER(nvmlDeviceGetNvLinkErrorCounter, device);
    LINK(count);
    REQUIRE((unsigned int)counter < NVML_NVLINK_ERROR_COUNT, NVML_ERROR_INVALID_ARGUMENT);
    CAN(CAP_NVLINK_ERRORS);
    REQUIRE(link_active(call.gpu, link), NVML_ERROR_NOT_SUPPORTED);
    *count = (unsigned long long)value_or(call.gpu, OV_link_errors, 0);
    return NVML_SUCCESS;
}

/* Versions 2 and 3 share a layout up to the summary. */
nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *info)
{
    ENTER(nvmlDeviceGetGpuFabricInfoV, device);
    NOT_NULL(info);
    unsigned int version = info->version;
    REQUIRE(version == nvmlGpuFabricInfo_v2 || version == nvmlGpuFabricInfo_v3,
            NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    CAN(CAP_FABRIC);
    memset(info->clusterUuid, 0xC5, sizeof info->clusterUuid);
    info->status = (nvmlReturn_t)value_or(call.gpu, OV_fabric_status, NVML_SUCCESS);
    info->cliqueId = 32766;
    info->state = (nvmlGpuFabricState_t)value_or(call.gpu, OV_fabric_state,
                                                 NVML_GPU_FABRIC_STATE_COMPLETED);
    info->healthMask = (unsigned int)value_or(call.gpu, OV_fabric_mask,
                                              NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_FALSE);
    if (version == nvmlGpuFabricInfo_v3)
        info->healthSummary = (unsigned char)value_or(call.gpu, OV_fabric_health,
                                                      NVML_GPU_FABRIC_HEALTH_SUMMARY_HEALTHY);
    return NVML_SUCCESS;
}
