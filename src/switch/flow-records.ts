/**
 * The connections that the supervisor has switched. It has no copy of their sockets, so nothing informs it of
 * their end: it keeps a record of each, and asks the kernel (sys/sock-diag.ts) which of them there still are
 * and how much they have carried, but only when somebody asks for them or the table grows. So a supervisor
 * that nothing connects through does not wake up.
 *
 * The table is bounded: when it has more than `sweepAbove` records, each `sweepEvery` new ones make it look
 * twice as many up, in turn, and drop those whose sockets are gone. So short connections leave no more than
 * `sweepAbove` records behind. Beyond `maxRecords` living ones, the oldest are forgotten.
 */
import { addressRead, addressSetIpv4, addressText } from '../proto/address.ts';
import { readU32 } from '../proto/be.ts';
import {
  TCP_CLOSE_WAIT,
  TCP_CLOSING,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT1,
  TCP_FIN_WAIT2,
  TCP_LAST_ACK,
  TCP_SYN_RECV,
  TCP_SYN_SENT,
} from '../sys/constants.ts';
import { SysError } from '../sys/error.ts';
import {
  cookieOf,
  endsOf,
  type SockDiag,
  type SocketKey,
  socketKey,
  type TcpSocket,
} from '../sys/sock-diag.ts';

/** A switched connection. */
export interface SwitchedFlow {
  /** Rises with the time at which the connection was opened. */
  readonly id: number;
  readonly protocol: 'tcp';
  /** As it was given to add(). */
  readonly container: string;
  /** Of RFC 9293, as `list_flows` writes them: connecting, established, close-wait, fin-wait. */
  readonly state: string;
  /** Address and port of the host. */
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  /** Interface of the host that the socket is bound to. */
  readonly device: string;
  readonly ageMs: number;
  /** Payload that the peer has acknowledged. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly rttUs: number;
  /** Segments that the kernel has sent again. */
  readonly retransmits: number;
  /** Congestion window in segments. */
  readonly congestionWindow: number;
}

export interface SwitchedFlows {
  /** In the order of their ids. */
  readonly flows: readonly SwitchedFlow[];
  /** There may be flows after the last one of `flows`. */
  readonly more: boolean;
}

interface FlowRecord extends SocketKey {
  readonly container: string;
  readonly device: string;
  /** performance.now() */
  readonly startMs: number;
}

/** What add() is told about a connection. */
export interface SwitchedSocket {
  /** The host's socket, after its connect(). It is not kept. */
  readonly fd: number;
  /** The sockaddr of its destination. */
  readonly peer: Uint8Array;
  /** Name of the interface that it is bound to. */
  readonly device: string;
  readonly container: string;
}

/** Bounds of the table: see the head of this file. */
interface Limits {
  readonly sweepAbove: number;
  readonly sweepEvery: number;
  readonly maxRecords: number;
}

const LIMITS: Limits = { sweepAbove: 1024, sweepEvery: 64, maxRecords: 65_536 };
/** Most records that active() looks up: it takes some milliseconds. */
const ACTIVE_LOOKUPS = 4096;
/** Records that list() looks up at a time. */
const LIST_LOOKUPS = 256;

/** Names of the states of a socket that is still a connection. */
const STATE_NAMES = new Map<number, string>([
  [TCP_SYN_SENT, 'connecting'],
  [TCP_SYN_RECV, 'connecting'],
  [TCP_ESTABLISHED, 'established'],
  [TCP_FIN_WAIT1, 'fin-wait'],
  [TCP_FIN_WAIT2, 'fin-wait'],
  [TCP_CLOSING, 'fin-wait'],
  [TCP_CLOSE_WAIT, 'close-wait'],
  [TCP_LAST_ACK, 'close-wait'],
]);

/** A socket that is closed and has sent all that it had only waits for the peer's FIN, up to a minute. */
const isLive = ({ state, inode }: TcpSocket): boolean =>
  STATE_NAMES.has(state) && !(inode === 0 && state === TCP_FIN_WAIT2);

export class FlowRecords {
  readonly #diag: SockDiag | undefined;
  readonly #limits: Limits;
  /** By id, in the order of ids. */
  readonly #records = new Map<number, FlowRecord>();
  #lastId = 0;
  /** Id of the record after which the next sweep begins. */
  #sweptId = 0;
  #addedSinceSweep = 0;

  /**
   * @param diag  opened in the network namespace of the sockets; undefined: the kernel has none, and nothing is
   *   recorded
   */
  constructor(diag: SockDiag | undefined, limits: Partial<Limits> = {}) {
    this.#diag = diag;
    this.#limits = { ...LIMITS, ...limits };
  }

  /** Number of records, those of ended connections included. */
  get size(): number {
    return this.#records.size;
  }

