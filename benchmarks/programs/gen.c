// gen BYTES WRITE_SIZE FILE: write 80-byte lines, so many bytes at a time, and the seconds that it took to FILE.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 80 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long bytes = atol(argv[1]) / LINE * LINE, size = atol(argv[2]);
    long pattern = 26 * 40 * LINE; // any piece of the stream is a piece of this, repeated
    char *text = malloc(pattern + size);
    for (long i = 0; i < pattern + size; i++)
        text[i] = i % LINE == LINE - 1 ? '\n' : 'a' + i / LINE % 26;
    double begin = now();
    for (long done = 0; done < bytes;) {
        long left = bytes - done;
        ssize_t written = write(1, text + done % pattern, left < size ? left : size);
        if (written <= 0)
            return 1;
        done += written;
    }
    double seconds = now() - begin;
    struct stat what;
    if (stat(argv[3], &what) == 0 && !S_ISREG(what.st_mode))
        return 0; // such as /dev/null, which a rename would replace
    char part[4096];
    snprintf(part, sizeof part, "%s.part", argv[3]);
    FILE *file = fopen(part, "w");
    if (!file)
        return 1;
    fprintf(file, "%.9f\n", seconds);
    fclose(file);
    return rename(part, argv[3]) != 0;
}
