#!/bin/sh
# What the Dockerfile runs to fill PREFIX, from the root of the sources. `make deploy-check` runs the
# same steps against an empty folder, so that a broken one is found without a container engine.
#
#   steps.sh opencode PREFIX       PREFIX/bin/opencode, from the npm lock
#   steps.sh dependencies PREFIX   PREFIX/venv with requirements/image.lock
#   steps.sh launcher PREFIX       PREFIX/confine, what confines agents (needs a C compiler)
#   steps.sh sidecar PREFIX        the sidecar itself into PREFIX/venv
set -eu

die() { printf 'steps.sh: %s\n' "$*" >&2; exit 1; }

# npm checks every file against the lock. No package's script runs: opencode's own only picks the
# executable for the CPU at hand, and that is decided here.
opencode() {
  case $(uname -m) in
    x86_64 | amd64) package=opencode-linux-x64 ;;
    aarch64 | arm64) package=opencode-linux-arm64 ;;
    *) die "opencode has no build for $(uname -m)" ;;
  esac
  case $package:${OPENCODE_CPU:=baseline} in
    opencode-linux-x64:baseline) package=$package-baseline ;;
    *:baseline | *:modern) ;;
    *) die "OPENCODE_CPU must be baseline or modern, not $OPENCODE_CPU" ;;
  esac
  (cd deploy/opencode && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  install -D -m 0755 "deploy/opencode/node_modules/$package/bin/opencode" "$prefix/bin/opencode"
}

pip_for_venv() { "$python" -m pip --python "$prefix/venv/bin/python" --disable-pip-version-check "$@"; }

# The lock is complete (--no-deps), its hashes are checked, and nothing is compiled.
dependencies() {
  "$python" -m venv --without-pip "$prefix/venv"
  pip_for_venv install --quiet --require-hashes --no-deps --only-binary :all: --requirement requirements/image.lock
}

# Static: agents' commands start faster, and in attach mode it runs in a container with another libc.
launcher() {
  mkdir -p "$prefix"
  "${CC:-cc}" -O2 -static -o "$prefix/confine" sidecar/processes/confine.c
}

# setuptools is in the lock for this step alone.
sidecar() {
  pip_for_venv install --quiet --no-deps --no-build-isolation .
  pip_for_venv uninstall --quiet --yes setuptools
}

[ $# -eq 2 ] || die "usage: steps.sh opencode|dependencies|launcher|sidecar PREFIX"
step=$1 prefix=$2 python=${PYTHON:-python3}
case $step in
  opencode | dependencies | launcher | sidecar) "$step" ;;
  *) die "no such step: $step" ;;
esac
