#!/bin/sh
# `npm test`: missing system packages, then every test; the last line is `N passed, N failed, N skipped`.
# usage: scripts/test.sh [VITEST-ARG...]        CI=true: what is missing on this machine fails instead of skipping
set -u
root=$(cd "$(dirname "$0")/.." && pwd -P)
cd "$root" || exit 1
sh scripts/setup.sh test || exit 1
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
report=$(mktemp)
trap 'rm -f "$report"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
sh scripts/node.sh node_modules/vitest/vitest.mjs run --reporter=default --reporter=json --outputFile.json="$report" "$@"
status=$?
sh scripts/node.sh scripts/test-count.ts "$report" "$status" || status=1
exit "$status"
