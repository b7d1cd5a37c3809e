/**
 * The ports that sockets of a network namespace listen on, from /proc/net/{tcp,tcp6,udp,udp6}. The files are
 * read repeatedly, through descriptors that a thread in that namespace opened. Addresses are ignored:
 * a listener on 127.0.0.1 counts like any other.
 *
 *   sl  local_address rem_address   st ...     proc_pid_net(5)
 *    0: 0100007F:1F90 00000000:0000 0A ...     port in hex after the last colon;
 *                                              state 0A: TCP_LISTEN, 07: unconnected UDP
 */
import { openSync, readSync } from 'node:fs';
import type { ListeningPorts, Protocol } from './forward-rules.ts';

/** <net/tcp_states.h>: TCP_LISTEN; an unconnected UDP socket has TCP_CLOSE. */
const LISTENING = { tcp: '0A', udp: '07' } as const;
const TABLES = ['tcp', 'tcp6', 'udp', 'udp6'] as const;

/** Descriptors of the four tables; -1: the kernel has no such table (no IPv6). */
export type TableFds = Readonly<Record<(typeof TABLES)[number], number>>;

/** Open the tables of the calling thread's network namespace. */
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

/** Add the local ports of all sockets in a state to `ports`. @param table  text of a /proc/net file */
function addListening(ports: Set<number>, table: string, state: string): void {
  for (const line of table.split('\n')) {
    const [, local, , st] = /^\s*\d+: \S+:([0-9A-F]{4}) (\S+) ([0-9A-F]{2}) /.exec(line) ?? [];
    if (st === state && local !== undefined) ports.add(Number.parseInt(local, 16));
  }
}

const buffer = Buffer.alloc(65536);
/**
 * A shorter read is the last one of a table. The kernel ends a read before the end of the table only where
 * the next line does not fit into its buffer, which has at least a page of 4096 bytes, and no line is half
 * as long. One more read, to see the end of file, would have the kernel walk all its sockets again: half a
 * millisecond on an idle machine, for each of four tables every second.
 */
const LAST_READ_BYTES = 2048;

/** @returns the text of a table; what could be read, if the namespace ends meanwhile */
function readTable(fd: number): string {
  if (fd < 0) return '';
  let text = '';
  try {
    // A read may end within a line: the next one, at the following offset, continues it.
    for (let at = 0; ; ) {
      const n = readSync(fd, buffer, 0, buffer.length, at);
      text += buffer.toString('latin1', 0, n);
      if (n < LAST_READ_BYTES) return text;
      at += n;
    }
  } catch {
    return text; // the namespace has gone
  }
}

/** @returns the ports that sockets listen on now */
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
 * The ports that listeners of one side forward to the other, from a scan of the other.
 * @param ours ports that we listen on there ourselves: left out, or the two directions would forward to each
 *   other
 */
export function foreignPorts(
  found: Readonly<Record<Protocol, ReadonlySet<number>>>,
  ours: Readonly<Record<Protocol, ReadonlySet<number>>>,
): ListeningPorts {
  const foreign = (proto: Protocol): number[] => [...found[proto]].filter((port) => !ours[proto].has(port));
  const ascending = (ports: Iterable<number>): number[] => [...ports].sort((a, b) => a - b);
  const tcp = foreign('tcp');
  // As passt's pasta: a port that is open for TCP is forwarded for UDP too, because services often use both.
  return { tcp: ascending(tcp), udp: ascending(new Set([...foreign('udp'), ...tcp])) };
}
