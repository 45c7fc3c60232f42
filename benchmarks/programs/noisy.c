// noisy RATE SECONDS: numbered 80-byte lines, so many a second, in ticks of 10 ms; then wait for a signal, or a minute.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    double rate = atof(argv[1]);
    long ticks = (long)(atof(argv[2]) * 100), number = 0;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (long tick = 1; tick <= ticks; tick++) {
        for (long wanted = (long)(tick * rate / 100); number < wanted; number++)
            printf("%078ld.\n", number);
        fflush(stdout);
        next.tv_nsec += 10 * 1000 * 1000;
        if (next.tv_nsec >= 1000 * 1000 * 1000) {
            next.tv_nsec -= 1000 * 1000 * 1000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    alarm(60);
    pause();
    return 0;
}
