#!/bin/sh
# `npm start`: fetch (as root) or name (as anybody else) the missing system packages, then prove that the main
# job works here. usage: scripts/start.sh [SELFTEST-OPTION...]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
sh "$root/scripts/setup.sh" run
exec "$root/bin/bucatini" selftest "$@"
