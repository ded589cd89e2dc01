/* The boards, the machines made of them, and what each board cannot answer. */
#include <string.h>

#include "boards.h"

#define MIB(n) ((n) * 1048576ull)

enum {
    /* What every data-centre board of these generations answers. */
    CAPS_SERVER = CAP_MEMORY | CAP_BAR1 | CAP_CODEC | CAP_SAMPLES | CAP_THRESHOLDS | CAP_POWER |
                  CAP_POWER_LIMITS | CAP_ENERGY | CAP_MEMORY_CLOCK | CAP_REASONS |
                  CAP_REASON_TIME | CAP_PCIE_LINK | CAP_PCIE_THROUGHPUT | CAP_PCIE_ERRORS |
                  CAP_PCIE_BYTES | CAP_ECC | CAP_EVENTS | CAP_PROCESS_UTIL | CAP_RECOVERY |
                  CAP_JPEG_OFA,
    CAPS_AMPERE = CAPS_SERVER | CAP_REMAP | CAP_CONF_COMPUTE,
    CAPS_HOPPER = CAPS_AMPERE | CAP_POWER_AVERAGE | CAP_TLIMIT | CAP_MEMORY_TEMP | CAP_MIG |
                  CAP_GPM | CAP_FABRIC
};

static const Board h100 = {
    .name = "NVIDIA H100 80GB HBM3", .serial = "16504230", .part = "692-2G520-0200-000",
    .vbios = "96.00.74.00.01", .inforom = "G520.0200.00.05", .brand = NVML_BRAND_NVIDIA,
    .architecture = NVML_DEVICE_ARCH_HOPPER, .capability_major = 9, .capability_minor = 0,
    .cores = 16896, .bus_bits = 5120, .pci_device = 0x233010DE, .pci_subsystem = 0x16C110DE,
    .memory_bytes = MIB(81559), .reserved_bytes = MIB(479), .bar1_bytes = MIB(131072),
    .idle_mw = 70000, .limit_mw = 700000, .limit_min_mw = 200000, .clock_min_mhz = 345,
    .clock_max_mhz = 1980, .clock_memory_mhz = 2619, .clock_video_mhz = 1545, .temp_idle = 28,
    .temp_full = 74, .temp_max = 87, .temp_slowdown = 89, .temp_shutdown = 92,
    .temp_memory_max = 95, .pcie_gen = 5, .pcie_width = 16, .links = 18, .link_mbps = 26562,
    .link_version = 6, .mig_sms = 16, .caps = CAPS_HOPPER | CAP_NVLINK_ERRORS};

static const Board b200 = {
    .name = "NVIDIA B200", .serial = "16510250", .part = "692-2G525-0220-001",
    .vbios = "97.00.88.00.0F", .inforom = "G525.0220.00.03", .brand = NVML_BRAND_NVIDIA,
    .architecture = NVML_DEVICE_ARCH_BLACKWELL, .capability_major = 10, .capability_minor = 0,
    .cores = 18944, .bus_bits = 8192, .pci_device = 0x290110DE, .pci_subsystem = 0x199910DE,
    .memory_bytes = MIB(183359), .reserved_bytes = MIB(732), .bar1_bytes = MIB(262144),
    .idle_mw = 140000, .limit_mw = 1000000, .limit_min_mw = 200000, .clock_min_mhz = 120,
    .clock_max_mhz = 1965, .clock_memory_mhz = 3996, .clock_video_mhz = 1830, .temp_idle = 27,
    .temp_full = 70, .temp_max = 86, .temp_slowdown = 89, .temp_shutdown = 92,
    .temp_memory_max = 95, .pcie_gen = 5, .pcie_width = 16, .links = 18, .link_mbps = 53125,
    .link_version = 7, .mig_sms = 18, .caps = CAPS_HOPPER | CAP_NVLINK5};

static const Board a100 = {
    .name = "NVIDIA A100-SXM4-80GB", .serial = "15655200", .part = "692-2G506-0210-002",
    .vbios = "92.00.45.00.06", .inforom = "G506.0210.00.04", .brand = NVML_BRAND_NVIDIA,
    .architecture = NVML_DEVICE_ARCH_AMPERE, .capability_major = 8, .capability_minor = 0,
    .cores = 6912, .bus_bits = 5120, .pci_device = 0x20B210DE, .pci_subsystem = 0x146310DE,
    .memory_bytes = MIB(81920), .reserved_bytes = MIB(597), .bar1_bytes = MIB(131072),
    .idle_mw = 60000, .limit_mw = 400000, .limit_min_mw = 100000, .clock_min_mhz = 210,
    .clock_max_mhz = 1410, .clock_memory_mhz = 1593, .clock_video_mhz = 1275, .temp_idle = 29,
    .temp_full = 72, .temp_max = 85, .temp_slowdown = 89, .temp_shutdown = 92,
    .temp_memory_max = 95, .pcie_gen = 4, .pcie_width = 16, .links = 12, .link_mbps = 25000,
    .link_version = 4, .mig_sms = 14,
    .caps = CAPS_AMPERE | CAP_MEMORY_TEMP | CAP_MIG | CAP_NVLINK_ERRORS};

static const Board l40s = {
    .name = "NVIDIA L40S", .serial = "13206230", .part = "900-2G133-0080-000",
    .vbios = "95.02.66.00.02", .inforom = "G133.0242.00.03", .brand = NVML_BRAND_NVIDIA,
    .architecture = NVML_DEVICE_ARCH_ADA, .capability_major = 8, .capability_minor = 9,
    .cores = 18176, .bus_bits = 384, .pci_device = 0x26B910DE, .pci_subsystem = 0x185110DE,
    .memory_bytes = MIB(46068), .reserved_bytes = MIB(597), .bar1_bytes = MIB(65536),
    .idle_mw = 35000, .limit_mw = 350000, .limit_min_mw = 100000, .clock_min_mhz = 210,
    .clock_max_mhz = 2520, .clock_memory_mhz = 9001, .clock_video_mhz = 1965, .temp_idle = 30,
    .temp_full = 78, .temp_max = 88, .temp_slowdown = 95, .temp_shutdown = 98, .pcie_gen = 4,
    .pcie_width = 16, .caps = CAPS_AMPERE | CAP_POWER_AVERAGE | CAP_TLIMIT};

