# bash completion for bucatini; made from the option table by scripts/cli-docs.ts.
# shellcheck shell=bash disable=SC2207
_bucatini() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  # In bash "=" is a word of its own.
  if [ "$cur" = = ]; then cur=; elif [ "$prev" = = ]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W 'run attach doctor selftest top flows ports stats policy metrics switch-agent switch-over switch-back bench bug-report help version --help --version' -- "$cur"))
    return
  fi
  case ${COMP_WORDS[1]} in
    run)
      case $prev in
        --address | --gateway | --interface-name | --mtu | --publish | -p | --no-switch | --allow | --deny | --rate | --loss | --pool-size | --pcap-ring | --pcap-snaplen | --pcap-filter | --stats)
          return
          ;;
        --dns)
          COMPREPLY=($(compgen -W 'none' -- "$cur"))
          return
          ;;
        --api-socket)
          COMPREPLY=($(compgen -f -- "$cur") $(compgen -W 'auto' -- "$cur"))
          return
          ;;
        --host-loopback)
          COMPREPLY=($(compgen -W 'gateway none' -- "$cur"))
          return
          ;;
        --multicast)
          COMPREPLY=($(compgen -W 'all' -- "$cur"))
          return
          ;;
        --nat64)
          COMPREPLY=($(compgen -W 'auto off' -- "$cur"))
          return
          ;;
        --outbound-interface)
          COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$cur"))
          return
          ;;
        --policy | --pcap | --stats-json | --metrics)
          COMPREPLY=($(compgen -f -- "$cur"))
          return
          ;;
        --delay)
          COMPREPLY=($(compgen -W 'normal' -- "$cur"))
          return
          ;;
        --impair)
          COMPREPLY=($(compgen -f -- "$cur") $(compgen -W '2g 3g 4g lte 5g dsl cable fibre starlink geo lossy-wifi lan none' -- "$cur"))
          return
          ;;
        --threads)
          COMPREPLY=($(compgen -W 'auto fused pipeline lanes=' -- "$cur"))
          [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
          return
          ;;
        --pcap-rotate)
          COMPREPLY=($(compgen -W 'size=' -- "$cur"))
          [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
          return
          ;;
        --log-level)
          COMPREPLY=($(compgen -W 'error warning info debug' -- "$cur"))
          return
          ;;
        --log-format)
          COMPREPLY=($(compgen -W 'text logfmt json' -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--address --gateway --dns --interface-name --mtu --ipv4-only --ipv6-only --no-configure --publish --api-socket --splice --switch-sockets --no-switch --host-loopback --multicast --nat64 --outbound-interface --allow --deny --policy --rate --delay --loss --impair --threads --pool-size --pcap --pcap-rotate --pcap-ring --pcap-snaplen --pcap-filter --stats --stats-json --metrics --log-level --log-format --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -c -- "$cur") $(compgen -f -- "$cur")) ;;
      esac
      ;;
    attach)
      case $prev in
        --address | --gateway | --interface-name | --mtu | --publish | -p | --allow | --deny | --rate | --loss | --pool-size | --pcap-ring | --pcap-snaplen | --pcap-filter | --stats | --ready-fd | --exit-fd)
          return
          ;;
        --dns)
          COMPREPLY=($(compgen -W 'none' -- "$cur"))
          return
          ;;
        --api-socket)
          COMPREPLY=($(compgen -f -- "$cur") $(compgen -W 'auto' -- "$cur"))
          return
          ;;
        --host-loopback)
          COMPREPLY=($(compgen -W 'gateway none' -- "$cur"))
          return
          ;;
        --multicast)
          COMPREPLY=($(compgen -W 'all' -- "$cur"))
          return
          ;;
        --nat64)
          COMPREPLY=($(compgen -W 'auto off' -- "$cur"))
          return
          ;;
        --outbound-interface)
          COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$cur"))
          return
          ;;
        --policy | --pcap | --stats-json | --metrics)
          COMPREPLY=($(compgen -f -- "$cur"))
          return
          ;;
        --delay)
          COMPREPLY=($(compgen -W 'normal' -- "$cur"))
          return
          ;;
        --impair)
          COMPREPLY=($(compgen -f -- "$cur") $(compgen -W '2g 3g 4g lte 5g dsl cable fibre starlink geo lossy-wifi lan none' -- "$cur"))
          return
          ;;
        --threads)
          COMPREPLY=($(compgen -W 'auto fused pipeline lanes=' -- "$cur"))
          [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
          return
          ;;
        --pcap-rotate)
          COMPREPLY=($(compgen -W 'size=' -- "$cur"))
          [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
          return
          ;;
        --log-level)
          COMPREPLY=($(compgen -W 'error warning info debug' -- "$cur"))
          return
          ;;
        --log-format)
          COMPREPLY=($(compgen -W 'text logfmt json' -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--address --gateway --dns --interface-name --mtu --ipv4-only --ipv6-only --no-configure --publish --api-socket --splice --host-loopback --multicast --nat64 --outbound-interface --allow --deny --policy --rate --delay --loss --impair --threads --pool-size --pcap --pcap-rotate --pcap-ring --pcap-snaplen --pcap-filter --stats --stats-json --metrics --log-level --ready-fd --exit-fd --log-format --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    doctor)
      case $prev in
        --container)
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--container --help --version' -- "$cur")) ;;
      esac
      ;;
    selftest)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--help --version' -- "$cur")) ;;
      esac
      ;;
    top)
      case $prev in
        --interval | --filter)
          return
          ;;
        --sort)
          COMPREPLY=($(compgen -W 'rate bytes from-guest to-guest rtt retransmits age remote state' -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--json --once --interval --sort --filter --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    flows)
      case $prev in
        --watch | --filter)
          return
          ;;
        --sort)
          COMPREPLY=($(compgen -W 'rate bytes from-guest to-guest rtt retransmits age remote state' -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--json --watch --sort --filter --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    ports)
      case $prev in
        --watch)
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--json --watch --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    stats)
      case $prev in
        --watch)
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--json --watch --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    policy)
      case $prev in
        --nat64)
          COMPREPLY=($(compgen -W 'auto off' -- "$cur"))
          return
          ;;
        --protocol)
          COMPREPLY=($(compgen -W 'tcp udp icmp dns' -- "$cur"))
          return
          ;;
        --name | --watch)
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--nat64 --protocol --name --json --watch --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -W 'test' -- "$cur") $(compgen -f -- "$cur")) ;;
      esac
      ;;
    metrics)
      case $prev in
        --listen)
          COMPREPLY=($(compgen -f -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--all --listen --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    switch-agent)
      case $prev in
        --no-switch | --print-profile)
          return
          ;;
        --socket)
          COMPREPLY=($(compgen -f -- "$cur"))
          return
          ;;
        --interface)
          COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$cur"))
          return
          ;;
        --log-level)
          COMPREPLY=($(compgen -W 'error warning info debug' -- "$cur"))
          return
          ;;
        --log-format)
          COMPREPLY=($(compgen -W 'text logfmt json' -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--no-switch --socket --interface --print-profile --log-level --log-format --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    switch-over)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--switch-sockets --help --version' -- "$cur")) ;;
      esac
      ;;
    switch-back)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--help --version' -- "$cur")) ;;
      esac
      ;;
    bench)
      case $prev in
        --only | --soak | --compare | --require | --peers | --mtu | --rounds | --seconds | --wan | --tcp-wmem | --idle)
          return
          ;;
        --json | --html | --csv)
          COMPREPLY=($(compgen -f -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--quick --full --only --scaling --plan --soak --compare --check --require --peers --mtu --rounds --seconds --wan --tcp-wmem --idle --json --html --csv --help --version' -- "$cur")) ;;
      esac
      ;;
    bug-report)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    help) COMPREPLY=($(compgen -W 'run attach doctor selftest top flows ports stats policy metrics switch-agent switch-over switch-back bench bug-report' -- "$cur")) ;;
  esac
}
complete -o filenames -F _bucatini bucatini
