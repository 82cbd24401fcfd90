#!/usr/bin/env bash
# Installs the Debian packages that graft needs and that are missing. Does nothing, and needs no rights,
# where all are present. quickstart.sh and the test script call it.
#   install.sh [PACKAGE ...]     more packages, besides those of debian-packages.txt
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

mapfile -t wanted < <(grep -v '^#' "$here/debian-packages.txt")
wanted+=("$@")

if ! command -v apt-get > /dev/null; then
    echo "install.sh: no apt-get here; graft needs what Debian calls: ${wanted[*]}" >&2
    exit 0 # the build says what is missing
fi

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo > /dev/null; then
        echo "install.sh: these packages are missing: ${missing[*]}" >&2
        echo "  hint: install them as root, then start again" >&2
        exit 2
    fi
    as_root=(sudo)
fi
echo "Installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
