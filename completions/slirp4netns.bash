# bash completion for slirp4netns; made from the option table by scripts/cli-docs.ts.
# shellcheck shell=bash disable=SC2207
_slirp4netns() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  # In bash "=" is a word of its own.
  if [ "$cur" = = ]; then cur=; elif [ "$prev" = = ]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
  case $prev in
    --exit-fd | -e | --ready-fd | -r | --mtu | -m | --allow | --deny | --rate | --loss | --cidr | --macaddress)
      return
      ;;
    --api-socket | -a)
      COMPREPLY=($(compgen -f -- "$cur") $(compgen -W 'auto' -- "$cur"))
      return
      ;;
    --log-format)
      COMPREPLY=($(compgen -W 'text logfmt json' -- "$cur"))
      return
      ;;
    --metrics | --policy | --userns-path)
      COMPREPLY=($(compgen -f -- "$cur"))
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
    --netns-type)
      COMPREPLY=($(compgen -W 'pid path tapfd' -- "$cur"))
      return
      ;;
    --outbound-addr | --outbound-addr6)
      COMPREPLY=($(compgen -W "$(cd /sys/class/net && echo *)" -- "$cur"))
      return
      ;;
    --target-type)
      COMPREPLY=($(compgen -W 'netns bess' -- "$cur"))
      return
      ;;
  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W '--configure --exit-fd --ready-fd --mtu --enable-ipv6 --api-socket --log-format --metrics --multicast --nat64 --allow --deny --policy --rate --delay --loss --impair --cidr --disable-host-loopback --netns-type --userns-path --enable-sandbox --enable-seccomp --outbound-addr --outbound-addr6 --disable-dns --macaddress --target-type --help --version' -- "$cur")) ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}
complete -o filenames -F _slirp4netns slirp4netns
