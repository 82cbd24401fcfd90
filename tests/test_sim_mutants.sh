#!/usr/bin/env bash
# Plants one mistake after the other in the commit protocol and the file store, and demands that the
# simulation (its first 2,000 seeds) or the power cut test notices each.
#   test_sim_mutants.sh BUILD [NAME]     one mutant, or all
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
. "$source/tests/mutant_rig.sh"

mutants() {
    cat <<'LIST'
manifest before data | trainer/state/save.c | /GR_TRY(put_objects(&access/d; /GR_TRY(check_objects(&access/d; s/GR_TRY(read_back(&access, &m));/GR_TRY(put_objects(\&access, \&m, c)); GR_TRY(check_objects(\&access, \&m)); &/ | test_sim
fence not read before the commit | trainer/state/save.c | /GR_TRY(gr_term_check_fence(a, m->term));/d | test_sim
fence not read after the commit | trainer/state/save.c | /GR_TRY(gr_term_check_fence(&access, m.term));/d | test_sim
base chosen without a fence | trainer/state/start.c | s/GR_TRY(is_fence(&is_fenced, s, h));/&is_fenced = true;/ | test_sim
GC without pins | trainer/state/collect.c | s/h->manifest\[i\].is_pinned ? GR_COLLECT_PINNED : //; s/gr_history_find(h, name)->is_pinned/false/ | test_sim
pins not listed again | trainer/state/collect.c | /GR_TRY(gr_history_read_pins(h));/d | test_sim
GC forgets the best | trainer/state/collect.c | /GR_TRY(keep_best(reason, h, i));/d | test_sim
GC keeps orphans | trainer/state/collect.c | s/ > ORPHAN_LIFETIME_S;/ > 100 * ORPHAN_LIFETIME_S;/ | test_sim
live rule dropped | trainer/state/history.c | s/ && m->step <= bound;/;/ | test_sim
hash not compared | trainer/state/manifest.c | s/if (strcmp(hash, o->hash) != 0)/if (strlen(hash) == 0)/ | test_sim
no fsync of the folder | kernels/base/files.c | s/fd < 0 || fsync(fd) != 0 ? errno : 0/fd < 0 ? errno : 0/ | test_store_durable
no fsync of the file | data/store/store_file.c | s/ || op_refused() || fsync(fd) != 0)$/ || op_refused())/ | test_store_durable
no fsync after a lost answer | data/store/store_file.c | s/if (error == 0 || holds(s, key, bytes, count)) {/if (error != 0 \&\& holds(s, key, bytes, count)) {} else if (error == 0) {/ | test_store_durable
LIST
}

plant_each "$1" '^FAIL' "${2-}"
