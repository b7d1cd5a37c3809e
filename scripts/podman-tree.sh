#!/bin/sh
# podman-tree.sh - make a Debian tree with rootless Podman and Buildah for the tests in test/podman without changing the
# machine's own packages: apt resolves and downloads into its own directory, the packages are unpacked but not configured.
#
# usage: scripts/podman-tree.sh [5.4|6.1|callers]      prints the tree's path; takes half a minute the first time, later no time
#   5.4                     trixie, with its Podman 5.4 (the default)
#   6.1                     sid, with Podman 6.1, netavark 2 and aardvark-dns of experimental, and passt with pesto
#   callers                 trixie, with slirp4netns, RootlessKit and rootless Docker as well
#   BUCATINI_PODMAN_TREE    directory of the tree 5.4 (default: bucatini/podman-trixie below XDG_CACHE_HOME or /var/cache)
#   BUCATINI_PODMAN6_TREE   directory of the tree 6.1 (default: bucatini/podman-sid there)
#   BUCATINI_CALLERS_TREE   directory of the tree callers (default: bucatini/callers-trixie there)
#   BUCATINI_PODMAN_MIRROR  a Debian mirror (default: the one in the machine's own apt sources)
#
# Needs root (for owners and set-uid bits of the packages' files), apt-get, dpkg-deb and the archive's keys for the suite. A
# second run at the same time waits for the first. A failed run leaves no tree.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL=C

suite=trixie
packages='podman crun runc catatonit netavark aardvark-dns buildah passt uidmap busybox-static socat iperf3 iproute2 iputils-ping nftables
  libatomic1 libstdc++6 util-linux mount coreutils dash bash sed grep procps'
# Packages of which sid has an older version. Packages that only experimental has need no preference.
from_experimental='podman buildah netavark aardvark-dns containers-common containers-storage golang-github-containers-common
  golang-github-containers-image'

fail() { echo "scripts/podman-tree.sh: $*" >&2; exit 1; }
set=${1:-5.4}
case $set in
  5.4) name=podman tree=${BUCATINI_PODMAN_TREE:-} ;;
  6.1) name=podman suite=sid tree=${BUCATINI_PODMAN6_TREE:-} ;;
  callers)
    name=callers tree=${BUCATINI_CALLERS_TREE:-}
    packages="$packages slirp4netns rootlesskit docker.io docker-cli containerd tini iptables"
    ;;
  -h | --help) sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) fail "'$1': 5.4, 6.1 or callers" ;;
esac

[ -n "$tree" ] || tree=${XDG_CACHE_HOME:-/var/cache}/bucatini/$name-$suite
case $tree in /?*) ;; *) fail "the tree '$tree': write an absolute path" ;; esac
# A tree that another version of this script made is replaced.
edition="$set $(cksum <"$0")"
current() { [ -f "$tree/.bucatini" ] && [ "$(cat "$tree/.bucatini")" = "$edition" ]; }
if current; then echo "$tree"; exit 0; fi
[ "$(id -u)" = 0 ] || fail "must be root to make $tree"
for tool in apt-get dpkg-deb flock tar; do command -v "$tool" >/dev/null || fail "$tool is missing"; done
if [ -e "$tree" ] && ! [ -f "$tree/.bucatini" ] && [ -n "$(ls -A "$tree")" ]; then
  fail "$tree is there and was not made by this script; name another directory"
fi
mkdir -p "${tree%/*}"
exec 9>"$tree.lock"
flock 9
if current; then echo "$tree"; exit 0; fi

# Print the Debian mirror in the machine's apt sources: from deb822 files, else from one-line lists.
mirror() {
  cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk 'tolower($1) == "uris:" && $2 ~ /\/debian\/?$/ { print $2; exit }' | grep . ||
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:.*\/debian\/?$/) { print $i; exit } }' | grep .
}
from=${BUCATINI_PODMAN_MIRROR:-$(mirror)} || fail 'no Debian mirror in the apt sources; name one in BUCATINI_PODMAN_MIRROR'

new=$tree.new
apt=$tree.apt
rm -rf "$new" "$apt"
trap 'rm -rf "$new" "$apt"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$new" "$apt/lists/partial" "$apt/archives/partial"
: >"$apt/status"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
: >"$apt/preferences"
if [ "$suite" = sid ]; then
  # A mirror's copy may be older than the week for which the suite's Release file is valid. Its signature is still checked.
  for each in sid experimental; do echo "deb [signed-by=$keys check-valid-until=no] $from $each main"; done >"$apt/sources.list"
  # shellcheck disable=SC2086,SC2116 # echo joins the lines
  printf 'Package: %s\nPin: release a=experimental\nPin-Priority: 990\n' "$(echo $from_experimental)" >"$apt/preferences"
