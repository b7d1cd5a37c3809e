/**
 * Multicast groups of the guest. The first shard is the querier of the guest's link (RFC 3376 and RFC 3810):
 * it asks which groups the guest is a member of, keeps the source filter of each, and tells host-io, which
 * has sockets in the same groups (host-io/group-sockets.ts). Their datagrams come back here.
 *
 *   report 224.0.0.251 ──▶ #report() ──▶ ToHost.group ──▶ host-io joins on the host's interface
 *   guest <── frame to 01:00:5e:00:00:fb <── onDatagram() <── ToShard.groupDatagram
 *
 * There is one source filter for each group, that of the last report: a link with several members with
 * different filters (a bridge inside) has the filter of the one that reported last.
 */
import {
  addressCopy,
  addressEqual,
  addressRead,
  addressSetIpv4,
  isUnspecified,
  isV4Mapped,
} from '../../proto/address.ts';
import { Drop } from '../../proto/drop.ts';
import { EtherType, groupMac, MAC_BYTES } from '../../proto/ethernet.ts';
import {
  GroupRecord,
  groupRecordAddress,
  groupRecordBytes,
  groupRecordSources,
  groupRecordType,
} from '../../proto/group-record.ts';
import { Icmp6Type, icmp6Check } from '../../proto/icmpv6.ts';
import {
  IgmpType,
  igmpCheck,
  igmpGroup,
  igmpQueryWrite,
  igmpRecords,
  igmpRecordsAt,
  igmpType,
  ROBUSTNESS,
} from '../../proto/igmp.ts';
import { IpProtocol } from '../../proto/ipv4.ts';
import { MLD_GROUP, mldCheck, mldQueryWrite, mldRecords, mldRecordsAt } from '../../proto/mld.ts';
import { UDP_BYTES, UDP_CHECKSUM, udpWrite } from '../../proto/udp.ts';
import { Counter } from '../../ring/counters.ts';
import { NO_SLOT } from '../../ring/pool.ts';
import { MAX_SOURCES } from '../../sys/multicast.ts';
import { Destination } from '../flow/addressing.ts';
import { EgressProto } from '../flow/egress-policy.ts';
import type { GroupRules } from '../flow/group-rules.ts';
import { linkBytes, linkSlotA, linkSlotB, linkSlotOffset } from '../link/descriptor.ts';
import { StageDrop } from '../link/stage-drop.ts';
import { groupWrite } from '../link/to-host.ts';
import {
  datagramPeerAt,
  datagramPeerPort,
  groupDatagramGroupAt,
  groupDatagramPort,
  groupDatagramTtl,
} from '../link/to-shard.ts';
import { Notice } from '../thread/notices.ts';
import type { ShardContext } from './context.ts';
import type { Packet } from './packet.ts';
import { datagramToGuest } from './to-guest.ts';

// Intervals of RFC 3376 section 8, which are those of RFC 3810 section 9.
const QUERY_INTERVAL_S = 125;
const QUERY_RESPONSE_MS = 10_000;
const STARTUP_INTERVAL_MS = (QUERY_INTERVAL_S * 1000) / 4;
const MEMBERSHIP_MS = ROBUSTNESS * QUERY_INTERVAL_S * 1000 + QUERY_RESPONSE_MS;
const LAST_MEMBER_MS = 1000;
/**
 * Time between two messages to host-io about a group: reports may come faster than host-io sets filters, and
 * nothing else bounds how many messages wait on the link.
 */
const TELL_GAP_MS = 50;

interface Group {
  readonly words: Uint32Array;
  isInclude: boolean;
  /** Four words each, `sourceWords` in all. */
  readonly sources: Uint32Array;
  sourceWords: number;
  /** host-io does not know the filter yet, or is to try again; when it was told last. */
  isDue: boolean;
  toldMs: number;
  /** When the membership ends unless a report comes, monotonic milliseconds. */
  endsMs: number;
  /**
   * Queries to this group that are still to be sent since the guest left it, and when the next one is due.
   */
  queries: number;
  queryMs: number;
}

const NO_GROUP = new Uint32Array(4);
const MAX_SOURCE_WORDS = 4 * MAX_SOURCES;

export class GroupMembership {
  readonly #ctx: ShardContext;
  readonly #rules: GroupRules;
  readonly #groups: Group[] = [];
  readonly #words = new Uint32Array(4);
  readonly #source = new Uint32Array(4);
  readonly #peer = new Uint32Array(4);
  readonly #group = new Uint32Array(4);
  /** Sources of the group that a report is about, and their words. */
  readonly #sources = new Uint32Array(MAX_SOURCE_WORDS);
  #sourceWords = 0;
  readonly #mac = new Uint8Array(MAC_BYTES);
  /** When the next general query is due, and how many were sent. */
  #queryMs = 0;
  #queries = 0;
  /** When poll() has something to do. */
  #nextMs = 0;

