/* A fake of NVIDIA's management library, for tests and benchmarks: what its files share.
 *
 * Compiled against NVIDIA's own nvml.h, so that a signature or a struct cannot drift.
 *
 *   symbols.def  which functions exist           call.c      what every call does before its own part
 *   boards.c     the boards and the machines     scenario.c  the scenario: publish, reload, integrate
 *   model.c      values as functions of time     parse.c     one key=value line of it
 *   log.c        the call log                    the others  the functions, by topic
 *
 * A scenario is immutable once published. A call takes hold of the current one, copies what it
 * needs and lets go before it sleeps; a scenario nobody holds is freed. No lock is on the path of
 * a call. Times are seconds since the library's first use, as double. */
#ifndef FAKENVML_H
#define FAKENVML_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nvml.h>

#include "boards.h"

enum {
    MAX_GPUS = 16,
    MAX_LINKS = 18,
    MAX_XIDS = 16,
    MAX_PAST = 8,
    MAX_DRIVER = 32,
    NO_GPU = MAX_GPUS /* the log's column for calls that name no GPU */
};
static const unsigned int NO_INSTANCE = 0xFFFFFFFFu;

typedef enum { SYSTEM, GPU, BOTH, NOMIG } HandleKind;

typedef enum {
#define SYMBOL(name, handle, since, ns) SYM_##name,
#include "symbols.def"
#undef SYMBOL
    SYM_COUNT
} SymbolId;

typedef struct {
    const char *name;
    HandleKind handle;
    int since; /* driver, major * 1000 + minor */
    unsigned int real_ns;
} Symbol;

/* Values that a scenario may set: `gpuN.<name>=<integer>`. */
#define OVERRIDES(X)                                                                              \
    X(util) X(memory_util) X(temp) X(memory_temp) X(temp_margin) X(power_mw) X(power_limit_mw)    \
    X(memory_used) X(memory_total) X(memory_reserved) X(bar1_used) X(fan) X(fan_rpm)              \
    X(clock_graphics) X(clock_sm) X(clock_memory) X(clock_video) X(pstate) X(reasons)             \
    X(encoder) X(decoder) X(jpeg) X(ofa) X(pcie_gen) X(pcie_width) X(pcie_tx_bytes_per_second)    \
    X(pcie_rx_bytes_per_second) X(pcie_replays) X(link_tx_kib_per_second)                         \
    X(link_rx_kib_per_second) X(links_inactive) X(link_errors) X(ecc_mode)                        \
    X(ecc_corrected_volatile) X(ecc_uncorrected_volatile) X(ecc_corrected_aggregate)              \
    X(ecc_uncorrected_aggregate) X(remapped_correctable) X(remapped_uncorrectable)                \
    X(remapped_pending) X(remapped_failure) X(retired_sbe) X(retired_dbe) X(retired_pending)      \
    X(recovery_action) X(persistence) X(compute_mode) X(mig_mode) X(fabric_state)                 \
    X(fabric_health) X(fabric_mask) X(fabric_status) X(pcie_errors) X(ecc_pending)                \
    X(sram_corrected) X(sram_uncorrected) X(sram_threshold) X(repair_channel) X(repair_tpc)       \
    X(remapped_correctable_inactive) X(remapped_uncorrectable_inactive) X(mig_pending)            \
    X(conf_compute) X(conf_compute_ready) X(conf_compute_devtools) X(vgpu_unlicensed)             \
    X(pulse_ms) X(pulse_on_ms) X(sample_type) X(sample_clock_ms)

typedef enum {
#define OVERRIDE(name) OV_##name,
    OVERRIDES(OVERRIDE)
#undef OVERRIDE
    OV_COUNT
} OverrideId;

/* The load of a GPU, 0..1: base + amplitude * sin(omega * t + phase). All else follows from it.
 * With a pulse it is `base` for the first `on` seconds of each `pulse`, and 0 for the rest. */
typedef struct {
    double base, amplitude, omega, phase, pulse, on;
} Load;

/* A counter: what it had at the anchor, and its rate since: constant + per unit of load. */
typedef struct {
    double at_anchor, per_second, per_load_second;
} Counter;

typedef struct {
    double since;
    Load load;
    double idle_mw, span_mw;
} PastLoad; /* for GetSamples, which answers seconds of history */

