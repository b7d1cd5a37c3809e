#!/bin/sh
# iperf-harness.sh - bucatini beside pasta, slirp4netns and a bare veth, in turn: throughput, latency, loss, CPU, memory.
# `--help` lists the options, `--plan` what would be measured; perf/README.md explains. No privileges: it lives in namespaces that it makes.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd -P)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # ip; an ordinary PATH may lack it
export PATH
exec sh "$root/scripts/node.sh" "$root/perf/harness/main.ts" "$@"
