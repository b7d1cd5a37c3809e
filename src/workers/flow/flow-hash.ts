/**
 * Keyed hash of flows and datagrams: HalfSipHash-1-3 (Aumasson and Bernstein's SipHash on 32-bit words), key
 * of two random words per process.
 *
 * Reason: the guest, and anyone who can send to a published port, chooses addresses and ports. With an
 * unkeyed hash they could choose values that put all flows in one probe sequence or on one shard. 1-3 rounds
 * are the Linux kernel's choice for tables (hsiphash); 2-4, for which a forged output would matter, costs 1.2
 * to 1.4x (IPv4) and 1.8x (IPv6) here: bench/flow-hash.bench.ts.
 *
 * The hashed messages, in little-endian words. Each kind has a different length, which is part of the hash:
 *
 *   flow, IPv4     13 bytes   guest, remote, guestPort << 16 | remotePort, proto
 *   datagram, IPv4 14 bytes   src, dst, ident, proto, 1
 *   flow, IPv6     37 bytes   guest (4 words), remote (4), ports, proto
 *   datagram, IPv6 38 bytes   src (4), dst (4), ident, proto, 1
 *
 * @source https://github.com/veorq/SipHash, README and halfsiphash.c (definition)
 */
import { isV4Mapped } from '../../proto/address.ts';

const message = new Int32Array(16);

/**
 * HalfSipHash-1-3 with 32 bits of output, over `wordCount` words of `words` and a last partial word.
 * @param lastWord  the 0..3 bytes after the last whole word; bits 24..31: length of the message in bytes
 * @returns u32
 */
export function halfSipHash13(
  k0: number,
  k1: number,
  words: Int32Array,
  wordCount: number,
  lastWord: number,
): number {
  let v0 = k0 | 0;
  let v1 = k1 | 0;
  let v2 = k0 ^ 0x6c796765;
  let v3 = k1 ^ 0x74656462;
  for (let i = 0; i <= wordCount; i++) {
    const m = i < wordCount ? words[i]! : lastWord;
    v3 ^= m;
    // One round; the three of the finish below are the same.
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
    v0 ^= m;
  }
  v2 ^= 0xff;
  for (let round = 0; round < 3; round++) {
    v0 = (v0 + v1) | 0;
    v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
    v0 = (v0 << 16) | (v0 >>> 16);
    v2 = (v2 + v3) | 0;
    v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
    v0 = (v0 + v3) | 0;
    v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
    v2 = (v2 + v1) | 0;
    v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
    v2 = (v2 << 16) | (v2 >>> 16);
  }
  return (v1 ^ v3) >>> 0;
}

/** Fill `message` with two addresses and a word. @returns words used: 3 when both are v4-mapped, else 9 */
function addressWords(a: Uint32Array, aAt: number, b: Uint32Array, bAt: number, word: number): number {
  if (isV4Mapped(a, aAt) && isV4Mapped(b, bAt)) {
    message[0] = a[aAt + 3]!;
    message[1] = b[bAt + 3]!;
    message[2] = word;
    return 3;
  }
  for (let i = 0; i < 4; i++) {
    message[i] = a[aAt + i]!;
    message[i + 4] = b[bAt + i]!;
  }
  message[8] = word;
  return 9;
}

/** The hash's key: the first two words of EnginePlan.hashKey or isnKey. */
export type HashKey = readonly [number, number, ...number[]];

/**
 * Hash of a flow: selects the shard and the place in its table. It is the same in both directions, as the
 * guest's address and port always come first.
 * @param a  guest address, four words from `aAt` (IPv4 as ::ffff:a.b.c.d)
 * @param b  remote address, four words from `bAt`
 * @param ports  (guestPort << 16 | remotePort) >>> 0; for echo flows identifier << 16
 * @returns u32
 */
export function flowHash(
  key: HashKey,
  a: Uint32Array,
  aAt: number,
  b: Uint32Array,
  bAt: number,
  ports: number,
  proto: number,
): number {
  const wordCount = addressWords(a, aAt, b, bAt, ports);
  return halfSipHash13(key[0], key[1], message, wordCount, ((wordCount * 4 + 1) << 24) | proto);
}

/**
 * Shard of a hash, 0 .. shards-1. It depends on the upper bits; the place in the flow table depends on the
 * lower ones.
 */
export function shardOf(hash: number, shards: number): number {
  return Math.floor((hash * shards) / 0x1_0000_0000);
}
