/**
 * The whole engine with hostile frames through a socket pair, in a network namespace with loopback only. Run
 * by engine.test.ts. Prints one line of JSON.
 *
 *   engine-child.ts fused|pipeline=N|lanes=N FRAMES SEED
 *
 * With lanes each queue has a socket pair, and frames are spread over them at random.
 */

import { createSocket } from 'node:dgram';
import { readdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { networkInterfaces } from 'node:os';
import { setImmediate, setTimeout } from 'node:timers/promises';
import { close } from '../../src/sys/io.ts';
import { startEngine } from '../../src/workers/engine.ts';
import { DEFAULT_POLICY, type EnginePlan } from '../../src/workers/engine-plan.ts';
import { Prng } from '../support/netsim/prng.ts';
import { encodeFrame, Syn, segment, VNET } from '../support/netsim/wire.ts';
import { corpus, PLAN_ADDRESSES } from './corpus.ts';
import { LiveTcp } from './live-tcp.ts';
import { Mutator } from './mutator.ts';
import { GuestEnd, tapPair } from './path.ts';
import { Verifier } from './verify.ts';

const HOST = 0xc0000202;
const HOST_PORT = 8080;
/** The engine hangs when it reads no frame for this time. */
const HANG_MS = 20_000;
/** With three lanes and more frames go to the wrong lane too, which passes them on. */
const WRONG_LANE_EVERY = 5;
const VALID_FRAMES = 20_000;
/** So many of them at a time: a lane's reader may have given them all to another lane (foreignLimit()). */
const BURST = 125;

for (const [name, list] of Object.entries(networkInterfaces())) {
  if (!list?.every((a) => a.internal))
    throw new Error(`there is an interface ${name}: not without a namespace of its own`);
}

const [planName, framesText, seedText] = process.argv.slice(2);
const frames = Number(framesText);
const seed = Number(seedText);
const [kind, number] = planName!.split('=') as [EnginePlan['threads']['kind'], string?];
const threads: EnginePlan['threads'] =
  kind === 'fused'
    ? { kind }
    : kind === 'pipeline'
      ? { kind, shards: Number(number) }
      : { kind, lanes: Number(number) };

// Peers: an echo server, a server that closes at once, a resolver that repeats the query.
const echo = createServer({ allowHalfOpen: true }, (s) => {
  s.on('error', () => {});
  s.pipe(s);
});
const resolverTcp = createServer((s) => {
  s.on('error', () => {});
  s.destroy();
});
const resolver = createSocket('udp4', (message, from) => {
  if (message.length > 2) message[2]! |= 0x80;
  resolver.send(message, from.port, from.address);
});
const mirror = createSocket('udp4', (message, from) => mirror.send(message, from.port, from.address));
for (const s of [resolver, mirror]) s.on('error', () => {});
await Promise.all([
  new Promise<void>((done) => echo.listen(HOST_PORT, '127.0.0.1', done)),
  new Promise<void>((done) => resolverTcp.listen(53, '127.0.0.1', done)),
  new Promise<void>((done) => resolver.bind(53, '127.0.0.1', done)),
  new Promise<void>((done) => mirror.bind(7777, '127.0.0.1', done)),
]);

const fdCount = (): number => readdirSync('/proc/self/fd').length;
const pairs = Array.from({ length: threads.kind === 'lanes' ? threads.lanes : 1 }, tapPair);
const [tap, ...moreQueues] = pairs.map(([engine]) => engine);
const fdsBefore = fdCount();
const logs: string[] = [];
const engine = await startEngine(
  {
    threads,
    addresses: PLAN_ADDRESSES,
    policy: {
      ...DEFAULT_POLICY,
      udpTimeoutMs: 500,
      udpStreamTimeoutMs: 1000,
      pingTimeoutMs: 500,
      dhcp: true,
      ra: true,
      connectFailure: 'honest',
      multicast: { all: true, groups: [], maxGroups: 20 },
    },
    listeners: [
      { proto: 'tcp', address: '127.0.0.1', port: 9000, targetPort: 9000 },
      { proto: 'udp', address: '127.0.0.1', port: 9000, targetPort: 9000 },
    ],
    pool: { smallSlots: 2048 * pairs.length, largeSlots: 256 * pairs.length, flows: 1024 },
    tap: { fd: tap!, moreQueues, vnetHdrBytes: 12, uso: true },
    hashKey: [seed, 1],
    isnKey: [1, 2, 3, seed],
    debugOwnership: true,
    ...(pairs.length > 2 && {
      impairment: { lossFromGuest: 0, lossToGuest: 0, seed: 0, wrongLaneEvery: WRONG_LANE_EVERY },
    }),
    logLevel: 'warning',
  },
  { onLog: (level, text) => logs.push(`${level}: ${text}`) },
);
let failure: Error | null = null;
void engine.failed.then((error) => {
  failure = error;
});

const prng = new Prng(seed);
const guests = pairs.map(([, guest]) => new GuestEnd(guest));
const anyQueue = (): GuestEnd => (guests.length === 1 ? guests[0]! : prng.pick(guests));
const verifier = new Verifier(true, PLAN_ADDRESSES.mtu);
const live = new LiveTcp(prng, HOST, HOST_PORT);
const mutator = new Mutator(corpus(), prng);
let arpReplies = 0;
let synAcks = 0;
const onFrame = (b: Uint8Array, at: number, bytes: number): void => {
  verifier.check(b, at, bytes);
  live.hear(b, at, bytes);
  if (b[at + VNET + 12] === 8 && b[at + VNET + 13] === 6 && b[at + VNET + 21] === 2) arpReplies++;
  if (b[at + VNET + 23] === 6 && (b[at + VNET + 47]! & 0x12) === 0x12) synAcks++;
};

function drain(): void {
  for (const guest of guests) while (guest.drain(onFrame) === 64);
}

async function flush(): Promise<void> {
  let since = performance.now();
  const pending = (): boolean => guests.some((guest) => guest.pending > 0);
  for (let i = 0; pending(); i++) {
    if (failure !== null) throw failure;
    for (const guest of guests) if (guest.flush() > 0) since = performance.now();
    drain();
    // Give the servers of this thread time to run.
    if (pending()) await (i < 10 ? setImmediate() : setTimeout(1));
    if (performance.now() - since > HANG_MS)
      throw new Error(`the engine has taken no frame for ${HANG_MS} ms`);
  }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const start = performance.now();
  while (!holds()) {
    if (failure !== null) throw failure;
    drain();
    if (performance.now() - start > HANG_MS) throw new Error(`${what}: not within ${HANG_MS} ms`);
    await setTimeout(2);
  }
}

const started = performance.now();
let sent = 0;
let rssWarm = 0;
for (let i = 0; i < frames; i++) {
  const guest = anyQueue();
  const bytes = (i & 3) === 0 ? live.next(guest.out.u8, guest.at) : mutator.next(guest.out.u8, guest.at);
  guest.add(bytes);
  sent++;
  if (guest.full) {
    await flush();
    if ((i & 0x3f0) === 0) await setImmediate();
  }
  if (i === frames >>> 1) rssWarm = process.memoryUsage.rss();
}
await flush();
// Frames that find no large slot for a while are read too, but only counted.
await until('all frames read', () => {
  const { framesFromGuest = 0, tapCutShort = 0 } = engine.counters();
  return framesFromGuest + tapCutShort === sent;
});
const seconds = (performance.now() - started) / 1000;
const grown = process.memoryUsage.rss() - rssWarm;

// The engine must still answer: more frames than it has slots, and a connection to the host.
arpReplies = 0;
const arp = corpus().find((s) => s.name === 'ARP request')!.bytes;
for (let i = 0; i < VALID_FRAMES; i += BURST) {
  for (let k = 0; k < BURST; k++) {
    const guest = anyQueue();
    guest.addCopy(arp);
    if (guest.full) await flush();
  }
  await flush();
  await until('ARP replies', () => arpReplies >= i + BURST);
}
await setTimeout(2500); // flows of the hostile frames time out
synAcks = 0;
const endpoints = {
  family: 4 as const,
  guest: Uint8Array.of(192, 0, 2, 15),
  remote: Uint8Array.of(192, 0, 2, 2),
};
const syn = segment({ flags: Syn, srcPort: 39_999, dstPort: HOST_PORT, seq: 7, options: { mss: 1460 } });
let connected = false;
for (let i = 0; i < 20 && !connected; i++) {
  anyQueue().addCopy(encodeFrame(endpoints, syn, { vnet: true, partial: true }));
  await flush();
  await setTimeout(100);
  drain();
  connected = synAcks > 0;
}
const counters = engine.counters();
const stopStarted = performance.now();
await engine.stop();
const stopMs = performance.now() - stopStarted;
await setTimeout(50);
// The engine has stopped once its threads have said so; the runtime closes a thread's own descriptors a moment later.
const closedBy = performance.now() + 3000;
while (fdCount() > fdsBefore && performance.now() < closedBy) await setTimeout(20);
const fdsAfter = fdCount();
for (const fd of pairs.flat()) close(fd);
for (const s of [echo, resolverTcp]) s.close();
for (const s of [resolver, mirror]) s.close();
process.stdout.write(
  `${JSON.stringify({
    frames: sent,
    framesPerSecond: Math.round(sent / seconds),
    handshakes: live.established,
    connected,
    stopMs: Math.round(stopMs),
    rssGrownMiB: Math.round(grown / 2 ** 20),
    openFds: fdsAfter - fdsBefore,
    failure: failure === null ? null : String(failure),
    errors: [...new Set(logs.filter((l) => l.startsWith('error')))],
    counters,
  })}\n`,
);
process.exit(0);
