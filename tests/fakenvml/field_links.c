/* Fields of the NVLinks; scope is the link. */
#include "fields.h"

static const unsigned int ALL_LINKS = 0xFFFFFFFFu;

/* Whole KiB per link, so that the sum over the links is exact. */
static nvmlReturn_t link_kib(Field *field, const Counter *counters, double overhead)
{
    unsigned int links = field->gpu->board->links, scope = field->out->scopeId;
    double total = 0;
    for (unsigned int link = 0; link < links; link++)
        if (scope == ALL_LINKS || scope == link)
            total += (double)(unsigned long long)(overhead *
                                                  count_at(field->gpu, &counters[link], field->t));
    REQUIRE(scope == ALL_LINKS || (scope < links && link_active(field->gpu, scope)),
            scope < links ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT);
    return u64(field, ~0ull, total);
}

static nvmlReturn_t link_traffic5(Field *field, unsigned int id)
{
    const Counter *counters = id < 203 ? field->gpu->link_tx_kib : field->gpu->link_rx_kib;
    nvmlReturn_t ret = link_kib(field, counters, 1);
    if (ret == NVML_SUCCESS) /* packets of 256 bytes */
        field->out->value.ullVal *= id == 202 || id == 204 ? 1024 : 4;
    return ret;
}

static nvmlReturn_t link_error(Field *field, uint64_t capability)
{
    return u64(field, capability, (double)value_or(field->gpu, OV_link_errors, 0));
}

nvmlReturn_t read_link(Field *field, unsigned int id)
{
    const Board *board = field->gpu->board;
    unsigned int link = field->out->scopeId;
    switch (id) {
    case NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX: return link_kib(field, field->gpu->link_tx_kib, 1);
    case NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX: return link_kib(field, field->gpu->link_rx_kib, 1);
    case NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX: return link_kib(field, field->gpu->link_tx_kib, 1.2);
    case NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX: return link_kib(field, field->gpu->link_rx_kib, 1.2);
    case NVML_FI_DEV_NVLINK_LINK_COUNT: return u32(field, ~0ull, board->links);
    case NVML_FI_DEV_NVSWITCH_CONNECTED_LINK_COUNT: return u32(field, ~0ull, board->links);
    case NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON: return u32(field, ~0ull, board->link_mbps);
    case NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL:
    case NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL:
    case NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL:
    case NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL:
    case NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL:
        return u64(field, CAP_NVLINK_ERRORS,
                   (double)value_or(field->gpu, OV_link_errors, 0) * board->links);
    default: break;
    }
    REQUIRE(link < board->links, NVML_ERROR_INVALID_ARGUMENT);
    if (id == NVML_FI_DEV_NVLINK_GET_STATE)
        return u32(field, ~0ull, link_active(field->gpu, link));
    REQUIRE(link_active(field->gpu, link), NVML_ERROR_NOT_SUPPORTED);
    if (id == NVML_FI_DEV_NVLINK_GET_SPEED)
        return u32(field, ~0ull, board->link_mbps);
    if (id == NVML_FI_DEV_NVLINK_GET_VERSION)
        return u32(field, ~0ull, board->link_version);
    if (id <= NVML_FI_DEV_NVLINK_ERROR_DL_CRC)
        return link_error(field, CAP_NVLINK_ERRORS);
    REQUIRE((board->caps & CAP_NVLINK5) != 0, NVML_ERROR_NOT_SUPPORTED);
    if (id <= 204)
        return link_traffic5(field, id);
    if (id == NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER || id == NVML_FI_DEV_NVLINK_COUNT_SYMBOL_BER)
        return u64(field, ~0ull, 15 | 1 << 8); /* 1e-15 */
    return link_error(field, CAP_NVLINK5);
}

bool is_link_field(unsigned int id)
{
    return id == 38 || id == 45 || id == 52 || id == 59 || id == 90 || id == 91 ||
           (id >= 138 && id <= 141) || id == 147 || (id >= 160 && id <= 166) ||
           (id >= 201 && id <= 222 && (id < 216 || id > 218)) || (id >= 235 && id <= 250);
}