static const Board t4 = {
    .name = "Tesla T4", .serial = "13259190", .part = "900-2G183-0000-001",
    .vbios = "90.04.38.00.03", .inforom = "G183.0200.00.02", .brand = NVML_BRAND_NVIDIA,
    .architecture = NVML_DEVICE_ARCH_TURING, .capability_major = 7, .capability_minor = 5,
    .cores = 2560, .bus_bits = 256, .pci_device = 0x1EB810DE, .pci_subsystem = 0x12A210DE,
    .memory_bytes = MIB(15360), .reserved_bytes = MIB(436), .bar1_bytes = MIB(256),
    .idle_mw = 10000, .limit_mw = 70000, .limit_min_mw = 60000, .clock_min_mhz = 300,
    .clock_max_mhz = 1590, .clock_memory_mhz = 5001, .clock_video_mhz = 1470, .temp_idle = 33,
    .temp_full = 79, .temp_max = 85, .temp_slowdown = 93, .temp_shutdown = 96, .pcie_gen = 3,
    .pcie_width = 16, .caps = (CAPS_SERVER | CAP_RETIRED) & ~CAP_RECOVERY};

static const Board rtx4090 = {
    .name = "NVIDIA GeForce RTX 4090", .vbios = "95.02.3C.00.8C", .inforom = "G002.0000.00.03",
    .brand = NVML_BRAND_GEFORCE_RTX, .architecture = NVML_DEVICE_ARCH_ADA, .capability_major = 8,
    .capability_minor = 9, .cores = 16384, .bus_bits = 384, .pci_device = 0x268410DE,
    .pci_subsystem = 0x889A1043, .memory_bytes = MIB(24564), .reserved_bytes = MIB(410),
    .bar1_bytes = MIB(32768), .idle_mw = 18000, .limit_mw = 450000, .limit_min_mw = 150000,
    .clock_min_mhz = 210, .clock_max_mhz = 3105, .clock_memory_mhz = 10501,
    .clock_video_mhz = 2415, .temp_idle = 34, .temp_full = 71, .temp_max = 84,
    .temp_slowdown = 90, .temp_shutdown = 95, .pcie_gen = 4, .pcie_width = 16, .fans = 2,
    .caps = (CAPS_SERVER | CAP_POWER_AVERAGE | CAP_TLIMIT) & ~CAP_ECC};

static const Board gb10 = {
    .name = "NVIDIA GB10", .vbios = "9B.0B.1E.00.14", .brand = NVML_BRAND_NVIDIA,
    .architecture = NVML_DEVICE_ARCH_BLACKWELL, .capability_major = 12, .capability_minor = 1,
    .cores = 6144, .pci_device = 0x2E1210DE, .pci_subsystem = 0x000010DE, .idle_mw = 4000,
    .limit_mw = 100000, .clock_min_mhz = 208, .clock_max_mhz = 3003, .clock_video_mhz = 3003,
    .temp_idle = 36, .temp_full = 80, .pcie_gen = 1, .pcie_width = 1,
    .caps = CAP_CODEC | CAP_SAMPLES | CAP_POWER | CAP_REASONS | CAP_REASON_TIME | CAP_PCIE_LINK |
            CAP_EVENTS | CAP_PROCESS_UTIL | CAP_RECOVERY};

/* A vGPU guest: the hypervisor keeps the sensors to itself. */
static const Board guest = {
    .name = "NVIDIA L40S-48Q", .vbios = "00.00.00.00.00", .brand = NVML_BRAND_NVIDIA_VWS,
    .architecture = NVML_DEVICE_ARCH_ADA, .capability_major = 8, .capability_minor = 9,
    .cores = 18176, .bus_bits = 384, .pci_device = 0x26B910DE, .pci_subsystem = 0x185F10DE,
    .memory_bytes = MIB(49152), .reserved_bytes = MIB(2700), .bar1_bytes = MIB(4096),
    .clock_min_mhz = 210, .clock_max_mhz = 2520, .clock_memory_mhz = 9001,
    .clock_video_mhz = 1965,
    .caps = CAP_MEMORY | CAP_BAR1 | CAP_CODEC | CAP_MEMORY_CLOCK | CAP_PROCESS_UTIL};

static const Profile profiles[] = {
    {"h100x8", &h100, 8, 0},   {"b200x8", &b200, 8, 0},     {"a100-mig", &a100, 2, 1},
    {"h100-mig", &h100, 1, 1}, {"l40s", &l40s, 4, 0},       {"t4", &t4, 1, 0},
    {"geforce", &rtx4090, 1, 0}, {"gb10", &gb10, 1, 0},     {"vgpu", &guest, 1, 0},
    {"none", &h100, 0, 0},
};

const Profile *find_profile(const char *name)
{
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++)
        if (strcmp(profiles[i].name, name) == 0)
            return &profiles[i];
    return NULL;
}

/* Three instances at sparse indexes: 3g, 2g, 1g. */
unsigned int default_mig(MigInstance out[MAX_MIG])
{
    static const MigInstance three[] = {{0, 1, 3}, {2, 5, 2}, {5, 13, 1}};
    memcpy(out, three, sizeof three);
    return 3;
}
