#!/usr/bin/env bash
# Install what a checkout needs, inside the checkout, and only when something changed.
#
#   tools/setup.sh run       .venv with the sidecar and its dependencies, and the pinned opencode
#   tools/setup.sh dev       the same, plus test and lint tools
#   tools/setup.sh deploy    the same, plus what make deploy-check runs
#   tools/setup.sh postgres  a PostgreSQL server under /usr/lib/postgresql, for make test; like Chromium an
#                            exception: outside the checkout, as it is Debian's package
#   tools/setup.sh browser   Chromium on PATH, for make test
#   tools/setup.sh litellm   .venv-litellm with a real LiteLLM proxy, for make e2e-litellm
#
# PYTHON names the interpreter to use; otherwise the first of the usual names that is new enough.
# Each result is stamped with a copy of what it was made from: an equal copy means nothing to do, and
# since the stamp is written last, an interrupted install is simply done again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly OPENCODE_DIR=deploy/opencode
readonly OPENCODE=$OPENCODE_DIR/node_modules/.bin/opencode
readonly MINIMUM_NODE=20

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Print the interpreter's path. Runs each candidate: a version manager's shim may exist and not work.
find_python() {
  local name version found='' candidates=(python3 python3.11 python3.12 python3.13 python3.14 python)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for name in "${candidates[@]}"; do
    version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    found+="${found:+, }$name is $version"
    "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
    "$name" -c 'import ensurepip, venv' 2>/dev/null ||
      die "$name has no venv module: install it (on Debian: apt install python3-venv)."
    command -v "$name"
    return
  done
  die "Python 3.11 or newer is needed (${found:-none of these runs: ${candidates[*]}}): install it, or name one with PYTHON=/path/to/python3."
}

require_node() {
  local version
  command -v node >/dev/null ||
    die "Node.js $MINIMUM_NODE or newer is needed to install opencode, and there is no 'node' on PATH: install it, then run this again."
  version=$(node -p 'process.versions.node' 2>/dev/null) || die "'node' is on PATH but does not run: repair the Node.js installation."
  [ "${version%%.*}" -ge "$MINIMUM_NODE" ] ||
    die "Node.js $MINIMUM_NODE or newer is needed to install opencode, and this is $version: upgrade it, then run this again."
  command -v npm >/dev/null ||
    die "npm is needed to install opencode, and there is no 'npm' on PATH: install it (it comes with Node.js), then run this again."
}

# opencode's package is a binary per platform, so the platform is part of the stamp.
opencode_inputs() { uname -sm; cat "$OPENCODE_DIR/package.json" "$OPENCODE_DIR/package-lock.json"; }

opencode_is_current() {
  [ -x "$OPENCODE" ] && opencode_inputs | cmp -s - "$OPENCODE_DIR/node_modules/.stamp"
}

install_opencode() {
  say "installing the pinned opencode with npm ci"
  (cd "$OPENCODE_DIR" && npm ci --no-audit --no-fund --loglevel=error </dev/null >&2) ||
    die "npm ci failed in $OPENCODE_DIR; its reason is above."
  "$OPENCODE" --version >/dev/null 2>&1 ||
    die "opencode was installed but does not run: npm must be allowed to run install scripts (ignore-scripts=false) and optional dependencies."
  opencode_inputs >"$OPENCODE_DIR/node_modules/.stamp"
}

# The folder is part of the stamp: a virtual environment that was copied or moved is broken.
lock_inputs() { pwd -P; cat "$1"; }

lock_is_current() { # VENV LOCK
  lock_inputs "$2" | cmp -s - "$1/.stamp-$(basename "$2")" && "$1/bin/python" -c '' 2>/dev/null
}

install_lock() { # VENV LOCK
  local venv=$1 lock=$2 stamp
  stamp=$venv/.stamp-$(basename "$lock")
  # An outdated stamp means other versions inside: start anew, or what was dropped would stay importable.
  if [ -e "$stamp" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv" || die "$python could not create $venv; its reason is above."
  fi
  say "installing $lock into $venv"
  # The lock is complete, so pip has nothing to resolve (--no-deps) and every file is checked.
  "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
    --require-hashes --no-deps --requirement "$lock" ||
    die "pip could not install $lock; its reason is above."
  lock_inputs "$lock" >"$stamp"
}

project_is_current() { cmp -s pyproject.toml .venv/.stamp-project; }

# setuptools is in the lock, so the editable build needs no isolated environment and no download.
install_project() {
  .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check \
    --no-deps --no-build-isolation --editable . || die "pip could not install the sidecar itself; its reason is above."
  cp pyproject.toml .venv/.stamp-project
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_debian() { # PACKAGE WHAT
  say "installing Debian's $2"
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
      --no-install-recommends "$1" </dev/null >&2; } ||
    die "apt-get could not install $1; its reason is above."
}

# Only the programs: the tests make clusters of their own, so the package shall not start one.
install_postgres() {
  ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || return 0
  command -v apt-get >/dev/null ||
    die "the tests need a PostgreSQL server in /usr/lib/postgresql/*/bin, and there is no apt-get to install one with."
  as_root mkdir -p /etc/postgresql-common/createcluster.d
  echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.d/no-cluster.conf >/dev/null
  install_debian postgresql "PostgreSQL server"
}

install_browser() {
  ! command -v chromium >/dev/null || return 0
  command -v apt-get >/dev/null ||
    die "the tests of the console need 'chromium' on PATH, and there is no apt-get to install it with."
  install_debian chromium Chromium
}

case ${1:-} in
  postgres | browser)
    "install_$1"
    exit
    ;;
esac

case ${1:-} in
  run) venv=.venv locks=(requirements/run.lock) ;;
  dev) venv=.venv locks=(requirements/run.lock requirements/dev.lock) ;;
  deploy) venv=.venv locks=(requirements/run.lock requirements/dev.lock requirements/deploy.lock) ;;
  litellm) venv=.venv-litellm locks=(requirements/litellm.lock) ;;
  *) die "usage: tools/setup.sh run|dev|deploy|postgres|browser|litellm" ;;
esac

# Check every prerequisite before anything is installed: a newcomer hears of what is missing at once.
needed=()
for lock in "${locks[@]}"; do
  lock_is_current "$venv" "$lock" || needed+=("$lock")
done
if [ "$venv" = .venv ] && ! opencode_is_current; then
  needs_opencode=yes
  require_node
fi
[ ${#needed[@]} -eq 0 ] || python=$(find_python)

for lock in ${needed[@]+"${needed[@]}"}; do
  install_lock "$venv" "$lock"
done
if [ "$venv" = .venv ]; then
  project_is_current || install_project
  [ -z "${needs_opencode:-}" ] || install_opencode
fi
