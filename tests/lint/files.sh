# shellcheck shell=bash
# What the checks share; they source it.  A check is called with the root of a working tree (default:
# the one it lies in), prints one line per violation, and ends with 0, 1, or 77 where it cannot run.

lint_start()
{
    cd "${1:-$(dirname "${BASH_SOURCE[0]}")/../..}" || exit 2
    violations=0
    if ! git ls-files >/dev/null; then # else every check would find nothing in no files
        exit 2
    fi
}

# Files of the tree that git does not ignore, tracked or not yet, that match the patterns.
lint_files()
{
    git ls-files -co --exclude-standard -- "$@" | while read -r file; do
        if [ -f "$file" ]; then
            printf '%s\n' "$file"
        fi
    done
}

# violation FILE:LINE TEXT
violation()
{
    printf '%s: %s\n' "$1" "$2"
    violations=$((violations + 1))
}

# violations_of TEXT: one for each line of stdin, which begins with FILE:LINE:
violations_of()
{
    local file line
    while IFS=: read -r file line _; do
        violation "$file:$line" "$1"
    done
}

lint_end()
{
    printf '%d violations\n' "$violations"
    [ "$violations" -eq 0 ]
}
