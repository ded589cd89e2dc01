/* What every call does before its own part: log, scenario, handle, faults, latency. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fakenvml.h"

const Symbol symbols[SYM_COUNT] = {
#define SYMBOL(name, handle, since, ns) {#name, handle, since, ns},
#include "symbols.def"
#undef SYMBOL
};

/* A handle is a tagged number, never an address: init epoch, GPU epoch, MIG epoch, MIG index + 1,
 * GPU index. An epoch that moved on makes it INVALID_ARGUMENT. */
static nvmlDevice_t make_handle(const Scenario *scenario, const Gpu *gpu, unsigned int mig_epoch,
                                unsigned int mig)
{
    uint64_t bits = 0x5Eull << 40 | (uint64_t)(scenario->init_epoch & 0xFF) << 32 |
                    (gpu->epoch & 0xFF) << 24 | (mig_epoch & 0xFF) << 16 | mig << 8 |
                    gpu->index << 4;
    return (nvmlDevice_t)(uintptr_t)bits;
}

nvmlDevice_t handle_of_gpu(const Scenario *scenario, const Gpu *gpu)
{
    return make_handle(scenario, gpu, 0, 0);
}

nvmlDevice_t handle_of_mig(const Scenario *scenario, const Gpu *gpu, const MigInstance *mig)
{
    return make_handle(scenario, gpu, gpu->mig_epoch, mig->index + 1);
}

static bool resolve(Call *call, nvmlDevice_t device)
{
    uint64_t bits = (uintptr_t)device;
    unsigned int index = bits >> 4 & 0xF, mig = bits >> 8 & 0xFF;
    call->mig = NULL;
    if ((int)index >= call->scenario->live_count)
        return false;
    call->gpu = &call->scenario->gpus[index];
    if (mig == 0)
        return device == handle_of_gpu(call->scenario, call->gpu);
    for (unsigned int i = 0; i < call->gpu->mig_count && call->gpu->mig_on; i++)
        if (call->gpu->mig[i].index + 1 == mig)
            call->mig = &call->gpu->mig[i];
    return call->mig != NULL && device == handle_of_mig(call->scenario, call->gpu, call->mig);
}

void call_resume(Call *call)
{
    scenario_refresh();
    atomic_fetch_add(&holders, 1);
    call->scenario = atomic_load(&current);
    call->holds = true;
}

void call_pause(Call *call)
{
    call->holds = false;
    atomic_fetch_sub(&holders, 1);
}

/* Below 60 us a sleep would mostly be the timer's slack. */
void sleep_ns(unsigned long long ns)
{
    struct timespec left = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)}, start, t;
    if (ns >= 60000) {
        while (nanosleep(&left, &left) != 0) { /* signals do not end a driver call */
        }
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &t);
    while ((t.tv_sec - start.tv_sec) * 1000000000ll + t.tv_nsec - start.tv_nsec < (long long)ns);
}

static void block_while_exists(Call *call, const char *path)
{
    char copy[4096]; /* the scenario may go while we sleep */
    if (path == NULL || access(path, F_OK) != 0)
        return;
    snprintf(copy, sizeof copy, "%s", path);
    call_pause(call);
    while (access(copy, F_OK) == 0)
        sleep_ns(2000000);
    call_resume(call);
}

static void delay(Call *call, unsigned long long ns)
{
    if (ns == 0)
        return;
    call_pause(call);
    sleep_ns(ns);
    call_resume(call);
}

/* The most specific rule for this call, if this is one of the calls that it is for. */
static const CallRule *due_rule(const Call *call)
{
    CallRule *found = NULL;
    if (!call->scenario->ruled[call->symbol])
        return NULL;
    for (unsigned int i = 0; i < call->scenario->rules_count; i++) {
        CallRule *rule = &call->scenario->rules[i];
        if (rule->symbol == call->symbol &&
            (rule->gpu == (int)call->column || (rule->gpu < 0 && found == NULL)))
            found = rule;
    }
    if (found == NULL)
        return NULL;
    unsigned int hit = atomic_fetch_add(&found->hits[call->column], 1) + 1;
    return hit % found->every == 0 && hit / found->every <= found->times ? found : NULL;
}

