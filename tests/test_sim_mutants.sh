#!/usr/bin/env bash
# Plants one mistake after the other into a copy of the commit protocol and of the file store, and
# demands that the simulation (its first 2,000 seeds) or the power cut test notices each.
#   tests/test_sim_mutants.sh [NAME]     one mutant, or all
# A mutant: name | file | sed script that must change the file | program that must fail
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/.." && pwd)

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

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The folder is another one each time; ccache shall know the objects of the last run again.
export CCACHE_BASEDIR=$work CCACHE_NOHASHDIR=yes
(cd "$source_dir" && git ls-files -z --cached --others --exclude-standard -- CMakeLists.txt bench \
    kernels data trainer launch tests) | (cd "$source_dir" && tar --null -T - -cf -) |
    tar -xf - -C "$work"
cmake -S "$work" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DGR_WERROR=OFF > "$work/log"

# Builds and runs a program; 0: it passed.
passes() {
    cmake --build "$work/build" --target "$1" -j 2 > "$work/log" 2>&1 ||
        { tail -20 "$work/log"; echo "FAIL $name: the mutant does not build"; exit 1; }
    "$work/build/bin/$1" > "$work/log" 2> /dev/null
}

name=original passed=0 failed=0
for program in test_sim test_store_durable; do
    passes $program || { cat "$work/log"; echo "FAIL the original does not pass"; exit 1; }
done
while IFS='|' read -r name rest; do
    # The edit may hold bars: it is what stands between the first and the last field.
    name=$(echo $name) program=$(echo ${rest##*|}) rest=${rest%|*}
    file=$(echo ${rest%%|*}) edit=${rest#*|}
    [ -z "${1:-}" ] || [ "$1" = "$name" ] || continue
    cp "$work/$file" "$work/saved"
    sed -i "$edit" "$work/$file"
    if cmp -s "$work/$file" "$work/saved"; then
        echo "FAIL $name: the edit does not fit $file any more"; failed=$((failed + 1))
    elif passes "$program"; then
        echo "FAIL $name: nothing noticed"; failed=$((failed + 1))
    else
        echo "ok   $name: $(grep -m1 -E '^FAIL seed|power cut|before its bytes' "$work/log" || echo noticed)"
        passed=$((passed + 1))
    fi
    cp "$work/saved" "$work/$file"
done < <(mutants)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
