# shellcheck shell=sh
# Functions of scripts/package-*.sh, which source this file. Sets $root, $version and $epoch. The packages are made of what
# `npm run build` has made for this machine, without network and without root.
#
# Environment:
#   SOURCE_DATE_EPOCH     time of all files in the packages; default: of the last commit, else of package.json
#   PACKAGE_COMPRESSION   xz (default; takes some minutes) or zstd
set -eu
umask 022
export LC_ALL=C TZ=UTC

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

root=$(cd "$(dirname "$0")/.." && pwd -P)
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$root/package.json")
bun_version=$(sed -n 's/^ *"@oven\/bun-linux-x64": "\(.*\)",*$/\1/p' "$root/packaging/bun/package.json")
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
  SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=$(stat -c %Y "$root/package.json")
fi
export SOURCE_DATE_EPOCH
compression=${PACKAGE_COMPRESSION:-xz}
case $compression in xz | zstd) ;; *) fail "PACKAGE_COMPRESSION=$compression: write xz or zstd" ;; esac

# out_directory USAGE ARGUMENT...: read the command line, which is one directory. Sets $out.
out_directory() {
  usage=$1
  shift
  case ${1:-} in
    -h | --help)
      echo "$usage"
      exit 0
      ;;
    -*) fail "$1: unknown option; $usage" ;;
  esac
  [ $# -le 1 ] || fail "$2: unexpected argument; $usage"
  out=${1:-$root/packages}
  mkdir -p "$out"
  out=$(cd "$out" && pwd -P)
}

need_build() {
  [ -s "$root/dist/bun/bucatini" ] ||
    fail "dist/bun/bucatini is missing; run npm run build where Bun runs (dist/bun/why.txt says why it does not)"
}

# need_programs NAME...
need_programs() {
  for name; do
    command -v "$name" >/dev/null 2>&1 || fail "$name is missing; install it"
  done
}

# compressing DIRECTORY: said before what takes long. xz does about 1 MB a second on one processor.
compressing() {
  megabytes=$(du -m -s --apparent-size "$1" | cut -f1)
  case $compression in
    xz) echo "${0##*/}: compressing $megabytes MB with xz, up to $(((megabytes + 29) / 60 + 1)) minutes (PACKAGE_COMPRESSION=zstd: seconds, larger)" >&2 ;;
  esac
}

# stage_program DIRECTORY: the program itself: bin/, dist/ with the executable, package.json.
stage_program() {
  mkdir -p "$1/bin" "$1/dist/bun" "$1/dist/texts" "$1/dist/licenses"
  for name in bucatini pasta slirp4netns pesto; do install -m 755 "$root/bin/$name" "$1/bin/$name"; done
  install -m 644 "$root/bin/launch.sh" "$1/bin/launch.sh"
  install -m 644 "$root"/dist/texts/* "$1/dist/texts/"
  install -m 644 "$root"/dist/licenses/* "$1/dist/licenses/"
  install -m 755 "$root/dist/bun/bucatini" "$1/dist/bun/bucatini"
  install -m 644 "$root/dist/bun/loader" "$1/dist/bun/loader"
  # The launchers' remedies differ where nothing can be built.
  echo "from ${0##*/}" >"$1/dist/installed"
  printf '{ "name": "bucatini", "version": "%s", "license": "MIT", "type": "module" }\n' "$version" >"$1/package.json"
}

# stage_pages SHARE: manual pages and completions below DIRECTORY/share. The drop-ins are "bucatini-pasta" ... there: "pasta", its manual
# page and completion are files of the distribution's package passt.
stage_pages() {
  mkdir -p "$1/man/man1" "$1/bash-completion/completions" "$1/zsh/vendor-completions" "$1/fish/vendor_completions.d"
  for name in bucatini pasta slirp4netns pesto; do
    as=bucatini-$name
    [ "$name" != bucatini ] || as=bucatini
    gzip -9n <"$root/man/$name.1" >"$1/man/man1/$as.1.gz"
    sed "s/^complete \(.*\) $name\$/complete \1 $as/" "$root/completions/$name.bash" >"$1/bash-completion/completions/$as"
    sed "s/^#compdef $name\$/#compdef $as/" "$root/completions/_$name" >"$1/zsh/vendor-completions/_$as"
    sed "s/^complete -c $name /complete -c $as /" "$root/completions/$name.fish" >"$1/fish/vendor_completions.d/$as.fish"
  done
}

# stage_system DESTDIR: all files of a package for a distribution, with DESTDIR as /.
stage_system() {
  stage_program "$1/usr/lib/bucatini"
  mkdir -p "$1/usr/bin" "$1/usr/share/doc/bucatini/examples" "$1/usr/lib/systemd/user" "$1/etc/apparmor.d"
  ln -s ../lib/bucatini/bin/bucatini "$1/usr/bin/bucatini"
  for name in pasta slirp4netns pesto; do ln -s "../lib/bucatini/bin/$name" "$1/usr/bin/bucatini-$name"; done
  stage_pages "$1/usr/share"
  stage_docs "$1/usr/share/doc/bucatini"
  install -m 644 "$root/packaging/examples/"* "$1/usr/share/doc/bucatini/examples/"
  install -m 644 "$root/packaging/systemd/"* "$1/usr/lib/systemd/user/"
  install -m 644 "$root/packaging/apparmor/bucatini" "$1/etc/apparmor.d/bucatini"
}

# stage_docs DIRECTORY: what a user reads; not the decisions.
stage_docs() {
  mkdir -p "$1"
  install -m 644 "$root/README.md" "$root"/docs/*.md "$1/"
  sed "s/@BUN_VERSION@/$bun_version/" "$root/packaging/copyright" >"$1/copyright"
  gzip -9n <"$root/CHANGELOG.md" >"$1/changelog.gz"
}

# same_times DIRECTORY: all files get the time of $SOURCE_DATE_EPOCH.
same_times() {
  find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# make_directory: a temporary directory in $work, removed at the end.
make_directory() {
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# deliver FILE: move a file from $work to $out, whole or not at all, and print its name.
deliver() {
  new=$out/.${1##*/}.new
  mv "$1" "$new" || {
    rm -f "$new"
    exit 1
  }
  mv "$new" "$out/${1##*/}"
  echo "$out/${1##*/}"
}
