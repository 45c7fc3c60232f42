// ping COUNT: a line to `cat` and back, again and again, the two on a core each; each round trip in seconds, one a line.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void stay_on(int core)
{
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    sched_setaffinity(0, sizeof cores, &cores);
}

int main(int argc, char **argv)
{
    int in[2], out[2], first = -1, last = -1;
    cpu_set_t ours;
    if (argc != 2 || pipe(in) || pipe(out) || sched_getaffinity(0, sizeof ours, &ours))
        return 2;
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &ours)) {
            last = core;
            if (first < 0)
                first = core;
        }
    stay_on(first);
    if (fork() == 0) {
        stay_on(last);
        dup2(in[0], 0);
        dup2(out[1], 1);
        for (int i = 0; i < 2; i++) {
            close(in[i]);
            close(out[i]);
        }
        execlp("cat", "cat", NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    int count = atoi(argv[1]);
    double *times = calloc(count, sizeof *times);
    char line[64];
    for (int i = 0; i < count; i++) {
        int size = snprintf(line, sizeof line, "%d\n", i);
        double begin = now();
        if (write(in[1], line, size) != size || read(out[0], line, sizeof line) != size)
            return 1;
        times[i] = now() - begin;
    }
    for (int i = 0; i < count; i++)
        printf("%.9f\n", times[i]);
    close(in[1]);
    wait(NULL);
    return 0;
}
