#!/bin/sh
# setup.sh - install or name the system packages that bucatini, its tests and its harness need.
#
# usage: scripts/setup.sh [run|test|perf]
#   run    packages to run bucatini (the default): the libraries of the Node that npm installed, unshare and nsenter
#   test   those of run, and the programs that tests call: real clients and servers, a C compiler for the layout checks
#   perf   those of run, and the tools that scripts/iperf-harness.sh compares with
#
# As root it installs missing packages with apt-get; as another user it prints the command for an administrator
# and fails. It looks for files, not for package records, so a system that is not Debian passes once it has the
# files, whatever its packages are called.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # for ip, nft and dhclient; an ordinary user's PATH may lack these

what=${1:-run}
case $what in
  run | test | perf) ;;
  -h | --help) sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "scripts/setup.sh: unknown set '$what': run, test or perf" >&2; exit 2 ;;
esac

# has FILE...: does any of these files exist? The caller passes patterns unquoted, so the shell expands them.
has() { for f in "$@"; do [ -e "$f" ] && return 0; done; return 1; }
lib() { has /lib/*/"$1" /usr/lib/*/"$1" /lib64/"$1" /usr/lib64/"$1" /lib/"$1" /usr/lib/"$1"; }
cmd() { command -v "$1" >/dev/null 2>&1; }

# One line each: SET KIND NAME PACKAGE. The sets test and perf include run; "both" is test and perf.
wanted='
run  lib libatomic.so.1      libatomic1
run  lib libstdc++.so.6      libstdc++6
run  cmd unshare             util-linux
run  cmd nsenter             util-linux
both cmd ip                  iproute2
both cmd iperf3              iperf3
both cmd ps                  procps
test cmd setpriv             util-linux
test cmd script              bsdutils
test cmd curl                curl
test cmd dig                 bind9-dnsutils
test cmd ping                iputils-ping
test cmd tracepath           iputils-tracepath
test cmd traceroute          traceroute
test cmd nft                 nftables
test cmd gcc                 gcc
test inc stdlib.h            libc6-dev
test inc linux/if_tun.h      linux-libc-dev
test cmd busybox             busybox-static
test cmd udhcpc              udhcpc
test cmd dhclient            isc-dhcp-client
test cmd ethtool             ethtool
test cmd socat               socat
test cmd nc.openbsd          netcat-openbsd
test cmd ncat                ncat
test cmd dnsmasq             dnsmasq-base
test cmd python3             python3-minimal
test py  asyncio,ctypes      libpython3-stdlib
test cmd iperf               iperf
test cmd avahi-daemon        avahi-daemon
test cmd avahi-browse        avahi-utils
test cmd dbus-daemon         dbus-daemon
test cmd gssdp-discover      gupnp-tools
test cmd minidlnad           minidlna
test cmd tmux                tmux
test cmd shellcheck          shellcheck
test cmd tshark              tshark
perf cmd pasta               passt
perf cmd slirp4netns         slirp4netns
'

# Print the packages that are missing for the set, each once, in one line.
missing() {
  echo "$wanted" | while read -r set kind name package; do
    case $set:$what in run:* | both:test | both:perf | test:test | perf:perf) ;; *) continue ;; esac
    case $kind in
      cmd) cmd "$name" ;;
      lib) lib "$name" ;;
      inc) has /usr/include/"$name" ;;
      py) cmd python3 && python3 -c "import $name" 2>/dev/null ;;
    esac || echo "$package"
  done | sort -u | tr '\n' ' ' | sed 's/ $//'
}

apt() { apt-get -o DPkg::Lock::Timeout=300 "$@"; }

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  # The package lists may be absent (as in a fresh image) or older than the mirror's current packages.
  if { has /var/lib/apt/lists/*_Packages* && apt install -y -q --no-install-recommends "$@"; } >"$log" 2>&1 ||
    { apt update -q && apt install -y -q --no-install-recommends "$@"; } >"$log" 2>&1; then
    rm -f "$log"
    return 0
  fi
  tail -n 30 "$log" >&2
  rm -f "$log"
  echo "scripts/setup.sh: apt-get could not install: $*" >&2
  return 1
}

packages=$(missing)
if [ -n "$packages" ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "scripts/setup.sh: missing for '$what'; as root:" >&2
    echo "apt-get install -y --no-install-recommends $packages"
    exit 1
  fi
  if ! cmd apt-get; then
    echo "scripts/setup.sh: no apt-get here: install what your system calls $packages" >&2
    exit 1
  fi
  echo "scripts/setup.sh: installing $packages" >&2
  # shellcheck disable=SC2086 # one word for each package
  install_packages $packages || exit 1
  packages=$(missing)
  if [ -n "$packages" ]; then
    echo "scripts/setup.sh: still missing after apt-get: $packages" >&2
    exit 1
  fi
fi

# Tests run as root and as ordinary users. Only the set `test` changes the device node for them.
if [ "$what" = test ] && [ "$(id -u)" = 0 ]; then
  if [ ! -e /dev/net/tun ]; then
    mkdir -p /dev/net
    mknod /dev/net/tun c 10 200
    echo "scripts/setup.sh: made /dev/net/tun (c 10 200)" >&2
  fi
  case $(stat -c %a /dev/net/tun) in
    *[67][67]) ;;
    *)
      chmod 666 /dev/net/tun
      echo "scripts/setup.sh: chmod 666 /dev/net/tun, so that namespaces of ordinary users can open it" >&2
      ;;
  esac
elif [ "$what" = test ] && ! { [ -r /dev/net/tun ] && [ -w /dev/net/tun ]; }; then
  echo "scripts/setup.sh: /dev/net/tun cannot be used; as root:" >&2
  echo "mkdir -p /dev/net; [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200; chmod 666 /dev/net/tun"
  exit 1
fi
