/* Values as smooth, deterministic functions of time and GPU index; counters are integrals.
 *
 * One load curve per GPU drives everything: a level is a line over the load, so a counter is a
 * line over the integral of the load, which has a closed form. */
#define _GNU_SOURCE
#include <math.h>
#include <string.h>
#include <time.h>

#include "fakenvml.h"

/* The software power cap is active while the load curve is this high in its swing. */
static const double CAP_SINE = 0.7, CAP_ARC = 0.7753974966107530, CAP_LOAD = 0.83;
static const double FROZEN_EPOCH_S = 1700000000.0;

static double clock_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Start of time: the first use. The difference of the clocks is kept, so that timestamps are
 * monotonic even when the wall clock jumps. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static double started, wall_minus_monotonic;

static void start(void)
{
    started = clock_s(CLOCK_MONOTONIC);
    wall_minus_monotonic = clock_s(CLOCK_REALTIME) - started;
}

double now_of(const Scenario *scenario)
{
    if (scenario->frozen)
        return scenario->frozen_at;
    pthread_once(&once, start);
    return clock_s(CLOCK_MONOTONIC) - started;
}

unsigned long long epoch_us(const Scenario *scenario, double t)
{
    double at = scenario->frozen ? FROZEN_EPOCH_S : started + wall_minus_monotonic;
    return (unsigned long long)((at + t) * 1e6);
}

/* Seconds of pulses between 0 and t. */
static double pulsed(const Load *load, double t)
{
    double whole = floor(t / load->pulse), rest = t - whole * load->pulse;
    return whole * load->on + (rest < load->on ? rest : load->on);
}

double load_at(const Load *load, double t)
{
    if (load->pulse > 0)
        return t - floor(t / load->pulse) * load->pulse < load->on ? load->base : 0;
    return load->base + load->amplitude * sin(load->omega * t + load->phase);
}

double load_between(const Load *load, double from, double to)
{
    double swing = load->amplitude / load->omega;
    if (load->pulse > 0)
        return load->base * (pulsed(load, to) - pulsed(load, from));
    return load->base * (to - from) - swing * (cos(load->omega * to + load->phase) -
                                               cos(load->omega * from + load->phase));
}

double count_at(const Gpu *gpu, const Counter *counter, double t)
{
    double total = counter->at_anchor + counter->per_second * (t - gpu->anchor);
    if (counter->per_load_second != 0)
        total += counter->per_load_second * load_between(&gpu->load, gpu->anchor, t);
    return total;
}

bool has(const Gpu *gpu, OverrideId id)
{
    return gpu->set[id];
}

long long value_or(const Gpu *gpu, OverrideId id, double otherwise)
{
    return has(gpu, id) ? gpu->value[id] : llround(otherwise);
}

uint64_t reasons_at(const Gpu *gpu, double t)
{
    bool capped = gpu->load.amplitude == 0
                      ? gpu->load.base > CAP_LOAD
                      : sin(gpu->load.omega * t + gpu->load.phase) > CAP_SINE;
    if (has(gpu, OV_reasons))
        return (uint64_t)gpu->value[OV_reasons];
    if (gpu->load.amplitude == 0 && gpu->load.base == 0)
        return nvmlClocksEventReasonGpuIdle;
    return capped ? nvmlClocksEventReasonSwPowerCap : 0;
}

/* Time that the sine has spent above CAP_SINE between angle 0 and x, in radians. */
static double capped_angle(double x)
{
    double turn = 2 * M_PI, arc = M_PI - 2 * CAP_ARC, whole = floor(x / turn);
    double rest = x - whole * turn - CAP_ARC;
    return whole * arc + (rest < 0 ? 0 : rest > arc ? arc : rest);
}

double reason_seconds_at(const Gpu *gpu, unsigned int bit, double t)
{
    const Load *load = &gpu->load;
    double seconds = gpu->reason_seconds[bit];
    if (!has(gpu, OV_reasons) && load->amplitude != 0) {
        if (bit != 2)
            return seconds;
        return seconds + (capped_angle(load->omega * t + load->phase) -
                          capped_angle(load->omega * gpu->anchor + load->phase)) / load->omega;
    }
    return seconds + (reasons_at(gpu, t) >> bit & 1 ? t - gpu->anchor : 0);
}

unsigned int power_at(const Gpu *gpu, double t)
{
    const PastLoad *now = &gpu->past[0];
    return (unsigned int)(now->idle_mw + now->span_mw * load_at(&gpu->load, t));
}

int temperature_at(const Gpu *gpu, double t)
{
    const Board *board = gpu->board;
    double span = (double)board->temp_full - board->temp_idle;
    return (int)value_or(gpu, OV_temp, board->temp_idle + span * load_at(&gpu->load, t));
}

unsigned long long memory_total_of(const Gpu *gpu)
{
    return has(gpu, OV_memory_total) ? (unsigned long long)gpu->value[OV_memory_total]
                                     : gpu->board->memory_bytes;
}

