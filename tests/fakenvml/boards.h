/* The boards, and the machines made of them. */
#ifndef FAKENVML_BOARDS_H
#define FAKENVML_BOARDS_H

#include <stdbool.h>
#include <stdint.h>

#include <nvml.h>

enum { MAX_MIG = 7 };

/* What a board can answer. */
enum {
    CAP_MEMORY = 1ull << 0,
    CAP_BAR1 = 1ull << 1,
    CAP_CODEC = 1ull << 2,
    CAP_JPEG_OFA = 1ull << 3,
    CAP_SAMPLES = 1ull << 4,
    CAP_THRESHOLDS = 1ull << 5,
    CAP_TLIMIT = 1ull << 6,
    CAP_MEMORY_TEMP = 1ull << 7,
    CAP_POWER = 1ull << 8,
    CAP_POWER_AVERAGE = 1ull << 9,
    CAP_POWER_LIMITS = 1ull << 10,
    CAP_ENERGY = 1ull << 11,
    CAP_MEMORY_CLOCK = 1ull << 12,
    CAP_REASONS = 1ull << 13,
    CAP_REASON_TIME = 1ull << 14,
    CAP_PCIE_LINK = 1ull << 15,
    CAP_PCIE_THROUGHPUT = 1ull << 16,
    CAP_PCIE_ERRORS = 1ull << 17,
    CAP_PCIE_BYTES = 1ull << 18,
    CAP_NVLINK_ERRORS = 1ull << 19, /* replay, recovery, CRC: up to Hopper */
    CAP_NVLINK5 = 1ull << 20,       /* fields 201..222 and 235..250: Blackwell */
    CAP_ECC = 1ull << 21,
    CAP_RETIRED = 1ull << 22,
    CAP_REMAP = 1ull << 23,
    CAP_MIG = 1ull << 24,
    CAP_GPM = 1ull << 25,
    CAP_FABRIC = 1ull << 26,
    CAP_EVENTS = 1ull << 27,
    CAP_PROCESS_UTIL = 1ull << 28,
    CAP_RECOVERY = 1ull << 29,
    CAP_CONF_COMPUTE = 1ull << 30
};

typedef struct {
    const char *name, *serial, *part, *vbios, *inforom; /* NULL: not supported */
    nvmlBrandType_t brand;
    unsigned int architecture, capability_major, capability_minor, cores, bus_bits;
    unsigned int pci_device, pci_subsystem;
    unsigned long long memory_bytes, reserved_bytes, bar1_bytes;
    unsigned int idle_mw, limit_mw, limit_min_mw;
    unsigned int clock_min_mhz, clock_max_mhz, clock_memory_mhz, clock_video_mhz;
    unsigned int temp_idle, temp_full, temp_max, temp_slowdown, temp_shutdown, temp_memory_max;
    unsigned int pcie_gen, pcie_width, fans;
    unsigned int links, link_mbps, link_version; /* nvlink version: 4 is 3.0, 6 is 4.0, 7 is 5.0 */
    unsigned int mig_sms;                        /* streaming multiprocessors per MIG slice */
    uint64_t caps;
} Board;

typedef struct {
    unsigned int index, gpu_instance, slices;
} MigInstance;

typedef struct {
    const char *name;
    const Board *board;
    unsigned int count;
    unsigned int mig_gpus; /* bit n: GPU n has MIG mode on */
} Profile;

const Profile *find_profile(const char *name); /* NULL: no such */
unsigned int default_mig(MigInstance out[MAX_MIG]);

#endif
