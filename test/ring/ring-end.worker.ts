/**
 * One end of the ring tests; see ring-pair.ts. Does not return to its event loop before it has finished, like
 * packet threads.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Doorbell } from '../../src/ring/doorbell.ts';
import { DESC_WORDS, sleepingAt } from '../../src/ring/layout.ts';
import { RingConsumer, RingProducer } from '../../src/ring/spsc.ts';
import type { EndData, EndReport } from './ring-pair.ts';

const { role, sab, layout, bells, options } = workerData as EndData;
const me = role === 'producer' ? 0 : 1;
const bellWords = new Int32Array(bells);
const i32 = new Int32Array(sab);

const SLEEP_LIMIT_MS = 5000;

interface Bells {
  /** Ring the doorbell of the thread that `fd` identifies. */
  ring(fd: number): void;
  /** The `fd` argument of `ring` for a thread. */
  fdOf(thread: number): number;
  /** Sleep until rung. @returns false after the time limit */
  sleep(): boolean;
}

/** Doorbells by Atomics.wait and notify, 32 words apart in `bells`. */
function notifyBells(): Bells {
  let seen = 0;
  return {
    ring: (fd) => {
      Atomics.add(bellWords, fd * 32, 1);
      Atomics.notify(bellWords, fd * 32);
    },
    fdOf: (thread) => thread,
    sleep: () => {
      const rung = Atomics.wait(bellWords, me * 32, seen, SLEEP_LIMIT_MS) !== 'timed-out';
      seen = Atomics.load(bellWords, me * 32);
      return rung;
    },
  };
}

/** Doorbells as in the engine: one eventfd each, edge-triggered in an epoll set. */
async function eventfdBells(fds: readonly [number, number]): Promise<Bells> {
  const { eventfdDrain, eventfdWrite } = await import('../../src/sys/io.ts');
  const { EpollEvents, epollAdd, epollCreate, epollWait } = await import('../../src/sys/epoll.ts');
  const { EPOLLET, EPOLLIN } = await import('../../src/sys/constants.ts');
  const ep = epollCreate();
  const events = new EpollEvents(4);
  if (ep < 0 || epollAdd(ep, fds[me], EPOLLIN | EPOLLET, 0, 0) < 0) throw new Error('no epoll');
  return {
    ring: eventfdWrite,
    fdOf: (thread) => fds[thread as 0 | 1],
    sleep: () => {
      const n = epollWait(ep, events, SLEEP_LIMIT_MS);
      if (n > 0) eventfdDrain(fds[me]);
      return n > 0;
    },
  };
}

const bell = options.eventFds === undefined ? notifyBells() : await eventfdBells(options.eventFds);
const bellOf = (thread: number): Doorbell =>
  new Doorbell(i32, sleepingAt(layout, thread) >>> 2, bell.fdOf(thread), bell.ring);
const myBell = bellOf(me);
const otherBell = bellOf(1 - me);
const out = new RingProducer(sab, layout, me, otherBell);
const inward = new RingConsumer(sab, layout, 1 - me, otherBell);

let received = 0;
let broken = 0;
let lostWakeUps = 0;
let sleeps = 0;

/** End of a round, when all rings are flushed: announce the sleep, check all inputs again, sleep. */
function sleepUnlessWork(): void {
  myBell.prepareSleep();
  if (inward.available() === 0 && !out.movable) {
    sleeps++;
    if (!bell.sleep()) lostWakeUps++;
  }
  myBell.wake();
}

function send(value: number): void {
  const at = out.reserve();
  const w = out.words;
  for (let i = 0; i < DESC_WORDS; i++) w[at + i] = Math.imul(value, 31) + i;
  out.commit();
}

function receive(limit: number): number {
  const n = Math.min(limit, inward.available());
  for (let i = 0; i < n; i++) {
    const at = inward.at(i);
    for (let word = 0; word < DESC_WORDS; word++) {
      if (inward.words[at + word] !== (Math.imul(received, 31) + word) >>> 0) {
        broken++;
        break;
      }
    }
    received++;
  }
  inward.release(n);
  return n;
}

// xorshift32: batch sizes and pauses that differ but repeat from run to run
let random = 0x9e3779b9 ^ me;
function nextRandom(below: number): number {
  random ^= random << 13;
  random ^= random >>> 17;
  random ^= random << 5;
  return (random >>> 0) % below;
}

/** Spin for a short time, so that the steps of the other end interleave with ours in different orders. */
function dawdle(): void {
  for (let i = nextRandom(200); i > 0; i--) Atomics.load(bellWords, me * 32);
}

function runPingPong(): void {
  if (me === 0) send(0);
  out.flush();
  while (received < options.count) {
    const n = receive(1);
    if (n === 0) {
      dawdle();
      sleepUnlessWork();
      continue;
    }
    if (me === 1) send(received - 1);
    else if (received < options.count) send(received);
    dawdle();
    out.flush();
  }
  drainOverflow(0);
}

/** Flush and sleep in turns until at most `limit` descriptors wait for room. */
function drainOverflow(limit: number): void {
  out.flush();
  while (out.overflowed > limit) {
    sleepUnlessWork();
    out.flush();
  }
}

function runProducer(): void {
  let sent = 0;
  while (sent < options.count) {
    const batch = Math.min(options.count - sent, 1 + nextRandom(96));
    for (let i = 0; i < batch; i++) send(sent++);
    out.flush();
    // As a real stage does: do not queue without limit for a slow consumer.
    drainOverflow(1000);
  }
  drainOverflow(0);
}

function runConsumer(): void {
  const nap = new Int32Array(new SharedArrayBuffer(4));
  while (received < options.count) {
    if (receive(options.slowConsumer ? 1 + nextRandom(8) : 4096) === 0) sleepUnlessWork();
    else if (options.slowConsumer && nextRandom(500) === 0) Atomics.wait(nap, 0, 0, 1);
  }
}

if (options.pingPong) runPingPong();
else if (me === 0) runProducer();
else runConsumer();
const report: EndReport = { received, broken, lostWakeUps, sleeps, maxOverflow: out.maxOverflow };
parentPort!.postMessage(report);
