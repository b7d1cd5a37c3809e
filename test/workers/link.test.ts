// @vitest: beside
/**
 * The codec of the links: accessors read the values that a writer has written, at any place of a ring with
 * stale words, and the text form shows them. One test per direction covers all of its ops, and fails for a
 * new op without a case.
 */
import { describe, expect, it } from 'vitest';
import { addressParse, addressText } from '../../src/proto/address.ts';
import { VnetGso } from '../../src/proto/vnethdr.ts';
import { allocateShared } from '../../src/ring/layout.ts';
import { NO_SLOT } from '../../src/ring/pool.ts';
import {
  CheckedRingProducer,
  DESC_WORDS,
  RingConsumer,
  RingProducer,
  UNSET_WORD,
} from '../../src/ring/spsc.ts';
import { Errno } from '../../src/sys/constants.ts';
import { addressOf } from '../../src/sys/memory.ts';
import { HOST_STATE_WORDS, STATE_WORDS } from '../../src/workers/flow/flow-state.ts';
import * as link from '../../src/workers/link/descriptor.ts';
import * as toHost from '../../src/workers/link/to-host.ts';
import { freeReaderSlotsWrite, toReaderText } from '../../src/workers/link/to-reader.ts';
import * as toShard from '../../src/workers/link/to-shard.ts';
import { type Message, message } from '../support/message.ts';

type Write = (out: link.DescriptorOut) => void;

function words(...addresses: string[]): Uint32Array {
  const w = new Uint32Array(addresses.length * 4);
  for (const [i, address] of addresses.entries()) addressParse(address, w, i * 4);
  return w;
}

const V4 = words('0.0.0.0', '192.0.2.1', '10.0.2.15');
const V6 = words('::', '2001:db8::1', 'fd00::15');
const PORTS = (53_000 << 16) | 5000;

/** Each word is its index plus the first one, a descriptor. */
const STATE = Uint32Array.from({ length: STATE_WORDS }, (_, i) => 17 + i);

