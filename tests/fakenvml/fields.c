/* nvmlDeviceGetFieldValues: one batch of readings, each with its own answer. */
#include "fields.h"

static const unsigned long long GARBAGE = 0xDEADBEEFDEADBEEFull;

/* The driver that first knows a field, as major * 1000 + minor. */
static int field_since(unsigned int id)
{
    static const struct { unsigned int from; int since; } table[] = {
        {308, 615000}, {289, 610000}, {274, 590000}, {272, 580082}, {251, 570000}, {235, 570000},
        {231, 575000}, {205, 570000}, {201, 560000}, {199, 550000}, {197, 555000}, {173, 525000},
        {170, 535000}, {161, 525000}, {142, 450000}, {0, 0}};
    unsigned int i = 0;
    while (id < table[i].from)
        i++;
    return table[i].since;
}

static nvmlReturn_t read_field(Field *field)
{
    const Gpu *gpu = field->gpu;
    unsigned int id = field->out->fieldId;
    unsigned long long ns = 0;
    REQUIRE(field->call->scenario->driver_number >= field_since(id), NVML_ERROR_NOT_SUPPORTED);
    if (is_link_field(id)) {
        REQUIRE(gpu->board->links > 0 && !gpu->mig_on, NVML_ERROR_NOT_SUPPORTED);
        return read_link(field, id);
    }
    if ((id >= 1 && id <= 31) || id == 92 || id == 93 || (id >= 142 && id <= 145) ||
        id == NVML_FI_DEV_REMAPPED_ROWS_COR_INACTIVE || id == NVML_FI_DEV_REMAPPED_ROWS_UNC_INACTIVE)
        return id < 7 || id == 11 || id == 12 || id == 22 || id == 23 || id > 28
                   ? read_health(field, id)
                   : NVML_ERROR_NOT_SUPPORTED;
    if (id >= NVML_FI_DEV_PERF_POLICY_POWER && id <= NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS) {
        nvmlReturn_t ret = policy_ns(field->call, id - 74 < 6 ? id - 74 : id - 70, &ns);
        return ret == NVML_SUCCESS ? put(field, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, ns) : ret;
    }
    if ((id >= 251 && id <= 253) || (id >= 269 && id <= 271))
        return read_newer_reason(field, id);
    if (id == 83 || (id >= 185 && id <= 192))
        return read_power(field, id);
    if (id == 82 || id == 308 || (id >= 193 && id <= 196))
        return read_temperature(field, id);
    if (id == NVML_FI_DEV_PCIE_COUNT_TX_BYTES) /* 32 bits wide: it wraps */
        return u32(field, CAP_PCIE_BYTES,
                   (long long)count_at(gpu, &gpu->pcie_tx_bytes, field->t) & 0xFFFFFFFF);
    if (id == NVML_FI_DEV_PCIE_COUNT_RX_BYTES)
        return u32(field, CAP_PCIE_BYTES,
                   (long long)count_at(gpu, &gpu->pcie_rx_bytes, field->t) & 0xFFFFFFFF);
    if (id == NVML_FI_DEV_PCIE_REPLAY_COUNTER)
        return u32(field, CAP_PCIE_ERRORS, value_or(gpu, OV_pcie_replays, 0));
    if (id == 95 || id == 169 || (id >= 173 && id <= 182))
        return u32(field, CAP_PCIE_ERRORS, value_or(gpu, OV_pcie_errors, 0));
    if (id == NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)
        return u32(field, CAP_RECOVERY, value_or(gpu, OV_recovery_action, 0));
    return NVML_ERROR_NOT_SUPPORTED;
}

/* The last rule that fits: a later line, and a GPU's own over `gpu*`. */
const ValueRule *value_rule(const ValueRule *rules, unsigned int count, unsigned int gpu,
                            unsigned int id, unsigned int scope)
{
    const ValueRule *found = NULL;
    for (unsigned int i = 0; i < count; i++)
        if (rules[i].id == id && (rules[i].gpu < 0 || rules[i].gpu == (int)gpu) &&
            (rules[i].scope == ALL_SCOPES || rules[i].scope == scope) &&
            (found == NULL || rules[i].gpu >= found->gpu))
            found = &rules[i];
    return found;
}

static nvmlReturn_t apply_rule(Field *field, const ValueRule *rule, nvmlReturn_t ret)
{
    nvmlFieldValue_t *out = field->out;
    if (rule->has_ret && rule->ret != NVML_SUCCESS)
        return rule->ret;
    if (rule->has_value || (rule->has_type && ret == NVML_SUCCESS)) {
        bool narrow = out->valueType == NVML_VALUE_TYPE_UNSIGNED_INT;
        unsigned long long value = rule->has_value ? rule->whole
                                   : narrow        ? out->value.uiVal
                                                   : out->value.ullVal;
        nvmlValueType_t type = rule->has_type        ? (nvmlValueType_t)rule->type
                               : ret == NVML_SUCCESS ? out->valueType
                                                     : NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        out->value.ullVal = GARBAGE;
        put(field, type, value);
        if (type == NVML_VALUE_TYPE_DOUBLE && rule->has_value)
            out->value.dVal = rule->real;
        return NVML_SUCCESS;
    }
    return ret;
}

static unsigned int field_ns(unsigned int id)
{
    switch (id) {
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
    case NVML_FI_DEV_ENERGY: return 2600000;
    case NVML_FI_DEV_POWER_AVERAGE: return 3300000;
    case NVML_FI_DEV_MEMORY_TEMP: return 1200000;
    case NVML_FI_DEV_PCIE_COUNT_TX_BYTES:
    case NVML_FI_DEV_PCIE_COUNT_RX_BYTES: return 300000;
    case NVML_FI_DEV_POWER_INSTANT: return 3000;
    default: return 20000;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    ENTER(nvmlDeviceGetFieldValues, device);
    NOT_NULL(values);
    REQUIRE(count > 0, NVML_ERROR_INVALID_ARGUMENT);
    unsigned long long ns = 0;
    for (int i = 0; i < count; i++)
        ns += field_ns(values[i].fieldId);
    if (call.scenario->real_latency) {
        call_pause(&call);
        sleep_ns(ns);
        call_resume(&call);
    }
    const Scenario *scenario = call.scenario;
    const Gpu *gpu = &scenario->gpus[call.column];
    Field field = {&call, gpu, now_of(scenario), NULL};
    call.gpu = gpu;
    for (int i = 0; i < count; i++) {
        nvmlFieldValue_t *out = field.out = &values[i];
        log_field(gpu->index, out->fieldId);
        out->timestamp = (long long)epoch_us(scenario, field.t);
        out->latencyUsec = scenario->real_latency ? field_ns(out->fieldId) / 1000 : 1;
        out->value.ullVal = GARBAGE;
        out->valueType = NVML_VALUE_TYPE_DOUBLE;
        nvmlReturn_t ret = read_field(&field);
        if (scenario->fields_count > 0) {
            const ValueRule *rule = value_rule(scenario->fields, scenario->fields_count,
                                               gpu->index, out->fieldId, out->scopeId);
            ret = rule != NULL ? apply_rule(&field, rule, ret) : ret;
        }
        out->nvmlReturn = ret;
        if (ret != NVML_SUCCESS)
            out->value.ullVal = GARBAGE;
    }
    return NVML_SUCCESS;
}
