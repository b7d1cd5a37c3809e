# shellcheck shell=sh
# Makes every connection of this network namespace use cubic, whatever the machine's default is: a namespace may not change that
# setting, but its routes may carry one of their own. Without cubic in the kernel that part is left out.
# usage: route-cubic.sh [ROUTE_OPTION...]    further options for each route, e.g. rto_min 20ms
grep -qw cubic /proc/sys/net/ipv4/tcp_available_congestion_control && set -- congctl cubic "$@"
[ $# -gt 0 ] || exit 0
for family in -4 -6; do
  ip $family route show | grep -v -e '^unreachable' -e '^fe80' | sed 's/ congctl [a-z]*//' | while read -r route; do
    # shellcheck disable=SC2086 # a route is many words
    ip $family route change $route "$@" || true
  done
done
