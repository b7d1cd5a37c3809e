# shellcheck shell=sh
# Builds the test bed's network from inside its namespaces. Runs as their first process until standard input ends:
# all processes of the bed end with the holder of the pipe's other end. Prints "peer PID" and "user PID", the
# processes that keep the peer's network namespace and the ordinary user's user namespace, then "up".
# usage: bed-up.sh RAM_DIR MTU RESOLVER cubic|plain      plain: routes without a congestion control
set -eu
ram=$1 mtu=$2 resolver=$3 routes=$4
exec 3<&0

mount -t tmpfs -o mode=1777 tmpfs "$ram"
echo "nameserver $resolver" >"$ram/resolv.conf"
echo "search bed.test" >>"$ram/resolv.conf"
mount --bind "$ram/resolv.conf" /etc/resolv.conf

unshare --net sleep infinity &
peer=$!
while [ "$(readlink /proc/$peer/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.005; done

# Duplicate address detection would take two seconds. Forwarding stays off.
# shellcheck disable=SC2016 # expanded by the two shells below
tune='
  echo "0 0" >/proc/sys/net/ipv4/ping_group_range
  for f in accept_dad dad_transmits accept_ra; do echo 0 >/proc/sys/net/ipv6/conf/default/$f; done
  echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
'
sh -c "$tune"
nsenter --net=/proc/$peer/ns/net sh -c "$tune"

ip -batch - <<END
link set lo up
link add veth0 mtu $mtu type veth peer name veth0 netns $peer mtu $mtu
addr add 10.77.0.1/24 dev veth0
addr add fd77::1/64 dev veth0 nodad
link set veth0 up
END
nsenter --net=/proc/$peer/ns/net ip -batch - <<END
link set lo up
addr add 10.77.0.2/24 dev veth0
addr add 10.77.0.254/24 dev veth0
addr add fd77::2/64 dev veth0 nodad
addr add fd77::fe/64 dev veth0 nodad preferred_lft 0
link set veth0 up
END
ip -batch - <<END
route add default via 10.77.0.254 dev veth0
route add default via fd77::fe dev veth0
route add unreachable 203.0.113.0/24
route add unreachable 2001:db8:dead::/48
END

if [ "$routes" = cubic ]; then
  sh "${0%/*}/route-cubic.sh"
  nsenter --net=/proc/$peer/ns/net sh "${0%/*}/route-cubic.sh"
fi

unshare --user --map-user=1000 --map-group=1000 sleep infinity &
user=$!
while [ "$(readlink /proc/$user/ns/user)" = "$(readlink /proc/self/ns/user)" ] || ! grep -q . /proc/$user/gid_map; do
  sleep 0.005
done

echo "peer $peer"
echo "user $user"
echo up
# `wait` reaps orphans of the bed, for this is its first process.
cat <&3 >/dev/null &
wait $!
