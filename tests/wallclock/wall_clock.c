/* Preloaded: moves the wall clock of a process, and its time since boot, by what a file says.

   The file that FAKE_CLOCKS names holds two 64-bit numbers of nanoseconds, in the machine's order:
   what is added to CLOCK_REALTIME, and to CLOCK_BOOTTIME. CLOCK_MONOTONIC stays as it is, as it
   does when somebody sets the clock, or suspends the machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WALL, BOOT };
static const volatile int64_t *moved;
static const int64_t SECOND = 1000000000;

__attribute__((constructor)) static void map(void)
{
    const char *path = getenv("FAKE_CLOCKS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, 2 * sizeof *moved, PROT_READ, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED)
        moved = shared;
    close(file);
}

static struct timespec later(struct timespec at, int64_t nanoseconds)
{
    int64_t sum = at.tv_sec * SECOND + at.tv_nsec + nanoseconds;
    return (struct timespec){.tv_sec = sum / SECOND, .tv_nsec = sum % SECOND};
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int code = (int)syscall(SYS_clock_gettime, clock, at);
    if (code == 0 && moved && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *at = later(*at, moved[WALL]);
    if (code == 0 && moved && clock == CLOCK_BOOTTIME)
        *at = later(*at, moved[BOOT]);
    return code;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *at = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

/* Python 3.10 waits for its locks by the wall clock; the kernel's own has not moved. */
int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    static int (*real)(sem_t *, const struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec moved_back = later(*until, moved ? -moved[WALL] : 0);
    return real(semaphore, &moved_back);
}
