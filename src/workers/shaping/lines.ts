/**
 * All emulated lines of one direction: finds the line of a frame by its address outside, and the line whose
 * frame arrives next.
 */
import { addressParse, addressRead, addressSetIpv4, isV4Mapped } from '../../proto/address.ts';
import { ETH_BYTES, EtherType, etherType } from '../../proto/ethernet.ts';
import { IPV4_MIN_BYTES, ipv4Dst, ipv4Src } from '../../proto/ipv4.ts';
import { IPV6_BYTES, IPV6_DST, IPV6_SRC } from '../../proto/ipv6.ts';
import { VNET_BYTES } from '../../proto/vnethdr.ts';
import { Counter } from '../../ring/counters.ts';
import { copyBytes, NativeBuffer } from '../../sys/memory.ts';
import type { NetworkPlan, ShapingPlan } from '../engine-plan.ts';
import { FifoStore } from './frame-fifo.ts';
import { Fate, Line, MAX_FRAME_BYTES } from './line.ts';
import { SuperFrame } from './super-frame.ts';

/** Seeds of the two directions differ, so that their losses do. */
const TO_GUEST_SEED = 0x746f;
const NETWORK_WORDS = 8;
/**
 * Longest time that a frame waits for the wake-up of others, and its first packet for its last one. With the kernel's timer slack of 0.05 ms it is
 * less than the 0.2 ms by which a delay may be too long; two packets of 1,514 bytes at 100 Mbit/s have 0.121 ms
 * between them.
 */
export const GATHER_MS = 0.125;

export type Direction = 'fromGuest' | 'toGuest';

export class Lines {
  readonly #direction: Direction;
  readonly #counters: Float64Array;
  readonly #store = new FifoStore();
  /** The line of no rule first, then that of each rule. */
  #lines: Line[];
  /** Address and mask of each network, and the line that it leads to. */
  #networks = new Uint32Array(0);
  #lineOfNetwork: readonly number[] = [];
  /** Address outside of a frame, and whether it has one. */
  readonly #words = new Uint32Array(4);
  /** The frame of enter(). */
  readonly frame = new NativeBuffer(MAX_FRAME_BYTES);
  readonly #vnetBytes: number;
  readonly #super = new SuperFrame();
  #frameMs = 0;

  /** @param vnetBytes  in front of each frame, VNET_BYTES or 0 */
  constructor(plan: ShapingPlan, direction: Direction, counters: Float64Array, vnetBytes: number) {
    this.#direction = direction;
    this.#counters = counters;
    this.#vnetBytes = vnetBytes;
    this.#lines = [plan.rest, ...plan.rules].map((lines, i) => this.#line(plan, lines[direction], i));
    this.#setNetworks(plan);
  }

  #line(plan: ShapingPlan, line: ShapingPlan['rest'][Direction], i: number): Line {
    return new Line(
      line,
      plan.seed + i + (this.#direction === 'toGuest' ? TO_GUEST_SEED : 0),
      this.#store,
      this.#vnetBytes,
    );
  }

  #setNetworks({ rules }: ShapingPlan): void {
    this.#frameMs = Math.max(...this.#lines.map((line) => line.frameMs));
    const all = rules.flatMap((rule, i) => rule.networks.map((network) => ({ network, line: i + 1 })));
    this.#networks = new Uint32Array(all.length * NETWORK_WORDS);
    for (const [n, { network }] of all.entries()) networkWords(network, this.#networks, n * NETWORK_WORDS);
    this.#lineOfNetwork = all.map(({ line }) => line);
  }

  /**
   * Change all lines. The seed stays. Frames on the line of a rule that is no more are lost.
   * @param now  monotonic ms
   */
  configure(plan: ShapingPlan, now: number): void {
    for (let i = 1 + plan.rules.length; i < this.#lines.length; i++) this.#lines[i]!.close();
    this.#lines = [plan.rest, ...plan.rules].map((lines, i) => {
      const line = this.#lines[i] ?? this.#line(plan, lines[this.#direction], i);
      line.configure(lines[this.#direction], now);
      this.#counters[
        this.#direction === 'fromGuest' ? Counter.lineFullFromGuest : Counter.lineFullToGuest
      ]! += line.dropped;
      line.dropped = 0;
      return line;
    });
    this.#setNetworks(plan);
  }