bool ecc_on(const Gpu *gpu)
{
    return (gpu->board->caps & CAP_ECC) != 0 && value_or(gpu, OV_ecc_mode, 1) == 1;
}

bool link_active(const Gpu *gpu, unsigned int link)
{
    return (value_or(gpu, OV_links_inactive, 0) >> link & 1) == 0;
}

static Counter counter(const Gpu *gpu, OverrideId id, double constant, double per_load)
{
    if (has(gpu, id))
        return (Counter){0, (double)gpu->value[id], 0};
    return (Counter){0, constant, per_load};
}

static void set_rates(Gpu *gpu)
{
    const Board *board = gpu->board;
    double span = 0.95 * board->limit_mw - board->idle_mw;
    gpu->load = (Load){0.55, 0.40, 2 * M_PI / (40 + 3.0 * gpu->index), 0.9 * gpu->index, 0, 0};
    if (has(gpu, OV_pulse_ms)) {
        gpu->load.pulse = (double)gpu->value[OV_pulse_ms] / 1000;
        gpu->load.on = (double)value_or(gpu, OV_pulse_on_ms, 0) / 1000;
        gpu->load.base = 1;
        gpu->load.amplitude = 0;
    }
    if (has(gpu, OV_util)) {
        double load = (double)gpu->value[OV_util] / 100;
        gpu->load.base = load < 0 ? 0 : load > 1 ? 1 : load;
        gpu->load.amplitude = 0;
    }
    gpu->energy_mj = counter(gpu, OV_power_mw, board->idle_mw, span);
    gpu->pcie_tx_bytes = counter(gpu, OV_pcie_tx_bytes_per_second, 1e7, 4e8);
    gpu->pcie_rx_bytes = counter(gpu, OV_pcie_rx_bytes_per_second, 2e7, 9e8);
    for (unsigned int link = 0; link < board->links; link++) {
        double weight = link_active(gpu, link) ? 1 + link / 100.0 : 0; /* no two links alike */
        gpu->link_tx_kib[link] = counter(gpu, OV_link_tx_kib_per_second, 0, 6e6 * weight);
        gpu->link_rx_kib[link] = counter(gpu, OV_link_rx_kib_per_second, 0, 5e6 * weight);
        if (weight == 0)
            gpu->link_tx_kib[link] = gpu->link_rx_kib[link] = (Counter){0};
    }
}

static void remember_load(Gpu *gpu, const Gpu *before, double t)
{
    PastLoad now = {before != NULL ? t : 0, gpu->load, gpu->energy_mj.per_second,
                    gpu->energy_mj.per_load_second};
    unsigned int kept = before != NULL ? before->past_count : 0;
    bool same = kept > 0 && memcmp(&before->past[0].load, &now.load, sizeof now.load) == 0 &&
                before->past[0].idle_mw == now.idle_mw && before->past[0].span_mw == now.span_mw;
    unsigned int from = same ? 0 : 1;
    if (!same)
        gpu->past[0] = now;
    if (kept > MAX_PAST - from)
        kept = MAX_PAST - from;
    if (kept > 0)
        memcpy(&gpu->past[from], before->past, kept * sizeof gpu->past[0]);
    gpu->past_count = kept + from;
}

void model_prepare(Gpu *gpu, const Gpu *before, double t)
{
    set_rates(gpu);
    gpu->anchor = before != NULL ? t : 0;
    remember_load(gpu, before, t);
    if (before == NULL)
        return;
    gpu->past_load = before->past_load + load_between(&before->load, before->anchor, t);
    gpu->energy_mj.at_anchor = count_at(before, &before->energy_mj, t);
    gpu->pcie_tx_bytes.at_anchor = count_at(before, &before->pcie_tx_bytes, t);
    gpu->pcie_rx_bytes.at_anchor = count_at(before, &before->pcie_rx_bytes, t);
    for (unsigned int link = 0; link < gpu->board->links; link++) {
        gpu->link_tx_kib[link].at_anchor = count_at(before, &before->link_tx_kib[link], t);
        gpu->link_rx_kib[link].at_anchor = count_at(before, &before->link_rx_kib[link], t);
    }
    for (unsigned int bit = 0; bit < 11; bit++)
        gpu->reason_seconds[bit] = reason_seconds_at(before, bit, t);
}

/* As a driver reload or a GPU reset does. */
void model_reset(Gpu *gpu)
{
    gpu->energy_mj.at_anchor = gpu->pcie_tx_bytes.at_anchor = gpu->pcie_rx_bytes.at_anchor = 0;
    for (unsigned int link = 0; link < gpu->board->links; link++)
        gpu->link_tx_kib[link].at_anchor = gpu->link_rx_kib[link].at_anchor = 0;
    memset(gpu->reason_seconds, 0, sizeof gpu->reason_seconds);
}
