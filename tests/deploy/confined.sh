#!/bin/sh
# What a container engine does to a process, with the kernel's own means; needs root. Run it in new
# mount and process namespaces:
#
#   unshare --mount --pid --fork --kill-child confined.sh PREFIX BASE DATA COMMAND...
#
# COMMAND becomes process 1, as user 10001 without capabilities. Of the file system it can write DATA
# and a fresh /tmp; PREFIX (the image's files) and BASE (their Python) stay visible wherever they are.
set -eu
prefix=$1 base=$2 data=$3
shift 3

mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/prefix /mnt/base /mnt/data
mount --bind "$prefix" /mnt/prefix
mount --bind "$base" /mnt/base
mount --bind "$data" /mnt/data
mount -o remount,bind,ro /
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /tmp
# Root's home is closed to others, and a Python of pyenv is in it.
mount -t tmpfs -o mode=0755 tmpfs /root
mkdir -p "$prefix" "$base" "$data"
mount --bind /mnt/prefix "$prefix"
mount -o remount,bind,ro "$prefix"
mount --bind /mnt/base "$base"
mount --bind /mnt/data "$data"
mount -t proc proc /proc

exec setpriv --reuid 10001 --regid 10001 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