  /**
   * A frame comes to its line: its bytes are in `frame`, from the vnet header on if there is one.
   * @param bytes  MAX_FRAME_BYTES at the most
   */
  enter(bytes: number, now: number): void {
    const { u8 } = this.frame;
    const vnetBytes = this.#vnetBytes;
    const line =
      this.#lineOfNetwork.length === 0 ? this.#lines[0]! : this.#lineOf(u8, vnetBytes, bytes - vnetBytes);
    if (vnetBytes > 0 && this.#super.parse(u8, 0, bytes)) {
      this.#enterPackets(line, now);
      return;
    }
    const lineBytes = bytes - vnetBytes;
    const fate = line.open(bytes, lineBytes, 1, now);
    if (fate !== Fate.carried) return this.#countLost(fate, 1);
    copyBytes(line.openAddress, this.frame.address, bytes);
    this.#commit(line, bytes, lineBytes, 1, now);
  }

  /** The packets of a GSO frame come to their line, together as far as it lets them. */
  #enterPackets(line: Line, now: number): void {
    const from = this.#super;
    const { address } = this.frame;
    const { headBytes, gsoSize, packets } = from;
    const each = headBytes - VNET_BYTES + gsoSize;
    for (let first = 0; first < packets; ) {
      const n = line.packetsTogether(packets - first, each, now);
      const payloadBytes = from.payloadOf(first, n);
      const bytes = headBytes + payloadBytes;
      const lineBytes = from.lineBytes(first, n);
      const fate = line.open(bytes, lineBytes, n, now);
      if (fate === Fate.carried) {
        const to = line.openAddress;
        copyBytes(to, address, headBytes);
        copyBytes(to + headBytes, address + headBytes + first * gsoSize, payloadBytes);
        from.writeHeaders(line.u8, line.openAt, first, n);
        this.#commit(line, bytes, lineBytes, n, now);
      } else this.#countLost(fate, n);
      first += n;
    }
  }

  #countLost(fate: number, packets: number): void {
    const counters = this.#counters;
    const isFrom = this.#direction === 'fromGuest';
    if (fate === Fate.lost)
      counters[isFrom ? Counter.lineLostFromGuest : Counter.lineLostToGuest]! += packets;
    else if (fate === Fate.full)
      counters[isFrom ? Counter.lineFullFromGuest : Counter.lineFullToGuest]! += packets;
    else counters[Counter.lineTooLong]! += packets;
  }

  #commit(line: Line, bytes: number, lineBytes: number, packets: number, now: number): void {
    line.commit(bytes, lineBytes, packets, now);
    const counters = this.#counters;
    counters[Counter.lineDuplicated]! += line.duplicated;
    counters[Counter.lineReordered]! += line.reordered;
    counters[Counter.lineCorrupted]! += line.corrupted;
    line.duplicated = 0;
    line.reordered = 0;
    line.corrupted = 0;
  }

  #lineOf(u8: Uint8Array, ethAt: number, inBytes: number): Line {
    return this.#readOutside(u8, ethAt, inBytes) ? this.#lineOfAddress(this.#words, 0) : this.#lines[0]!;
  }

  #lineOfAddress(words: Uint32Array, a: number): Line {
    const networks = this.#networks;
    for (let n = 0, w = 0; n < this.#lineOfNetwork.length; n++, w += NETWORK_WORDS) {
      if (
        ((words[a + 3]! ^ networks[w + 3]!) & networks[w + 7]!) === 0 &&
        ((words[a + 2]! ^ networks[w + 2]!) & networks[w + 6]!) === 0 &&
        ((words[a + 1]! ^ networks[w + 1]!) & networks[w + 5]!) === 0 &&
        ((words[a]! ^ networks[w]!) & networks[w + 4]!) === 0
      )
        return this.#lines[this.#lineOfNetwork[n]!]!;
    }
    return this.#lines[0]!;
  }

  /**
   * Whether the queue of the line of an address has room for some packets.
   * @param words,w    the address outside
   * @param lineBytes  of all of them, with Ethernet headers
   */
  hasRoom(words: Uint32Array, w: number, lineBytes: number, packets: number, now: number): boolean {
    return this.#lineOfAddress(words, w).hasRoom(lineBytes, packets, now);
  }

  /** Most bytes of one GSO frame for the line of an address. @param words,w  the address outside */
  mostFrameBytes(words: Uint32Array, w: number): number {
    return this.#lineOfAddress(words, w).mostFrameBytes;
  }

  /** Line.frameMs of the line with the longest. */
  get frameMs(): number {
    return this.#frameMs;
  }

  /** @returns false: the frame is not IP, or malformed */
  #readOutside(u8: Uint8Array, ethAt: number, inBytes: number): boolean {
    const type = etherType(u8, ethAt);
    const ipAt = ethAt + ETH_BYTES;
    const isFrom = this.#direction === 'fromGuest';
    if (type === EtherType.ipv4) {
      if (inBytes < ETH_BYTES + IPV4_MIN_BYTES) return false;
      addressSetIpv4(this.#words, 0, isFrom ? ipv4Dst(u8, ipAt) : ipv4Src(u8, ipAt));
      return true;
    }
    if (type !== EtherType.ipv6 || inBytes < ETH_BYTES + IPV6_BYTES) return false;
    addressRead(u8, ipAt + (isFrom ? IPV6_DST : IPV6_SRC), this.#words, 0);
    return true;
  }

  /** When due() may find the next frame, in ms; Infinity: there is none. */
  nextMs(): number {
    let next = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.#lines.length; i++) {
      const ms = this.#lines[i]!.nextMs();
      if (ms < next) next = ms;
    }
    return next;
  }

  /** When the last of the frames arrives that arrive by untilMs, in ms; -Infinity: none does. */
  lastMs(untilMs: number): number {
    let last = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < this.#lines.length; i++) {
      const ms = this.#lines[i]!.lastMs(untilMs);
      if (ms > last) last = ms;
    }
    return last;
  }

  /** @returns the line with a frame that arrives now, for release(); null: there is none */
  due(now: number): Line | null {
    let found: Line | null = null;
    let first = now;
    for (let i = 0; i < this.#lines.length; i++) {
      const ms = this.#lines[i]!.nextMs();
      if (ms > first) continue;
      if (!this.#lines[i]!.due(now)) continue; // it was one that others overtake
      first = ms;
      found = this.#lines[i]!;
    }
    return found;
  }
}

