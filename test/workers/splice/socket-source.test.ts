// @vitest: beside
/** Sockets made by one thread and used by another, with real threads. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import {
  AF_INET,
  AF_INET6,
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  Errno,
  SO_DOMAIN,
  SO_TYPE,
  SOCK_DGRAM,
  SOCK_STREAM,
  SOL_SOCKET,
} from '../../../src/sys/constants.ts';
import { close, eventfd, eventfdDrain } from '../../../src/sys/io.ts';
import { getsockoptInt } from '../../../src/sys/socket.ts';
import {
  makeSocketSource,
  SocketKind,
  SocketSource,
  stopSockets,
} from '../../../src/workers/splice/socket-source.ts';
import { eventually } from '../../support/process.ts';

const bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
let shared: SharedArrayBuffer;
let maker: Worker | undefined;

function start(beside: boolean): SocketSource {
  eventfdDrain(bell); // of the test before
  shared = makeSocketSource();
  maker = new Worker(new URL('./socket-source.worker.ts', import.meta.url), {
    workerData: { shared, beside },
  });
  return new SocketSource(shared, bell);
}

afterEach(async () => {
  if (maker === undefined) return;
  const ended = once(maker, 'exit');
  stopSockets(shared);
  await ended;
  maker = undefined;
});

describe.each([
  ['a thread of its own', false],
  ['beside an event loop', true],
])('socket source, maker %s', (_, beside) => {
  it('takes of each kind: a new socket each time, also beyond the prepared number', () => {
    const source = start(beside);
    const kinds = [
      [SocketKind.tcp4, AF_INET, SOCK_STREAM],
      [SocketKind.tcp6, AF_INET6, SOCK_STREAM],
      [SocketKind.udp4, AF_INET, SOCK_DGRAM],
      [SocketKind.udp6, AF_INET6, SOCK_DGRAM],
    ] as const;
    for (const [kind, domain, type] of kinds) {
      const taken = new Set<number>();
      for (let i = 0; i < 200; i++) {
        const fd = source.takeWaiting(kind, 2000);
        expect(fd).toBeGreaterThanOrEqual(0);
        expect(taken.has(fd)).toBe(false);
        taken.add(fd);
      }
      for (const fd of taken) {
        expect(getsockoptInt(fd, SOL_SOCKET, SO_DOMAIN)).toBe(domain);
        expect(getsockoptInt(fd, SOL_SOCKET, SO_TYPE)).toBe(type);
        expect(close(fd)).toBe(0);
      }
    }
  });

  it('empty: returns at once, the doorbell rings when there are sockets', async () => {
    const source = start(beside);
    expect(source.take(SocketKind.tcp4)).toBe(-Errno.EAGAIN);
    await eventually('the bell rings', 2000, () => eventfdDrain(bell) === 8);
    const fd = source.take(SocketKind.tcp4);
    expect(fd).toBeGreaterThanOrEqual(0);
    close(fd);
  });

  it('no maker: waiting ends with the time-out', () => {
    const source = new SocketSource(makeSocketSource(), bell);
    expect(source.takeWaiting(SocketKind.tcp4, 20)).toBe(-Errno.ETIMEDOUT);
  });
});
