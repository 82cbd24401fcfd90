/* What this program is made of, for `graft version` and `graft doctor`. */
#ifndef GR_LAUNCH_VERSIONS_H
#define GR_LAUNCH_VERSIONS_H

struct gr_version {
    const char *name, *value;
};

enum { GR_VERSION_COUNT = 12 };
struct gr_versions {
    struct gr_version row[GR_VERSION_COUNT];
    char mpi[128]; /* what a row points to */
};

/* isa: the value of that row, borrowed. */
void gr_versions_get(struct gr_versions *versions, const char *isa);
/* "graft 0.1.0 (1a2b3c4)" */
const char *gr_program_name(void);

#endif
