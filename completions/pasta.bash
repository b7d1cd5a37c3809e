# bash completion for pasta; made from the option table by scripts/cli-docs.ts.
# shellcheck shell=bash disable=SC2207
_pasta() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  # In bash "=" is a word of its own.
  if [ "$cur" = = ]; then cur=; elif [ "$prev" = = ]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
  case $prev in
    --stats | --log-size | --runas | --no-switch | --allow | --deny | --rate | --loss | --pcap-ring | --pcap-snaplen | --pcap-filter | --mtu | -m | --address | -a | --netmask | -n | --mac-addr | -M | --gateway | -g | --outbound | -o | --dns-forward | --dns-host | --hostname | -H | --fqdn | --tcp-ports | -t | --udp-ports | -u | --tcp-ns | -T | --udp-ns | -U | --ns-ifname | -I | --ns-mac-addr | --fd | -F)
      return
      ;;
    --log-file | -l | --conf-path | -c | --metrics | --policy | --pcap | -p | --pid | -P | --userns | --netns)
      COMPREPLY=($(compgen -f -- "$cur"))
      return
      ;;
    --api-socket)
      COMPREPLY=($(compgen -f -- "$cur") $(compgen -W 'auto' -- "$cur"))
      return
      ;;
    --log-format)
      COMPREPLY=($(compgen -W 'text logfmt json' -- "$cur"))
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
    --delay)
      COMPREPLY=($(compgen -W 'normal' -- "$cur"))
      return
      ;;
    --impair)
      COMPREPLY=($(compgen -f -- "$cur") $(compgen -W '2g 3g 4g lte 5g dsl cable fibre starlink geo lossy-wifi lan none' -- "$cur"))
      return
      ;;
    --pcap-rotate)
      COMPREPLY=($(compgen -W 'size=' -- "$cur"))
      [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace 2>/dev/null
      return
      ;;
    --interface | -i | --outbound-if4 | --outbound-if6)
      COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$cur"))
      return
      ;;
    --dns | -D | --search | -S | --map-host-loopback | --map-guest-addr)
      COMPREPLY=($(compgen -W 'none' -- "$cur"))
      return
      ;;
  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W '--debug --trace --stats --quiet --foreground --stderr --log-file --log-size --runas --conf-path --api-socket --log-format --metrics --multicast --nat64 --switch-sockets --no-switch --allow --deny --policy --rate --delay --loss --impair --help --version --pcap --pcap-rotate --pcap-ring --pcap-snaplen --pcap-filter --pid --mtu --address --netmask --mac-addr --gateway --interface --outbound --outbound-if4 --outbound-if6 --dns --dns-forward --dns-host --search --dhcp-dns --dhcp-search --hostname --fqdn --no-tcp --no-udp --no-icmp --no-dhcp --no-dhcpv6 --no-ndp --no-ra --freebind --map-host-loopback --no-map-gw --map-guest-addr --ipv4-only --ipv6-only --tcp-ports --udp-ports --tcp-ns --udp-ns --ns-ifname --userns --netns --netns-only --no-netns-quit --no-pidns --config-net --no-copy-routes --no-copy-addrs --ns-mac-addr --host-lo-to-ns-lo --no-splice --splice-only --fd --chroot-fallback' -- "$cur")) ;;
    *) COMPREPLY=($(compgen -c -- "$cur") $(compgen -f -- "$cur")) ;;
  esac
}
complete -o filenames -F _pasta pasta
