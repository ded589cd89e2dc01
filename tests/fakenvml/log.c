/* The call log: a file named by FAKE_NVML_LOG, shared by every process that maps it.
 *
 * Layout, all native-endian uint32 after the magic: header, named counters, text of the first
 * scenario error, highest concurrency per column, calls per symbol and column, field reads per
 * field id and column, names of the symbols. A column is a GPU index, the last one "no GPU". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fakenvml.h"

enum { COLUMNS = MAX_GPUS + 1, NAME_BYTES = 64, ERROR_BYTES = 256 };

typedef struct {
    char magic[8];
    uint32_t symbols, columns, fields, named, name_bytes, error_bytes;
    atomic_uint value[LOG_COUNT];
    char error[ERROR_BYTES];
    atomic_uint max_in_flight[COLUMNS];
    atomic_uint calls[SYM_COUNT][COLUMNS];
    atomic_uint field_reads[NVML_FI_MAX][COLUMNS];
    char names[SYM_COUNT][NAME_BYTES];
} Log;

static _Atomic(Log *) shared;
/* Of this process: a killed one must not leave calls in flight behind. */
static atomic_uint in_flight, in_flight_batch, in_flight_column[COLUMNS];

/* The magic comes last: whoever reads it finds the rest in place. */
static void describe(Log *log)
{
    log->symbols = SYM_COUNT;
    log->columns = COLUMNS;
    log->fields = NVML_FI_MAX;
    log->named = LOG_COUNT;
    log->name_bytes = NAME_BYTES;
    log->error_bytes = ERROR_BYTES;
    for (int i = 0; i < SYM_COUNT; i++)
        snprintf(log->names[i], NAME_BYTES, "%s", symbols[i].name);
    atomic_thread_fence(memory_order_seq_cst);
    memcpy(log->magic, "FAKENVML", sizeof log->magic);
}

void log_open(void)
{
    const char *path = getenv("FAKE_NVML_LOG");
    if (path == NULL || *path == '\0' || atomic_load(&shared) != NULL)
        return;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        fprintf(stderr, "fakenvml: FAKE_NVML_LOG=%s: cannot open\n", path);
        return;
    }
    flock(fd, LOCK_EX);
    bool fresh = lseek(fd, 0, SEEK_END) == 0;
    if (!fresh || ftruncate(fd, sizeof(Log)) == 0) {
        Log *log = mmap(NULL, sizeof(Log), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (log != MAP_FAILED) {
            if (fresh)
                describe(log);
            atomic_store(&shared, log);
        }
    }
    close(fd);
}

void log_set(LogId id, unsigned int value)
{
    Log *log = atomic_load_explicit(&shared, memory_order_relaxed);
    if (log != NULL)
        atomic_store(&log->value[id], value);
}

void log_add(LogId id, int delta)
{
    Log *log = atomic_load_explicit(&shared, memory_order_relaxed);
    if (log != NULL)
        atomic_fetch_add(&log->value[id], (unsigned int)delta);
}

/* A mistake in a scenario is the test's own: say it aloud, and where the test looks. */
void log_error(const char *what)
{
    Log *log = atomic_load_explicit(&shared, memory_order_relaxed);
    fprintf(stderr, "fakenvml: %s\n", what);
    if (log == NULL)
        return;
    if (atomic_fetch_add(&log->value[LOG_SCENARIO_ERRORS], 1) == 0)
        snprintf(log->error, ERROR_BYTES, "%s", what);
}

void log_field(unsigned int column, unsigned int field)
{
    Log *log = atomic_load_explicit(&shared, memory_order_relaxed);
    if (log != NULL && field < NVML_FI_MAX)
        atomic_fetch_add_explicit(&log->field_reads[field][column], 1, memory_order_relaxed);
}

static bool is_batch(SymbolId symbol)
{
    return symbol == SYM_nvmlDeviceGetFieldValues || symbol == SYM_nvmlGpmSampleGet ||
           symbol == SYM_nvmlGpmMigSampleGet || symbol == SYM_nvmlGpmMetricsGet;
}

static void raise_to(atomic_uint *highest, unsigned int value)
{
    unsigned int seen = atomic_load_explicit(highest, memory_order_relaxed);
    while (seen < value && !atomic_compare_exchange_weak(highest, &seen, value)) {
    }
}

/* A wait for events is meant to block: it is counted, but not as a call in flight. */
bool log_begin(SymbolId symbol, unsigned int column)
{
    Log *log = atomic_load_explicit(&shared, memory_order_relaxed);
    if (log == NULL)
        return false;
    atomic_fetch_add_explicit(&log->calls[symbol][column], 1, memory_order_relaxed);
    if (symbol == SYM_nvmlEventSetWait_v2)
        return false;
    raise_to(&log->value[LOG_MAX_IN_FLIGHT], atomic_fetch_add(&in_flight, 1) + 1);
    raise_to(&log->max_in_flight[column], atomic_fetch_add(&in_flight_column[column], 1) + 1);
    if (is_batch(symbol))
        raise_to(&log->value[LOG_MAX_IN_FLIGHT_BATCH], atomic_fetch_add(&in_flight_batch, 1) + 1);
    return true;
}

void log_end(SymbolId symbol, unsigned int column)
{
    atomic_fetch_sub(&in_flight, 1);
    atomic_fetch_sub(&in_flight_column[column], 1);
    if (is_batch(symbol))
        atomic_fetch_sub(&in_flight_batch, 1);
}
