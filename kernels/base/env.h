/* The environment, read in one place.  Every variable graft looks at is in this list. */
#ifndef GR_BASE_ENV_H
#define GR_BASE_ENV_H

/* name, what it does */
#define GR_ENV_LIST(X)                                                                             \
    X(GRAFT_FAIL, "kills, stops, delays or fails at a named place: for tests (failpoint.h)")       \
    X(GRAFT_ISA, "forces the CPU instruction set: v3, v4, v4bf16 or v4amx (graft doctor)")         \
    X(GRAFT_LORA_LAYOUT,                                                                           \
      "composed: adapters stay apart from the weights on a GPU too, where they are joined")        \
    X(GRAFT_ATTENTION,                                                                             \
      "own or cudnn: attention on a GPU, instead of what graft doctor recorded for this machine")  \
    X(GRAFT_CUDA_PLUGIN,                                                                           \
      "the CUDA plug-in to open, instead of libgraft_cuda.so beside the program")                  \
    X(OMPI_COMM_WORLD_SIZE, "set by mpirun: graft joins the MPI job")                              \
    X(OMPI_COMM_WORLD_LOCAL_RANK, "set by mpirun: rank among the processes of this host")          \
    X(OMPI_COMM_WORLD_LOCAL_SIZE, "set by mpirun: processes of this host")                         \
    X(OMPI_COMM_WORLD_RANK, "set by mpirun: rank in the job")                                      \
    X(OMPI_ALLOW_RUN_AS_ROOT, "graft doctor looks whether mpirun would start as root")             \
    X(OMPI_ALLOW_RUN_AS_ROOT_CONFIRM, "likewise")                                                  \
    X(OMP_PROC_BIND, "graft doctor warns: it ties the threads of all ranks to the same cores")     \
    X(OMP_THREAD_LIMIT, "graft doctor warns: it takes threads away")                               \
    X(OMP_WAIT_POLICY, "graft doctor asks for passive where ranks share cores")                    \
    X(PATH, "graft doctor looks for mpirun there")                                                 \
    X(OMPI_MCA_orte_tag_output, "set by mpirun --tag-output: no progress bar")                     \
    X(OMPI_MCA_orte_timestamp_output, "likewise by --timestamp-output")                            \
    X(PMIX_RANK, "set by mpirun: graft joins the MPI job")                                         \
    X(NO_COLOR, "no colours on the terminal")                                                      \
    X(TERM, "dumb: plain lines instead of a progress bar")                                         \
    X(LC_ALL, "with UTF-8 in it: the progress bar is drawn with lines, else in ASCII")             \
    X(LC_CTYPE, "likewise, if LC_ALL is not set")                                                  \
    X(LANG, "likewise, if neither is set")                                                         \
    X(XDG_CACHE_HOME, "where the cache is, by default ~/.cache")                                   \
    X(HOME, "where ~ is")                                                                          \
    X(TMPDIR, "without HOME and XDG_CACHE_HOME, the cache is its folder graft-UID (/tmp)")

enum gr_env {
#define X(name, words) GR_ENV_##name,
    GR_ENV_LIST(X)
#undef X
        GR_ENV_COUNT
};

/* The value, NULL if unset or empty. */
const char *gr_env(enum gr_env variable);
/* The value of a variable by prefix lookup (KUBEFLOW_TRAINER_OPT_*): calls visit for each
 * "PREFIXname=value" in the environment, in bytewise order of the names. */
void gr_env_each(const char *prefix,
                 void (*visit)(void *context, const char *name, const char *value), void *context);

#endif
