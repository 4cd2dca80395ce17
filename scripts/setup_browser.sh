#!/usr/bin/env bash
# Sees to a browser for the tests of the pages. Playwright drives the one of the system, it downloads none.
set -euo pipefail

for program in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$program" >/dev/null 2>&1; then
    echo "setup-browser: $(command -v "$program")"
    exit 0
  fi
done
if ! command -v apt-get >/dev/null 2>&1; then
  echo "setup-browser: install Chromium or Chrome with the package manager of this system" >&2
  exit 1
fi
run=()
[ "$(id -u)" = 0 ] || run=(sudo)
"${run[@]}" apt-get update -qq
"${run[@]}" apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null
echo "setup-browser: $(command -v chromium)"
