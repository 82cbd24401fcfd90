/* graft doctor: is this machine ready to train?  Each check is a function that leaves one line. */
#include "launch/cmd.h"

#include "data/store/store.h"
#include "kernels/base/alloc.h"
#include "kernels/base/clock.h"
#include "kernels/base/env.h"
#include "kernels/device.h"
#include "launch/doctor_device.h"
#include "launch/print_json.h"
#include "launch/versions.h"
#include "trainer/config.h"
#include "trainer/run/device_config.h"
#include "trainer/run/inputs.h"
#include "trainer/run/memory_plan.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const struct gr_option options[] = {
    {"output", 'o', GR_OPTION_TEXT, "DIR", "where runs will be written (.)", 0, 0},
    {"json", 0, GR_OPTION_FLAG, NULL, "print one JSON object", 0, 0},
    {"device", 0, GR_OPTION_TEXT, "cuda", "look at the GPU instead: its ops, and whose attention",
     0, 0},
    {"rows", 0, GR_OPTION_INTEGER, "N", "with --device: of the largest attention (8192)", 256,
     65536},
    {0},
};

enum verdict { VERDICT_OK, VERDICT_WARNING, VERDICT_PROBLEM };
static const char *const verdict_words[] = {"ok", "warning", "problem"};

/* What a check found.  hint: empty where there is nothing to do. */
struct finding {
    enum verdict verdict;
    char text[400], hint[400];
};

