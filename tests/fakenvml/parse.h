/* What the two files that read a scenario's lines share. */
#ifndef FAKENVML_PARSE_H
#define FAKENVML_PARSE_H

#include "fakenvml.h"

bool whole(const char *text, long long *out);
void *grow(void **array, unsigned int *count, size_t size);
bool set_call(Scenario *scenario, int gpu, char *key, const char *value);
bool set_gpu(Scenario *scenario, char *key, const char *value);

#endif