const TO_HOST: readonly [string, Write][] = [
  ['openTcp flow 3 to 192.0.2.1:53000', (out) => toHost.openTcpWrite(out, 3, V4, 4, 53_000, 0)],
  [
    'openTcp flow 3 to [2001:db8::1]:80 behind interface 7',
    (out) => toHost.openTcpWrite(out, 3, V6, 4, 80, 7),
  ],
  [
    'openUdp flow 3 from [fd00::15]:5000 to [2001:db8::1]:53000, gro',
    (out) => toHost.openUdpWrite(out, 3, PORTS >>> 0, V6, 4, V6, 8, 0, true),
  ],
  [
    'openUdp flow 3 from 10.0.2.15:5000 to 192.0.2.1:53000 behind interface 7',
    (out) => toHost.openUdpWrite(out, 3, PORTS >>> 0, V4, 4, V4, 8, 7, false),
  ],
  [
    'openUdp flow 3 from 10.0.2.15:5000 to 192.0.2.1:53000, gro, group kind 1',
    (out) => toHost.openUdpWrite(out, 3, PORTS >>> 0, V4, 4, V4, 8, 0, true, 1),
  ],
  ['group 192.0.2.1 exclude', (out) => toHost.groupWrite(out, false, 0, 0, V4, 4, V4, 8)],
  ['group 2001:db8::1 include, 1 of 3: fd00::15', (out) => toHost.groupWrite(out, true, 3, 1, V6, 4, V6, 8)],
  ['openUdp flow 3 to 192.0.2.1:53', (out) => toHost.openOwnUdpWrite(out, 3, V4, 4, 53, 0)],
  ['openPing flow 3 to 192.0.2.1', (out) => toHost.openPingWrite(out, 3, 4, V4, 4)],
  ['adopt flow 3, token 17', (out) => toHost.adoptWrite(out, 3, 17)],
  ['refuse token 17', (out) => toHost.refuseWrite(out, 17)],
  ['send flow 3, 1460 bytes', (out) => toHost.sendWrite(out, 3, 5, NO_SLOT, 66, 1460, 0)],
  ['send flow 3, 1460 bytes, provisional 2', (out) => toHost.sendWrite(out, 3, 5, 300, 66, 1460, 2)],
  [
    'credit flow 3 up to 65535, acknowledged 100, reads of 65160',
    (out) => toHost.creditWrite(out, 3, 65_535, 100, 65_160),
  ],
  ['rewind flow 3 to 100', (out) => toHost.rewindWrite(out, 3, 100, 0)],
  ['rewind flow 3 to 4294967295, 50 bytes', (out) => toHost.rewindWrite(out, 3, 0xffffffff, 50)],
  [
    'openTcp flow 3 to 192.0.2.1:53000, tos 184',
    (out) => toHost.openTcpWrite(out, 3, V4, 4, 53_000, 0, 0xb8),
  ],
  ['send flow 3, 100 bytes, urgent 5', (out) => toHost.sendWrite(out, 3, 5, NO_SLOT, 66, 100, 0, 5)],
  ['keepAlive flow 3 every 65535 s', (out) => toHost.keepAliveWrite(out, 3, 65_535)],
  ['setTos flow 3 184', (out) => toHost.setTosWrite(out, 3, 6, 0xb8)],
  [
    'sendDatagram flow 3, 10 bytes, tos 0',
    (out) => toHost.sendDatagramWrite(out, 3, 5, NO_SLOT, 55, 10, toHost.sendOptions(0, 0, 0), 0),
  ],
  [
    'sendDatagram flow 3, 10 bytes, ttl 255, fragment allowed, tos 255',
    (out) => toHost.sendDatagramWrite(out, 3, 5, NO_SLOT, 55, 10, toHost.sendOptions(255, 1, 255), 0),
  ],
  [
    'sendFromListener 9 from 10.0.2.15 to 192.0.2.1:4000, 100 bytes, tos 3',
    (out) => toHost.sendFromListenerWrite(out, 9, 0, 5, NO_SLOT, 55, 100, 4000, V4, 4, 3),
  ],
  ['finish flow 3', (out) => toHost.finishWrite(out, 3)],
  ['close flow 3', (out) => toHost.closeWrite(out, 3)],
  ['reset flow 3', (out) => toHost.resetWrite(out, 3)],
  ['takeOver flow 3, descriptor 17', (out) => toHost.takeOverWrite(out, 3, STATE)],
  ['freeSlots 5 and 300', (out) => toHost.freeHostSlotsWrite(out, 5, 300)],
  ['freeSlots 300', (out) => toHost.freeHostSlotsWrite(out, NO_SLOT, 300)],
  ['sendDatagram flow 3, 0 bytes', (out) => toHost.sendDatagramWrite(out, 3, 5, NO_SLOT, 55, 0, 0, 0)],
  [
    'sendDatagram flow 3, 4000 bytes, ttl 7, fragment never, segments of 1400',
    (out) => {
      const options = toHost.sendOptions(7, toHost.SendFragment.never);
      toHost.sendDatagramWrite(out, 3, 5, 300, 55, 4000, options, 1400);
    },
  ],
  ['sendDatagram flow 3, 30 bytes, borrowed', (out) => toHost.sendBorrowedWrite(out, 3, 5, 55, 30)],
  [
    'sendFromListener 9 from 10.0.2.15 to 192.0.2.1:4000, 100 bytes',
    (out) => toHost.sendFromListenerWrite(out, 9, 0, 5, NO_SLOT, 55, 100, 4000, V4, 4),
  ],
  [
    'sendFromListener 9 from fd00::15 to [2001:db8::1]:4000 behind interface 7, 100 bytes',
    (out) => toHost.sendFromListenerWrite(out, 9, 7, 5, NO_SLOT, 55, 100, 4000, V6, 4),
  ],
];

