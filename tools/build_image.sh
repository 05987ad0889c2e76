#!/usr/bin/env bash
# Build deploy/Dockerfile without a container engine's daemon and without a registry, and unpack the image.
#
#   tools/build_image.sh FOLDER      FOLDER/rootfs is the image's file system, FOLDER/config.json its
#                                    configuration (OCI: Env, Entrypoint, Cmd, User, Labels, ...)
#
# Needs root, Linux, and Debian's mirror; installs buildah and mmdebstrap with apt-get where they are
# missing. The base images are made from Debian's packages, because python: and node: are on a registry:
# the same distribution and the same minor version of Python, but not the same files. Certificates that
# this machine trusts in addition are trusted in them too, so that it works behind an inspecting proxy.
# RUN instructions run in a chroot with the machine's network. Nothing is written outside FOLDER and .cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SUITE=bookworm
readonly CACHE=$PWD/.cache/image
readonly EXTRA_CERTIFICATES=/usr/local/share/ca-certificates

say() { printf 'build_image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ $# -eq 1 ] || die "usage: tools/build_image.sh FOLDER"
[ "$(id -u)" = 0 ] || die "must be root: it makes file systems for other users"
# What is mounted while building is seen by this process alone and gone with it, however it ends.
if [ -z "${IN_OWN_NAMESPACE:-}" ]; then
  IN_OWN_NAMESPACE=yes exec unshare --mount --propagation private "$0" "$@"
fi
mkdir -p "$1" "$CACHE"
output=$(cd "$1" && pwd)

# The store is the build's own: it holds whole copies of the file system and is removed at the end.
store=$(mktemp -d "$CACHE/store.XXXXXX")
trap 'rm -rf --one-file-system "$store"' EXIT
# Nothing is pulled, so nothing has a signature to be checked.
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$store/policy.json"
buildah() {
  local verb=$1
  shift
  case $verb in
    build | commit | from) set -- --signature-policy "$store/policy.json" "$@" ;;
  esac
  command buildah --storage-driver vfs --root "$store/root" --runroot "$store/run" "$verb" "$@"
}

install_tools() {
  if command -v buildah >/dev/null && command -v mmdebstrap >/dev/null; then return; fi
  command -v apt-get >/dev/null || die "buildah and mmdebstrap are needed: install them"
  say "installing buildah and mmdebstrap"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah mmdebstrap >&2 ||
    die "buildah and mmdebstrap could not be installed"
}

# NAME PACKAGES [HOOK...]: make the image localhost/NAME from Debian's packages. The tarball is kept: it is the
# slow part.
base() {
  local name=$1 packages=$2 tarball container
  shift 2
  tarball=$CACHE/$name.tar
  if [ ! -e "$tarball" ]; then
    say "making the base $name from Debian $SUITE"
    if compgen -G "$EXTRA_CERTIFICATES/*.crt" >/dev/null; then
      set -- "$@" --customize-hook="copy-in $EXTRA_CERTIFICATES /usr/local/share" \
        --customize-hook='chroot "$1" update-ca-certificates >/dev/null 2>&1'
    fi
    mmdebstrap --quiet --format=tar --variant=minbase --mode=root --include="ca-certificates,$packages" \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      "$@" "$SUITE" "$tarball.part" http://deb.debian.org/debian >&2
    mv "$tarball.part" "$tarball"
  fi
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$tarball" / >/dev/null
  # npm and Debian's pip take the machine's list of certificates only when they are told to.
  buildah config --env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
    --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$container"
  buildah commit --quiet --rm "$container" "localhost/$name" >/dev/null
}

install_tools
base base-python python3,python3-venv,python3-pip
# npm is this machine's: Debian's has 400 packages to depend on.
base base-node nodejs \
  --customize-hook='mkdir -p "$1/usr/local/lib/node_modules"' \
  --customize-hook="copy-in $(npm root --global)/npm /usr/local/lib/node_modules" \
  --customize-hook='ln -s ../lib/node_modules/npm/bin/npm-cli.js "$1/usr/local/bin/npm"'

# Docker's format: OCI's has no HEALTHCHECK.
say "building deploy/Dockerfile"
buildah build --quiet --format docker --isolation chroot --pull-never --layers=false \
  --file deploy/Dockerfile --ignorefile .dockerignore --tag localhost/opencode-sidecar \
  --build-arg PYTHON_IMAGE=localhost/base-python --build-arg NODE_IMAGE=localhost/base-node \
  --build-arg VERSION=test --build-arg REVISION=test . >/dev/null

say "unpacking it into $output"
container=$(buildah from --pull-never localhost/opencode-sidecar)
buildah inspect --type image localhost/opencode-sidecar |
  python3 -c 'import json, sys; json.dump(json.load(sys.stdin)["Docker"]["config"], sys.stdout)' >"$output/config.json"
mounted=$(buildah mount "$container")
rm -rf --one-file-system "$output/rootfs"
mv "$mounted" "$output/rootfs"
