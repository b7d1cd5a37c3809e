/**
 * Request and response over TCP, and connections per second: blocking calls, one at a time; every duration is
 * recorded. The first fifth of the time is warm-up and not counted. Prints one line of JSON.
 *
 * usage: stream-client.ts echo ADDRESS PORT BYTES SECONDS     one connection, request after request
 *        stream-client.ts once ADDRESS PORT BYTES SECONDS     connect, request, response, end of stream, close; again
 *        stream-client.ts hold ADDRESS PORT BYTES COUNT       open COUNT connections, say how many, keep them until killed;
 *                                                             on SIGUSR2 say how many neither ended nor were reset
 */
import { Errno, errnoName, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_WAITALL } from '../../../src/sys/constants.ts';
import { SysError } from '../../../src/sys/error.ts';
import { close } from '../../../src/sys/io.ts';
import { NativeBuffer } from '../../../src/sys/memory.ts';
import { connect, recv, send } from '../../../src/sys/socket.ts';
import { Latency } from './latency.ts';
import { numbers, print, sockaddr, streamSocket } from './socket.ts';

const TIMEOUT_SECONDS = 2;
const WARM_SHARE = 0.2;
const FAILURE_PAUSE_MS = 10;
/** After this many failures in a row no more flows are opened. */
const HOLD_FAILURES = 3;
/** Time for opening flows; those that are open by then count. */
const HOLD_SECONDS = 20;

const [, , mode, address = ''] = process.argv;
const [port = 0, bytes = 1, amount = 1] = numbers(process.argv.slice(4));
const to = sockaddr(address, port);
const buffer = new NativeBuffer(bytes);

/** Error of the first failed attempt, for the report; null: none has failed. */
let firstFailure: string | null = null;

/** Record a failure. @param got  result of the call: bytes or -errno */
function failed(call: string, got: number): false {
  firstFailure ??= `${call}: ${got < 0 ? errnoName(-got) : `${got} B`}`;
  return false;
}

/** @returns a connected descriptor or -errno */
function open(): number {
  const fd = streamSocket(to.domain, TIMEOUT_SECONDS);
  const r = connect(fd, to.buffer.address, to.bytes);
  if (r >= 0) return fd;
  close(fd);
  failed('connect', r);
  return r;
}

/** Send a request. @returns whether the whole answer arrived */
function ask(fd: number): boolean {
  const sent = send(fd, buffer.address, bytes, MSG_NOSIGNAL);
  if (sent !== bytes) return failed('send', sent);
  const got = recv(fd, buffer.address, bytes, MSG_WAITALL);
  return got === bytes || failed('answer', got);
}

/** @returns whether the other end has closed the connection */
function ends(fd: number): boolean {
  const got = recv(fd, buffer.address, 1, 0);
  return got === 0 || failed('end of stream', got);
}

/**
 * Repeat `once` and record the durations. A failure is recorded with the duration of the timeout: percentiles
 * of the answers alone would favour a tool that gives few. After an immediate failure there is a pause.
 */
function timed(once: () => boolean): void {
  const latency = new Latency();
  const beganMs = performance.now();
  const countsFromMs = beganMs + amount * 1000 * WARM_SHARE;
  const endMs = beganMs + amount * 1000;
  let answered = 0;
  let failures = 0;
  let nowMs = beganMs;
  while (nowMs < endMs) {
    const isFine = once();
    const afterMs = performance.now();
    const counts = nowMs >= countsFromMs;
    if (isFine) {
      if (counts) {
        latency.recordMs(afterMs - nowMs);
        answered++;
      }
    } else {
      failures++;
      if (counts) latency.recordMs(TIMEOUT_SECONDS * 1000);
      pause(FAILURE_PAUSE_MS);
    }
    nowMs = isFine ? afterMs : performance.now();
  }
  const summary = { ...latency.summary(), count: answered };
  const perSecond = (answered * 1000) / (nowMs - countsFromMs);
  print(JSON.stringify({ ...summary, failed: failures, firstFailure, perSecond }));
}

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/**
 * A connection on which an answer is missing is replaced: the answer may still arrive, and would be taken for
 * that of the next request.
 */
function echo(): () => boolean {
  let fd = open();
  if (fd < 0) throw new SysError('connect', `${address} ${port}`, -fd);
  return () => {
    if (fd < 0) fd = open();
    if (fd < 0) return false;
    if (ask(fd)) return true;
    close(fd);
    fd = -1;
    return false;
  };
}

function hold(): void {
  const endMs = performance.now() + HOLD_SECONDS * 1000;
  const held: number[] = [];
  for (let failures = 0; held.length < amount && failures < HOLD_FAILURES && performance.now() < endMs; ) {
    let fd: number;
    try {
      fd = open();
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      break; // out of descriptors
    }
    if (fd >= 0 && ask(fd)) {
      held.push(fd);
      failures = 0;
    } else {
      if (fd >= 0) close(fd);
      failures++;
    }
  }
  process.on('SIGUSR2', () => {
    const open = held.filter((fd) => recv(fd, buffer.address, bytes, MSG_DONTWAIT) === -Errno.EAGAIN).length;
    print(JSON.stringify({ open }));
  });
  print(JSON.stringify({ flows: held.length }));
  setInterval(() => {}, 1e6);
}

if (mode === 'hold') hold();
else if (mode === 'echo') timed(echo());
else
  timed(() => {
    const fd = open();
    if (fd < 0) return false;
    // The server closes first; receiving its end of stream is part of the exchange.
    const isFine = ask(fd) && ends(fd);
    close(fd);
    return isFine;
  });
