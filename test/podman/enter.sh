# shellcheck shell=sh
# Turns the caller's mount namespace into a login of the ordinary user rl in the tree of scripts/podman-tree.sh, with Podman looking
# for its helpers in HELPERS first, and waits there; prints "up PID" (of the waiting process) when all is in place. Everything that
# is written goes to memory and ends with the namespace. User namespaces are refused below a plain chroot, hence pivot_root.
# usage: unshare --mount --propagation private sh enter.sh TREE PROJECT HELPERS [FORWARDER]
#   HELPERS     a directory in the tree
#   FORWARDER   rootless_port_forwarder of containers.conf: rootlessport or pasta; an older Podman than 6 does not know it
set -eu
tree=$1 project=$2 helpers=$3 forwarder=${4:-}

mount --bind "$tree" "$tree"
cd "$tree"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm # Podman's locks
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=700,uid=1000,gid=1000 tmpfs home/rl
mount -t tmpfs -o mode=1777 tmpfs var/tmp
mount --bind "$project" opt/bucatini
mount -o remount,bind,ro opt/bucatini
cat /etc/resolv.conf >run/resolv.conf
mount --bind run/resolv.conf etc/resolv.conf
printf '[engine]\nhelper_binaries_dir = ["%s", "/usr/lib/podman", "/usr/libexec/podman", "/usr/bin", "/usr/sbin"]\n' "$helpers" >run/helpers.conf
[ -z "$forwarder" ] || printf '[network]\nrootless_port_forwarder = "%s"\n' "$forwarder" >>run/helpers.conf
mkdir -p run/user/1000 run/netns run/ours
chown 1000:1000 run/user/1000
chmod 700 run/user/1000
ln -s /opt/bucatini/bin/pasta /opt/bucatini/bin/slirp4netns run/ours/
# As an administrator would write; Podman 6 reads it for rootless users.
cp -r etc/containers run/etc-containers
mkdir -p run/etc-containers/containers.rootless.conf.d
chown 1000:1000 run/etc-containers/containers.rootless.conf.d
mount --bind run/etc-containers etc/containers
pivot_root . .old
cd /
umount -l /.old
mount -o remount,bind,ro /
mount --make-rshared /
# Groups that may send pings: the machine's setting need not be open.
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
echo "up $$"
exec /usr/bin/sleep infinity
