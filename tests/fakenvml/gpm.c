/* GPM: two samples of the counters, and metrics worked out from the two that are passed. */
#include <math.h>

#include "fakenvml.h"

enum { SAMPLES = 256 };

/* The pool makes a handle checkable after it was freed; untouched slots cost no memory. */
struct nvmlGpmSample_st {
    atomic_bool used;
    bool taken;
    unsigned int gpu, gpu_epoch, mig_epoch, init_epoch, gpu_instance;
    double t, load, pcie_tx_bytes, pcie_rx_bytes;
    double link_tx_kib[MAX_LINKS], link_rx_kib[MAX_LINKS];
};
static struct nvmlGpmSample_st pool[SAMPLES];

static bool alive(nvmlGpmSample_t sample)
{
    uintptr_t offset = (uintptr_t)sample - (uintptr_t)pool;
    return sample != NULL && offset < sizeof pool && offset % sizeof pool[0] == 0 &&
           atomic_load(&sample->used);
}

void gpm_drop_all(void)
{
    for (int i = 0; i < SAMPLES; i++)
        if (atomic_load(&pool[i].used)) {
            atomic_store(&pool[i].used, false);
            log_add(LOG_GPM_SAMPLES, -1);
        }
}

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *support)
{
    ENTER(nvmlGpmQueryDeviceSupport, device);
    NOT_NULL(support);
    REQUIRE(support->version == NVML_GPM_SUPPORT_VERSION, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    support->isSupportedDevice = (call.gpu->board->caps & CAP_GPM) != 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *sample)
{
    ENTER_SYSTEM(nvmlGpmSampleAlloc);
    NOT_NULL(sample);
    for (int i = 0; i < SAMPLES; i++) {
        bool free = false;
        if (!atomic_compare_exchange_strong(&pool[i].used, &free, true))
            continue;
        pool[i].taken = false;
        *sample = &pool[i];
        log_add(LOG_GPM_SAMPLES, 1);
        return NVML_SUCCESS;
    }
    return NVML_ERROR_MEMORY;
}

nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample)
{
    ENTER_SYSTEM(nvmlGpmSampleFree);
    REQUIRE(alive(sample), NVML_ERROR_INVALID_ARGUMENT);
    atomic_store(&sample->used, false);
    log_add(LOG_GPM_SAMPLES, -1);
    return NVML_SUCCESS;
}

static void fill(nvmlGpmSample_t sample, const Gpu *gpu, double t)
{
    sample->gpu = gpu->index;
    sample->t = t;
    sample->load = gpu->past_load + load_between(&gpu->load, gpu->anchor, t);
    sample->pcie_tx_bytes = count_at(gpu, &gpu->pcie_tx_bytes, t);
    sample->pcie_rx_bytes = count_at(gpu, &gpu->pcie_rx_bytes, t);
    for (unsigned int link = 0; link < gpu->board->links; link++) {
        sample->link_tx_kib[link] = count_at(gpu, &gpu->link_tx_kib[link], t);
        sample->link_rx_kib[link] = count_at(gpu, &gpu->link_rx_kib[link], t);
    }
}

static nvmlReturn_t take(const Call *call, unsigned int gpu_instance, nvmlGpmSample_t sample)
{
    REQUIRE(alive(sample), NVML_ERROR_INVALID_ARGUMENT);
    REQUIRE((call->gpu->board->caps & CAP_GPM) != 0, NVML_ERROR_NOT_SUPPORTED);
    fill(sample, call->gpu, now_of(call->scenario));
    sample->gpu_epoch = call->gpu->epoch;
    sample->mig_epoch = call->gpu->mig_epoch;
    sample->init_epoch = call->scenario->init_epoch;
    sample->gpu_instance = gpu_instance;
    sample->taken = true;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample)
{
    ENTER(nvmlGpmSampleGet, device);
    return take(&call, call.mig != NULL ? call.mig->gpu_instance : NO_INSTANCE, sample);
}

nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned int gpu_instance,
                                 nvmlGpmSample_t sample)
{
    ENTER(nvmlGpmMigSampleGet, device);
    for (unsigned int i = 0; call.gpu->mig_on && i < call.gpu->mig_count; i++)
        if (call.gpu->mig[i].gpu_instance == gpu_instance)
            return take(&call, gpu_instance, sample);
    return NVML_ERROR_INVALID_ARGUMENT;
}

/* Share of the load that each kind of work has, for metrics 1 to 13. */
static const double share[14] = {0, 1, .85, .45, .2, .55, 0, .5, 0, .05, .6, .02, .3, .1};

static double links_rate(const Gpu *gpu, const double *before, const double *after, double seconds)
{
    double kib = 0;
    for (unsigned int link = 0; link < gpu->board->links; link++)
        kib += after[link] - before[link];
    return kib / 1024 / seconds;
}

static bool is_level(unsigned int id)
{
    return (id >= 1 && id <= 13) || (id >= 30 && id <= 37) || (id >= 40 && id <= 47) ||
           id == 50 || id == 51;
}