/**
 * When a thread is to wake for the frames of these lines, in ms; Infinity: there are none. Frames that arrive
 * within GATHER_MS share one wake-up, at the time of the last of them; a frame without others near it does not
 * wait.
 */
export function wakeMs(all: readonly Lines[]): number {
  let first = Number.POSITIVE_INFINITY;
  let gatherMs = GATHER_MS;
  for (let i = 0; i < all.length; i++) {
    const ms = all[i]!.nextMs();
    if (ms < first) first = ms;
    const rest = GATHER_MS - all[i]!.frameMs;
    if (rest < gatherMs) gatherMs = rest;
  }
  if (first === Number.POSITIVE_INFINITY) return first;
  let last = first;
  for (let i = 0; i < all.length; i++) {
    const ms = all[i]!.lastMs(first + gatherMs);
    if (ms > last) last = ms;
  }
  return last;
}

/** Write address and mask. A line's rule was checked where it was parsed. */
function networkWords({ address, prefixLen }: NetworkPlan, words: Uint32Array, w: number): void {
  if (!addressParse(address, words, w)) throw new Error(`no address: ${address}`);
  let bits = isV4Mapped(words, w) && !address.includes(':') ? 96 + prefixLen : prefixLen;
  for (let i = 0; i < 4; i++, bits -= 32)
    words[w + 4 + i] = bits >= 32 ? 0xffff_ffff : bits <= 0 ? 0 : (0xffff_ffff << (32 - bits)) >>> 0;
}
