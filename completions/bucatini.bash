# bash completion for bucatini; made from the option table by scripts/cli-docs.ts.
# shellcheck shell=bash disable=SC2207
_bucatini() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  # In bash "=" is a word of its own.
  if [ "$cur" = = ]; then cur=; elif [ "$prev" = = ]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W 'run attach doctor selftest policy switch-over switch-back bug-report help version --help --version' -- "$cur"))
    return
  fi
  case ${COMP_WORDS[1]} in
    run)
      case $prev in
        --address | --gateway | --interface-name | --mtu | --publish | -p | --allow | --deny | --rate | --loss | --pool-size)
          return
          ;;
        --dns | --host-loopback)
          COMPREPLY=($(compgen -W 'none' -- "$cur"))
          return
          ;;
        --api-socket | --policy | --pcap)
          COMPREPLY=($(compgen -f -- "$cur"))
          return
          ;;
        --multicast)
          COMPREPLY=($(compgen -W 'all' -- "$cur"))
          return
          ;;
        --outbound-interface)
          COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$cur"))
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
        --log-level)
          COMPREPLY=($(compgen -W 'error warning info debug' -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--address --gateway --dns --interface-name --mtu --ipv4-only --ipv6-only --no-configure --publish --api-socket --splice --host-loopback --multicast --outbound-interface --allow --deny --policy --rate --delay --loss --impair --threads --pool-size --pcap --stats --log-level --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -c -- "$cur") $(compgen -f -- "$cur")) ;;
      esac
      ;;
    attach)
      case $prev in
        --address | --gateway | --interface-name | --mtu | --publish | -p | --allow | --deny | --rate | --loss | --pool-size)
          return
          ;;
        --dns | --host-loopback)
          COMPREPLY=($(compgen -W 'none' -- "$cur"))
          return
          ;;
        --api-socket | --policy | --pcap)
          COMPREPLY=($(compgen -f -- "$cur"))
          return
          ;;
        --multicast)
          COMPREPLY=($(compgen -W 'all' -- "$cur"))
          return
          ;;
        --outbound-interface)
          COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$cur"))
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
        --log-level)
          COMPREPLY=($(compgen -W 'error warning info debug' -- "$cur"))
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--address --gateway --dns --interface-name --mtu --ipv4-only --ipv6-only --no-configure --publish --api-socket --splice --host-loopback --multicast --outbound-interface --allow --deny --policy --rate --delay --loss --impair --threads --pool-size --pcap --stats --log-level --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    doctor)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--help --version' -- "$cur")) ;;
      esac
      ;;
    selftest)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--help --version' -- "$cur")) ;;
      esac
      ;;
    policy)
      case $prev in
        --protocol)
          COMPREPLY=($(compgen -W 'tcp udp icmp dns' -- "$cur"))
          return
          ;;
        --name)
          return
          ;;
      esac
      case $cur in
        -*) COMPREPLY=($(compgen -W '--protocol --name --help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -W 'test' -- "$cur") $(compgen -f -- "$cur")) ;;
      esac
      ;;
    switch-over)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--help --version' -- "$cur")) ;;
      esac
      ;;
    switch-back)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--help --version' -- "$cur")) ;;
      esac
      ;;
    bug-report)
      case $cur in
        -*) COMPREPLY=($(compgen -W '--help --version' -- "$cur")) ;;
        *) COMPREPLY=($(compgen -f -- "$cur")) ;;
      esac
      ;;
    help) COMPREPLY=($(compgen -W 'run attach doctor selftest policy switch-over switch-back bug-report' -- "$cur")) ;;
  esac
}
complete -o filenames -F _bucatini bucatini
