/* A store in memory that does as it is told, without faults and without patience: what a fuzzed run
 * directory is read from. */
#ifndef GR_TESTS_FUZZ_STORE_H
#define GR_TESTS_FUZZ_STORE_H

#include "data/store/store.h"

struct gr_store *fuzz_store_open(void);

#endif
