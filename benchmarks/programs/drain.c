// drain SIZE COMMAND...: read the command's output, so many bytes at a time, and do nothing with it.
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int ends[2];
    if (argc < 3 || pipe(ends))
        return 2;
    if (fork() == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    close(ends[1]);
    long size = atol(argv[1]);
    char *data = malloc(size);
    while (read(ends[0], data, size) > 0)
        ;
    wait(NULL);
    return 0;
}
