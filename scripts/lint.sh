#!/bin/sh
# `npm run lint`: format and rules of TypeScript and JSON (Biome), shell scripts (shellcheck), and a report of long functions,
# long parameter lists and wide comments, which never fails. Without shellcheck the shell scripts are not checked; with CI=true
# that is a failure.
set -u
root=$(cd "$(dirname "$0")/.." && pwd -P)
cd "$root" || exit 1
status=0
sh scripts/node.sh node_modules/@biomejs/biome/bin/biome check . || status=1
if command -v shellcheck >/dev/null 2>&1; then
  shellcheck .ci/run bin/bucatini bin/pasta bin/slirp4netns bin/pesto bin/launch.sh scripts/*.sh packaging/debian/postinst packaging/debian/prerm test/*/*.sh || status=1
else
  echo "lint: shellcheck is missing, so no shell script was checked; scripts/setup.sh test installs or names it" >&2
  [ "${CI:-}" != true ] || status=1
fi
sh scripts/node.sh scripts/size-report.ts || status=1
exit "$status"