  constructor(ctx: ShardContext, rules: GroupRules) {
    this.#ctx = ctx;
    this.#rules = rules;
  }

  /** An IGMP message of the guest. The packet stays the caller's. @returns 0 or the cause of a drop */
  onIgmp(p: Packet): number {
    const { u8 } = this.#ctx;
    if (p.transportBytes !== p.transportBytesInA) return Drop.short;
    const at = p.transportAt;
    const checked = igmpCheck(u8, at, p.transportBytes);
    if (checked < 0) return checked;
    const words = this.#words;
    switch (igmpType(u8, at)) {
      case IgmpType.report1:
      case IgmpType.report2:
        addressSetIpv4(words, 0, igmpGroup(u8, at));
        this.#report(words, GroupRecord.isExclude, 0, 4, 0);
        break;
      case IgmpType.leave:
        addressSetIpv4(words, 0, igmpGroup(u8, at));
        this.#report(words, GroupRecord.toInclude, 0, 4, 0);
        break;
      case IgmpType.report3:
        this.#records(igmpRecordsAt(at), igmpRecords(u8, at), 4);
        break;
    }
    return 0;
  }

  /** An MLD message of the guest. The packet stays the caller's. @returns 0 or the cause of a drop */
  onMld(p: Packet): number {
    const { u8 } = this.#ctx;
    if (p.transportBytes !== p.transportBytesInA) return Drop.short;
    const at = p.transportAt;
    let checked = icmp6Check(u8, p.ipAt, at, p.transportBytes);
    if (checked === 0) checked = mldCheck(u8, at, p.transportBytes);
    if (checked < 0) return checked;
    const words = this.#words;
    const type = u8[at]!;
    if (type === Icmp6Type.mld2Report) this.#records(mldRecordsAt(at), mldRecords(u8, at), 16);
    else if (type !== Icmp6Type.mldQuery) {
      addressRead(u8, at + MLD_GROUP, words, 0);
      const isReport = type === Icmp6Type.mldReport;
      this.#report(words, isReport ? GroupRecord.isExclude : GroupRecord.toInclude, 0, 16, 0);
    }
    return 0;
  }

  #records(first: number, count: number, addressBytes: 4 | 16): void {
    const { u8 } = this.#ctx;
    let at = first;
    for (let i = 0; i < count; i++) {
      groupRecordAddress(u8, at, addressBytes, 0, this.#words, 0);
      this.#report(this.#words, groupRecordType(u8, at), at, addressBytes, groupRecordSources(u8, at));
      at += groupRecordBytes(u8, at, addressBytes);
    }
  }

