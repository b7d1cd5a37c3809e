/**
 * Emulates a line with delay, limited rate, queue and loss between two network namespaces, for kernels
 * without netem and users without privileges. There are two TUN devices, `line0` and `line1`; a packet read
 * from one is written to the other after the time that it takes at the line's rate, and the delay. The caller
 * moves `line1` to the other namespace; its descriptor stays here.
 *
 * usage: scripts/node.sh perf/line-emulator.ts DELAY_MS RATE_MBIT QUEUE_KIB LOSS_PERCENT     runs until killed
 *
 *   line0 --read--> [loss] --> queue, at most QUEUE_KIB wait --> wire, RATE_MBIT --> DELAY_MS --write--> line1
 *
 * One direction is a ring of bytes and a ring of records, both written at the head and read at the tail:
 *
 *   bytes    [ . . . |frame|frame|frame| <- room for the largest frame is kept free before each read
 *   records  { due ms, offset, length }  one per frame
 *
 * Offloads are on, so a frame has up to 64 KiB and a partial checksum. With loss they are off, so that one
 * packet is lost and not a whole burst. Timeouts are whole milliseconds: frames leave up to 1 ms late, never
 * early.
 */
import { closeSync, constants, openSync } from 'node:fs';
import {
  EPOLLIN,
  Errno,
  IFF_NO_PI,
  IFF_TUN,
  IFF_VNET_HDR,
  IFNAMSIZ,
  TUN_F_CSUM,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUNSETIFF,
  TUNSETOFFLOAD,
} from '../src/sys/constants.ts';
import { EpollEvents, epollAdd, epollCreate, epollWait } from '../src/sys/epoll.ts';
import { checked } from '../src/sys/error.ts';
import { ioctl, read, write } from '../src/sys/io.ts';
import { addressOf, NativeBuffer } from '../src/sys/memory.ts';

const LARGEST_FRAME_BYTES = 70_000;
const RECORDS = 1 << 17;
const BATCH = 64;
const IDLE_MS = 1000;

class Direction {
  readonly #fromFd: number;
  readonly #toFd: number;
  readonly #bytesPerMs: number;
  readonly #delayMs: number;
  readonly #queueBytes: number;
  readonly #lossShare: number;
  readonly #pool: Uint8Array;
  readonly #address: number;
  readonly #dueMs = new Float64Array(RECORDS);
  readonly #at = new Uint32Array(RECORDS);
  readonly #length = new Uint32Array(RECORDS);
  #head = 0;
  #tail = 0;
  /** Offset in the pool where the next frame is stored. */
  #writeAt = 0;
  /** Time at which the wire has sent all queued frames. */
  #wireFreeMs = 0;

  constructor(
    fromFd: number,
    toFd: number,
    line: { delayMs: number; rateMbit: number; queueKib: number; lossPercent: number },
  ) {
    this.#fromFd = fromFd;
    this.#toFd = toFd;
    this.#bytesPerMs = line.rateMbit * 125;
    this.#delayMs = line.delayMs;
    this.#queueBytes = line.queueKib * 1024;
    this.#lossShare = line.lossPercent / 100;
    // Room for queued frames, frames within the delay, and 100 ms of frames while this process is not
    // scheduled.
    const inFlightBytes = this.#queueBytes + this.#bytesPerMs * (line.delayMs + 100);
    this.#pool = new Uint8Array(Math.ceil(inFlightBytes) + 4 * LARGEST_FRAME_BYTES);
    this.#address = addressOf(this.#pool);
  }

  /** Whether the next frame has room, a record and LARGEST_FRAME_BYTES; sets writeAt. */
  #hasRoom(): boolean {
    if (this.#head - this.#tail >= RECORDS) return false;
    if (this.#head === this.#tail) {
      this.#writeAt = 0;
      return true;
    }
    const oldestAt = this.#at[this.#tail % RECORDS]!;
    if (this.#writeAt > oldestAt) {
      if (this.#pool.length - this.#writeAt >= LARGEST_FRAME_BYTES) return true;
      // Wrap; strictly below the oldest frame, so that writeAt === oldestAt can only mean full.
      if (oldestAt <= LARGEST_FRAME_BYTES) return false;
      this.#writeAt = 0;
      return true;
    }
    return oldestAt - this.#writeAt > LARGEST_FRAME_BYTES;
  }

  /** Read the frames that are available, at most BATCH. */
  take(nowMs: number): void {
    for (let i = 0; i < BATCH && this.#hasRoom(); i++) {
      const length = read(this.#fromFd, this.#address + this.#writeAt, LARGEST_FRAME_BYTES);
      if (length <= 0) return;
      if (this.#lossShare > 0 && Math.random() < this.#lossShare) continue;
      const startMs = Math.max(nowMs, this.#wireFreeMs);
      if ((startMs - nowMs) * this.#bytesPerMs > this.#queueBytes) continue; // tail drop
      this.#wireFreeMs = startMs + length / this.#bytesPerMs;
      const record = this.#head++ % RECORDS;
      this.#dueMs[record] = this.#wireFreeMs + this.#delayMs;
      this.#at[record] = this.#writeAt;
      this.#length[record] = length;
      this.#writeAt += length;
    }
  }

  /** Write the frames that are due. @returns time at which the next frame is due, or Infinity */
  give(nowMs: number): number {
    while (this.#tail < this.#head) {
      const record = this.#tail % RECORDS;
      const dueMs = this.#dueMs[record]!;
      if (dueMs > nowMs) return dueMs;
      // A frame that the other end refuses (link still down, no memory) is lost, as on a real line.
      write(this.#toFd, this.#address + this.#at[record]!, this.#length[record]!);
      this.#tail++;
    }
    return Number.POSITIVE_INFINITY;
  }
}

function openTun(name: string, offloads: number): number {
  const fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
  // struct ifreq: name, then flags; 40 bytes in all.
  const request = new NativeBuffer(40);
  request.u8.set(Buffer.from(name, 'latin1'));
  request.u16[IFNAMSIZ >> 1] = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
  try {
    checked(ioctl(fd, TUNSETIFF, request.address), 'ioctl', `TUNSETIFF ${name}`);
    checked(ioctl(fd, TUNSETOFFLOAD, offloads), 'ioctl', `TUNSETOFFLOAD ${name}`);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

const [delayMs = 10, rateMbit = 500, queueKib = 8192, lossPercent = 0] = process.argv.slice(2).map(Number);
const line = { delayMs, rateMbit, queueKib, lossPercent };
const offloads = lossPercent > 0 ? 0 : TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
const near = openTun('line0', offloads);
const far = openTun('line1', offloads);
const outward = new Direction(near, far, line);
const inward = new Direction(far, near, line);
const ep = checked(epollCreate(), 'epoll_create1', '');
const events = new EpollEvents(2);
checked(epollAdd(ep, near, EPOLLIN, 0, 0), 'epoll_ctl', 'line0');
checked(epollAdd(ep, far, EPOLLIN, 1, 0), 'epoll_ctl', 'line1');
process.stdout.write('line: up\n');

let dueMs = Number.POSITIVE_INFINITY;
for (;;) {
  const waitMs = Math.min(IDLE_MS, Math.max(0, Math.ceil(dueMs - performance.now())));
  const ready = epollWait(ep, events, waitMs);
  if (ready < 0 && ready !== -Errno.EINTR) checked(ready, 'epoll_wait', '');
  const nowMs = performance.now();
  for (let i = 0; i < ready; i++) (events.dataLo(i) === 0 ? outward : inward).take(nowMs);
  dueMs = Math.min(outward.give(nowMs), inward.give(nowMs));
}
