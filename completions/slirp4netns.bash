# bash completion for slirp4netns; made from src/main/slirp4netns/options.ts by scripts/cli-docs.ts.
_slirp4netns() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  case $prev in
    -a|--api-socket|--userns-path)
      COMPREPLY=($(compgen -f -- "$cur"))
      return
      ;;
    --netns-type)
      COMPREPLY=($(compgen -W 'pid path tapfd' -- "$cur"))
      return
      ;;
  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W '--configure --exit-fd --ready-fd --mtu --enable-ipv6 --api-socket --multicast --nat64 --allow --deny --policy --rate --delay --loss --impair --cidr --disable-host-loopback --netns-type --userns-path --enable-sandbox --enable-seccomp --outbound-addr --outbound-addr6 --disable-dns --macaddress --target-type --help --version' -- "$cur")) ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}
complete -F _slirp4netns slirp4netns