const { FrameFlag, DataKind, SentFlag } = toShard;
const TO_SHARD: readonly [string, Write][] = [
  ['frame, 60 bytes', (out) => toShard.frameWrite(out, 5, NO_SLOT, 12, 60, 0xffffffff, VnetGso.none, 0, 0)],
  [
    'frame, 65000 bytes, gso type 4, needs checksum, segments of 1440',
    (out) => toShard.frameWrite(out, 5, 300, 12, 65_000, 1, VnetGso.tcpv6 | FrameFlag.needsCsum, 1440, 0),
  ],
  [
    'frame, 3000 bytes, reassembled',
    (out) => toShard.frameWrite(out, 5, 300, 12, 3000, 1, FrameFlag.reassembled, 0, 0),
  ],
  ['opened flow 3', (out) => toShard.openedWrite(out, 3)],
  [
    `openFailed flow 3, errno ${Errno.ECONNREFUSED}`,
    (out) => toShard.openFailedWrite(out, 3, Errno.ECONNREFUSED),
  ],
  ['data flow 3, 1460 bytes at 2920', (out) => toShard.dataWrite(out, 3, 5, 128, 1460, 2920, DataKind.next)],
  ['data flow 3, 5 bytes at 0, last', (out) => toShard.dataWrite(out, 3, 5, 128, 5, 0, DataKind.last)],
  ['sent flow 3, 0 bytes, refused', (out) => toShard.sentWrite(out, 3, 0, SentFlag.refused, 0)],
  [
    'sent flow 3, 100 bytes, empty, freed 2 small 1 large',
    (out) => toShard.sentWrite(out, 3, 100, SentFlag.empty, 0x10002),
  ],
  ['eof flow 3 at 4294967295', (out) => toShard.eofWrite(out, 3, 0xffffffff)],
  [`error flow 3, errno ${Errno.ECONNRESET}`, (out) => toShard.errorWrite(out, 3, Errno.ECONNRESET)],
  ['urgent flow 3 at 4294967295', (out) => toShard.urgentWrite(out, 3, 0xffffffff)],
  ['closed flow 3', (out) => toShard.closedWrite(out, 3)],
  [
    'accepted token 17, [2001:db8::1]:53000 to [fd00::15]:5000',
    (out) => toShard.acceptedWrite(out, 17, 6, PORTS >>> 0, 0x89abcdef, V6, 4, V6, 8),
  ],
  [
    'datagram flow 3, 60 bytes, ttl 64, tos 185, segments of 20',
    (out) => toShard.datagramWrite(out, 3, 5, NO_SLOT, 128, 60, 64, 20, 0xb9),
  ],
  [
    'listenerDatagram 9, [2001:db8::1]:53000 to [fd00::15]:5000, 100 bytes, tos 255',
    (out) => toShard.listenerDatagramWrite(out, 9, 7, 5, NO_SLOT, 128, 100, PORTS >>> 0, V6, 4, 255),
  ],
  ['movedFlow part 5', (out) => toShard.movedFlowWrite(out, STATE)],
  ['movedBucket 4095', (out) => toShard.movedBucketWrite(out, 4095)],
  ['datagram flow 3, 60 bytes', (out) => toShard.datagramWrite(out, 3, 5, NO_SLOT, 128, 60, 0, 0)],
  [
    'datagram flow 3, 9001 bytes, ttl 53, segments of 1000',
    (out) => toShard.datagramWrite(out, 3, 5, 300, 128, 9001, 53, 1000),
  ],
  [
    'listenerDatagram 9, 192.0.2.1:53000 to 10.0.2.15:5000, 100 bytes',
    (out) => toShard.listenerDatagramWrite(out, 9, 7, 5, NO_SLOT, 128, 100, PORTS >>> 0, V4, 4),
  ],
  [
    'unsolicitedDatagram, 192.0.2.1:53000 to 10.0.2.15:5000, 100 bytes, segments of 50',
    (out) => toShard.unsolicitedDatagramWrite(out, 5, NO_SLOT, 128, 100, 50, PORTS >>> 0, V4, 4, 8),
  ],
  [
    'groupDatagram, 192.0.2.1:53000 to 10.0.2.15:5000, 100 bytes, ttl 255',
    (out) => toShard.groupDatagramWrite(out, 5, NO_SLOT, 128, 100, 255, PORTS >>> 0, V4, 4),
  ],
  [
    `icmpError flow 3, errno ${Errno.EHOSTUNREACH}, quotes 40 bytes`,
    (out) => toShard.icmpErrorWrite(out, 3, 0, 0, Errno.EHOSTUNREACH, 0, V4.subarray(4), 5, 128, 40),
  ],
  [
    `icmpError flow 3, type 2 code 0 info 1380 from 192.0.2.1, sequence 9, errno ${Errno.EMSGSIZE}`,
    (out) => toShard.icmpErrorWrite(out, 3, 2 << 8, 1380, Errno.EMSGSIZE, 9, V4.subarray(4), NO_SLOT, 128, 0),
  ],
];

