// spawn COUNT: start `cat` on three pipes, kill it and reap it; each time in seconds, one a line.
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    int count = atoi(argv[1]);
    double *times = calloc(count, sizeof *times);
    for (int i = 0; i < count; i++) {
        double begin = now();
        int ends[3][2];
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        for (int fd = 0; fd < 3; fd++) {
            if (pipe2(ends[fd], O_CLOEXEC))
                return 1;
            posix_spawn_file_actions_adddup2(&actions, ends[fd][fd != 0], fd);
        }
        pid_t pid;
        char *words[] = {"cat", NULL};
        if (posix_spawnp(&pid, "cat", &actions, NULL, words, environ) || pid <= 1)
            return 1;
        kill(pid, SIGTERM);
        waitpid(pid, NULL, 0);
        for (int fd = 0; fd < 3; fd++) {
            close(ends[fd][0]);
            close(ends[fd][1]);
        }
        posix_spawn_file_actions_destroy(&actions);
        times[i] = now() - begin;
    }
    for (int i = 0; i < count; i++)
        printf("%.9f\n", times[i]);
    return 0;
}
