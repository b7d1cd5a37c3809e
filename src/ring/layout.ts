/**
 * The layout of the engine's shared memory: its one large SharedArrayBuffer here, the small control memory at
 * the end of the file. A layout is plain data, which reaches worker threads by structured clone.
 *
 *   skewBytes  ─▶ ┌ stop flag ──────────────┐ one line
 *                 │ log bell                │ one line
 *                 │ sleeping flag × threads │ one line each
 *                 │ ring control × rings    │ two lines each: [head, starving] [tail]
 *                 │ ring slots × rings      │ ringDescriptors * 64 B each
 *                 │ counters × threads      │ COUNTER_WORDS float64 each
 *                 │ log ring × threads      │ two lines of control, then logBytes
 *                 │ ownership word × slots  │ int32 each
 *     page ─────▶ │ small slots             │ SMALL_SLOT_BYTES each
 *     page ─────▶ │ large slots             │ LARGE_SLOT_BYTES each
 *                 └─────────────────────────┘ totalBytes
 *
 * A "line" here is LINE_BYTES = 128, two cache lines: x86 fetches cache lines in pairs, so words of different
 * writers are 128 bytes apart.
 *
 * Invariants: every part is aligned as counted from skewBytes; no two parts overlap; totalBytes < 2^32, so
 * that a byte offset fits in a descriptor word.
 */
import { COUNTER_WORDS, type CounterBlocks } from './counters.ts';

export const SMALL_SLOT_BYTES = 2048;
/** 17 pages: 64 KiB of payload, and room in front of it for vnet, Ethernet, IPv6 and TCP headers. */
export const LARGE_SLOT_BYTES = 69632;
export const PAGE_BYTES = 4096;
export const LINE_BYTES = 128;
/** A descriptor is 16 words, one 64-byte cache line. */
export const DESC_WORDS = 16;
export const DESC_BYTES = 64;

export interface LayoutRequest {
  readonly smallSlots: number;
  readonly largeSlots: number;
  /** Number of SPSC rings: one per direction of a pair of stages. */
  readonly rings: number;
  /** Descriptors per ring, a power of two. */
  readonly ringDescriptors: number;
  /** Number of packet threads: each has a block of counters, a sleeping flag and a log ring. */
  readonly counterBlocks: number;
  /** Log ring bytes per thread, a power of two. */
  readonly logBytes: number;
  /**
   * Unused bytes at the start, which align the parts in memory and not only in the buffer: malloc returns
   * large blocks at 16 bytes past a page. allocateShared() sets it; absent, 0: alignment does not matter.
   */
  readonly skewBytes?: number;
}

export interface Layout extends LayoutRequest, CounterBlocks {
  readonly skewBytes: number;
  readonly stopAt: number;
  readonly logBellAt: number;
  readonly sleepingAt: number;
  readonly ringControlAt: number;
  readonly ringSlotsAt: number;
  readonly logAt: number;
  readonly ownershipAt: number;
  readonly smallAt: number;
  readonly largeAt: number;
  readonly totalBytes: number;
}

const RING_CONTROL_BYTES = 2 * LINE_BYTES;
const LOG_CONTROL_BYTES = 2 * LINE_BYTES;

function alignUp(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}

function requireCount(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least) {
    throw new RangeError(
      `shared memory layout: ${name} is ${value}; it must be a whole number of ${least} or more`,
    );
  }
}

function requirePowerOfTwo(name: string, value: number, least: number): void {
  requireCount(name, value, least);
  if (value > 2 ** 30 || (value & (value - 1)) !== 0) {
    throw new RangeError(`shared memory layout: ${name} is ${value}; it must be a power of two up to 2^30`);
  }
}

/**
 * Compute the offset of every part.
 * @throws RangeError when a count is out of range, or the total would be 4 GiB or more
 */
