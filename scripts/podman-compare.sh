#!/usr/bin/env bash
# podman-compare.sh - what this user's containers gain: rootless Podman with the installed pasta and with bucatini's, in turn, one table.
#
# usage: scripts/podman-compare.sh [OPTION...]
#   --rounds N       times through everything (5)
#   --size MIB       bytes of each transfer (1024)
#   --containers N   containers that run at the same time (20)
#   --image IMAGE    an image with sh, httpd, nc, wget and dd, as busybox has them (default: made of this machine's busybox-static)
#   --bucatini DIR   the installation to compare (default: this one)
#   --stock DIR      directory of the other pasta (default: Podman's own choice without bucatini)
#   --network MODE   network of the containers: pasta, or a bridge network (pasta)
#   --help           this text
#
# Needs podman, curl, and busybox on the host. It pulls nothing, changes no configuration, and sends traffic to this host's own addresses only. An
# image and containers of its own (bucatini-compare-…) are removed at the end, after Ctrl-C too.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

fail() { echo "podman-compare: $*" >&2; exit 1; }
usage() { sed -n '/^# usage/,/^# Needs/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//; s/^usage/usage/'; }
count() { # count OPTION VALUE LEAST MOST
  [[ $2 =~ ^[0-9]{1,6}$ ]] && ((10#$2 >= $3 && 10#$2 <= $4)) || fail "$1 '$2': not a number from $3 to $4"
}

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)
rounds=5 size=1024 containers=20 image='' bucatini=$here stock='' network=pasta
while (($#)); do
  option=$1
  case $option in
    --help | -h) usage; exit 0 ;;
    --*=*) set -- "${option%%=*}" "${option#*=}" "${@:2}"; option=$1 ;;
  esac
  case $option in
    --rounds | --size | --containers | --image | --bucatini | --stock | --network) (($# > 1)) || fail "$option needs a value" ;;
    *) fail "'$option': unknown option; --help lists them" ;;
  esac
  case $option in
    --rounds) count "$option" "$2" 1 100; rounds=$2 ;;
    --size) count "$option" "$2" 16 65536; size=$2 ;;
    --containers) count "$option" "$2" 1 200; containers=$2 ;;
    --image) image=$2 ;;
    --bucatini) bucatini=$2 ;;
    --stock) stock=$2 ;;
    --network) network=$2 ;;
  esac
  shift 2
done
((EUID != 0)) || fail "run this as the user whose containers are meant, not as root"
for tool in podman curl busybox awk; do command -v "$tool" >/dev/null || fail "$tool is missing; install the package $tool"; done
[[ -x $bucatini/bin/pasta ]] || fail "--bucatini '$bucatini': has no bin/pasta"
[[ -z $stock || -x $stock/pasta ]] || fail "--stock '$stock': has no pasta"

