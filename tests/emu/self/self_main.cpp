/* Runs the cases of self.h, each in a process of its own, and looks at how it ends.
 *   test_emu_checked [NAME]    all, or one in this process */
#include "self.h"

#include <ctype.h>
#include <stdlib.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

static const struct self_case *const tables[] = {
    kernel_faults, warp_faults, host_faults, library_faults, legal_programs, fragments, counts};

static const struct self_case *find_case(const char *name)
{
    for (const struct self_case *table : tables) {
        for (const struct self_case *c = table; c->name != nullptr; c++) {
            if (strcmp(c->name, name) == 0)
                return c;
        }
    }
    return nullptr;
}

/* 0: as expected, 1: wrong values; 99: the emulator ended it. */
static int run_here(const struct self_case *c)
{
    cudaStream_t stream;

    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
        return 2;
    return c->run(stream) ? 0 : 1;
}

/* What the process says, and how it ends. */
static int run_apart(const char *program, const struct self_case *c, std::string *said)
{
    int pipes[2], status;
    char buffer[4096];
    ssize_t count;
    pid_t child;

    if (pipe(pipes) != 0 || (child = fork()) < 0)
        return -1;
    if (child == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        execl(program, program, c->name, (char *)nullptr);
        _exit(3);
    }
    close(pipes[1]);
    while ((count = read(pipes[0], buffer, sizeof buffer)) > 0)
        said->append(buffer, (size_t)count);
    close(pipes[0]);
    if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

/* Whether line `line` of the file has the comment of a fault. */
static bool is_marked(const std::string &file, int line)
{
    static const char mark[] = "// found";
    FILE *source = fopen(file.c_str(), "r");
    char text[512];
    bool is_there = false;

    for (int i = 1; source != nullptr && fgets(text, sizeof text, source) != nullptr; i++)
        is_there = is_there || (i == line && strstr(text, mark) != nullptr);
    if (source != nullptr)
        fclose(source);
    return is_there;
}

/* Whether a place "FILE.cu:LINE" of the text is marked; true where the case marks none. */
static bool names_the_line(const std::string &said)
{
    for (size_t at = said.find(".cu:"); at != std::string::npos; at = said.find(".cu:", at + 1)) {
        size_t begin = at;

        while (begin > 0 && !isspace((unsigned char)said[begin - 1]))
            begin--;
        if (is_marked(said.substr(begin, at + 3 - begin), atoi(said.c_str() + at + 4)))
            return true;
    }
    return false;
}

static bool is_as_expected(const char *program, const struct self_case *c)
{
    const bool finds = c->outcome == FOUND_BY_BOTH || (c->outcome == FOUND && emu::checking);
    std::string said;
    const int code = run_apart(program, c, &said);
    const std::string title =
        std::string("EMU ERROR [") + (c->finding != nullptr ? std::string(c->finding) + "]" : "");
    const char *wrong = nullptr;

    if (c->outcome == FOUND && !emu::checking)
        return true; /* may be found or not */
    if (code != (finds ? 99 : c->outcome == WRONG ? 1 : 0))
        wrong = "ended with another code";
    else if (finds && said.find(title) == std::string::npos)
        wrong = "reported something else";
    else if (finds && emu::checking && !names_the_line(said))
        wrong = "does not name the line";
    if (wrong != nullptr)
        printf("FAIL %s: %s (%d, expected %s)\n%s\n", c->name, wrong, code,
               finds                 ? title.c_str()
               : c->outcome == WRONG ? "wrong values"
                                     : "silence",
               said.c_str());
    return wrong == nullptr;
}

int main(int count, char **arguments)
{
    int ran = 0, failed = 0;

    if (count > 1) {
        const struct self_case *c = find_case(arguments[1]);

        return c != nullptr ? run_here(c) : 2;
    }
    for (const struct self_case *table : tables) {
        for (const struct self_case *c = table; c->name != nullptr; c++) {
            ran++;
            failed += !is_as_expected(arguments[0], c);
        }
    }
    printf("%d cases, %d failed (%s)\n", ran, failed, emu::checking ? "checked" : "fast");
    return failed > 0;
}
