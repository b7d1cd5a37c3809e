#!/bin/sh
# Make bucatini-VERSION-linux-CPU.tar.xz of what `npm run build` has made: to be unpacked anywhere and run from there, on any
# distribution with glibc 2.17 or later, without Node or npm. Needs tar and xz; no network, no root.
#
# usage: package-tarball.sh [DIRECTORY]     default: packages/ in the repository. Prints the file's name.
# shellcheck source=scripts/package-common.sh
. "${0%/*}/package-common.sh"
out_directory 'usage: package-tarball.sh [DIRECTORY]' "$@"
need_build
need_programs tar gzip "$compression"
make_directory

case $(uname -m) in
  x86_64) cpu=x64 ;;
  aarch64) cpu=arm64 ;;
  *) fail "$(uname -m): no runtime for this processor" ;;
esac
folder=bucatini-$version-linux-$cpu
tree=$work/$folder
stage_program "$tree"
stage_pages "$tree/share"
stage_docs "$tree/share/doc/bucatini"
install -m 644 "$root/packaging/examples/web.container" "$tree/share/doc/bucatini/"
install -m 644 "$root/packaging/apparmor/bucatini" "$tree/share/doc/bucatini/apparmor-profile"
install -m 644 "$root/LICENSE" "$tree/LICENSE"
case $compression in
  xz)
    suffix=xz
    set -- xz -6 -T0
    ;;
  zstd)
    suffix=zst
    set -- zstd -q -3
    ;;
esac
file=$folder.tar.$suffix
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf "$work/tar" "$folder"
compressing "$tree"
"$@" <"$work/tar" >"$work/$file"
deliver "$work/$file"