static nvmlReturn_t metric(const Gpu *gpu, nvmlGpmSample_t a, nvmlGpmSample_t b, unsigned int id,
                           double *value)
{
    double seconds = b->t - a->t;
    bool instance = a->gpu_instance != NO_INSTANCE;
    unsigned int link = (id - NVML_GPM_METRIC_NVLINK_L0_RX_PER_SEC) / 2;
    if (is_level(id)) { /* an instance does what its own place makes it do, never the board's all */
        double part = instance ? 0.5 + 0.05 * (a->gpu_instance % 8) : 1;
        *value = id <= 13 ? 100 * share[id] * part * (b->load - a->load) / seconds : 0;
        return NVML_SUCCESS;
    }
    REQUIRE(!instance, NVML_ERROR_NOT_SUPPORTED);
    if (id == NVML_GPM_METRIC_PCIE_TX_PER_SEC)
        *value = (b->pcie_tx_bytes - a->pcie_tx_bytes) / 1048576 / seconds;
    else if (id == NVML_GPM_METRIC_PCIE_RX_PER_SEC)
        *value = (b->pcie_rx_bytes - a->pcie_rx_bytes) / 1048576 / seconds;
    else if (gpu->board->links == 0 || gpu->mig_on)
        return NVML_ERROR_NOT_SUPPORTED;
    else if (id == NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC)
        *value = links_rate(gpu, a->link_rx_kib, b->link_rx_kib, seconds);
    else if (id == NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC)
        *value = links_rate(gpu, a->link_tx_kib, b->link_tx_kib, seconds);
    else if (id >= NVML_GPM_METRIC_NVLINK_L0_RX_PER_SEC && link < gpu->board->links && id % 2 == 0)
        *value = (b->link_rx_kib[link] - a->link_rx_kib[link]) / 1024 / seconds;
    else if (id >= NVML_GPM_METRIC_NVLINK_L0_RX_PER_SEC && link < gpu->board->links)
        *value = (b->link_tx_kib[link] - a->link_tx_kib[link]) / 1024 / seconds;
    else
        return NVML_ERROR_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

/* One above the last metric that a driver knows; an id or a number from there on fails the call. */
static unsigned int metrics_known(int driver)
{
    return driver >= 615000   ? 477
           : driver >= 595000 ? 405
           : driver >= 575000 ? 210
           : driver >= 550000 ? 160
                              : 98;
}

static bool same_place(const Scenario *scenario, nvmlGpmSample_t sample, nvmlGpmSample_t other)
{
    const Gpu *gpu = &scenario->gpus[sample->gpu];
    return sample->taken && sample->init_epoch == scenario->init_epoch &&
           sample->gpu_epoch == gpu->epoch &&
           (sample->gpu_instance == NO_INSTANCE || sample->mig_epoch == gpu->mig_epoch) &&
           sample->gpu == other->gpu && sample->gpu_instance == other->gpu_instance;
}

static void answer(const Scenario *scenario, const Gpu *gpu, nvmlGpmSample_t a, nvmlGpmSample_t b,
                   nvmlGpmMetric_t *out)
{
    const ValueRule *rule =
        value_rule(scenario->gpm, scenario->gpm_count, gpu->index, out->metricId, ALL_SCOPES);
    out->value = NAN;
    out->metricInfo.shortName = out->metricInfo.longName = out->metricInfo.unit = NULL;
    out->nvmlReturn = metric(gpu, a, b, out->metricId, &out->value);
    if (rule != NULL && rule->has_value) {
        out->nvmlReturn = NVML_SUCCESS;
        out->value = rule->real;
    }
    if (rule != NULL && rule->has_ret)
        out->nvmlReturn = rule->ret;
}

nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get)
{
    ENTER_SYSTEM(nvmlGpmMetricsGet);
    const Scenario *scenario = call.scenario;
    NOT_NULL(get);
    REQUIRE(get->version == NVML_GPM_METRICS_GET_VERSION, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    nvmlGpmSample_t a = get->sample1, b = get->sample2;
    unsigned int known = metrics_known(scenario->driver_number);
    REQUIRE(alive(a) && alive(b), NVML_ERROR_INVALID_ARGUMENT);
    REQUIRE(get->numMetrics <= known, NVML_ERROR_INVALID_ARGUMENT);
    for (unsigned int i = 0; i < get->numMetrics; i++)
        REQUIRE(get->metrics[i].metricId < known, NVML_ERROR_INVALID_ARGUMENT);
    if (a == b)
        log_add(LOG_GPM_REUSED, 1);
    REQUIRE(a != b && same_place(scenario, a, b) && same_place(scenario, b, a),
            NVML_ERROR_INVALID_ARGUMENT);
    if (b->t < a->t)
        log_add(LOG_GPM_SWAPPED, 1);
    REQUIRE(b->t >= a->t, NVML_ERROR_INVALID_ARGUMENT);
    if (b->t - a->t < 0.1 && !scenario->frozen)
        log_add(LOG_GPM_SHORT_WINDOW, 1);
    const Gpu *gpu = &scenario->gpus[a->gpu];
    struct nvmlGpmSample_st earlier = {.gpu_instance = a->gpu_instance};
    if (scenario->frozen && b->t == a->t) { /* time stands: the rates of the last second */
        fill(&earlier, gpu, b->t - 1);
        a = &earlier;
    }
    for (unsigned int i = 0; i < get->numMetrics; i++)
        answer(scenario, gpu, a, b, &get->metrics[i]);
    return NVML_SUCCESS;
}
