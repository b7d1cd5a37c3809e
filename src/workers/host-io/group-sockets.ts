/**
 * The host's side of multicast and broadcast: sockets that are members of the groups of the guest
 * (ToHost.group), and what a socket needs through which a flow of the guest sends to a group.
 *
 * A report of the guest names a group; a socket needs a port. So each group has a socket for each port that
 * counts: well-known ones and those of the option (GroupRules.portsOf), and those that the guest has sent to,
 * or from, with this group as destination. Broadcast has no reports: the guest receives on ports that it has
 * sent to or from, and on those of the option.
 *
 *   guest: report 224.0.0.251 ──▶ setGroup() ──▶ socket bound to 224.0.0.251:5353, member on the interface
 *   LAN: 192.0.2.7:5353 -> 224.0.0.251:5353 ──▶ read() ──▶ ToShard.groupDatagram
 *
 * The sockets are bound to the group's address with SO_REUSEADDR. So they do not receive what is sent to the
 * host's own addresses, and programs of the host (avahi-daemon) have the same port, before and after us.
 *
 * No loop: the kernel gives a copy of each datagram that the guest sends to a group to all members on the
 * host (IP_MULTICAST_LOOP), our own sockets included. A program inside that wants its own datagrams has them
 * from the guest's kernel. sent() notes each datagram, and read() drops one copy of it. The note is a hash of
 * the payload, as sender and receiver have the same address as all programs of the host, and may share the
 * port with another one.
 */
import { addressCopy, addressEqual, addressSetIpv4, addressText, isV4Mapped } from '../../proto/address.ts';
import { Counter } from '../../ring/counters.ts';
import { HEADROOM_BYTES, LARGE_SLOT_BYTES, NO_SLOT, SMALL_SLOT_BYTES } from '../../ring/pool.ts';
import { ttlOf } from '../../sys/cmsg.ts';
import {
  AF_INET,
  AF_INET6,
  EPOLLET,
  EPOLLIN,
  Errno,
  errnoName,
  IP_MULTICAST_ALL,
  IP_PKTINFO,
  IP_RECVTTL,
  IPPROTO_UDP,
  IPV6_MULTICAST_ALL,
  IPV6_MULTICAST_IF,
  IPV6_RECVHOPLIMIT,
  IPV6_V6ONLY,
  MSG_DONTWAIT,
  MSG_TRUNC,
  SO_BROADCAST,
  SO_RCVBUF,
  SO_REUSEADDR,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
} from '../../sys/constants.ts';
import { close } from '../../sys/io.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { bindToInterface, boundInterface, filterGroup, joinGroup } from '../../sys/multicast.ts';
import {
  bind,
  IOVEC_BYTES,
  IOVEC_WORDS,
  iovecWrite,
  MSGHDR_BYTES,
  MSGHDR_CONTROLLEN_WORD,
  MSGHDR_FLAGS_WORD,
  msghdrControlWrite,
  msghdrWrite,
  NAME_BYTES,
  recvmsg,
  SOCKADDR_BYTES,
  setsockoptInt,
  sockaddrRead,
  sockaddrWrite,
  socket,
} from '../../sys/socket.ts';
import type { HostChange } from '../engine-plan.ts';
import { GroupKind, type GroupRules } from '../flow/group-rules.ts';
import { StageDrop } from '../link/stage-drop.ts';
import {
  groupAt,
  groupIsInclude,
  groupSourceAt,
  groupSourceCount,
  groupSourceIndex,
} from '../link/to-host.ts';
import { groupDatagramWrite } from '../link/to-shard.ts';
import { Notice } from '../thread/notices.ts';
import type { HostContext, SocketModule } from './context.ts';
import { dropDatagrams } from './datagram/socket-table.ts';
import { Outbound } from './outbound.ts';

/** Most sockets that are members of groups, and most ports of one group. */
export const GROUP_SOCKETS = 128;
const MAX_PORTS = 16;
/** Most pairs of group and port that the guest has sent to and that are remembered. */
const MAX_LEARNED = 64;
/**
 * Source ports from here on are the kernel's choice (ip_local_port_range): nobody sends to them by a group.
 */