export function planLayout(request: LayoutRequest): Layout {
  const { smallSlots, largeSlots, rings, ringDescriptors, counterBlocks, logBytes, skewBytes = 0 } = request;
  requireCount('smallSlots', smallSlots, 0);
  requireCount('largeSlots', largeSlots, 0);
  requireCount('rings', rings, 0);
  requireCount('counterBlocks', counterBlocks, 1);
  requirePowerOfTwo('ringDescriptors', ringDescriptors, 2);
  requirePowerOfTwo('logBytes', logBytes, 256);
  requireCount('skewBytes', skewBytes, 0);
  if (skewBytes >= PAGE_BYTES || skewBytes % 8 !== 0) {
    throw new RangeError(
      `shared memory layout: skewBytes is ${skewBytes}; it must be a multiple of 8 below a page`,
    );
  }

  // `end` counts from 0 and the skew is added to each result, so that parts are aligned as counted from there.
  let end = 0;
  const place = (bytes: number, alignment: number): number => {
    const at = alignUp(end, alignment);
    end = at + bytes;
    return at + skewBytes;
  };
  const counterBlockBytes = alignUp(COUNTER_WORDS * 8, LINE_BYTES);
  const layout = {
    smallSlots,
    largeSlots,
    rings,
    ringDescriptors,
    counterBlocks,
    logBytes,
    skewBytes,
    counterBlockBytes,
    stopAt: place(LINE_BYTES, LINE_BYTES),
    logBellAt: place(LINE_BYTES, LINE_BYTES),
    sleepingAt: place(counterBlocks * LINE_BYTES, LINE_BYTES),
    ringControlAt: place(rings * RING_CONTROL_BYTES, LINE_BYTES),
    ringSlotsAt: place(rings * ringDescriptors * DESC_BYTES, LINE_BYTES),
    countersAt: place(counterBlocks * counterBlockBytes, LINE_BYTES),
    logAt: place(counterBlocks * (LOG_CONTROL_BYTES + logBytes), LINE_BYTES),
    ownershipAt: place((smallSlots + largeSlots) * 4, LINE_BYTES),
    smallAt: place(smallSlots * SMALL_SLOT_BYTES, PAGE_BYTES),
    largeAt: place(largeSlots * LARGE_SLOT_BYTES, PAGE_BYTES),
  };
  const totalBytes = alignUp(end, PAGE_BYTES) + skewBytes;
  if (totalBytes >= 2 ** 32) {
    throw new RangeError(
      `shared memory layout: ${smallSlots} small and ${largeSlots} large slots need ${totalBytes} bytes; ask for fewer: 4 GiB is the limit`,
    );
  }
  return { ...layout, totalBytes };
}

export interface SharedMemory {
  readonly sab: SharedArrayBuffer;
  readonly layout: Layout;
  /** Native address of the buffer's first byte. Valid while `sab` is referenced. */
  readonly baseAddress: number;
}

/**
 * Allocate the buffer, with pages and lines aligned in memory. A page uses no memory until it is written.
 * @param addressOf  returns the native address of a view's first byte (src/sys/memory.ts)
 * @throws RangeError as planLayout()
 */
export function allocateShared(
  request: LayoutRequest,
  addressOf: (view: Uint8Array) => number,
): SharedMemory {
  const sab = new SharedArrayBuffer(planLayout({ ...request, skewBytes: PAGE_BYTES - 8 }).totalBytes);
  const baseAddress = addressOf(new Uint8Array(sab));
  const skewBytes = (PAGE_BYTES - (baseAddress % PAGE_BYTES)) % PAGE_BYTES;
  return { sab, layout: planLayout({ ...request, skewBytes }), baseAddress };
}

/** Byte offset of the sleeping flag (int32) of a packet thread. */
export function sleepingAt(layout: Layout, thread: number): number {
  return layout.sleepingAt + thread * LINE_BYTES;
}

/**
 * Byte offset of a ring's control words: int32 head at +0, int32 starving at +4, int32 tail at +LINE_BYTES.
 */
export function ringControlAt(layout: Layout, ring: number): number {
  return layout.ringControlAt + ring * RING_CONTROL_BYTES;
}

/** Byte offset of a ring's first descriptor. */
export function ringSlotsAt(layout: Layout, ring: number): number {
  return layout.ringSlotsAt + ring * layout.ringDescriptors * DESC_BYTES;
}

/**
 * Byte offset of a thread's log ring: int32 head and int32 dropped at +0, int32 tail at +LINE_BYTES, bytes
 * from +2 lines.
 */
export function logRingAt(layout: Layout, thread: number): number {
  return layout.logAt + thread * (LOG_CONTROL_BYTES + layout.logBytes);
}

