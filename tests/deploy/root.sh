#!/bin/sh
# Run a command in an unpacked image as Kubernetes would: as process 1 of its own process namespace, as user
# 10001 without capabilities, on a read-only root with only /data and /tmp writable. Needs root. To be run in
# new mount and process namespaces, which keep these mounts from every other process:
#
#   unshare --mount --propagation private --pid --fork --kill-child root.sh ROOTFS DATA COMMAND...
set -eu
root=$1 data=$2
shift 2

mount --bind "$root" "$root"
mount --bind "$data" "$root/data"
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
for device in null zero full random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
# An engine gives a container the machine's resolver; without one, names of loopback would be asked of it too.
mount --bind /etc/hosts "$root/etc/hosts"
mount -o remount,bind,ro "$root"

# The order matters: chroot needs the capability that setpriv takes away.
exec chroot "$root" /usr/bin/setpriv --reuid 10001 --regid 10001 --clear-groups --bounding-set=-all \
  --inh-caps=-all --no-new-privs "$@"
