#!/bin/sh
# Make bucatini-VERSION-1.CPU.rpm of what `npm run build` has made, by packaging/rpm/bucatini.spec. Needs rpmbuild; no network, no root.
#
# usage: package-rpm.sh [DIRECTORY]     default: packages/ in the repository. Prints the file's name.
# shellcheck source=scripts/package-common.sh
. "${0%/*}/package-common.sh"
out_directory 'usage: package-rpm.sh [DIRECTORY]' "$@"
need_build
need_programs rpmbuild gzip
make_directory

tree=$work/tree
stage_system "$tree"
# Fedora, openSUSE and others have no AppArmor profiles of packages there, and zsh's and fish's directories have these names.
rm -r "${tree:?}/etc"
mv "$tree/usr/share/zsh/vendor-completions" "$tree/usr/share/zsh/site-functions"
mkdir -p "$tree/usr/share/licenses/bucatini"
install -m 644 "$root/LICENSE" "$tree/usr/share/licenses/bucatini/LICENSE"
same_times "$tree"
case $compression in
  xz) payload=w6.xzdio ;;
  zstd) payload=w3.zstdio ;;
esac
compressing "$tree"
rpmbuild -bb --quiet --define "_topdir $work/rpm" --define "bucatini_tree $tree" --define "bucatini_version $version" \
  --define "_binary_payload $payload" --define "_rpmdir $work/made" --define "_build_id_links none" \
  "$root/packaging/rpm/bucatini.spec" >&2
for made in "$work"/made/*/*.rpm; do deliver "$made"; done
