#!/usr/bin/env bash
# Print the path of a promtool: the one on PATH, else Debian's, unpacked below .cache without installing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly HERE=.cache/promtool
if command -v promtool; then exit; fi
if [ ! -x "$HERE/usr/bin/promtool" ]; then
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "promtool is needed and not on PATH: install Prometheus (its package brings promtool)" >&2
    exit 1
  }
  mkdir -p "$HERE"
  (cd "$HERE" && apt-get download -qq prometheus >&2 && dpkg -x prometheus_*.deb . && rm -f prometheus_*.deb)
fi
echo "$PWD/$HERE/usr/bin/promtool"
