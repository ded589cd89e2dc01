/* Fields of health, power and temperature, and how a field is set. */
#include "fields.h"

nvmlReturn_t put(Field *field, nvmlValueType_t type, unsigned long long value)
{
    field->out->valueType = type;
    if (type == NVML_VALUE_TYPE_DOUBLE)
        field->out->value.dVal = (double)value;
    else if (type == NVML_VALUE_TYPE_UNSIGNED_INT || type == NVML_VALUE_TYPE_SIGNED_INT)
        field->out->value.uiVal = (unsigned int)value; /* the other half stays garbage */
    else if (type == NVML_VALUE_TYPE_UNSIGNED_SHORT)
        field->out->value.usVal = (unsigned short)value;
    else
        field->out->value.ullVal = value;
    return NVML_SUCCESS;
}

nvmlReturn_t u32(Field *field, uint64_t capability, long long value)
{
    REQUIRE((field->gpu->board->caps & capability) != 0, NVML_ERROR_NOT_SUPPORTED);
    return put(field, NVML_VALUE_TYPE_UNSIGNED_INT, (unsigned long long)value);
}

nvmlReturn_t u64(Field *field, uint64_t capability, double value)
{
    REQUIRE((field->gpu->board->caps & capability) != 0, NVML_ERROR_NOT_SUPPORTED);
    return put(field, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, (unsigned long long)value);
}

nvmlReturn_t i32(Field *field, uint64_t capability, int value)
{
    REQUIRE((field->gpu->board->caps & capability) != 0, NVML_ERROR_NOT_SUPPORTED);
    return put(field, NVML_VALUE_TYPE_SIGNED_INT, (unsigned long long)(long long)value);
}

static nvmlReturn_t seconds_of(Field *field, unsigned int bit)
{
    return u64(field, CAP_REASON_TIME, 1e9 * reason_seconds_at(field->gpu, bit, field->t));
}

/* 251..253 in 575 to 580.65, 269..271 from 580.82; in between and before they mean other things. */
nvmlReturn_t read_newer_reason(Field *field, unsigned int id)
{
    int driver = field->call->scenario->driver_number;
    unsigned int first = driver >= 580082 ? 269 : driver >= 575000 ? 251 : 0;
    REQUIRE(first != 0 && id >= first && id < first + 3, NVML_ERROR_NOT_SUPPORTED);
    return seconds_of(field, 5 + id - first);
}

static nvmlReturn_t ecc(Field *field, bool uncorrected, bool aggregate)
{
    REQUIRE(ecc_on(field->gpu), NVML_ERROR_NOT_SUPPORTED);
    return u64(field, CAP_ECC, (double)ecc_count(field->gpu, uncorrected, aggregate));
}

nvmlReturn_t read_health(Field *field, unsigned int id)
{
    const Gpu *gpu = field->gpu;
    switch (id) {
    case NVML_FI_DEV_ECC_CURRENT: return u32(field, CAP_ECC, ecc_on(gpu));
    case NVML_FI_DEV_ECC_PENDING:
        return u32(field, CAP_ECC, value_or(gpu, OV_ecc_pending, ecc_on(gpu)));
    case NVML_FI_DEV_ECC_SBE_VOL_TOTAL:
    case NVML_FI_DEV_ECC_SBE_VOL_DEV: return ecc(field, false, false);
    case NVML_FI_DEV_ECC_DBE_VOL_TOTAL:
    case NVML_FI_DEV_ECC_DBE_VOL_DEV: return ecc(field, true, false);
    case NVML_FI_DEV_ECC_SBE_AGG_TOTAL:
    case NVML_FI_DEV_ECC_SBE_AGG_DEV: return ecc(field, false, true);
    case NVML_FI_DEV_ECC_DBE_AGG_TOTAL:
    case NVML_FI_DEV_ECC_DBE_AGG_DEV: return ecc(field, true, true);
    case NVML_FI_DEV_RETIRED_SBE: return u64(field, CAP_RETIRED, value_or(gpu, OV_retired_sbe, 0));
    case NVML_FI_DEV_RETIRED_DBE: return u64(field, CAP_RETIRED, value_or(gpu, OV_retired_dbe, 0));
    case NVML_FI_DEV_RETIRED_PENDING:
    case NVML_FI_DEV_RETIRED_PENDING_SBE:
    case NVML_FI_DEV_RETIRED_PENDING_DBE:
        return u32(field, CAP_RETIRED, value_or(gpu, OV_retired_pending, 0));
    default: break;
    }
    REQUIRE(!gpu->mig_on, NVML_ERROR_NOT_SUPPORTED);
    if (id == NVML_FI_DEV_REMAPPED_ROWS_COR_INACTIVE)
        return u32(field, CAP_REMAP, value_or(gpu, OV_remapped_correctable_inactive, 0));
    if (id == NVML_FI_DEV_REMAPPED_ROWS_UNC_INACTIVE)
        return u32(field, CAP_REMAP, value_or(gpu, OV_remapped_uncorrectable_inactive, 0));
    static const OverrideId rows[] = {OV_remapped_correctable, OV_remapped_uncorrectable,
                                      OV_remapped_pending, OV_remapped_failure};
    return u32(field, CAP_REMAP, value_or(gpu, rows[id - NVML_FI_DEV_REMAPPED_COR], 0));
}

nvmlReturn_t read_power(Field *field, unsigned int id)
{
    const Gpu *gpu = field->gpu;
    const Board *board = gpu->board;
    switch (id) {
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
    case NVML_FI_DEV_ENERGY:
        return u64(field, CAP_ENERGY, count_at(gpu, &gpu->energy_mj, field->t));
    case NVML_FI_DEV_POWER_AVERAGE:
        return u32(field, CAP_POWER_AVERAGE, power_at(gpu, field->t));
    case NVML_FI_DEV_POWER_INSTANT:
        REQUIRE(field->out->scopeId == 0, NVML_ERROR_NOT_SUPPORTED); /* no module sensor here */
        return u32(field, CAP_POWER, power_at(gpu, field->t));
    case NVML_FI_DEV_POWER_MIN_LIMIT: return u32(field, CAP_POWER_LIMITS, board->limit_min_mw);
    case NVML_FI_DEV_POWER_MAX_LIMIT:
    case NVML_FI_DEV_POWER_DEFAULT_LIMIT: return u32(field, CAP_POWER_LIMITS, board->limit_mw);
    default: return u32(field, CAP_POWER_LIMITS, power_limit_of(gpu));
    }
}

nvmlReturn_t read_temperature(Field *field, unsigned int id)
{
    const Gpu *gpu = field->gpu;
    const Board *board = gpu->board;
    int most = (int)board->temp_max;
    switch (id) {
    case NVML_FI_DEV_MEMORY_TEMP:
        return u32(field, CAP_MEMORY_TEMP,
                   value_or(gpu, OV_memory_temp, 6.0 + temperature_at(gpu, field->t)));
    case NVML_FI_DEV_GPU_TEMP:
        field->out->valueType = NVML_VALUE_TYPE_DOUBLE;
        field->out->value.dVal = temperature_at(gpu, field->t) + 0.25;
        return board->temp_full > 0 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
    case NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT:
        return i32(field, CAP_TLIMIT, most - (int)board->temp_shutdown);
    case NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT:
        return i32(field, CAP_TLIMIT, most - (int)board->temp_slowdown);
    default: return i32(field, CAP_TLIMIT, 0);
    }
}