const FIRST_EPHEMERAL = 32768;
/** Most datagrams of one socket in a round. */
const BATCH = 64;
/** Most datagrams to the guest in a second, and at once. */
const RATE = 20_000;
const BURST = 5_000;
const RATE_TEXT = `multicast: more than ${RATE} datagrams a second for the guest: the rest is lost`;
const SOCKET_BUFFER_BYTES = 1 << 20;
const SMALL_PAYLOAD_BYTES = SMALL_SLOT_BYTES - HEADROOM_BYTES;
/**
 * Notes of datagrams that the guest has sent to groups and that have not come back: the table, sets of it
 * that a hash chooses, and how long a note counts. A receive buffer holds fewer datagrams than the table has
 * notes.
 */
const NOTES = 4096;
const NOTE_WAYS = 8;
const NOTE_MS = 1000;
/** Bytes of a payload that its hash covers: they identify it, and a full hash of a stream would cost more. */
export const HASHED_BYTES = 256;
const CONTROL_BYTES = 64;
const LIMITED_BROADCAST = 0xffff_ffff;

interface Membership {
  readonly words: Uint32Array;
  readonly isBroadcast: boolean;
  isInclude: boolean;
  /** Four words each. */
  sources: Uint32Array;
  /** The last attempt to receive one of its ports failed. */
  hasFailed: boolean;
}

interface GroupSocket {
  readonly of: Membership;
  readonly port: number;
  readonly fd: number;
  /** Index of the interface for filterGroup(). */
  readonly ifindex: number;
}

export class GroupSockets implements SocketModule {
  readonly #ctx: HostContext;
  readonly #rules: GroupRules;
  readonly #outbound: Outbound;
  /** Token of socket 0. */
  readonly #base: number;
  readonly #memberships: Membership[] = [];
  readonly #sockets: (GroupSocket | undefined)[] = [];
  /** Oldest first. */
  readonly #learned: { readonly words: Uint32Array; readonly port: number }[] = [];
  /** Sources of the ToHost.group messages that have come so far, for one group. */
  #sources: number[] = [];
  #tokens = BURST;
  #refillMs = 0;
  // By note: the hash, how many datagrams with it have not come back, and when the last of them was sent.
  readonly #noteHash = new Uint32Array(NOTES);
  readonly #noteCount = new Uint32Array(NOTES);
  readonly #noteMs = new Float64Array(NOTES);
  readonly #name = new NativeBuffer(NAME_BYTES);
  readonly #control = new NativeBuffer(CONTROL_BYTES);
  readonly #iov = new NativeBuffer(2 * IOVEC_BYTES);
  readonly #msg = new NativeBuffer(MSGHDR_BYTES);
  #slotA = NO_SLOT;
  #slotB = NO_SLOT;
  /** A socket stopped reading without slots. */
  #isDry = false;
  /** Peer 0..3, group 4..7. */
  readonly #words = new Uint32Array(8);

  /** @param base  token of the first of GROUP_SOCKETS sockets */
  constructor(ctx: HostContext, rules: GroupRules, base: number) {
    this.#ctx = ctx;
    this.#rules = rules;
    this.#outbound = new Outbound(ctx.plan);
    this.#base = base;
    for (const port of rules.broadcastPorts()) this.#addBroadcast(port);
  }

  // ---- what the guest is a member of -----------------------------------------------------------------------

  /** ToHost.group from the first shard. */
  command(words: Uint32Array, at: number): void {
    const count = groupSourceCount(words, at);
    const index = groupSourceIndex(words, at);
    if (index === 0) this.#sources = [];
    if (count > 0) this.#sources.push(...words.subarray(groupSourceAt(at), groupSourceAt(at) + 4));
    if (count === 0 || index === count - 1) {
      this.#setGroup(words, groupAt(at), groupIsInclude(words, at), Uint32Array.from(this.#sources));
    }
  }

