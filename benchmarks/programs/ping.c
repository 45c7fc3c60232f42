// ping COUNT: a line to `cat` and back, again and again; each round trip in seconds, one a line.
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

int main(int argc, char **argv)
{
    int in[2], out[2];
    if (argc != 2 || pipe(in) || pipe(out))
        return 2;
    if (fork() == 0) {
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