typedef struct {
    SymbolId symbol;
    int gpu; /* -1: any */
    nvmlReturn_t ret;
    unsigned int delay_ms, every, times;
    const char *block;
    atomic_uint hits[MAX_GPUS + 1];
} CallRule;

typedef struct {
    int gpu; /* -1: any */
    unsigned int id;
    unsigned int scope; /* ALL_SCOPES: any */
    bool has_ret, has_value, has_type;
    nvmlReturn_t ret;
    int type;
    double real;
    unsigned long long whole;
} ValueRule; /* of a field, or of a GPM metric */
static const unsigned int ALL_SCOPES = 0xFFFFFFFEu;

typedef struct {
    int gpu;
    unsigned int pid, sm_percent, gpu_instance;
    unsigned long long bytes;
    char kind; /* c compute, g graphics, m MPS */
} Process;

typedef struct {
    unsigned int index;
    const Board *board;
    unsigned int epoch, mig_epoch; /* handles of an earlier one are invalid */
    const char *reset, *reset_counters, *xid_text, *mig_text;
    unsigned int xid_sequence;
    bool mig_on;
    nvmlReturn_t status; /* every call on it gives this */
    unsigned int delay_ms;
    const char *block;
    unsigned int mig_count;
    MigInstance mig[MAX_MIG];
    bool set[OV_COUNT];
    long long value[OV_COUNT];
    Load load;
    double anchor, past_load; /* past_load: integral of the load up to the anchor */
    Counter energy_mj, pcie_tx_bytes, pcie_rx_bytes;
    Counter link_tx_kib[MAX_LINKS], link_rx_kib[MAX_LINKS];
    double reason_seconds[11]; /* per bit of the clock event reasons, at the anchor */
    unsigned int past_count;
    PastLoad past[MAX_PAST]; /* newest first; [0] is now */
} Gpu;

typedef struct Scenario {
    struct Scenario *retired;
    char *text; /* split in place; strings point into it */
    unsigned int serial, errors;
    const Profile *profile, *live_profile; /* asked for; latched at init */
    int count, live_count;
    char driver[MAX_DRIVER], live_driver[MAX_DRIVER];
    char nvml_version[MAX_DRIVER];
    int driver_number; /* major * 1000 + minor of the live one */
    unsigned int init_epoch;
    nvmlReturn_t status; /* every call on a GPU gives this */
    bool real_latency, frozen, quiet;
    double frozen_at;
    unsigned int rules_count, fields_count, gpm_count, processes_count;
    CallRule *rules;
    ValueRule *fields, *gpm;
    Process *processes;
    bool ruled[SYM_COUNT];
    Gpu gpus[MAX_GPUS];
} Scenario;

/* One call in progress. `gpu` and `mig` are valid while `status` is NVML_SUCCESS. */
typedef struct {
    nvmlReturn_t status;
    SymbolId symbol;
    unsigned int column; /* GPU index, or NO_GPU */
    bool holds, counted;
    const Scenario *scenario;
    const Gpu *gpu;
    const MigInstance *mig;
} Call;

/* call.c */
extern const Symbol symbols[SYM_COUNT];
Call call_enter(SymbolId symbol, nvmlDevice_t device);
Call call_enter_system(SymbolId symbol);
Call call_enter_lookup(SymbolId symbol); /* names its GPU only inside: then call_settle */
void call_settle(Call *call, unsigned int column);
nvmlReturn_t call_faults(Call *call); /* blocks, delays; returns the answer forced on the call */
void call_leave(Call *call);
void call_pause(Call *call);  /* let go of the scenario before sleeping */
void call_resume(Call *call); /* take hold of the current one */
nvmlDevice_t handle_of_gpu(const Scenario *scenario, const Gpu *gpu);
nvmlDevice_t handle_of_mig(const Scenario *scenario, const Gpu *gpu, const MigInstance *mig);
void sleep_ns(unsigned long long ns);
nvmlReturn_t copy_string(const char *text, char *out, unsigned int length);

