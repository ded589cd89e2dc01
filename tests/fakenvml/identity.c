/* What a device is: names, numbers, modes. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "fakenvml.h"

unsigned int gpu_bus(unsigned int index)
{
    static const unsigned char buses[] = {0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF};
    return index < sizeof buses ? buses[index] : 0xE0 + index;
}

/* The same board in the same slot has the same UUID in every run. */
static unsigned long long digest(const char *text, unsigned int a, unsigned int b)
{
    unsigned long long hash = 1469598103934665603ull;
    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211ull;
    hash = (hash ^ a) * 1099511628211ull;
    hash = (hash ^ b) * 1099511628211ull;
    return hash ^ hash >> 29;
}

static void format_uuid(const char *kind, unsigned long long hash, char *out)
{
    unsigned long long more = hash * 0x9E3779B97F4A7C15ull;
    snprintf(out, NVML_DEVICE_UUID_BUFFER_SIZE, "%s-%08x-%04x-%04x-%04x-%012llx", kind,
             (unsigned int)hash, (unsigned int)(hash >> 32) & 0xFFFF,
             (unsigned int)(hash >> 48) & 0xFFFF, (unsigned int)more & 0xFFFF, more >> 16);
}

void gpu_uuid(const Gpu *gpu, char *out)
{
    format_uuid("GPU", digest(gpu->board->name, gpu->index, 0), out);
}

