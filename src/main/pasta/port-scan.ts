/**
 * Which ports something listens on, in a network namespace: /proc/net/{tcp,tcp6,udp,udp6}, read again and
 * again through descriptors that a thread of that namespace opened. Only port numbers count: a listener on
 * 127.0.0.1 is one.
 *
 *   sl  local_address rem_address   st ...                                                (man 5 proc)
 *    0: 0100007F:1F90 00000000:0000 0A ...     port in hex behind the last colon; state 0A: TCP_LISTEN, 07: UDP, unconnected
 */
import { openSync, readSync } from 'node:fs';
import type { ListeningPorts, Protocol } from './forward-rules.ts';

/** <net/tcp_states.h>: TCP_LISTEN; an unconnected UDP socket has TCP_CLOSE. */
const LISTENING = { tcp: '0A', udp: '07' } as const;
const TABLES = ['tcp', 'tcp6', 'udp', 'udp6'] as const;

/** Descriptors of the four tables; -1: the kernel has none (no IPv6). */
export type TableFds = Readonly<Record<(typeof TABLES)[number], number>>;

/** To be called by a thread that is in the namespace. */
export function openTables(): TableFds {
  const open = (name: string): number => {
    try {
      return openSync(`/proc/thread-self/net/${name}`, 'r');
    } catch {
      return -1;
    }
  };
  return { tcp: open('tcp'), tcp6: open('tcp6'), udp: open('udp'), udp6: open('udp6') };
}

/** Local ports in a state, added to `ports`. */
function addListening(ports: Set<number>, table: string, state: string): void {
  for (const line of table.split('\n')) {
    const [, local, , st] = /^\s*\d+: \S+:([0-9A-F]{4}) (\S+) ([0-9A-F]{2}) /.exec(line) ?? [];
    if (st === state && local !== undefined) ports.add(Number.parseInt(local, 16));
  }
}

const buffer = Buffer.alloc(65536);
/**
 * The kernel stops before the table's end only where the next line does not fit into its buffer of at least a
 * page, 4096 bytes, and no line is as long as half of that. A shorter piece is the last one. To ask again
 * would have the kernel go through all its connections again, which takes it half a millisecond on an idle
 * machine, for four tables every second.
 */
const LAST_PIECE_BYTES = 2048;

function readTable(fd: number): string {
  if (fd < 0) return '';
  let text = '';
  try {
    // The kernel gives whole lines; a line that is not whole at the end of one read comes with the next.
    for (let at = 0; ; ) {
      const n = readSync(fd, buffer, 0, buffer.length, at);
      text += buffer.toString('latin1', 0, n);
      if (n < LAST_PIECE_BYTES) return text;
      at += n;
    }
  } catch {
    return text; // the namespace is on its way out
  }
}

/** Ports that something listens on now. */
export function scan(fds: TableFds): { readonly tcp: Set<number>; readonly udp: Set<number> } {
  const tcp = new Set<number>();
  addListening(tcp, readTable(fds.tcp), LISTENING.tcp);
  addListening(tcp, readTable(fds.tcp6), LISTENING.tcp);
  const udp = new Set<number>();
  addListening(udp, readTable(fds.udp), LISTENING.udp);
  addListening(udp, readTable(fds.udp6), LISTENING.udp);
  return { tcp, udp };
}

/**
 * What a scan of one side means for listeners on the other.
 * @param ours  ports that we listen on there ourselves: left out, or the two directions would feed each other
 */
export function foreignPorts(
  found: Readonly<Record<Protocol, ReadonlySet<number>>>,
  ours: Readonly<Record<Protocol, ReadonlySet<number>>>,
): ListeningPorts {
  const foreign = (proto: Protocol): number[] => [...found[proto]].filter((port) => !ours[proto].has(port));
  const ascending = (ports: Iterable<number>): number[] => [...ports].sort((a, b) => a - b);
  const tcp = foreign('tcp');
  // Services often speak both.
  return { tcp: ascending(tcp), udp: ascending(new Set([...foreign('udp'), ...tcp])) };
}
