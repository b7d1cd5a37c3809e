#!/bin/sh
# `npm test`: install or name the missing system packages, then run every test. The last line is `N passed, N failed, N skipped`.
# usage: scripts/test.sh [VITEST-ARG...]        CI=true: a test that this machine cannot run fails instead of being skipped
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