else
  echo "deb [signed-by=$keys] $from $suite main" >"$apt/sources.list"
fi
fetch() {
  apt-get -q -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" \
    -o Dir::Cache::archives="$apt/archives" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::Etc::preferences="$apt/preferences" -o Dir::Etc::preferencesparts=- \
    -o Acquire::Languages=none -o Acquire::Retries=2 -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Debug::NoLocking=1 "$@" >>"$apt/log" 2>&1 || {
    tail -n 20 "$apt/log" >&2
    fail "apt-get could not fetch $suite packages"
  }
}
fetch update
# shellcheck disable=SC2086 # one word for each package
fetch install -y --download-only $packages

# at_least PACKAGE VERSION: fail unless the downloaded package has at least this version, which the tests need.
at_least() {
  have=$(dpkg-deb -f "$apt/archives/$1"_*.deb Version)
  dpkg --compare-versions "$have" ge "$2" || fail "$from has $1 $have for $suite; $2 or newer is needed"
}
if [ "$set" = 6.1 ]; then
  at_least podman 6.1
  at_least netavark 2.0
  at_least aardvark-dns 1.17
fi

for dir in bin sbin lib lib64; do
  mkdir -p "$new/usr/$dir"
  ln -s "usr/$dir" "$new/$dir"
done
for deb in "$apt"/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -x -p -C "$new" --keep-directory-symlink \
    --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
done

# Do what the packages' own scripts would have done, as far as the tests need it.
cd "$new"
mkdir -p .old proc sys dev run tmp root home/rl var/lib var/tmp etc/containers opt/bucatini
chmod 1777 tmp var/tmp
cat >etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
rl:x:1000:1000::/home/rl:/bin/sh
END
printf 'root:x:0:\nnogroup:x:65534:\nrl:x:1000:\n' >etc/group
echo 'rl:100000:65536' | tee etc/subuid >etc/subgid
echo '127.0.0.1 localhost' >etc/hosts
: >etc/resolv.conf
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >etc/containers/policy.json
cat >etc/containers/containers.conf <<'END'
[containers]
cgroups = "disabled"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
END
cat >etc/containers/storage.conf <<'END'
[storage]
driver = "overlay"
runroot = "/run/user/1000/storage"
graphroot = "/home/rl/storage"
END
[ "$set" != 6.1 ] || [ -x usr/bin/pesto ] || fail "passt of $suite has no pesto"
if [ ! -e bin/sh ]; then ln -s dash bin/sh; fi
if [ "$set" = callers ]; then # links that update-alternatives would make
  for program in iptables ip6tables; do ln -sf $program-nft usr/sbin/$program; done
fi

# The container image: busybox, and socat and iperf3 with the libraries that they need.
image=$new/image
mkdir -p "$image/bin" "$image/etc" "$image/tmp" "$image/proc" "$image/sys" "$image/dev" "$image/root" "$image/usr/bin"
cp bin/busybox "$image/bin/"
chroot "$image" /bin/busybox --install -s /bin
for file in usr/lib/*/libgcc_s.so.1; do # pthread_cancel in iperf3 opens it at run time, so the loader does not list it
  mkdir -p "$image/${file%/*}"
  cp -L "$file" "$image/$file"
done
for program in usr/bin/socat usr/bin/iperf3; do
  cp "$program" "$image/usr/bin/"
  for loader in lib64/ld-linux-*.so.* lib/ld-linux-*.so.*; do
    [ -e "$loader" ] || continue
    chroot . "/$loader" --list "/$program" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^\//) print $i }' | while read -r file; do
      mkdir -p "$image${file%/*}"
      [ -e "$image$file" ] || cp -L ".$file" "$image$file"
    done
  done
done
echo 'root:x:0:0:root:/root:/bin/sh' >"$image/etc/passwd"
echo 'root:x:0:' >"$image/etc/group"
chmod 1777 "$image/tmp"
tar -C "$image" -cf "$new/image.tar" .
rm -rf "$image"

echo "$edition" >.bucatini
cd /
rm -rf "$tree"
mv "$new" "$tree"
echo "$tree"