/* Faults and latency that the scenario asks for. Returns the answer they force, or SUCCESS. */
nvmlReturn_t call_faults(Call *call)
{
    const CallRule *rule = due_rule(call);
    nvmlReturn_t ret = rule != NULL ? rule->ret : NVML_SUCCESS;
    unsigned long long ns = rule != NULL ? rule->delay_ms * 1000000ull : 0;
    if (call->scenario->real_latency)
        ns += symbols[call->symbol].real_ns;
    if (call->column != NO_GPU)
        ns += call->scenario->gpus[call->column].delay_ms * 1000000ull;
    if (rule != NULL)
        block_while_exists(call, rule->block);
    if (call->column != NO_GPU)
        block_while_exists(call, call->scenario->gpus[call->column].block);
    delay(call, ns);
    if (call->column != NO_GPU && call->scenario->gpus[call->column].status != NVML_SUCCESS)
        return call->scenario->gpus[call->column].status;
    if (call->column != NO_GPU && call->scenario->status != NVML_SUCCESS)
        return call->scenario->status;
    return ret;
}

/* Takes hold of the scenario, unless the library is not initialised. */
static void begin(Call *call)
{
    if (atomic_load_explicit(&forked_after_init, memory_order_relaxed))
        log_add(LOG_AFTER_FORK, 1);
    if (atomic_load_explicit(&init_references, memory_order_acquire) == 0)
        call->status = NVML_ERROR_UNINITIALIZED;
    else
        call_resume(call);
}

static void refuse_by_age(Call *call)
{
    if (call->status == NVML_SUCCESS &&
        call->scenario->driver_number < symbols[call->symbol].since)
        call->status = NVML_ERROR_FUNCTION_NOT_FOUND;
}

Call call_enter_lookup(SymbolId symbol)
{
    Call call = {.status = NVML_SUCCESS, .symbol = symbol, .column = NO_GPU};
    begin(&call);
    return call;
}

void call_settle(Call *call, unsigned int column)
{
    call->column = column;
    call->counted = log_begin(call->symbol, column);
    if (call->status == NVML_SUCCESS)
        call->status = call_faults(call);
    refuse_by_age(call);
}

Call call_enter_system(SymbolId symbol)
{
    Call call = call_enter_lookup(symbol);
    call_settle(&call, NO_GPU);
    return call;
}

Call call_enter(SymbolId symbol, nvmlDevice_t device)
{
    Call call = call_enter_lookup(symbol);
    HandleKind kind = symbols[symbol].handle;
    if (!call.holds || !resolve(&call, device)) {
        call.counted = log_begin(symbol, NO_GPU);
        call.status = call.holds ? NVML_ERROR_INVALID_ARGUMENT : call.status;
        return call;
    }
    call_settle(&call, call.gpu->index);
    if (call.status == NVML_SUCCESS && !resolve(&call, device)) /* anew: it may have slept */
        call.status = NVML_ERROR_INVALID_ARGUMENT;
    if (call.status == NVML_SUCCESS &&
        ((call.mig != NULL && kind != BOTH) || (kind == NOMIG && call.gpu->mig_on)))
        call.status = NVML_ERROR_NOT_SUPPORTED;
    return call;
}

void call_leave(Call *call)
{
    if (call->counted)
        log_end(call->symbol, call->column);
    if (call->holds)
        atomic_fetch_sub_explicit(&holders, 1, memory_order_release);
}

nvmlReturn_t copy_string(const char *text, char *out, unsigned int length)
{
    NOT_NULL(out);
    REQUIRE(text != NULL, NVML_ERROR_NOT_SUPPORTED);
    REQUIRE(strlen(text) < length, NVML_ERROR_INSUFFICIENT_SIZE);
    memcpy(out, text, strlen(text) + 1);
    return NVML_SUCCESS;
}
