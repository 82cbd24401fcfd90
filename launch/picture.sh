#!/usr/bin/env bash
# Makes the README's picture, launch/report.png: the top of the demo's report.html in a browser.
#   picture.sh [PAGE]      PAGE: default runs/demo/report.html, which quickstart.sh leaves; needs chromium
set -euo pipefail
cd "$(dirname "$0")/.."
page=$(realpath "${1:-runs/demo/report.html}")

options=(--headless --disable-gpu --hide-scrollbars --window-size=900,640)
if [ "$(id -u)" -eq 0 ]; then options+=(--no-sandbox); fi # root has none
chromium "${options[@]}" --screenshot=launch/report.png "file://$page" 2> /dev/null
ls -l launch/report.png
