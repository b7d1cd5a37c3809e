#!/bin/sh
# Make the Debian package bucatini_VERSION_ARCHITECTURE.deb of what `npm run build` has made. Needs dpkg-deb; no network, no root.
#
# usage: package-deb.sh [DIRECTORY]     default: packages/ in the repository. Prints the file's name.
# shellcheck source=scripts/package-common.sh
. "${0%/*}/package-common.sh"
out_directory 'usage: package-deb.sh [DIRECTORY]' "$@"
need_build
need_programs dpkg-deb dpkg gzip md5sum
make_directory

arch=$(dpkg --print-architecture)
tree=$work/tree
stage_system "$tree"
doc=$tree/usr/share/doc/bucatini
mkdir -p "$tree/DEBIAN" "$tree/usr/share/lintian/overrides"
install -m 644 "$root/packaging/debian/lintian-overrides" "$tree/usr/share/lintian/overrides/bucatini"
# The version has a Debian revision, so the package is no native one: it has two changelogs.
{
  printf 'bucatini (%s-1) unstable; urgency=medium\n\n  * See changelog.gz.\n\n' "$version"
  printf ' -- The bucatini authors <bucatini@localhost>  %s\n' "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$doc/changelog.Debian.gz"
echo /etc/apparmor.d/bucatini >"$tree/DEBIAN/conffiles"
install -m 755 "$root/packaging/debian/postinst" "$root/packaging/debian/prerm" "$tree/DEBIAN/"
size=$(du -k -s --apparent-size --exclude=DEBIAN "$tree" | cut -f1)
sed -e "s/@VERSION@/$version-1/; s/@ARCH@/$arch/; s/@SIZE@/$size/" "$root/packaging/debian/control" >"$tree/DEBIAN/control"
(cd "$tree" && find usr -type f -print | sort | xargs -d '\n' md5sum) >"$tree/DEBIAN/md5sums"
chmod 644 "$tree/DEBIAN/control" "$tree/DEBIAN/md5sums" "$tree/DEBIAN/conffiles"
same_times "$tree"
file=bucatini_$version-1_$arch.deb
case $compression in
  xz) set -- -Zxz -z6 ;;
  zstd) set -- -Zzstd -z3 ;;
esac
compressing "$tree"
dpkg-deb --root-owner-group "$@" --build "$tree" "$work/$file" >/dev/null
deliver "$work/$file"