  /**
   * The guest reports its source filter for a group, or a change of it.
   * @param type  GroupRecord
   * @param at  record with the sources, if there are any
   */
  #report(words: Uint32Array, type: number, at: number, addressBytes: 4 | 16, sources: number): void {
    const found = this.#find(words);
    const { isInclude, toInclude, isExclude, toExclude, allowNew, blockOld } = GroupRecord;
    const wasInclude = found?.isInclude ?? true;
    let include = wasInclude;
    this.#sourceWords = 0;
    switch (type) {
      case isInclude:
      case toInclude:
      case isExclude:
      case toExclude:
        include = type === isInclude || type === toInclude;
        this.#add(at, addressBytes, sources);
        break;
      case allowNew:
      case blockOld:
        if (found !== undefined) {
          this.#sources.set(found.sources);
          this.#sourceWords = found.sourceWords;
        }
        // In a list of sources to hear, allowed ones are added and blocked ones removed; else the reverse.
        if ((type === allowNew) === wasInclude) this.#add(at, addressBytes, sources);
        else this.#remove(at, addressBytes, sources);
        break;
      default:
        return; // RFC 3376 section 4.2.12: unknown types are ignored
    }
    const leaves = include && this.#sourceWords === 0;
    if (found === undefined) {
      if (!leaves) this.#join(words, include);
    } else if (leaves) this.#leave(found);
    else this.#keep(found, include);
  }

  // A hostile guest can send as many reports as it likes: what follows allocates nothing, except for a group
  // that is joined.

  #find(words: Uint32Array): Group | undefined {
    for (let i = 0; i < this.#groups.length; i++)
      if (addressEqual(this.#groups[i]!.words, 0, words, 0)) return this.#groups[i];
    return undefined;
  }

  /** Add the sources of a record to #sources, each once, up to MAX_SOURCES: those beyond are ignored. */
  #add(at: number, addressBytes: 4 | 16, sources: number): void {
    for (let i = 1; i <= sources && this.#sourceWords < MAX_SOURCE_WORDS; i++) {
      groupRecordAddress(this.#ctx.u8, at, addressBytes, i, this.#source, 0);
      if (this.#indexOfSource() >= 0) continue;
      addressCopy(this.#source, 0, this.#sources, this.#sourceWords);
      this.#sourceWords += 4;
    }
  }

  #remove(at: number, addressBytes: 4 | 16, sources: number): void {
    for (let i = 1; i <= sources; i++) {
      groupRecordAddress(this.#ctx.u8, at, addressBytes, i, this.#source, 0);
      const index = this.#indexOfSource();
      if (index < 0) continue;
      this.#sources.copyWithin(index, index + 4, this.#sourceWords);
      this.#sourceWords -= 4;
    }
  }

  /** @returns index of #source's first word in #sources, or -1 */
  #indexOfSource(): number {
    for (let i = 0; i < this.#sourceWords; i += 4)
      if (addressEqual(this.#sources, i, this.#source, 0)) return i;
    return -1;
  }

  /** Groups of a family. */
  #count(isV4: boolean): number {
    let count = 0;
    for (let i = 0; i < this.#groups.length; i++) if (isV4Mapped(this.#groups[i]!.words, 0) === isV4) count++;
    return count;
  }

  #join(words: Uint32Array, include: boolean): void {
    if (!this.#rules.mayJoin(words, 0)) return;
    const { maxGroups } = this.#rules;
    if (this.#count(isV4Mapped(words, 0)) >= maxGroups) {
      const { counters, notices } = this.#ctx;
      counters[Counter.groupsRefused]!++;
      if (!notices.isDue(Notice.groupsFull)) return;
      const text = `multicast: the guest is a member of ${maxGroups} groups; further groups are not joined`;
      notices.tell(Notice.groupsFull, 'warning', text);
      return;
    }
    const group: Group = {
      words: Uint32Array.from(words),
      isInclude: include,
      sources: this.#sources.slice(),
      sourceWords: this.#sourceWords,
      isDue: true,
      toldMs: Number.NEGATIVE_INFINITY,
      endsMs: this.#ctx.now + MEMBERSHIP_MS,
      queries: 0,
      queryMs: 0,
    };
    this.#groups.push(group);
    this.#ctx.counters[Counter.groupsJoined]!++;
    this.#tellWhenDue(group);
  }

  #keep(group: Group, include: boolean): void {
    group.isInclude = include;
    group.sources.set(this.#sources);
    group.sourceWords = this.#sourceWords;
    group.endsMs = this.#ctx.now + MEMBERSHIP_MS;
    group.queries = 0;
    // A report without a change is passed on too: where host-io failed to join, it tries again.
    group.isDue = true;
    this.#tellWhenDue(group);
  }

  #tellWhenDue(group: Group): void {
    const { now } = this.#ctx;
    if (now >= group.toldMs + TELL_GAP_MS) {
      group.isDue = false;
      group.toldMs = now;
      this.#tell(group);
    }
    this.#schedule();
  }

  /** The guest left: ask whether there is another member on its link, and end the membership if not. */
  #leave(group: Group): void {
    if (group.queries > 0) return;
    const { now } = this.#ctx;
    group.queries = ROBUSTNESS;
    group.queryMs = now;
    group.endsMs = now + ROBUSTNESS * LAST_MEMBER_MS;
    this.#nextMs = now;
  }

  /** Pass the group's filter on to host-io. */
  #tell(group: Group): void {
    const { toHost } = this.#ctx;
    const { words, isInclude, sources } = group;
    const count = group.sourceWords >> 2;
    if (count === 0) groupWrite(toHost, isInclude, 0, 0, words, 0, NO_GROUP, 0);
    for (let i = 0; i < count; i++) groupWrite(toHost, isInclude, count, i, words, 0, sources, i * 4);
  }

  /** Milliseconds until poll() has something to do. */
  sleepMs(now: number): number {
    return this.#nextMs - now;
  }

  /** Send queries that are due, and end memberships that were not reported again. */
  poll(now: number): void {
    if (now < this.#nextMs) return;
    if (now >= this.#queryMs) {
      this.#query(NO_GROUP, QUERY_RESPONSE_MS);
      this.#queries++;
      this.#queryMs = now + (this.#queries < ROBUSTNESS ? STARTUP_INTERVAL_MS : QUERY_INTERVAL_S * 1000);
    }
    for (let i = this.#groups.length - 1; i >= 0; i--) {
      const group = this.#groups[i]!;
      if (now >= group.endsMs) {
        this.#groups.splice(i, 1);
        group.isDue = false;
        groupWrite(this.#ctx.toHost, true, 0, 0, group.words, 0, NO_GROUP, 0);
      } else if (group.queries > 0 && now >= group.queryMs) {
        group.queries--;
        group.queryMs = now + LAST_MEMBER_MS;
        this.#query(group.words, LAST_MEMBER_MS);
      }
      if (group.isDue) this.#tellWhenDue(group);
    }
    this.#schedule();
  }

  #schedule(): void {
    this.#nextMs = this.#queryMs;
    for (const group of this.#groups) {
      this.#nextMs = Math.min(this.#nextMs, group.endsMs);
      if (group.isDue) this.#nextMs = Math.min(this.#nextMs, group.toldMs + TELL_GAP_MS);
      if (group.queries > 0) this.#nextMs = Math.min(this.#nextMs, group.queryMs);
    }
  }

  /** @param group  :: for a general query, of both families */
  #query(group: Uint32Array, responseMs: number): void {
    const { addressing, guest, u8 } = this.#ctx;
    const isGeneral = group === NO_GROUP;
    const isV4 = isV4Mapped(group, 0);
    const f = guest.frame;
    groupMac(isGeneral ? ALL_HOSTS4 : group, 0, this.#mac);
    guest.sendTo(this.#mac);
    if (addressing.ipv4 && (isGeneral || isV4)) {
      const to = isGeneral ? 0 : group[3]!;
      const source = addressing.gateway[3]!;
      const bytes = igmpQueryWrite(u8, guest.scratchAt, source, to, responseMs / 100, QUERY_INTERVAL_S);
      f.beginPacket(EtherType.ipv4, guest.scratchAt, bytes);
      guest.send(f);
    }
    if (isGeneral) groupMac(ALL_NODES6, 0, this.#mac);
    if (addressing.ipv6 && (isGeneral || !isV4)) {
      const source = addressing.linkLocal;
      const bytes = mldQueryWrite(u8, guest.scratchAt, source, group, 0, responseMs, QUERY_INTERVAL_S);
      f.beginPacket(EtherType.ipv6, guest.scratchAt, bytes);
      guest.send(f);
    }
    guest.sendTo(null);
  }

  /** A datagram to a group, from host-io: send it to the guest. Takes over the slots. */
  onDatagram(words: Uint32Array, at: number): void {
    const ctx = this.#ctx;
    const { pool, guest, u8 } = ctx;
    const slotA = linkSlotA(words, at);
    const slotB = linkSlotB(words, at);
    const port = groupDatagramPort(words, at);
    if (isUnspecified(words, datagramPeerAt(at))) ctx.drop(StageDrop.destination);
    // The guest hears the groups that it may send to.
    else if (
      !ctx.egress.stillPermits(words, groupDatagramGroupAt(at), Destination.world, EgressProto.udp, port)
    )
      ctx.drop(StageDrop.egressPolicy);
    else {
      ctx.addressing.fromHost(words, datagramPeerAt(at), this.#peer, 0);
      addressCopy(words, groupDatagramGroupAt(at), this.#group, 0);
      const bytes = linkBytes(words, at);
      const room = pool.slotBytes(slotA) - linkSlotOffset(words, at);
      const inA = slotB === NO_SLOT || bytes < room ? bytes : room;
      const bodyAt = pool.slotAt(slotA) + linkSlotOffset(words, at) - UDP_BYTES;
      udpWrite(u8, bodyAt, datagramPeerPort(words, at), port, UDP_BYTES + bytes);
      const f = guest.frame;
      f.begin(isV4Mapped(this.#group, 0) ? 4 : 6, IpProtocol.udp);
      f.ttl = groupDatagramTtl(words, at) || 1;
      f.addresses(this.#peer, 0, this.#group, 0);
      f.body(bodyAt, UDP_BYTES + inA, bytes > inA ? pool.slotAt(slotB) : 0, bytes - inA);
      f.checksumField = UDP_CHECKSUM;
      groupMac(this.#group, 0, this.#mac);
      guest.sendTo(this.#mac);
      const sent = datagramToGuest(ctx, f);
      guest.sendTo(null);
      ctx.counters[Counter.datagramsToGuest]!++;
      ctx.counters[Counter.groupDatagramsToGuest]!++;
      if (sent === StageDrop.tooLong) ctx.drop(sent);
    }
    ctx.freeHostSlots(slotA, slotB);
  }
}

const ALL_HOSTS4 = Uint32Array.of(0, 0, 0xffff, 0xe000_0001);
const ALL_NODES6 = Uint32Array.of(0xff020000, 0, 0, 1);