const of = (list: readonly [string, Write][], text: string): Message =>
  message(list.find(([line]) => line === text)![1]);

const addressAt = (m: Message, at: number): string => addressText(m, at);

describe.each([
  ['to host-io', TO_HOST, toHost.ToHost, toHost.toHostText],
  ['to a shard', TO_SHARD, toShard.ToShard, toShard.toShardText],
] as const)('%s', (_, list, ops, text) => {
  it.each(list)('%s', (line, write) => {
    expect(text(message(write))).toBe(line);
  });

  it('every op has a case above', () => {
    const written = list.map(([, write]) => link.linkOp(message(write), 0));
    expect([...new Set(written)].sort()).toEqual(Object.values(ops).sort());
  });

  it('on a ring that wraps, with stale words, and through the overflow: the same', () => {
    const request = { smallSlots: 0, largeSlots: 0, rings: 1, ringDescriptors: 8, counterBlocks: 1 };
    const { sab, layout } = allocateShared({ ...request, logBytes: 256 }, addressOf);
    const out = new RingProducer(sab, layout, 0, null);
    const ring = new RingConsumer(sab, layout, 0);
    const got: string[] = [];
    for (const [, write] of [...list, ...list]) write(out);
    for (let n = 1; n > 0; ) {
      out.flush();
      n = ring.available();
      for (let i = 0; i < n; i++) got.push(text(ring.words, ring.at(i)));
      ring.release(n);
    }
    // The state of a flow takes several descriptors.
    const all = list.flatMap(([line]) =>
      line.startsWith('movedFlow')
        ? Array.from({ length: toShard.MOVED_PARTS }, (_, part) => `movedFlow part ${part}`)
        : [line],
    );
    expect(got).toEqual([...all, ...all]);
  });
});

