/**
 * Reassembly of a fragmented datagram in the reader: 8 KiB of UDP in six fragments at MTU 1500, and its
 * checksum. Figures are per datagram.
 */
import Benchmark from 'benchmark';
import { onesSum } from '../src/proto/checksum.ts';
import { NO_SLOT } from '../src/ring/pool.ts';
import { Reassembler } from '../src/workers/tap/reassembly.ts';
import { ipPacket, udpPacket } from '../test/support/packets.ts';
import { ShardRig } from '../test/support/shard-rig.ts';
import { ops, sink } from './ops.ts';

const DATAGRAM_BYTES = 8192;
/** Payload bytes of a fragment: the payload of an IPv4 packet at MTU 1500, a multiple of 8. */
const FRAGMENT_BYTES = 1480;
const DATAGRAMS = 100;
const IP_BYTES = 20;
const IDENT_AT = 4;
const CHECKSUM_AT = 10;

export function build(): Benchmark.Suite {
  const rig = new ShardRig();
  const reassembler = new Reassembler({
    pool: rig.pool,
    slots: rig.large,
    counters: rig.ctx.counters,
  });
  const upper = udpPacket('10.0.2.15', 1, '192.0.2.9', 9, new Uint8Array(DATAGRAM_BYTES)).subarray(IP_BYTES);
  const frames: { at: number; bytes: number }[] = [];
  for (let from = 0; from < upper.length; from += FRAGMENT_BYTES) {
    const to = Math.min(from + FRAGMENT_BYTES, upper.length);
    const flagsFrag = (to < upper.length ? 0x2000 : 0) | (from >> 3);
    const packet = rig.packet(
      ipPacket('10.0.2.15', '192.0.2.9', 17, upper.subarray(from, to), { ident: 0, flagsFrag }),
    );
    frames.push({ at: packet.ipAt, bytes: IP_BYTES + to - from });
  }
  const { u8 } = rig;
  let ident = 0;
  /** Make the fragment at `at` part of another datagram: write the next identification and the checksum. */
  function next(at: number): void {
    u8[at + IDENT_AT + 1] = ident;
    u8[at + IDENT_AT] = ident >>> 8;
    const sum = ~onesSum(
      u8,
      at,
      CHECKSUM_AT,
      onesSum(u8, at + CHECKSUM_AT + 2, IP_BYTES - CHECKSUM_AT - 2, 0),
    );
    let folded = ~sum >>> 0;
    while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16);
    u8[at + CHECKSUM_AT] = (~folded >>> 8) & 0xff;
    u8[at + CHECKSUM_AT + 1] = ~folded & 0xff;
  }
  const suite = new Benchmark.Suite();
  suite.add(
    'six fragments of 8 KiB',
    () => {
      for (let i = 0; i < DATAGRAMS; i++) {
        ident = (ident + 1) & 0xffff;
        let whole = NO_SLOT;
        for (const { at, bytes } of frames) {
          next(at);
          whole = reassembler.push(at, bytes, bytes, NO_SLOT, 4, 0);
        }
        if (whole === NO_SLOT) throw new Error('reassembly did not complete');
        sink.value ^= whole;
        rig.large.push(whole);
      }
    },
    ops(DATAGRAMS),
  );
  suite.add(
    'of these, preparing the six headers',
    () => {
      for (let i = 0; i < DATAGRAMS; i++) for (const { at } of frames) next(at);
    },
    ops(DATAGRAMS),
  );
  suite.add(
    'the checksum of 8 KiB',
    () => {
      for (let i = 0; i < DATAGRAMS; i++) sink.value ^= onesSum(u8, rig.pool.slotAt(0), DATAGRAM_BYTES, 0);
    },
    ops(DATAGRAMS),
  );
  return suite;
}