/** Ask every thread to stop. The caller must ring their doorbells afterwards. */
export function requestStop(i32: Int32Array, layout: Layout): void {
  Atomics.store(i32, layout.stopAt >>> 2, 1);
}

/** Whether requestStop() was called: one atomic load, cheap enough for every round of a thread. */
export function stopRequested(i32: Int32Array, layout: Layout): boolean {
  return Atomics.load(i32, layout.stopAt >>> 2) !== 0;
}

/**
 * Control memory: what the main thread and all packet threads share besides the large buffer, in a buffer of
 * its own.
 *
 *   +0   message count, int32         +16  seen, SEEN_WORDS u32
 *                                     +72  begun, int32
 *   +8   guest's MAC, 6 bytes         +76  datagram ports, one byte per port
 *                                     then published UDP ports, u16 per port; room of each lane, int32, and
 *                                     flows that move to it; the lane of each bucket, u16; neighbours,
 *                                     NEIGHBOUR_WORDS u32
 */
export interface ControlViews {
  /** [0] counts the messages that were posted to the threads. Accessed by Atomics only. */
  readonly messageCount: Int32Array;
  /** The guest's MAC address, 6 bytes. A thread that sees a frame with another one writes it. */
  readonly guestMac: Uint8Array;
  /** Addresses that the guest was observed to use: Addressing.seen. */
  readonly seen: Uint32Array;
  /** [0] is not 0 once threads may carry packets: EnginePlan.waitsForBegin. Accessed by Atomics only. */
  readonly begun: Int32Array;
  /** Indexed by port: HostContext.datagramPorts. */
  readonly datagramPorts: Uint8Array;
  /** Indexed by the guest's port: HostContext.publishedUdp. */
  readonly publishedUdp: Uint16Array;
  /** Indexed by bucket: OwnerTables.laneOf. */
  readonly laneOf: Uint16Array;
  /** Indexed by lane: OwnerTables.room. */
  readonly room: Int32Array;
  /** GuestNeighbours: which MAC has which address, where there are several. */
  readonly neighbours: Uint32Array;
}

const MESSAGE_COUNT_WORDS = 1;
const GUEST_MAC_AT = 8;
const MAC_BYTES = 6;
const SEEN_AT = 16;
export const SEEN_WORDS = 14;
const BEGUN_AT = SEEN_AT + 4 * SEEN_WORDS;
const DATAGRAM_PORTS_AT = BEGUN_AT + 4;
/** Number of ports that TCP, or UDP, has. */
export const PORTS = 65536;
const PUBLISHED_UDP_AT = DATAGRAM_PORTS_AT + PORTS;
const ROOM_AT = PUBLISHED_UDP_AT + 2 * PORTS;
/** Most lanes of an engine. */
export const MAX_LANES = 8;
export const ROOM_WORDS = 2 * MAX_LANES;
const LANE_OF_AT = ROOM_AT + 4 * ROOM_WORDS;
/** Buckets into which flows are divided among lanes; a power of two. One more belongs to the first lane. */
export const BUCKETS = 4096;
/** A head and 127 entries of 8 words each. */
export const NEIGHBOUR_WORDS = 8 * 128;
const NEIGHBOURS_AT = (LANE_OF_AT + 2 * (BUCKETS + 1) + 3) & ~3;
export const CONTROL_BYTES = NEIGHBOURS_AT + 4 * NEIGHBOUR_WORDS;

/** @param control  a buffer of CONTROL_BYTES */
export const controlViews = (control: SharedArrayBuffer): ControlViews => ({
  messageCount: new Int32Array(control, 0, MESSAGE_COUNT_WORDS),
  guestMac: new Uint8Array(control, GUEST_MAC_AT, MAC_BYTES),
  seen: new Uint32Array(control, SEEN_AT, SEEN_WORDS),
  begun: new Int32Array(control, BEGUN_AT, 1),
  datagramPorts: new Uint8Array(control, DATAGRAM_PORTS_AT, PORTS),
  publishedUdp: new Uint16Array(control, PUBLISHED_UDP_AT, PORTS),
  room: new Int32Array(control, ROOM_AT, ROOM_WORDS),
  laneOf: new Uint16Array(control, LANE_OF_AT, BUCKETS + 1),
  neighbours: new Uint32Array(control, NEIGHBOURS_AT, NEIGHBOUR_WORDS),
});