describe('accessors', () => {
  it('slots, payload and addresses, which the texts leave out: read back', () => {
    const frame = of(TO_SHARD, 'frame, 65000 bytes, gso type 4, needs checksum, segments of 1440');
    expect([link.linkSlotA(frame, 0), link.linkSlotB(frame, 0), link.linkSlotOffset(frame, 0)]).toEqual([
      5, 300, 12,
    ]);
    expect(toShard.frameHash(of(TO_SHARD, 'frame, 60 bytes'), 0)).toBe(0xffffffff);
    const closed = of(TO_SHARD, 'closed flow 3');
    expect([link.linkSlotA(closed, 0), link.linkSlotB(closed, 0)]).toEqual([NO_SLOT, NO_SLOT]);

    const accepted = of(TO_SHARD, 'accepted token 17, [2001:db8::1]:53000 to [fd00::15]:5000');
    expect([toShard.acceptedHash(accepted, 0), toShard.acceptedFamily(accepted, 0)]).toEqual([0x89abcdef, 6]);
    expect([link.linkSlotA(accepted, 0), link.linkSlotB(accepted, 0)]).toEqual([NO_SLOT, NO_SLOT]);

    const heard = of(TO_SHARD, 'listenerDatagram 9, 192.0.2.1:53000 to 10.0.2.15:5000, 100 bytes');
    expect(toShard.listenerDatagramZone(heard, 0)).toBe(7);
    const open = of(TO_HOST, 'openUdp flow 3 from [fd00::15]:5000 to [2001:db8::1]:53000, gro');
    expect(addressAt(open, toHost.openUdpGuestAt(0))).toBe('fd00::15');
    expect(toHost.openPingFamily(of(TO_HOST, 'openPing flow 3 to 192.0.2.1'), 0)).toBe(4);
  });

  it('listenerDatagram: the guest address is in the headroom of the slot', () => {
    const pool = new Uint8Array(64).fill(0xee);
    toShard.listenerDatagramGuestWrite(pool, 32, V6, 8);
    const guest = new Uint32Array(4);
    toShard.listenerDatagramGuest(pool, 32, guest, 0);
    expect(addressText(guest, 0)).toBe('fd00::15');
    expect([pool[31], pool[48]]).toEqual([0xee, 0xee]);
  });

  it('takeOver: the words of host-io from the state are read back', () => {
    const m = of(TO_HOST, 'takeOver flow 3, descriptor 17');
    const at = toHost.takeOverStateAt(0);
    expect(m.slice(at, at + HOST_STATE_WORDS)).toEqual(STATE.slice(0, HOST_STATE_WORDS));
    expect(at + HOST_STATE_WORDS).toBeLessThanOrEqual(DESC_WORDS);
    expect([link.linkFlow(m, 0), link.linkSlotA(m, 0), link.linkSlotB(m, 0)]).toEqual([3, NO_SLOT, NO_SLOT]);
  });

  it('movedFlow: the state is complete after its last part, by a ring that wraps too', () => {
    const request = { smallSlots: 0, largeSlots: 0, rings: 1, ringDescriptors: 8, counterBlocks: 1 };
    const { sab, layout } = allocateShared({ ...request, logBytes: 256 }, addressOf);
    const out = new CheckedRingProducer(sab, layout, 0, null);
    const ring = new RingConsumer(sab, layout, 0);
    const got = new Uint32Array(STATE_WORDS);
    for (const add of [0, 1000, 0xffff0000]) {
      const state = STATE.map((word) => word + add);
      toShard.movedFlowWrite(out, state);
      out.flush();
      const n = ring.available();
      expect(n).toBe(toShard.MOVED_PARTS);
      const isLast = Array.from({ length: n }, (_, i) => toShard.movedFlowRead(ring.words, ring.at(i), got));
      ring.release(n);
      expect(isLast).toEqual([...new Array<boolean>(n - 1).fill(false), true]);
      expect(got).toEqual(state);
    }
  });

  it('movedBucket', () => {
    expect(toShard.movedBucket(of(TO_SHARD, 'movedBucket 4095'), 0)).toBe(4095);
  });

  it('a frame is marked as forwarded, and the mark is taken off, without a change of the rest', () => {
    const frame = of(TO_SHARD, 'frame, 65000 bytes, gso type 4, needs checksum, segments of 1440');
    const before = frame.slice();
    toShard.frameSetForwarded(frame, 0);
    expect(toShard.offloadIsForwarded(toShard.frameOffload(frame, 0))).toBe(true);
    expect(toShard.offloadGsoType(toShard.frameOffload(frame, 0))).toBe(VnetGso.tcpv6);
    toShard.frameClearForwarded(frame, 0);
    expect(frame).toEqual(before);
  });

  it('to the reader: slots are read back', () => {
    expect(toReaderText(message((out) => freeReaderSlotsWrite(out, 5, NO_SLOT)))).toBe('freeSlots 5');
  });
});

describe('a ring in checked mode', () => {
  it('a word that the writer did not set: UNSET_WORD, in the ring and in the overflow', () => {
    const request = { smallSlots: 0, largeSlots: 0, rings: 1, ringDescriptors: 2, counterBlocks: 1 };
    const { sab, layout } = allocateShared({ ...request, logBytes: 256 }, addressOf);
    const out = new CheckedRingProducer(sab, layout, 0, null);
    const ring = new RingConsumer(sab, layout, 0);
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 5; i++) toHost.creditWrite(out, i, 1, 2, 3);
      for (let i = 0; i < 5; i++) toHost.closeWrite(out, i);
      for (let n = 1; n > 0; ) {
        out.flush();
        n = ring.available();
        for (let i = 0; i < n; i++) {
          const at = ring.at(i);
          const set = link.linkOp(ring.words, at) === toHost.ToHost.close ? 0 : 3;
          const rest = Array.from(ring.words.subarray(at + 6, at + DESC_WORDS));
          expect(rest.filter((word) => word !== UNSET_WORD)).toHaveLength(set);
        }
        ring.release(n);
      }
    }
  });
});
