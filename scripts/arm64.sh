#!/bin/sh
# arm64.sh - run a command of this project on arm64, emulated by qemu-user, on an x86-64 machine: with libraries, programs and
# runtimes for arm64. test/arm64/main.ts (`npm run test:arm64`) uses it.
#
# usage: scripts/arm64.sh COMMAND [ARG...]
#   sh scripts/arm64.sh sh scripts/node.sh scripts/build.ts
#   sh scripts/arm64.sh bin/bucatini doctor
#   sh scripts/arm64.sh sh scripts/node.sh node_modules/vitest/vitest.mjs run test/sys/io.test.ts
# COMMAND is root of a user namespace. Its working directory is a copy of the project, renewed before each COMMAND, except for dist/,
# which the build makes there, and node_modules/, which has the packages for arm64. One COMMAND at a time.
#   BUCATINI_ARM64_TREE    directory of the Debian tree; the npm packages and the copy of the project are beside it
#                          (default: bucatini/arm64-trixie below XDG_CACHE_HOME or ~/.cache)
#   BUCATINI_ARM64_MIRROR  a Debian mirror (default: deb.debian.org)
#
# Needs no root: apt resolves and downloads into a directory of its own, the packages are unpacked but not configured (900 MB,
# a minute the first time). Needs apt-get, dpkg-deb, the Debian archive's keys, npm, unshare, and Linux 6.7 or later, where
# a user namespace may register its own interpreter for arm64 programs (binfmt_misc). The machine's own registrations stay.
#
# The emulated kernel interface is not complete. What cannot run, and why, is in test/arm64/main.ts.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export LC_ALL=C

suite=trixie
# gcc compiles test/sys/abi.test.ts against the arm64 headers.
packages='libatomic1 libstdc++6 util-linux mount coreutils dash bash sed grep procps iproute2 gcc libc6-dev'
# Programs of x86-64 in the tree: the emulator, and the two programs that make and enter user namespaces. The emulator has two threads,
# and the kernel refuses unshare(CLONE_NEWUSER) and setns(CLONE_NEWUSER) in a process with several.
host_packages='qemu-user util-linux libc6 libselinux1 libpcre2-8-0'
host_files='./usr/bin/qemu-aarch64 ./usr/bin/unshare ./usr/bin/nsenter ./usr/lib/x86_64-linux-gnu ./usr/lib64'

fail() { echo "scripts/arm64.sh: $*" >&2; exit 1; }
case ${1:-} in
  '' | -h | --help) sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
[ "$(uname -m)" = x86_64 ] || fail "for x86-64 machines only; on arm64 run the command itself"
root=$(cd "$(dirname "$0")/.." && pwd -P)
tree=${BUCATINI_ARM64_TREE:-${XDG_CACHE_HOME:-$HOME/.cache}/bucatini/arm64-$suite}
case $tree in /?*) ;; *) fail "the tree '$tree': write an absolute path" ;; esac
mirror=${BUCATINI_ARM64_MIRROR:-http://deb.debian.org/debian}
modules=$tree.modules
project=$tree.project

# What the tree and the npm packages were made from. If it changes, they are made again. The number stands for how make_tree works.
edition="1 $suite $packages $host_packages $host_files"
locked=$(cksum <"$root/package-lock.json")
made() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

fetch() {
  apt-get -q -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" \
    -o Dir::Cache::archives="$apt/archives" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::Etc::preferencesparts=- -o APT::Architecture=arm64 -o APT::Architectures=arm64,amd64 \
    -o Acquire::Languages=none -o Acquire::Retries=2 -o APT::Install-Recommends=false -o APT::Sandbox::User=root \
    -o Debug::NoLocking=1 "$@" >>"$apt/log" 2>&1 || {
    tail -n 20 "$apt/log" >&2
    fail "apt-get could not fetch $suite packages"
  }
}

# Print the files of a package as a tar stream without what nobody reads here, and unpack them as this user's files.
unpack() {
  dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --no-same-owner --no-same-permissions \
    --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
}