static void find(struct finding *f, enum verdict verdict, const char *hint, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void find(struct finding *f, enum verdict verdict, const char *hint, const char *format, ...)
{
    va_list args;

    f->verdict = verdict;
    snprintf(f->hint, sizeof f->hint, "%s", hint == NULL ? "" : hint);
    va_start(args, format);
    vsnprintf(f->text, sizeof f->text, format, args);
    va_end(args);
}

/* The failure on this thread becomes a finding. */
static void find_failure(struct finding *f, enum verdict verdict)
{
    find(f, verdict, gr_error_hint(), "%s", gr_error_message());
    gr_error_clear();
}

static double gibibytes(double bytes)
{
    return bytes / (1024.0 * 1024 * 1024);
}

/* ---- the checks ------------------------------------------------------------------------- */

static void check_program(struct finding *f, const char *output)
{
    struct gr_versions versions;
    struct gr_buffer text = {0};

    (void)output;
    gr_versions_get(&versions, "");
    for (int64_t i = 0; i < GR_COUNT(versions.row); i++) {
        if (versions.row[i].value[0] != '\0')
            gr_buffer_add_format(&text, "%s%s %.60s", i == 0 ? "" : ", ", versions.row[i].name,
                                 versions.row[i].value);
    }
    find(f, VERDICT_OK, NULL, "%s", text.data);
    gr_buffer_release(&text);
}

static void check_cpu(struct finding *f, const char *output)
{
    struct gr_device *device = NULL;

    (void)output;
    if (gr_device_create(&device, "cpu", 1, gr_env(GR_ENV_GRAFT_ISA)) != GR_OK) {
        find_failure(f, VERDICT_PROBLEM);
        return;
    }
    if (strcmp(gr_device_isa(device), "baseline") != 0)
        find(f, VERDICT_OK, NULL, "%s (%s), %s", gr_device_isa(device), gr_device_isa_text(device),
             gr_device_libraries());
    else
        find(f, VERDICT_WARNING, "train on a CPU with AVX2 or AVX-512", "%s: %s",
             gr_device_isa(device), gr_device_isa_text(device));
    gr_device_destroy(device);
}

/* Ranks of this host, this one included. */
static int local_ranks(void)
{
    const char *ranks = gr_env(GR_ENV_OMPI_COMM_WORLD_LOCAL_SIZE);

    return ranks == NULL ? 1 : atoi(ranks);
}

/* Cores' worth of time that the cgroup gives, of version 2 or 1; -1: no limit. */
static double cpu_quota(void)
{
    static const char *const files[][2] = {
        {"/sys/fs/cgroup/cpu.max", NULL},
        {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"}};

    for (int64_t i = 0; i < GR_COUNT(files); i++) {
        double number[2] = {-1, -1}; /* quota and period; "max" is no number */
        int read = 0;

        for (int64_t k = 0; k < GR_COUNT(files[i]) && files[i][k] != NULL; k++) {
            FILE *file = fopen(files[i][k], "re");

            while (file != NULL && read < 2 && fscanf(file, "%lf", &number[read]) == 1)
                read++;
            if (file != NULL)
                fclose(file);
        }
        if (read == 2 && number[0] > 0 && number[1] > 0)
            return number[0] / number[1];
    }
    return -1;
}

/* A container may see all cores and be given the time of a few. */
static void check_cores(struct finding *f, const char *output)
{
    int usable = gr_usable_cores(), ranks = local_ranks();
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    double quota = cpu_quota();

    (void)output;
    if (quota > 0 && quota < (double)usable)
        find(f, VERDICT_WARNING, "set device.threads to the quota divided by the ranks",
             "%d cores, but a quota of %.1f", usable, quota);
    else if (ranks > 1 && usable < ranks && usable < online)
        find(f, VERDICT_WARNING, "pass --bind-to none to mpirun",
             "%d of %ld cores for each of %d ranks: bound", usable, online, ranks);
    else if (ranks > usable)
        find(f, VERDICT_WARNING, "more ranks than cores wait for each other",
             "%d cores for %d ranks", usable, ranks);
    else
        find(f, VERDICT_OK, NULL, "%d of %ld usable, %d rank%s", usable, online, ranks,
             ranks == 1 ? "" : "s");
}

/* graft sets the number of threads itself; what these say goes over it. */
static void check_openmp(struct finding *f, const char *output)
{
    const char *bind = gr_env(GR_ENV_OMP_PROC_BIND), *limit = gr_env(GR_ENV_OMP_THREAD_LIMIT);
    const char *wait = gr_env(GR_ENV_OMP_WAIT_POLICY);
    int ranks = local_ranks();

    (void)output;
    if (limit != NULL)
        find(f, VERDICT_WARNING, "unset it; device.threads says how many", "OMP_THREAD_LIMIT is %s",
             limit);
    else if (ranks > 1 && bind != NULL && strcasecmp(bind, "false") != 0)
        find(f, VERDICT_WARNING, "unset it: all ranks would use the same cores",
             "OMP_PROC_BIND is %s, with %d ranks", bind, ranks);
    else if (ranks > gr_usable_cores() && (wait == NULL || strcasecmp(wait, "passive") != 0))
        find(f, VERDICT_WARNING, "export OMP_WAIT_POLICY=passive: waiting threads take cores away",
             "%d ranks, OMP_WAIT_POLICY is %s", ranks, wait == NULL ? "not set" : wait);
    else
        find(f, VERDICT_OK, NULL, "no setting in the way");
}

static bool is_on_path(const char *program)
{
    const char *path = gr_env(GR_ENV_PATH);
    bool found = false;

    while (path != NULL && *path != '\0' && !found) {
        size_t length = strcspn(path, ":");
        char *file = gr_format("%.*s/%s", (int)length, path, program);

        found = access(file, X_OK) == 0;
        gr_free(file);
        path += length + (path[length] == ':');
    }
    return found;
}

static void check_mpi(struct finding *f, const char *output)
{
    struct gr_versions versions;
    const char *version = versions.mpi;

    (void)output;
    gr_versions_get(&versions, "");
    if (!is_on_path("mpirun"))
        find(f, VERDICT_WARNING,
             "several processes need it; one works without: apt-get install "
             "openmpi-bin",
             "%.100s, but no mpirun on the PATH", version);
    else if (geteuid() == 0 && (gr_env(GR_ENV_OMPI_ALLOW_RUN_AS_ROOT) == NULL ||
                                gr_env(GR_ENV_OMPI_ALLOW_RUN_AS_ROOT_CONFIRM) == NULL))
        find(f, VERDICT_WARNING,
             "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or be another user",
             "%.100s refuses to start as root", version);
    else
        find(f, VERDICT_OK, NULL, "%.100s", version);
}

static void check_memory(struct finding *f, const char *output)
{
    const double least = 2;
    bool is_limited;
    int64_t bytes = gr_memory_available(&is_limited);
    double available = gibibytes((double)bytes);

    (void)output;
    if (bytes < 0)
        find(f, VERDICT_WARNING, "graft reads it from /proc/meminfo",
             "the system does not say what is available");
    else if (available < least)
        find(f, VERDICT_WARNING, "graft estimate tells what a run takes",
             "%.1f GiB available: enough for small models alone", available);
    else
        find(f, VERDICT_OK, NULL, "%.1f GiB available%s", available,
             is_limited ? " (limited by a cgroup)" : "");
}

/* Weights that several ranks share are in a sealed memfd; Open MPI's messages in /dev/shm. */
static void check_shared_memory(struct finding *f, const char *output)
{
    const double least = 64 * 1024 * 1024;
    struct statvfs shm;
    int fd = memfd_create("graft-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    (void)output;
    if (fd < 0) {
        find(f, VERDICT_PROBLEM, "allow memfd_create in the container's seccomp profile",
             "no sealed shared memory: %s", strerror(errno));
        return;
    }
    close(fd);
    if (statvfs("/dev/shm", &shm) != 0)
        find(f, VERDICT_WARNING, "mpirun needs it between ranks of a host: mount a tmpfs there",
             "/dev/shm: %s", strerror(errno));
    else if ((double)shm.f_bavail * (double)shm.f_frsize < least)
        find(f, VERDICT_WARNING, "enlarge it (docker run --shm-size 1g) before using several ranks",
             "/dev/shm has %.0f MiB free",
             (double)shm.f_bavail * (double)shm.f_frsize / (1024.0 * 1024));
    else
        find(f, VERDICT_OK, NULL, "/dev/shm has %.1f GiB free",
             gibibytes((double)shm.f_bavail * (double)shm.f_frsize));
}

/* What the commit protocol asks of a place, asked of it. */
static gr_status try_store(const char *folder)
{
    gr_status status = GR_OK;
    struct gr_store *store = NULL;
    struct gr_buffer bytes = {0};
    static const char key[] = "graft-doctor/object", text[] = "graft doctor";

    GR_TRY(gr_store_open(&store, folder));
    GR_TRY(store->ops->put(store, key, text, (int64_t)sizeof text));
    status = store->ops->put_if_absent(store, key, "other", 5);
    if (status == GR_OK)
        GR_TRY(gr_fail(GR_ERR_DATA, folder, "use another file system",
                       "an object was written over (found both, expected the first)"));
    gr_error_clear();
    GR_TRY(store->ops->get(store, &bytes, key, 0, -1));
    GR_TRY(store->ops->remove(store, key));
    status = store->ops->put_if_absent(store, key, text, (int64_t)sizeof text);
    if (status == GR_OK)
        status = store->ops->remove(store, key);
out:
    gr_buffer_release(&bytes);
    gr_store_close(store);
    return status;
}

static void check_place(struct finding *f, const char *folder)
{
    const double least = 1024.0 * 1024 * 1024;
    struct statvfs disk;
    int64_t begin_ns = gr_clock_ns();
    double ms;

    if (try_store(folder) != GR_OK) {
        find_failure(f, VERDICT_PROBLEM);
        return;
    }
    ms = (double)(gr_clock_ns() - begin_ns) * 1e-6;
    if (statvfs(folder, &disk) != 0)
        find(f, VERDICT_PROBLEM, NULL, "%s: %s", folder, strerror(errno));
    else if ((double)disk.f_bavail * (double)disk.f_frsize < least)
        find(f, VERDICT_WARNING, "checkpoints and the cache want room", "%s has %.0f MiB free",
             folder, (double)disk.f_bavail * (double)disk.f_frsize / (1024.0 * 1024));
    else
        find(f, VERDICT_OK, NULL, "%s: %.1f GiB free, durable objects work (%.0f ms for five)",
             folder, gibibytes((double)disk.f_bavail * (double)disk.f_frsize), ms);
}

static void check_cache(struct finding *f, const char *output)
{
    struct gr_config config;
    char *folder = NULL;

    (void)output;
    if (gr_config_resolve(&config, NULL, NULL, 0) != GR_OK ||
        gr_cache_dir(&folder, &config) != GR_OK)
        find_failure(f, VERDICT_PROBLEM); /* the environment sets a key that is none */
    else
        check_place(f, folder);
    gr_free(folder);
    gr_config_release(&config);
}

static const struct {
    const char *name;
    void (*check)(struct finding *finding, const char *output);
} checks[] = {
    {"program", check_program},      {"cpu", check_cpu},      {"cores", check_cores},
    {"openmp", check_openmp},        {"mpi", check_mpi},      {"memory", check_memory},
    {"shared", check_shared_memory}, {"output", check_place}, {"cache", check_cache},
};

/* ---- telling ---------------------------------------------------------------------------- */

static void print_line(const char *name, const struct finding *f)
{
    printf("%-8s %-8s %s\n", verdict_words[f->verdict], name, f->text);
    if (f->hint[0] != '\0')
        printf("%17s hint: %s\n", "", f->hint);
}

static gr_status run(const struct gr_args *args)
{
    const char *output = gr_args_text(args, "output"), *rank = gr_env(GR_ENV_OMPI_COMM_WORLD_RANK);
    bool is_json = gr_args_flag(args, "json");
    json_t *object;
    int problems = 0;

    if (rank != NULL && strcmp(rank, "0") != 0)
        return GR_OK; /* the ranks of a host would say the same */
    if (gr_args_text(args, "device") != NULL)
        return gr_doctor_device(gr_args_text(args, "device"), gr_args_integer(args, "rows", 8192),
                                is_json);
    object = json_object();
    for (int64_t i = 0; i < GR_COUNT(checks); i++) {
        struct finding f = {0};

        checks[i].check(&f, output == NULL ? "." : output);
        problems += f.verdict == VERDICT_PROBLEM;
        if (!is_json)
            print_line(checks[i].name, &f);
        json_object_set_new(object, checks[i].name,
                            json_pack("{s:s, s:s, s:s}", "verdict", verdict_words[f.verdict],
                                      "found", f.text, "hint", f.hint));
    }
    if (is_json)
        gr_print_json(object);
    json_decref(object);
    if (problems == 0)
        return GR_OK;
    return gr_fail(GR_ERR_USAGE, "graft doctor", "each problem above has a hint of its own",
                   "this machine cannot train yet (found %d problem%s, expected none)", problems,
                   problems == 1 ? "" : "s");
}

const struct gr_command gr_cmd_doctor = {
    .name = "doctor",
    .run = run,
    .usage = "[-o DIR] [--device cuda [--rows N]] [--json]",
    .summary = "check that this machine can train: CPU, cores, MPI, memory, disk",
    .details = "Start it the way you will start training, also under mpirun: then it sees what a "
               "rank sees.\n"
               "Exit code 0: ready, perhaps with warnings; 2: a problem.\n"
               "With --device cuda: the GPU and its libraries; every op beside the same op on the "
               "CPU, a line for each whose results are too far apart; the rate of products and "
               "copies; and graft's attention beside cuDNN's, in results and time.  Which of the "
               "two this machine uses from then on is kept in the cache folder.  Takes about a "
               "minute.\n"
               "Exit code 2: an op is wrong; 5: there is no GPU, or no driver, or it fails.",
    .options = options,
};