name=bucatini-compare-$$ work=$(mktemp -d) pids=()
end() {
  trap - EXIT
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  mapfile -t remaining < <(podman ps -aq --filter "label=$name" 2>/dev/null)
  ((${#remaining[@]} == 0)) || podman rm -f -t 0 "${remaining[@]}" >/dev/null 2>&1 || true
  [[ -n $image ]] || podman rmi -f "$name" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap end EXIT
trap 'echo >&2; exit 130' INT TERM

# Podman takes the first pasta of helper_binaries_dir. The override is for the commands of this script alone.
directories='"/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman", "/usr/lib/podman", "/usr/bin"'
mkdir "$work/helpers" "$work/www"
ln -s "$bucatini/bin/pasta" "$work/helpers/pasta"
printf '[engine]\nhelper_binaries_dir = ["%s", %s]\n' "$work/helpers" "$directories" >"$work/bucatini.conf"
printf '[engine]\nhelper_binaries_dir = [%s%s]\n' "${stock:+\"$stock\", }" "$directories" >"$work/stock.conf"
with() { # with stock|bucatini WORD...: run podman with this pasta
  local who=$1
  shift
  CONTAINERS_CONF_OVERRIDE=$work/$who.conf podman "$@"
}
version() { "$(with "$1" info --format '{{.Host.Pasta.Executable}}')" --version 2>/dev/null | head -n 1; }
same=$(with stock info --format '{{.Host.Pasta.Executable}}') || fail "podman info fails: is this user set up for rootless containers?"
[[ -n $same ]] || fail "podman finds no pasta; install the package passt, or write --stock DIR"

image_of() { echo "${image:-$name}"; }
if [[ -z $image ]]; then
  box=$(command -v busybox)
  ! ldd "$box" >/dev/null 2>&1 || fail "busybox is not static here; install busybox-static, or write --image IMAGE"
  mkdir -p "$work/root/bin" "$work/root/tmp" "$work/root/www"
  cp "$box" "$work/root/bin/busybox"
  for applet in sh httpd nc wget dd cat sleep true; do ln -s busybox "$work/root/bin/$applet"; done
  tar -C "$work/root" -cf - . | podman import -q - "$name" >/dev/null || fail "podman import fails"
fi
truncate -s "${size}M" "$work/www/data" # a file without blocks: reading it costs no disk

now() { echo "${EPOCHREALTIME/[.,]/}"; } # microseconds
port=$((20000 + $$ % 20000))
address=$(ip -o route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')
setsid busybox httpd -f -p "0.0.0.0:$((port + 1))" -h "$work/www" 2>/dev/null & pids+=("$!")

result() { echo "$1|$2|$3" >>"$work/results"; } # result WHAT WHO VALUE
rate() { awk -v b="$size" -v us="$1" 'BEGIN { printf "%.3f", b * 8 * 1048576 / us / 1000 }'; } # Gbit/s
pids_of() { # pids_of NAMESPACE...: the engines of these namespaces
  local pid word path
  for pid in /proc/[0-9]*; do
    while IFS= read -r -d '' word; do
      for path in "$@"; do [[ ${word#--netns=} != "$path" ]] || echo "${pid#/proc/}"; done
    done 2>/dev/null <"$pid/cmdline" || true # ended in the meantime
  done 2>/dev/null
}

run_time() { # run_time WHAT WHO ARG...: podman run … true
  local what=$1 who=$2 begin
  shift 2
  begin=$(now)
  with "$who" run --rm --label "$name" "$@" "$(image_of)" true >/dev/null || fail "podman run $* fails with $who's pasta"
  result "$what" "$who" "$(awk -v us=$(($(now) - begin)) 'BEGIN { printf "%.1f", us / 1000 }')"
}
fetch() { # fetch WHAT WHO URL
  local speed
  speed=$(curl -sS --max-time 120 -o /dev/null -w '%{speed_download}' "$3") || { result "$1" "$2" failed; return; }
  result "$1" "$2" "$(awk -v b="$speed" 'BEGIN { printf "%.3f", b * 8 / 1e9 }')"
}
transfers() { # transfers WHO: one container with a published port
  local who=$1 id begin listener
  id=$(with "$who" run -d --label "$name" --network "$network" -p "$port:80" -v "$work/www:/www:ro" "$(image_of)" httpd -f -p 80 -h /www) || fail "podman run -p $port:80 fails with $who's pasta"
  for _ in {1..100}; do curl -s -o /dev/null --max-time 2 "http://127.0.0.1:$port/none" && break; sleep 0.05; done
  fetch 'published port, from 127.0.0.1|Gbit/s|+' "$who" "http://127.0.0.1:$port/data"
  [[ -z $address ]] || fetch "published port, from the host's address|Gbit/s|+" "$who" "http://$address:$port/data"
  begin=$(now)
  for _ in {1..100}; do curl -s -o /dev/null "http://${address:-127.0.0.1}:$port/none" || true; done
  result 'a request to a published port|ms|-' "$who" "$(awk -v us=$(($(now) - begin)) 'BEGIN { printf "%.2f", us / 100000 }')"
  begin=$(now)
  if with "$who" exec "$id" wget -q -O /dev/null "http://host.containers.internal:$((port + 1))/data" 2>/dev/null; then
    result 'outbound, download from the host|Gbit/s|+' "$who" "$(rate $(($(now) - begin)))"
  else result 'outbound, download from the host|Gbit/s|+' "$who" failed; fi
  setsid busybox nc -l -p $((port + 2)) >/dev/null & listener=$!
  pids+=("$listener")
  begin=$(now)
  if with "$who" exec "$id" sh -c "dd if=/dev/zero bs=1M count=$size 2>/dev/null | nc host.containers.internal $((port + 2))" 2>/dev/null; then
    result 'outbound, upload to the host|Gbit/s|+' "$who" "$(rate $(($(now) - begin)))"
  else result 'outbound, upload to the host|Gbit/s|+' "$who" failed; fi
  kill "$listener" 2>/dev/null || true
  wait "$listener" 2>/dev/null || true
  with "$who" rm -f -t 0 "$id" >/dev/null
}
many() { # many WHO: containers at the same time
  local who=$1 begin started=() ids paths i memory=0 engine
  begin=$(now)
  for ((i = 0; i < containers; i++)); do
    with "$who" run -d --label "$name" --network "$network" "$(image_of)" sleep 600 >"$work/id$i" & started+=("$!")
  done
  for i in "${started[@]}"; do wait "$i" || fail "one of $containers containers does not start with $who's pasta"; done
  result "$containers containers at the same time|s|-" "$who" "$(awk -v us=$(($(now) - begin)) 'BEGIN { printf "%.2f", us / 1e6 }')"
  mapfile -t ids < <(cat "$work"/id*)
  if [[ $network = pasta ]]; then
    mapfile -t paths < <(podman inspect -f '{{.NetworkSettings.SandboxKey}}' "${ids[@]}")
    sleep 3 # what a start needs is given back by then
    for engine in $(pids_of "${paths[@]}"); do
      memory=$((memory + $(awk '/^RssAnon|^RssShmem/ { kib += $2 } END { print kib + 0 }' "/proc/$engine/status")))
    done
    result 'memory of one idle engine of these|MiB|-' "$who" "$(awk -v k="$memory" -v n="$containers" 'BEGIN { printf "%.1f", k / 1024 / n }')"
  fi
  with "$who" rm -f -t 0 "${ids[@]}" >/dev/null
  rm -f "$work"/id*
}

steps=$((rounds * 7)) done_=0 began=$(now)
step() { # step TEXT COMMAND...: with progress and the time that is left
  local text=$1 left='' spent
  shift
  spent=$(($(now) - began))
  ((done_ == 0)) || left=$(awk -v s=$spent -v d=$done_ -v n=$steps 'BEGIN { t = s / d * (n - d) / 1e6; printf ", %d min %d s left", t / 60, t % 60 }')
  if [[ -t 2 ]]; then printf '\r\033[K[%d/%d%s] %s' $((done_ + 1)) "$steps" "$left" "$text" >&2
  else echo "[$((done_ + 1))/$steps$left] $text" >&2; fi
  "$@"
  done_=$((done_ + 1))
}

CONTAINERS_CONF_OVERRIDE=$work/stock.conf podman run --rm --label "$name" --network none "$(image_of)" true >/dev/null || fail "podman run fails even without a network"
for ((round = 1; round <= rounds; round++)); do
  order=(stock bucatini)
  ((round % 2)) || order=(bucatini stock)
  step "round $round: podman run without a network" run_time 'podman run, no network|ms|-' stock --network none
  for who in "${order[@]}"; do step "round $round: podman run, $who" run_time 'podman run|ms|-' "$who" --network "$network"; done
  for who in "${order[@]}"; do step "round $round: transfers, $who" transfers "$who"; done
  for who in "${order[@]}"; do step "round $round: $containers containers, $who" many "$who"; done
done
[[ ! -t 2 ]] || printf '\r\033[K' >&2

echo "Podman $(podman version --format '{{.Client.Version}}'), network $network, $(nproc) processors, Linux $(uname -r); $rounds rounds in turn, medians (least to most)"
echo "stock:    $(version stock)"
echo "bucatini: $("$bucatini/bin/bucatini" --version)"
echo
awk -F'|' '
  function sorted(list, n, out,   i, j, t) { for (i = 1; i <= n; i++) out[i] = list[i]; for (i = 2; i <= n; i++) { t = out[i]; for (j = i - 1; j > 0 && out[j] > t; j--) out[j + 1] = out[j]; out[j + 1] = t } }
  function summary(key,   n, i, raw, list) {
    n = 0; for (i = 1; i <= count[key]; i++) if (value[key, i] != "failed") raw[++n] = value[key, i] + 0
    if (count[key] == 0) { median = ""; return "" }
    if (n == 0) { median = ""; return "failed" }
    sorted(raw, n, list); median = (list[int((n + 1) / 2)] + list[int(n / 2) + 1]) / 2
    return sprintf("%.4g (%.4g to %.4g)", median, list[1], list[n])
  }
  { what = $1; if (!(what in unit)) { order[++rows] = what; unit[what] = $2; better[what] = $3 } key = what SUBSEP $4; value[key, ++count[key]] = $5 }
  END {
    printf "| %-40s | %-6s | %-26s | %-26s | %-16s |\n|---|---|---|---|---|\n", "", "unit", "stock", "bucatini", "bucatini is"
    for (r = 1; r <= rows; r++) {
      what = order[r]; s = summary(what SUBSEP "stock"); a = median; b = summary(what SUBSEP "bucatini"); c = median; verdict = ""
      if (a != "" && c != "" && a > 0 && c > 0) { ratio = better[what] == "+" ? c / a : a / c; verdict = ratio >= 1 ? sprintf("%.2f times better", ratio) : sprintf("%.2f times worse", 1 / ratio) }
      printf "| %-40s | %-6s | %-26s | %-26s | %-16s |\n", what, unit[what], s, b, verdict
    }
  }' "$work/results"
