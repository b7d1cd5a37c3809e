#!/bin/sh
# iperf-harness.sh - bucatini beside pasta, slirp4netns and a bare veth, in turn: throughput, latency, loss, CPU, memory.
# `--help` lists the options, `--plan` lists what would be measured; perf/README.md explains. It needs no privileges: it creates namespaces.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # for ip; an ordinary user's PATH may lack these directories
export PATH
exec sh "$root/scripts/node.sh" "$root/perf/harness/main.ts" "$@"