/* Device calls start with ENTER, the others with ENTER_SYSTEM; both return the call's fate. */
#define ENTER(name, device)                                                                       \
    __attribute__((cleanup(call_leave))) Call call = call_enter(SYM_##name, device);              \
    if (call.status != NVML_SUCCESS)                                                              \
    return call.status
#define ENTER_SYSTEM(name)                                                                        \
    __attribute__((cleanup(call_leave))) Call call = call_enter_system(SYM_##name);               \
    if (call.status != NVML_SUCCESS)                                                              \
    return call.status
#define REQUIRE(condition, code)                                                                  \
    if (!(condition))                                                                             \
    return code
#define NOT_NULL(pointer) REQUIRE((pointer) != NULL, NVML_ERROR_INVALID_ARGUMENT)
#define CAN(capability) REQUIRE((call.gpu->board->caps & (capability)) != 0, NVML_ERROR_NOT_SUPPORTED)

/* lifecycle.c */
extern atomic_uint init_references;
extern atomic_bool forked_after_init;

/* scenario.c */
extern atomic_uint holders;
extern _Atomic(Scenario *) current;
void scenario_refresh(void);      /* cheap; never while holding one */
void scenario_load(bool latch);   /* read and publish now; latch: machine, driver, count */
bool scenario_is_watched(void);   /* it comes from a file that may change */

/* parse.c */
void parse_scenario(Scenario *scenario); /* from scenario->text */
int driver_number(const char *version);

/* model.c */
double now_of(const Scenario *scenario);
unsigned long long epoch_us(const Scenario *scenario, double t);
double load_at(const Load *load, double t);
double load_between(const Load *load, double from, double to);
double count_at(const Gpu *gpu, const Counter *counter, double t);
uint64_t reasons_at(const Gpu *gpu, double t);
double reason_seconds_at(const Gpu *gpu, unsigned int bit, double t);
void model_prepare(Gpu *gpu, const Gpu *before, double t); /* rates from the overrides */
void model_reset(Gpu *gpu);                                /* counters back to zero */
bool has(const Gpu *gpu, OverrideId id);
long long value_or(const Gpu *gpu, OverrideId id, double otherwise);
unsigned int power_at(const Gpu *gpu, double t);
int temperature_at(const Gpu *gpu, double t);
unsigned long long memory_total_of(const Gpu *gpu);
bool ecc_on(const Gpu *gpu);
bool link_active(const Gpu *gpu, unsigned int link);

/* identity.c, readings.c, power.c */
unsigned int gpu_bus(unsigned int index);
void gpu_uuid(const Gpu *gpu, char *out); /* NVML_DEVICE_UUID_BUFFER_SIZE */
void mig_uuid(const Gpu *gpu, const MigInstance *mig, char *out);
unsigned long long mig_memory(const Gpu *gpu, const MigInstance *mig); /* bytes */
unsigned int power_limit_of(const Gpu *gpu);
nvmlReturn_t policy_ns(const Call *call, unsigned int policy, unsigned long long *ns);

/* health.c, fields.c */
unsigned long long ecc_count(const Gpu *gpu, bool uncorrected, bool aggregate);
const ValueRule *value_rule(const ValueRule *rules, unsigned int count, unsigned int gpu,
                            unsigned int id, unsigned int scope);

/* events.c */
void events_push(unsigned int gpu, unsigned long long xid, unsigned int gpu_instance,
                 unsigned int compute_instance);
void events_wake(void);
void events_shutdown(void);

/* gpm.c */
void gpm_drop_all(void);

/* log.c: shared memory, read by the tests */
typedef enum {
    LOG_SERIAL, LOG_SCENARIO_ERRORS, LOG_MAX_IN_FLIGHT, LOG_MAX_IN_FLIGHT_BATCH, LOG_AFTER_FORK,
    LOG_GPM_SWAPPED, LOG_GPM_REUSED, LOG_GPM_SHORT_WINDOW, LOG_GPM_SAMPLES, LOG_EVENT_SETS,
    LOG_SHUTDOWN_DURING_WAIT, LOG_COUNT
} LogId;
void log_open(void);
void log_set(LogId id, unsigned int value);
void log_add(LogId id, int delta);
void log_error(const char *what);
void log_field(unsigned int column, unsigned int field);
bool log_begin(SymbolId symbol, unsigned int column); /* true: log_end is due */
void log_end(SymbolId symbol, unsigned int column);

#endif