make_tree() {
  for tool in apt-get dpkg-deb tar; do command -v "$tool" >/dev/null || fail "$tool is missing"; done
  if [ -e "$tree" ] && ! [ -f "$tree/.bucatini" ] && [ -n "$(ls -A "$tree")" ]; then
    fail "$tree is there and was not made by this script; name another directory"
  fi
  echo "scripts/arm64.sh: making $tree" >&2
  new=$tree.new apt=$tree.apt
  rm -rf "$new" "$apt"
  mkdir -p "$new" "$apt/lists/partial" "$apt/archives/partial" "$apt/host"
  : >"$apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
  fetch update
  # shellcheck disable=SC2086 # one word for each package
  fetch install -y --download-only $packages
  # shellcheck disable=SC2046,SC2086
  (cd "$apt/host" && fetch download $(printf '%s:amd64 ' $host_packages))
  for dir in bin sbin lib lib64; do
    mkdir -p "$new/usr/$dir"
    ln -s "usr/$dir" "$new/$dir"
  done
  for deb in "$apt"/archives/*.deb; do unpack "$deb" "$new"; done
  mkdir "$apt/unpacked"
  for deb in "$apt"/host/*.deb; do unpack "$deb" "$apt/unpacked"; done
  # shellcheck disable=SC2086
  (cd "$apt/unpacked" && tar -c $host_files) | tar -x -C "$new" --keep-directory-symlink
  mkdir -p "$new/.old" "$new/proc" "$new/sys" "$new/dev" "$new/run" "$new/tmp" "$new/root" "$new/bucatini"
  [ -e "$new/bin/sh" ] || ln -s dash "$new/bin/sh"
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n' >"$new/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$new/etc/group"
  echo '127.0.0.1 localhost' >"$new/etc/hosts"
  : >"$new/etc/resolv.conf"
  echo "$edition" >"$new/.bucatini"
  rm -rf "$tree" "$apt"
  mv "$new" "$tree"
}

make_modules() {
  command -v npm >/dev/null || fail 'npm is missing'
  echo "scripts/arm64.sh: making $modules" >&2
  rm -rf "$modules"
  mkdir -p "$modules"
  mkdir -p "$modules/packaging/bun"
  cp "$root/package.json" "$root/package-lock.json" "$modules"
  cp "$root/packaging/bun/package.json" "$modules/packaging/bun"
  (cd "$modules" && npm ci --cpu=arm64 --os=linux --libc=glibc --ignore-scripts --no-audit --no-fund >npm.log 2>&1) || {
    tail -n 20 "$modules/npm.log" >&2
    fail 'npm ci could not fetch the arm64 packages'
  }
  echo "$locked" >"$modules/.bucatini"
}

if ! made "$tree/.bucatini" "$edition" || ! made "$modules/.bucatini" "$locked"; then
  mkdir -p "${tree%/*}"
  exec 9>"$tree.lock"
  flock 9
  made "$tree/.bucatini" "$edition" || make_tree
  made "$modules/.bucatini" "$locked" || make_modules
  exec 9>&-
fi

mkdir -p "$project"
for old in "$project"/* "$project"/.[!.]*; do
  case $old in */dist | */node_modules) ;; *) rm -rf "$old" ;; esac
done
(cd "$root" && tar -c --exclude=./dist --exclude=./dist.new --exclude=./node_modules --exclude=./.git .) | tar -x -C "$project" --no-same-owner
mkdir -p "$project/node_modules"

# In the new namespaces. pivot_root, not chroot: in a chroot the kernel refuses further user namespaces.
# shellcheck disable=SC2016 # expanded by that shell
inside='
  set -eu
  tree=$1 project=$2 modules=$3
  shift 3
  mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc 2>/dev/null || {
    echo "scripts/arm64.sh: this kernel has no binfmt_misc for user namespaces (Linux 6.7, CONFIG_BINFMT_MISC)" >&2
    exit 1
  }
  # ELF, 64 bits, little-endian, any ABI, ET_EXEC or ET_DYN, EM_AARCH64. F: the kernel opens the emulator now, so paths may change.
  zeroes="\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00"
  ones="\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"
  printf %s ":bucatini-arm64:M::\\x7fELF\\x02\\x01\\x01\\x00$zeroes\\x02\\x00\\xb7\\x00:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00$ones\\xfe\\xff\\xff\\xff:$tree/usr/bin/qemu-aarch64:F" \
    >/proc/sys/fs/binfmt_misc/register
  mount --rbind "$tree" "$tree"
  for dir in /proc /dev /sys; do mount --rbind "$dir" "$tree$dir"; done
  mount --bind "$project" "$tree/bucatini"
  mount --bind "$modules/node_modules" "$tree/bucatini/node_modules"
  mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
  mount -t tmpfs -o mode=700 tmpfs "$tree/root"
  cd "$tree"
  pivot_root . .old
  exec /bin/sh -c "umount -l /.old && cd /bucatini && exec \"\$@\"" sh "$@"
'
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
  unshare -Ur -m -p --fork --kill-child --mount-proc --propagation private -- /bin/sh -c "$inside" sh "$tree" "$project" "$modules" "$@"