  /** Record a connection. One whose socket has no address any more is left out. */
  add({ fd, peer, ...about }: SwitchedSocket): void {
    if (this.#diag === undefined) return;
    const key = socketKey(fd, peer);
    if (typeof key === 'number') return;
    this.#records.set(++this.#lastId, { ...key, ...about, startMs: performance.now() });
    const { sweepAbove, sweepEvery, maxRecords } = this.#limits;
    if (this.#records.size <= sweepAbove || ++this.#addedSinceSweep < sweepEvery) return;
    this.#addedSinceSweep = 0;
    this.#sweep(2 * sweepEvery);
    for (const id of this.#records.keys()) {
      if (this.#records.size <= maxRecords) break;
      this.#records.delete(id);
    }
  }

  /**
   * Connections that there are now.
   * @param after  id of the last one of the previous list; 0: begin with the first
   * @param limit  most flows of the list
   */
  list(after = 0, limit = 1000): SwitchedFlows {
    const flows: SwitchedFlow[] = [];
    const now = performance.now();
    let at = after;
    while (flows.length < limit) {
      const ids = this.#idsAfter(at, Math.min(LIST_LOOKUPS, limit - flows.length));
      if (ids.length === 0) return { flows, more: false };
      at = ids.at(-1)!;
      const found = this.#lookUp(ids, true);
      for (const [i, socket] of found) flows.push(flowOf(ids[i]!, this.#records.get(ids[i]!)!, socket, now));
    }
    return { flows, more: at < this.#lastId };
  }

  /**
   * End connections. Those that no process has open any more end by themselves.
   * @param end  gets the cookies by inode, and returns the inodes of the sockets that it has ended
   * @returns how many could not be ended
   */
  end(ids: readonly number[], end: (cookies: ReadonlyMap<number, bigint>) => ReadonlySet<number>): number {
    const known = ids.filter((id) => this.#records.has(id));
    const cookies = new Map<number, bigint>();
    for (const [i, { inode }] of this.#lookUp(known, false))
      if (inode !== 0) cookies.set(inode, cookieOf(this.#records.get(known[i]!)!));
    if (cookies.size === 0) return 0;
    const ended = end(cookies);
    if (ended.size === cookies.size) return 0;
    // A program that loses one connection may close its others before they are found: these are not left.
    const open = this.#lookUp(
      known.filter((id) => this.#records.has(id)),
      false,
    );
    return open.filter(([, { inode }]) => cookies.has(inode) && !ended.has(inode)).length;
  }

  /**
   * How many connections there are. Of a table with very many, only a part is looked up: some that have ended
   * are counted then.
   */
  active(): number {
    this.#sweep(ACTIVE_LOOKUPS);
    return this.#records.size;
  }

  /** Look `count` records up, those that were looked up last the last, and drop those that have ended. */
  #sweep(count: number): void {
    const ids = this.#idsAfter(this.#sweptId, count);
    // Through the end of the table, on from its beginning.
    if (ids.length < count) {
      const first = this.#idsAfter(0, count - ids.length).filter((id) => id <= this.#sweptId);
      ids.push(...first);
    }
    this.#sweptId = ids.at(-1) ?? 0;
    this.#lookUp(ids, false);
  }

  #idsAfter(after: number, count: number): number[] {
    const ids: number[] = [];
    for (const id of this.#records.keys()) {
      if (ids.length === count) break;
      if (id > after) ids.push(id);
    }
    return ids;
  }

  /**
   * Ask the kernel about records, and drop those that have ended.
   * @returns by index in `ids`, in their order, the sockets of the others
   */
  #lookUp(ids: readonly number[], wantsInfo: boolean): readonly (readonly [number, TcpSocket])[] {
    const found: [number, TcpSocket][] = [];
    const keys = ids.map((id) => this.#records.get(id)!);
    try {
      this.#diag?.ask(keys, wantsInfo, (i, socket) => {
        if (socket !== undefined && isLive(socket)) found.push([i, socket]);
        else this.#records.delete(ids[i]!);
      });
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      // Memory is short: the next one who asks gets more.
    }
    return found.sort(([a], [b]) => a - b);
  }
}

function flowOf(id: number, record: FlowRecord, { state, info }: TcpSocket, nowMs: number): SwitchedFlow {
  const { local, localPort, remote, remotePort } = endsOf(record);
  return {
    id,
    protocol: 'tcp',
    container: record.container,
    state: STATE_NAMES.get(state)!,
    source: textOf(local),
    sourcePort: localPort,
    destination: textOf(remote),
    destinationPort: remotePort,
    device: record.device,
    ageMs: Math.round(nowMs - record.startMs),
    bytesSent: info?.bytesSent ?? 0,
    bytesReceived: info?.bytesReceived ?? 0,
    rttUs: info?.rttUs ?? 0,
    retransmits: info?.retransmits ?? 0,
    congestionWindow: info?.congestionWindow ?? 0,
  };
}

const words = new Uint32Array(4);

/** An address in network order, 4 or 16 bytes, as text; an IPv4 address mapped into IPv6 as IPv4. */
function textOf(bytes: Uint8Array): string {
  if (bytes.length === 4) addressSetIpv4(words, 0, readU32(bytes, 0));
  else addressRead(bytes, 0, words, 0);
  return addressText(words, 0);
}
