// @vitest: beside
/** A channel on a stream socket behaves alike on both runtimes. */
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { openChannel } from '#runtime/channel';
import {
  AF_UNIX,
  Errno,
  F_GETFD,
  O_RDONLY,
  SHUT_WR,
  SOCK_CLOEXEC,
  SOCK_STREAM,
} from '../../src/sys/constants.ts';
import { close, fcntl, read, setNonBlocking, write } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { openPath } from '../../src/sys/path.ts';
import { shutdown, socketpair } from '../../src/sys/socket.ts';
import { eventually } from '../support/process.ts';
import { collectGarbage } from './thread-reports.ts';

const scratch = new NativeBuffer(256 * 1024);

/** The other end of a channel, which does not block. */
class Peer {
  readonly fd: number;
  open = true;
  constructor(fd: number) {
    this.fd = fd;
    peers.push(this);
  }
  send(text: string): void {
    const bytes = Buffer.from(text);
    scratch.u8.set(bytes);
    expect(write(this.fd, scratch.address, bytes.length)).toBe(bytes.length);
  }
  /** @returns what has come; null at the end */
  receive(): Buffer | null | undefined {
    const bytes = read(this.fd, scratch.address, scratch.u8.length);
    if (bytes === -Errno.EAGAIN) return undefined;
    return bytes <= 0 ? null : Buffer.from(scratch.u8.subarray(0, bytes));
  }
  async receiveAll(): Promise<string> {
    const parts: Buffer[] = [];
    await eventually('the end of the channel', 5000, () => {
      for (let part = this.receive(); part !== undefined; part = this.receive()) {
        if (part === null) return true;
        parts.push(part);
      }
      return false;
    });
    return Buffer.concat(parts).toString();
  }
  close(): void {
    if (this.open) close(this.fd);
    this.open = false;
  }
}

const peers: Peer[] = [];
afterEach(() => {
  for (const peer of peers.splice(0)) peer.close();
});

/** Our end is as main/process/child.ts makes it. */
function pair(): { readonly fd: number; readonly peer: Peer } {
  const ends = new NativeBuffer(8);
  expect(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.address)).toBe(0);
  const [ours, theirs] = [ends.i32[0]!, ends.i32[1]!];
  setNonBlocking(theirs);
  return { fd: ours, peer: new Peer(theirs) };
}

function open() {
  const { fd, peer } = pair();
  const channel = openChannel(fd);
  const seen = { text: '', closed: 0 };
  const parts: Buffer[] = [];
  channel.onData((chunk) => {
    parts.push(Buffer.from(chunk));
    seen.text = Buffer.concat(parts).toString();
  });
  channel.onClose(() => seen.closed++);
  return { fd, peer, channel, seen };
}

const isOpen = (fd: number): boolean => fcntl(fd, F_GETFD, 0) >= 0;

describe('a channel', () => {
  it('data of the other end: arrives as it comes; nothing blocks meanwhile', async () => {
    const { peer, seen } = open();
    for (const text of ['a', 'line\n', 'é😀', 'x'.repeat(100_000)]) {
      const before = seen.text;
      const began = performance.now();
      await sleep(10);
      expect(performance.now() - began).toBeLessThan(2000);
      expect(seen.text).toBe(before);
      peer.send(text);
      await eventually(text.slice(0, 10), 5000, () => seen.text === before + text);
    }
    expect(seen.closed).toBe(0);
  });

  it('end(): the text, then the end of our direction; data still comes until the other end closes', async () => {
    const { fd, peer, channel, seen } = open();
    channel.end('gö\n'.repeat(1000)); // 4000 bytes
    expect(await peer.receiveAll()).toBe('gö\n'.repeat(1000));
    peer.send('answer');
    await eventually('the answer', 5000, () => seen.text === 'answer');
    expect([seen.closed, isOpen(fd)]).toEqual([0, true]);
    peer.close();
    await eventually('closed', 5000, () => seen.closed === 1);
    await eventually('descriptor closed', 5000, () => !isOpen(fd));
  });

  it('the other end ends its direction: all its data, then closed', async () => {
    const { fd, peer, seen } = open();
    peer.send('z'.repeat(150_000));
    shutdown(peer.fd, SHUT_WR);
    await eventually('closed', 5000, () => seen.closed === 1);
    expect(seen.text).toBe('z'.repeat(150_000));
    await eventually('descriptor closed', 5000, () => !isOpen(fd));
    expect(await peer.receiveAll()).toBe('');
  });

  it('the other end has gone, with data of ours unread: closed, no error', async () => {
    const { peer, channel, seen } = open();
    peer.close();
    channel.end('go\n');
    await eventually('closed', 5000, () => seen.closed === 1);
    channel.end('once more');
    await sleep(20);
    expect(seen).toEqual({ text: '', closed: 1 });
  });

  it('a listener that comes after the close is called, too', async () => {
    const { peer, channel, seen } = open();
    peer.close();
    await eventually('closed', 5000, () => seen.closed === 1);
    expect(await new Promise<string>((resolve) => channel.onClose(() => resolve('called')))).toBe('called');
  });

  it('its descriptor is closed once: a file that gets the number later stays open', async () => {
    const { fd, peer, seen } = open();
    peer.send('data');
    peer.close();
    await eventually('closed', 5000, () => seen.closed === 1);
    await eventually('descriptor closed', 5000, () => !isOpen(fd));
    const files: number[] = [];
    while (!files.includes(fd) && files.length < 1000) files.push(openPath('/dev/null', O_RDONLY));
    expect(files).toContain(fd);
    for (let i = 0; i < 10; i++) {
      collectGarbage();
      await sleep(5);
    }
    expect(files.filter(isOpen)).toEqual(files);
    for (const file of files) close(file);
  });

  it('1000 channels one after another, ended by either side: no descriptor is left', async () => {
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    const before = descriptors();
    for (let i = 0; i < 1000; i++) {
      const { peer, channel, seen } = open();
      if (i % 2 === 0) channel.end('go\n');
      peer.send('x');
      peer.close();
      if (i % 50 === 49) await eventually('closed', 5000, () => seen.closed === 1);
    }
    await eventually('no descriptor is left', 5000, () => descriptors() <= before);
  }, 60_000);
});
