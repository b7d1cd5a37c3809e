# fish completion for pesto; made from the option table by scripts/cli-docs.ts.
complete -c pesto -f
complete -c pesto -s A -l add -d 'Add the ports of the options that follow'
complete -c pesto -s D -l delete -d 'Remove the rules of the options that follow'
complete -c pesto -s C -l clear -x -d 'Remove all rules of this table'
complete -c pesto -s t -l tcp-ports -x -d 'TCP ports of the host to forward into the namespace'
complete -c pesto -s u -l udp-ports -x -d 'The same for UDP'
complete -c pesto -s T -l tcp-ns -x -d 'TCP ports on the namespace\'s loopback to forward to the host\'s loopback'
complete -c pesto -s U -l udp-ns -x -d 'The same for UDP'
complete -c pesto -s s -l show -d 'Print the rules before and after the changes'
complete -c pesto -s d -l debug -d 'Print what the server says of itself'
complete -c pesto -s h -l help -d 'Print this text and exit'
complete -c pesto -l version -d 'Print the version and exit'
complete -c pesto -F