  #setGroup(words: Uint32Array, w: number, isInclude: boolean, sources: Uint32Array): void {
    let group = this.#membership(words, w);
    if (isInclude && sources.length === 0) {
      if (group !== undefined) this.#leave(group);
      return;
    }
    if (group === undefined) {
      group = { words: words.slice(w, w + 4), isBroadcast: false, isInclude, sources, hasFailed: false };
      this.#memberships.push(group);
    } else {
      group.isInclude = isInclude;
      group.sources = sources;
      for (const s of this.#sockets) if (s?.of === group) this.#setFilter(s);
    }
    this.#openPorts(group);
  }

  #membership(words: Uint32Array, w: number): Membership | undefined {
    return this.#memberships.find((group) => addressEqual(group.words, 0, words, w));
  }

  #leave(group: Membership): void {
    this.#memberships.splice(this.#memberships.indexOf(group), 1);
    this.#closeWhere((s) => s.of === group);
  }

  /** Open the sockets that a group lacks. */
  #openPorts(group: Membership): void {
    const learned = this.#learned.filter((l) => addressEqual(l.words, 0, group.words, 0)).map((l) => l.port);
    const ports = new Set([...this.#rules.portsOf(group.words, 0), ...learned.reverse()]);
    const wanted = [...ports].slice(0, MAX_PORTS);
    this.#closeWhere((s) => s.of === group && !wanted.includes(s.port));
    for (const port of wanted) {
      if (!this.#sockets.some((s) => s?.of === group && s.port === port)) this.#open(group, port);
    }
  }

  /**
   * The guest sends to a group: the ports count for it.
   * @param words,w  the group or broadcast address
   * @param port  of the destination
   * @param from  the guest's
   */
  learn(words: Uint32Array, w: number, port: number, from: number): void {
    const isBroadcast = this.#rules.kindOf(words, w) === GroupKind.broadcast;
    for (const p of from < FIRST_EPHEMERAL && from !== port ? [from, port] : [port]) {
      if (isBroadcast) {
        this.#addBroadcast(p);
        continue;
      }
      const known = this.#learned.findIndex((l) => l.port === p && addressEqual(l.words, 0, words, w));
      if (known >= 0) this.#learned.splice(known, 1);
      this.#learned.push({ words: words.slice(w, w + 4), port: p });
      if (this.#learned.length > MAX_LEARNED) this.#learned.shift();
    }
    const group = isBroadcast ? undefined : this.#membership(words, w);
    if (group !== undefined) this.#openPorts(group);
  }

  /** Receive datagrams to a port of the broadcast addresses. */
  #addBroadcast(port: number): void {
    const words = new Uint32Array(4);
    for (const address of [LIMITED_BROADCAST, this.#rules.directedBroadcast]) {
      if (address === 0) continue;
      addressSetIpv4(words, 0, address);
      let group = this.#membership(words, 0);
      if (group === undefined) {
        group = {
          words: words.slice(),
          isBroadcast: true,
          isInclude: false,
          sources: new Uint32Array(0),
          hasFailed: false,
        };
        this.#memberships.push(group);
      }
      const open = this.#sockets.filter((s) => s?.of === group);
      if (open.some((s) => s!.port === port)) continue;
      if (open.length >= MAX_PORTS) this.#closeWhere((s) => s === open[0]);
      this.#open(group, port);
    }
  }

  // ---- sockets ---------------------------------------------------------------------------------------------

  #open(group: Membership, port: number): void {
    let slot = this.#sockets.indexOf(undefined);
    if (slot < 0) slot = this.#sockets.length;
    const made = slot < GROUP_SOCKETS ? this.#made(group, port) : -Errno.EMFILE;
    if (typeof made === 'number') {
      this.#reportFailure(group, port, -made);
      return;
    }
    const r = this.#ctx.watch(made.fd, this.#base + slot, (EPOLLIN | EPOLLET) >>> 0);
    if (r < 0) {
      close(made.fd);
      this.#reportFailure(group, port, -r);
      return;
    }
    this.#sockets[slot] = made;
    group.hasFailed = false;
    this.#ctx.counters[Counter.sockOpened]!++;
  }

  /** Log that a port of a group cannot be received: once, as each report of the guest is another attempt. */
  #reportFailure(group: Membership, port: number, errno: number): void {
    // The guest's broadcast address need not be one of the host's.
    if (group.hasFailed || (errno === Errno.EADDRNOTAVAIL && group.isBroadcast)) return;
    group.hasFailed = true;
    const text = `multicast: ${addressText(group.words, 0)} port ${port} cannot be received: ${errnoName(errno)}`;
    this.#ctx.notices.tell(Notice.groupFailed, 'warning', text);
  }

  /** @returns the socket, or -errno */
  #made(group: Membership, port: number): GroupSocket | number {
    const { words } = group;
    const isV4 = isV4Mapped(words, 0);
    const level = isV4 ? SOL_IP : SOL_IPV6;
    const fd = socket(isV4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (fd < 0) return fd;
    setsockoptInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    setsockoptInt(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER_BYTES);
    setsockoptInt(fd, level, isV4 ? IP_RECVTTL : IPV6_RECVHOPLIMIT, 1);
    // Only datagrams of the group, and on the interface, that this socket has joined.
    setsockoptInt(fd, level, isV4 ? IP_MULTICAST_ALL : IPV6_MULTICAST_ALL, 0);
    if (!isV4) setsockoptInt(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    let r = this.#outbound.bindDevice(fd, words, 0);
    const ifindex = this.#interfaceOf(fd, isV4);
    // IPv6 compares a membership with the group alone, not with the interface.
    if (r === 0 && !isV4 && ifindex !== 0) bindToInterface(fd, ifindex);
    if (r === 0) {
      const nameBytes = sockaddrWrite(this.#name.u8, 0, words, 0, port, isV4 ? 0 : ifindex);
      r = bind(fd, this.#name.address, nameBytes);
    }
    if (r === 0 && !group.isBroadcast) r = joinGroup(fd, words, 0, ifindex);
    if (r < 0) {
      close(fd);
      return r;
    }
    const made: GroupSocket = { of: group, port, fd, ifindex };
    if (group.sources.length > 0) this.#setFilter(made);
    return made;
  }

  /**
   * Interface for groups: the one that the plan binds sockets to, for IPv6 else the one of link-local peers.
   */
  #interfaceOf(fd: number, isV4: boolean): number {
    return boundInterface(fd) || (isV4 ? 0 : this.#outbound.scope);
  }

  /** Set the kernel's source filter. read() checks too: the kernel may allow fewer sources. */
  #setFilter(s: GroupSocket): void {
    const { words, isInclude, sources } = s.of;
    if (!s.of.isBroadcast) filterGroup(s.fd, words, 0, s.ifindex, isInclude, sources);
  }

  #closeWhere(isWanted: (s: GroupSocket) => boolean): void {
    this.#sockets.forEach((s, i) => {
      if (s === undefined || !isWanted(s)) return;
      close(s.fd);
      this.#sockets[i] = undefined;
      this.#ctx.counters[Counter.sockClosed]!++;
    });
  }

  /** The host's network has changed: join all groups again, on the interface that the route leads to now. */
  hostChanged(change: HostChange): void {
    this.#outbound.hostChanged(change);
    const open = this.#sockets.filter((s) => s !== undefined);
    this.#closeWhere(() => true);
    for (const s of open) this.#open(s.of, s.port);
    for (const group of this.#memberships) if (!group.isBroadcast) this.#openPorts(group);
  }

  /** The engine ends. */
  closeAll(): void {
    this.#closeWhere(() => true);
    const { smallSlots, largeSlots } = this.#ctx;
    if (this.#slotA !== NO_SLOT) smallSlots.push(this.#slotA);
    if (this.#slotB !== NO_SLOT) largeSlots.push(this.#slotB);
    this.#slotA = NO_SLOT;
    this.#slotB = NO_SLOT;
  }

  /**
   * Set what a socket needs to send to groups and broadcast addresses, and to receive only what is sent to
   * its own address: groups that other programs of the host have joined, and broadcast, are not for it.
   * @param wantsDestination  its datagrams come with their destination (PKTINFO): broadcast is dropped by it
   */
  prepareSender(fd: number, isV4: boolean, wantsDestination: boolean): void {
    if (isV4) {
      setsockoptInt(fd, SOL_SOCKET, SO_BROADCAST, 1);
      setsockoptInt(fd, SOL_IP, IP_MULTICAST_ALL, 0);
      if (wantsDestination) setsockoptInt(fd, SOL_IP, IP_PKTINFO, 1);
      return;
    }
    setsockoptInt(fd, SOL_IPV6, IPV6_MULTICAST_ALL, 0);
    this.setInterface(fd);
  }

  /** Choose the interface by which a socket sends to IPv6 groups; IPv4 has a route for them. */
  setInterface(fd: number): void {
    const ifindex = this.#interfaceOf(fd, false);
    if (ifindex !== 0) setsockoptInt(fd, SOL_IPV6, IPV6_MULTICAST_IF, ifindex);
  }

  // ---- datagrams -------------------------------------------------------------------------------------------

  /** Whether a copy of a datagram to this group and port comes to one of the sockets. */
  #isReceived(words: Uint32Array, w: number, port: number): boolean {
    for (let i = 0; i < this.#sockets.length; i++) {
      const s = this.#sockets[i];
      if (s !== undefined && s.port === port && addressEqual(s.of.words, 0, words, w)) return true;
    }
    return false;
  }

  /**
   * Note a datagram that the guest sends to a group, so that read() knows its copy.
   * @param words,w  the group as the host's socket names it
   * @param ports  of the host's socket << 16 | of the group
   * @param at  the payload's first HASHED_BYTES in the pool
   * @param bytes  of the whole payload
   */
  sent(words: Uint32Array, w: number, ports: number, at: number, bytes: number): void {
    if (!this.#isReceived(words, w, ports & 0xffff)) return;
    const hash = this.#hash(words, w, ports, at, bytes);
    const now = performance.now();
    let i = this.#noteOf(hash, now);
    if (i < 0) {
      i = (hash % (NOTES / NOTE_WAYS)) * NOTE_WAYS;
      for (let k = i + 1; k < i - (i % NOTE_WAYS) + NOTE_WAYS; k++)
        if (this.#noteMs[k]! < this.#noteMs[i]!) i = k;
      this.#noteHash[i] = hash;
      this.#noteCount[i] = 0;
    }
    this.#noteCount[i]!++;
    this.#noteMs[i] = now;
  }

  /** @returns the note with this hash that still counts, or -1 */
  #noteOf(hash: number, now: number): number {
    const first = (hash % (NOTES / NOTE_WAYS)) * NOTE_WAYS;
    for (let i = first; i < first + NOTE_WAYS; i++)
      if (this.#noteHash[i] === hash && this.#noteCount[i]! > 0 && now - this.#noteMs[i]! < NOTE_MS) return i;
    return -1;
  }

  /** FNV-1a of a datagram's ports, group, length and first bytes. */
  #hash(words: Uint32Array, w: number, ports: number, at: number, bytes: number): number {
    const { u8 } = this.#ctx;
    let hash = 0x811c9dc5;
    hash = Math.imul(hash ^ ports, 0x01000193);
    for (let i = 0; i < 4; i++) hash = Math.imul(hash ^ words[w + i]!, 0x01000193);
    hash = Math.imul(hash ^ bytes, 0x01000193);
    const end = at + Math.min(bytes, HASHED_BYTES);
    for (let i = at; i < end; i++) hash = Math.imul(hash ^ u8[i]!, 0x01000193);
    return hash >>> 0;
  }

  /** Whether a received datagram is one that the guest has sent; if so, it is forgotten. */
  #isOwn(hash: number): boolean {
    const i = this.#noteOf(hash, performance.now());
    if (i < 0) return false;
    this.#noteCount[i]!--;
    return true;
  }

  onEvents(token: number): void {
    this.onReady(token);
  }

  onReady(token: number): void {
    const s = this.#sockets[token - this.#base];
    if (s === undefined) return;
    for (let i = 0; i < BATCH; i++) {
      if (!this.#arm()) {
        this.#isDry = true;
        return;
      }
      if (!this.#read(s)) return;
    }
    this.#ctx.markReady(token);
  }

  /** Slots may be free again: sockets that had stopped reading without slots go on. */
  resume(): void {
    if (!this.#isDry) return;
    this.#isDry = false;
    for (let i = 0; i < this.#sockets.length; i++)
      if (this.#sockets[i] !== undefined) this.#ctx.markReady(this.#base + i);
  }

  /** Get slots for a datagram. @returns false: none are free */
  #arm(): boolean {
    const { pool, smallSlots, largeSlots } = this.#ctx;
    if (this.#slotA === NO_SLOT) this.#slotA = smallSlots.pop();
    if (this.#slotB === NO_SLOT) this.#slotB = largeSlots.pop();
    if (this.#slotA === NO_SLOT || this.#slotB === NO_SLOT) return false;
    iovecWrite(this.#iov.u32, 0, pool.slotAddress(this.#slotA) + HEADROOM_BYTES, SMALL_PAYLOAD_BYTES);
    iovecWrite(this.#iov.u32, IOVEC_WORDS, pool.slotAddress(this.#slotB), LARGE_SLOT_BYTES);
    return true;
  }

  /** Read one datagram. @returns false: there was none */
  #read(s: GroupSocket): boolean {
    const ctx = this.#ctx;
    const { u32 } = this.#msg;
    msghdrWrite(u32, 0, this.#name.address, SOCKADDR_BYTES, this.#iov.address, 2);
    msghdrControlWrite(u32, 0, this.#control.address, CONTROL_BYTES);
    const bytes = recvmsg(s.fd, this.#msg.address, MSG_DONTWAIT);
    ctx.counters[Counter.datagramRecvs]!++;
    if (bytes < 0) return bytes !== -Errno.EAGAIN;
    const words = this.#words;
    const port = sockaddrRead(this.#name.u8, 0, words, 0);
    if (port < 0) return true;
    if ((u32[MSGHDR_FLAGS_WORD]! & MSG_TRUNC) !== 0) {
      dropDatagrams(ctx.counters, StageDrop.tooLong, 1);
      return true;
    }
    addressCopy(s.of.words, 0, words, 4);
    const ports = ((port << 16) | s.port) >>> 0;
    const payloadAt = ctx.pool.slotAt(this.#slotA) + HEADROOM_BYTES;
    if (this.#isOwn(this.#hash(words, 4, ports, payloadAt, bytes))) {
      ctx.counters[Counter.groupSendsLooped]!++;
      return true;
    }
    if (!isHeard(s.of, words)) {
      dropDatagrams(ctx.counters, StageDrop.groupSource, 1);
      return true;
    }
    if (!this.#mayPass()) return true;
    const ttl = ttlOf(this.#control.u32, 0, u32[MSGHDR_CONTROLLEN_WORD]!);
    const slotB = bytes > SMALL_PAYLOAD_BYTES ? this.#slotB : NO_SLOT;
    groupDatagramWrite(ctx.toShard(0), this.#slotA, slotB, HEADROOM_BYTES, bytes, ttl, ports, words, 0);
    this.#slotA = NO_SLOT;
    if (slotB !== NO_SLOT) this.#slotB = NO_SLOT;
    return true;
  }

  /** A token bucket of RATE and BURST. @returns false: the datagram is dropped and counted */
  #mayPass(): boolean {
    const ctx = this.#ctx;
    const now = ctx.now;
    this.#tokens = Math.min(BURST, this.#tokens + ((now - this.#refillMs) * RATE) / 1000);
    this.#refillMs = now;
    if (this.#tokens >= 1) {
      this.#tokens--;
      return true;
    }
    dropDatagrams(ctx.counters, StageDrop.groupRate, 1);
    ctx.notices.tell(Notice.groupRate, 'warning', RATE_TEXT);
    return false;
  }
}

/** Whether a group's filter lets a source pass. @param words  the source in words[0..3] */
function isHeard(group: Membership, words: Uint32Array): boolean {
  const { sources, isInclude } = group;
  for (let i = 0; i < sources.length; i += 4) if (addressEqual(sources, i, words, 0)) return isInclude;
  return !isInclude;
}
