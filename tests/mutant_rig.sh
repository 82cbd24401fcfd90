# Sourced by the tests that plant mistakes in the source, one after the other: what a mistake changes is
# compiled as the build folder compiles it, and linked before the libraries that hold it unchanged.
#   plant_each BUILD EVIDENCE [NAME]
#                  each of mutants(), or the one of that name, must end its program with a failure and
#                  print a line that matches EVIDENCE: a crash is no measurement.  Gives the exit code.
# A mutant is a line: name | file | sed script that must change the file | program [argument]
# The sed script may hold bars.  A mutant whose program says 77 unchanged is skipped: it is of an instruction
# set that this CPU lacks.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GRAFT_SOURCE_DIR=$source

# objects_of FILE PROGRAM: those of its libraries that are compiled from the file
objects_of()
{
    ninja -t deps | awk -v file="$source/$1" '/^[^ ]/ { sub(/:.*/, ""); object = $0 } $1 == file { print object }' |
        grep -Fxf <(ninja -t inputs "bin/$2" | grep -v '^tests/')
}

# compile FILE OBJECT: prints the command that makes it with the changed file in the place of what it was
compile()
{
    local made=$work/objects/${2//\//-}
    ninja -t commands -s "$2" | sed -e "s| -o $2 | -o $made -w -g0 |" -e "s| -MF [^ ]*| -MF $made.d|" \
        -e "s| -I| -I$work/source -I|" -e "s| $source/$1\$| $work/source/$1|"
}

# link PROGRAM: the program, with the objects made here before the libraries
link()
{
    eval "$(ninja -t commands -s "bin/$1" | sed -e "s| -o bin/$1 | $work/objects/*.o -o $work/$1 |")"
}

# plant FILE SED PROGRAM: the program with the mistake, as $work/PROGRAM
plant()
{
    local objects object
    rm -rf "$work/source" "$work/objects"
    mkdir -p "$(dirname "$work/source/$1")" "$work/objects"
    sed "$2" "$source/$1" >"$work/source/$1"
    if cmp -s "$work/source/$1" "$source/$1"; then
        echo "the edit does not fit $1 any more"
        return 1
    fi
    objects=$(objects_of "$1" "$3") || { echo "$3 has no object of $1"; return 1; }
    for object in $objects; do compile "$1" "$object"; done | xargs -d '\n' -P 2 -n 1 sh -c && link "$3"
}

plant_each()
{
    local build=$1 evidence=$2 only=${3-} name rest file edit program passed=0 failed=0
    local -A unchanged # exit codes without a mistake, by program and argument
    cd "$build"
    while IFS='|' read -r name rest; do
        name=$(echo $name) program=$(echo ${rest##*|}) rest=${rest%|*}
        file=$(echo ${rest%%|*}) edit=${rest#*|}
        [ -z "$only" ] || [ "$only" = "$name" ] || continue
        if [ -z "${unchanged[$program]-}" ]; then
            unchanged[$program]=0
            bin/$program >"$work/log" 2>&1 || unchanged[$program]=$?
        fi
        if [ "${unchanged[$program]}" = 77 ]; then
            echo "skip $name: this CPU cannot run $program"
        elif [ "${unchanged[$program]}" != 0 ]; then
            cat "$work/log"; echo "FAIL $name: $program fails without it"; failed=$((failed + 1))
        elif ! plant "$file" "$edit" "${program%% *}" >"$work/log" 2>&1; then
            tail -20 "$work/log"; echo "FAIL $name: not planted"; failed=$((failed + 1))
        elif "$work"/$program >"$work/log" 2>&1; then
            echo "FAIL $name: nothing noticed"; failed=$((failed + 1))
        elif grep -Eq "$evidence" "$work/log"; then
            echo "ok   $name: $(grep -Em1 "$evidence" "$work/log" | sed 's/^FAIL [^:]*: //; s/^[^ ]*[.]c:[0-9]*: //')"
            passed=$((passed + 1))
        else
            cat "$work/log"; echo "FAIL $name: fails in another way"; failed=$((failed + 1))
        fi
    done < <(mutants)
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}
