#!/bin/sh
# `npm start`: install the missing system packages (as root) or name them (as another user), then run the self-test.
# usage: scripts/start.sh [SELFTEST-OPTION...]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
sh "$root/scripts/setup.sh" run
exec "$root/bin/bucatini" selftest "$@"
