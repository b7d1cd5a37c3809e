// @vitest: beside
/** Records of switched connections, on TCP sockets of the loopback interface. */
import { fstatSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { FlowRecords } from '../../src/switch/flow-records.ts';
import * as k from '../../src/sys/constants.ts';
import { close, read, write } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { SockDiag, socketKey } from '../../src/sys/sock-diag.ts';
import * as s from '../../src/sys/socket.ts';

const IPV4 = Uint32Array.of(0, 0, 0xffff, 0x7f00_0001);
const IPV6 = Uint32Array.of(0, 0, 0, 1);
const buffer = new NativeBuffer(4096);
const LENGTH_AT = 32;

const open = new Set<number>();
const diags: SockDiag[] = [];
const kept = (fd: number): number => {
  expect(fd).toBeGreaterThanOrEqual(0);
  open.add(fd);
  return fd;
};
const closed = (fd: number): void => {
  open.delete(fd);
  close(fd);
};
afterEach(() => {
  for (const fd of open) closed(fd);
  for (const diag of diags.splice(0)) diag.close();
});

function portOf(fd: number): number {
  buffer.u32[LENGTH_AT >> 2] = s.SOCKADDR_BYTES;
  expect(s.getsockname(fd, buffer.address, buffer.address + LENGTH_AT)).toBe(0);
  return s.sockaddrRead(buffer.u8, 0, new Uint32Array(4), 0);
}

function listener(words = IPV4): readonly [fd: number, port: number] {
  const fd = kept(s.socket(words[2] === 0 ? k.AF_INET6 : k.AF_INET, k.SOCK_STREAM | k.SOCK_CLOEXEC, 0));
  expect(s.bind(fd, buffer.address, s.sockaddrWrite(buffer.u8, 0, words, 0, 0))).toBe(0);
  expect(s.listen(fd, 1024)).toBe(0);
  return [fd, portOf(fd)];
}

interface Client {
  readonly fd: number;
  readonly peer: Uint8Array;
}

/** @param mapped  an AF_INET6 socket that connects to an IPv4 address */
function client(port: number, words = IPV4, mapped = false): Client {
  const isV6 = mapped || words[2] === 0;
  const fd = kept(s.socket(isV6 ? k.AF_INET6 : k.AF_INET, k.SOCK_STREAM | k.SOCK_CLOEXEC, 0));
  const device = new NativeBuffer(8);
  device.u8.set(Buffer.from('lo\0'));
  expect(s.setsockoptBytes(fd, k.SOL_SOCKET, k.SO_BINDTODEVICE, device.address, 3)).toBe(0);
  const bytes = s.sockaddrWrite(buffer.u8, 0, words, 0, port, 0, mapped);
  const peer = buffer.u8.slice(0, bytes);
  expect(s.connect(fd, buffer.address, bytes)).toBe(0);
  return { fd, peer };
}

const diag = (): SockDiag => {
  const one = new SockDiag();
  diags.push(one);
  return one;
};
const add = (records: FlowRecords, { fd, peer }: Client): void =>
  records.add({ fd, peer, device: 'lo', container: 'c' });

function cookie(fd: number): bigint {
  expect(s.getsockoptBytes(fd, k.SOL_SOCKET, k.SO_COOKIE, buffer.address, 8)).toBe(8);
  return buffer.dv.getBigUint64(0, true);
}

describe('records of switched connections', () => {
  it.each([
    ['IPv4', IPV4, false, '127.0.0.1'],
    ['IPv6', IPV6, false, '::1'],
    ['IPv4 by an IPv6 socket', IPV4, true, '127.0.0.1'],
  ] as const)('%s: ends, state and bytes by the kernel', (_, words, mapped, address) => {
    const [server, port] = listener(words);
    const records = new FlowRecords(diag());
    const one = client(port, words, mapped);
    add(records, one);
    const accepted = kept(s.accept4(server, 0, 0, k.SOCK_CLOEXEC));
    expect(write(one.fd, buffer.address, 100)).toBe(100);
    expect(write(accepted, buffer.address, 3000)).toBe(3000);
    expect(read(accepted, buffer.address, 4096)).toBe(100);
    const flow = {
      ...{ id: 1, protocol: 'tcp', container: 'c', device: 'lo', retransmits: 0 },
      ...{ source: address, sourcePort: portOf(one.fd), destination: address, destinationPort: port },
    };
    expect(records.list()).toEqual({
      flows: [
        expect.objectContaining({ ...flow, state: 'established', bytesSent: 100, bytesReceived: 3000 }),
      ],
      more: false,
    });
    expect(records.list().flows[0]!.rttUs).toBeGreaterThan(0);
    closed(accepted);
    expect(records.list().flows).toEqual([
      expect.objectContaining({ ...flow, state: 'close-wait', bytesSent: 100, bytesReceived: 3000 }),
    ]);
    closed(one.fd);
    expect(records.list()).toEqual({ flows: [], more: false });
    expect(records.size).toBe(0);
  });

  it('after our FIN: the same bytes', () => {
    const [server, port] = listener();
    const records = new FlowRecords(diag());
    const one = client(port);
    add(records, one);
    const accepted = kept(s.accept4(server, 0, 0, k.SOCK_CLOEXEC));
    expect(write(one.fd, buffer.address, 100)).toBe(100);
    expect(s.shutdown(one.fd, 1)).toBe(0);
    expect(records.list().flows).toEqual([expect.objectContaining({ state: 'fin-wait', bytesSent: 100 })]);
    expect(read(accepted, buffer.address, 4096)).toBe(100);
  });

  it('a later socket with the same ends is another one', () => {
    const [, port] = listener();
    const one = client(port);
    const key = socketKey(one.fd, one.peer);
    if (typeof key === 'number') throw new Error(`${key}`);
    const other = { ...key, id: key.id.slice() };
    other.id[40]! ^= 1; // the cookie
    const notBound = { ...key, id: key.id.slice() };
    notBound.id.fill(0, 36, 40);
    const states: unknown[] = [];
    diag().ask([key, other, notBound, key], false, (i, socket) => {
      states[i] = socket?.state;
    });
    expect(states).toEqual([k.TCP_ESTABLISHED, undefined, undefined, k.TCP_ESTABLISHED]);
  });

  it('pages: every flow once, though others end and begin', async () => {
    const [, port] = listener();
    const records = new FlowRecords(diag());
    const clients = Array.from({ length: 70 }, () => client(port));
    for (const one of clients) add(records, one);
    for (let i = 0; i < 70; i += 7) closed(clients[i]!.fd);
    await vi.waitFor(() => expect(records.active()).toBe(60)); // the peer delays its ACK of a FIN
    const first = records.list(0, 20);
    expect(first).toMatchObject({ more: true });
    add(records, client(port));
    for (let i = 1; i < 70; i += 7) closed(clients[i]!.fd);
    await vi.waitFor(() => expect(records.active()).toBe(51));
    const second = records.list(first.flows.at(-1)!.id, 1000);
    expect(second.more).toBe(false);
    const last = first.flows.at(-1)!.id;
    const expected = Array.from({ length: 71 }, (_, i) => i).filter(
      (i) => i === 70 || (i % 7 !== 0 && (i % 7 !== 1 || i + 1 <= last)),
    );
    expect([...first.flows, ...second.flows].map(({ id }) => id - 1)).toEqual(expected);
  });

  it('bounded: short connections leave few records, and long ones push out the oldest', async () => {
    const [server, port] = listener();
    const limits = { sweepAbove: 40, sweepEvery: 8, maxRecords: 100 };
    const records = new FlowRecords(diag(), limits);
    const long = client(port);
    add(records, long);
    for (let i = 0; i < 400; i++) {
      const short = client(port);
      add(records, short);
      closed(short.fd);
      close(s.accept4(server, 0, 0, k.SOCK_CLOEXEC));
      expect(records.size).toBeLessThanOrEqual(49);
    }
    await vi.waitFor(() => expect(records.list().flows.map(({ id }) => id)).toEqual([1]));
    const clients = Array.from({ length: 150 }, () => client(port));
    for (const one of clients) add(records, one);
    expect(records.size).toBeLessThanOrEqual(108);
    expect(records.list().flows.at(-1)!.id).toBe(551);
  });

  it('end: asked for those that there still are and a process has, by inode and cookie', () => {
    const [, port] = listener();
    const records = new FlowRecords(diag());
    const clients = [client(port), client(port), client(port), client(port)];
    for (const one of clients) add(records, one);
    closed(clients[0]!.fd);
    const asked: [number, bigint][] = [];
    const left = records.end([1, 2, 3, 99], (cookies) => {
      asked.push(...cookies);
      return new Set([...cookies.keys()].slice(0, 1));
    });
    expect(left).toBe(1);
    expect(asked).toEqual([1, 2].map((i) => [fstatSync(clients[i]!.fd).ino, cookie(clients[i]!.fd)]));
    expect(records.end([1], () => new Set())).toBe(0);
  });

  it('end: a connection that its program closes meanwhile is not left', () => {
    const [, port] = listener();
    const records = new FlowRecords(diag());
    const clients = [client(port), client(port), client(port)];
    for (const one of clients) add(records, one);
    const left = records.end([1, 2, 3], (cookies) => {
      closed(clients[1]!.fd);
      return new Set([...cookies.keys()].slice(0, 1));
    });
    expect(left).toBe(1);
  });

  it('without sock_diag: nothing is recorded', () => {
    const [, port] = listener();
    const records = new FlowRecords(undefined);
    add(records, client(port));
    expect(records.list()).toEqual({ flows: [], more: false });
    expect(records.active()).toBe(0);
  });
});
