/* Finding the terminal behind stderr.  See terminal.h. */
#include "launch/terminal.h"

#include "kernels/base/env.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_mpirun(long process)
{
    static const char *const names[] = {"mpirun\n", "mpiexec\n", "orterun\n", "prterun\n"};
    char path[48], name[32] = "";
    FILE *file;

    snprintf(path, sizeof path, "/proc/%ld/comm", process);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    if (fgets(name, sizeof name, file) == NULL)
        name[0] = '\0';
    fclose(file);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

int gr_terminal_of_stderr(void)
{
    char path[48];
    int fd;

    if (isatty(STDERR_FILENO))
        return STDERR_FILENO;
    if (gr_env(GR_ENV_OMPI_MCA_orte_tag_output) != NULL ||
        gr_env(GR_ENV_OMPI_MCA_orte_timestamp_output) != NULL || !is_mpirun((long)getppid()))
        return -1;
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)getppid(), STDERR_FILENO);
    fd = open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 && !isatty(fd)) {
        close(fd);
        fd = -1;
    }
    return fd;
}
