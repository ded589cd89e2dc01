/* One field of a batch, while it is read. */
#ifndef FAKENVML_FIELDS_H
#define FAKENVML_FIELDS_H

#include "fakenvml.h"

typedef struct {
    const Call *call;
    const Gpu *gpu;
    double t;
    nvmlFieldValue_t *out;
} Field;

/* Each sets type and value, or says that the board cannot. */
nvmlReturn_t put(Field *field, nvmlValueType_t type, unsigned long long value);
nvmlReturn_t u32(Field *field, uint64_t capability, long long value);
nvmlReturn_t u64(Field *field, uint64_t capability, double value);
nvmlReturn_t i32(Field *field, uint64_t capability, int value);

bool is_link_field(unsigned int id);
nvmlReturn_t read_link(Field *field, unsigned int id);
nvmlReturn_t read_newer_reason(Field *field, unsigned int id);
nvmlReturn_t read_health(Field *field, unsigned int id);
nvmlReturn_t read_power(Field *field, unsigned int id);
nvmlReturn_t read_temperature(Field *field, unsigned int id);

#endif
