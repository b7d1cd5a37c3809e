# bash completion for pesto; made from the option table by scripts/cli-docs.ts.
# shellcheck shell=bash disable=SC2207
_pesto() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  # In bash "=" is a word of its own.
  if [ "$cur" = = ]; then cur=; elif [ "$prev" = = ]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
  case $prev in
    --clear | -C | --tcp-ports | -t | --udp-ports | -u | --tcp-ns | -T | --udp-ns | -U)
      return
      ;;
  esac
  case $cur in
    -*) COMPREPLY=($(compgen -W '--add --delete --clear --tcp-ports --udp-ports --tcp-ns --udp-ns --show --debug --help --version' -- "$cur")) ;;
    *) COMPREPLY=($(compgen -f -- "$cur")) ;;
  esac
}
complete -o filenames -F _pesto pesto