void mig_uuid(const Gpu *gpu, const MigInstance *mig, char *out)
{
    unsigned int place = mig->index << 16 | mig->gpu_instance << 8 | mig->slices;
    format_uuid("MIG", digest(gpu->board->name, gpu->index, place), out);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    ENTER(nvmlDeviceGetName, device);
    char text[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
    if (call.mig == NULL)
        return copy_string(call.gpu->board->name, name, length);
    snprintf(text, sizeof text, "%s MIG %ug.%llugb", call.gpu->board->name, call.mig->slices,
             (mig_memory(call.gpu, call.mig) + (1ull << 29)) >> 30);
    return copy_string(text, name, length);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    ENTER(nvmlDeviceGetUUID, device);
    char text[NVML_DEVICE_UUID_BUFFER_SIZE];
    if (call.mig != NULL)
        mig_uuid(call.gpu, call.mig, text);
    else
        gpu_uuid(call.gpu, text);
    return copy_string(text, uuid, length);
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
    ENTER(nvmlDeviceGetSerial, device);
    char text[NVML_DEVICE_SERIAL_BUFFER_SIZE];
    NOT_NULL(serial);
    REQUIRE(call.gpu->board->serial != NULL, NVML_ERROR_NOT_SUPPORTED);
    snprintf(text, sizeof text, "%s%05u", call.gpu->board->serial, 10007 + 13 * call.gpu->index);
    return copy_string(text, serial, length);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    ENTER(nvmlDeviceGetIndex, device);
    NOT_NULL(index);
    *index = call.gpu->index;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
    ENTER(nvmlDeviceGetMinorNumber, device);
    NOT_NULL(minor);
    *minor = call.gpu->index;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    ENTER(nvmlDeviceGetPciInfo_v3, device);
    unsigned int bus = gpu_bus(call.gpu->index);
    NOT_NULL(pci);
    memset(pci, 0, sizeof *pci);
    pci->bus = bus;
    pci->pciDeviceId = call.gpu->board->pci_device;
    pci->pciSubSystemId = call.gpu->board->pci_subsystem;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", bus & 0xFF);
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", bus & 0xFF);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, nvmlBrandType_t *brand)
{
    ENTER(nvmlDeviceGetBrand, device);
    NOT_NULL(brand);
    *brand = call.gpu->board->brand;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t *arch)
{
    ENTER(nvmlDeviceGetArchitecture, device);
    NOT_NULL(arch);
    *arch = call.gpu->board->architecture;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    ENTER(nvmlDeviceGetCudaComputeCapability, device);
    NOT_NULL(major);
    NOT_NULL(minor);
    *major = (int)call.gpu->board->capability_major;
    *minor = (int)call.gpu->board->capability_minor;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetBoardPartNumber(nvmlDevice_t device, char *part, unsigned int length)
{
    ENTER(nvmlDeviceGetBoardPartNumber, device);
    return copy_string(call.gpu->board->part, part, length);
}

nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *version, unsigned int length)
{
    ENTER(nvmlDeviceGetVbiosVersion, device);
    return copy_string(call.gpu->board->vbios, version, length);
}

nvmlReturn_t nvmlDeviceGetInforomImageVersion(nvmlDevice_t device, char *version,
                                              unsigned int length)
{
    ENTER(nvmlDeviceGetInforomImageVersion, device);
    return copy_string(call.gpu->board->inforom, version, length);
}

/* Modules of a baseboard count from 1. */
nvmlReturn_t nvmlDeviceGetModuleId(nvmlDevice_t device, unsigned int *id)
{
    ENTER(nvmlDeviceGetModuleId, device);
    NOT_NULL(id);
    *id = call.gpu->board->links > 0 ? call.gpu->index + 1 : 1;
    return NVML_SUCCESS;
}

/* As new as the driver; GPUs before Ampere do without by default. The caller's buffer has no size. */
nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *version)
{
    ENTER(nvmlDeviceGetGspFirmwareVersion, device);
    NOT_NULL(version);
    REQUIRE(call.gpu->board->architecture >= NVML_DEVICE_ARCH_AMPERE, NVML_ERROR_NOT_SUPPORTED);
    return copy_string(call.scenario->live_driver, version, NVML_GSP_FIRMWARE_VERSION_BUF_SIZE);
}

nvmlReturn_t nvmlDeviceGetVirtualizationMode(nvmlDevice_t device,
                                             nvmlGpuVirtualizationMode_t *mode)
{
    ENTER(nvmlDeviceGetVirtualizationMode, device);
    NOT_NULL(mode);
    *mode = call.gpu->board->brand == NVML_BRAND_NVIDIA_VWS ? NVML_GPU_VIRTUALIZATION_MODE_VGPU
                                                            : NVML_GPU_VIRTUALIZATION_MODE_NONE;
    return NVML_SUCCESS;
}

/* Of two products, the vGPU runs the first. */
nvmlReturn_t nvmlDeviceGetGridLicensableFeatures_v4(nvmlDevice_t device,
                                                    nvmlGridLicensableFeatures_t *features)
{
    ENTER(nvmlDeviceGetGridLicensableFeatures_v4, device);
    NOT_NULL(features);
    *features = (nvmlGridLicensableFeatures_t){0};
    if (call.gpu->board->brand != NVML_BRAND_NVIDIA_VWS)
        return NVML_SUCCESS; /* bare metal: licensing is not supported */
    features->isGridLicenseSupported = 1;
    features->licensableFeaturesCount = 2;
    nvmlGridLicensableFeature_t *feature = features->gridLicensableFeatures;
    snprintf(feature[0].productName, sizeof feature->productName,
             "NVIDIA RTX Virtual Workstation");
    snprintf(feature[1].productName, sizeof feature->productName, "NVIDIA Virtual PC");
    feature[0].featureEnabled = 1;
    feature[0].featureState = value_or(call.gpu, OV_vgpu_unlicensed, 0) == 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPlatformInfo(nvmlDevice_t device, nvmlPlatformInfo_t *info)
{
    ENTER(nvmlDeviceGetPlatformInfo, device);
    NOT_NULL(info);
    REQUIRE(info->version == nvmlPlatformInfo_v2, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    CAN(CAP_NVLINK5);
    *info = (nvmlPlatformInfo_t){.version = nvmlPlatformInfo_v2, .slotNumber = 0xC5,
                                 .trayIndex = 13, .hostId = 1, .peerType = 2,
                                 .moduleId = (unsigned char)(call.gpu->index + 1)};
    memcpy(info->chassisSerialNumber, "1820725190164", 13);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned int *cores)
{
    ENTER(nvmlDeviceGetNumGpuCores, device);
    NOT_NULL(cores);
    *cores = call.gpu->board->cores;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryBusWidth(nvmlDevice_t device, unsigned int *bits)
{
    ENTER(nvmlDeviceGetMemoryBusWidth, device);
    NOT_NULL(bits);
    REQUIRE(call.gpu->board->bus_bits > 0, NVML_ERROR_NOT_SUPPORTED);
    *bits = call.gpu->board->bus_bits;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
    ENTER(nvmlDeviceGetPersistenceMode, device);
    NOT_NULL(mode);
    *mode = value_or(call.gpu, OV_persistence, 1) != 0 ? NVML_FEATURE_ENABLED
                                                       : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t *mode)
{
    ENTER(nvmlDeviceGetComputeMode, device);
    NOT_NULL(mode);
    *mode = (nvmlComputeMode_t)value_or(call.gpu, OV_compute_mode, NVML_COMPUTEMODE_DEFAULT);
    return NVML_SUCCESS;
}
