# bash completion for pasta; made from src/main/pasta/options.ts by scripts/cli-docs.ts.
_pasta() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  case $prev in
    -l|--log-file|-c|--conf-path|--api-socket|--policy|--impair|-p|--pcap|-P|--pid|--userns|--netns)
      COMPREPLY=($(compgen -f -- "$cur"))
      return
      ;;
    -i|--interface|--outbound-if4|--outbound-if6)
      COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$cur"))
      return
      ;;
    --stats|--log-size|--runas|--multicast|--nat64|--allow|--deny|--rate|--delay|--loss|-m|--mtu|-a|--address|-n|--netmask|-M|--mac-addr|-g|--gateway|-o|--outbound|-D|--dns|--dns-forward|--dns-host|-S|--search|-H|--hostname|--fqdn|--map-host-loopback|--map-guest-addr|-t|--tcp-ports|-u|--udp-ports|-T|--tcp-ns|-U|--udp-ns|-I|--ns-ifname|--ns-mac-addr|-F|--fd)
      return
      ;;
  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W '--debug --trace --stats --quiet --foreground --stderr --log-file --log-size --runas --conf-path --api-socket --multicast --nat64 --allow --deny --policy --rate --delay --loss --impair --help --version --pcap --pid --mtu --address --netmask --mac-addr --gateway --interface --outbound --outbound-if4 --outbound-if6 --dns --dns-forward --dns-host --search --dhcp-dns --dhcp-search --hostname --fqdn --no-tcp --no-udp --no-icmp --no-dhcp --no-dhcpv6 --no-ndp --no-ra --freebind --map-host-loopback --no-map-gw --map-guest-addr --ipv4-only --ipv6-only --tcp-ports --udp-ports --tcp-ns --udp-ns --ns-ifname --userns --netns --netns-only --no-netns-quit --no-pidns --config-net --no-copy-routes --no-copy-addrs --ns-mac-addr --host-lo-to-ns-lo --no-splice --splice-only --fd --chroot-fallback' -- "$cur")) ;;
    *) COMPREPLY=($(compgen -c -- "$cur")) ;;
  esac
}
complete -F _pasta pasta
