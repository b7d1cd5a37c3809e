// @vitest: beside
/**
 * Source address and interface of outbound sockets, read back from real sockets.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { addressParse, addressText } from '../../src/proto/address.ts';
import {
  AF_INET,
  AF_INET6,
  Errno,
  IPPROTO_UDP,
  SO_BINDTODEVICE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_STREAM,
  SOL_SOCKET,
} from '../../src/sys/constants.ts';
import { close } from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { getsockoptBytes, localAddress, socket } from '../../src/sys/socket.ts';
import type { ServicePolicy } from '../../src/workers/engine-plan.ts';
import { Outbound } from '../../src/workers/host-io/outbound.ts';
import { icmpForErrno } from '../../src/workers/translator/icmp-errors.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const fds: number[] = [];
afterEach(() => {
  for (const fd of fds.splice(0)) close(fd);
});

function open(remote: string, type: number = SOCK_DGRAM): number {
  const domain = remote.includes(':') ? AF_INET6 : AF_INET;
  const fd = socket(domain, type | SOCK_CLOEXEC, type === SOCK_DGRAM ? IPPROTO_UDP : 0);
  expect(fd).toBeGreaterThanOrEqual(0);
  fds.push(fd);
  return fd;
}

const words = (text: string): Uint32Array => {
  const w = new Uint32Array(4);
  if (!addressParse(text, w, 0)) throw new Error(text);
  return w;
};

const outbound = (policy: Partial<ServicePolicy>): Outbound =>
  new Outbound({ ...TEST_PLAN, policy: { ...TEST_PLAN.policy, ...policy } });

function localName(fd: number): { address: string; port: number } {
  const out = new Uint32Array(4);
  const port = localAddress(fd, out, 0);
  return { address: addressText(out, 0), port };
}

describe('source address', () => {
  it.each([
    ['192.0.2.1', '127.0.0.9'],
    ['2001:db8::1', '::1'],
  ])('datagram socket to %s: %s', (remote, source) => {
    const o = outbound({ outboundAddress4: '127.0.0.9', outboundAddress6: '::1' });
    const fd = open(remote);
    expect(o.bindPort(fd, words(remote), 0, 0)).toBe(0);
    expect(localName(fd).address).toBe(source);
  });

  it('with a preferred port: bound to it', () => {
    const fd = open('192.0.2.1');
    const wanted = 20_000 + (process.pid % 10_000);
    expect(outbound({ outboundAddress4: '127.0.0.9' }).bindPort(fd, words('192.0.2.1'), 0, wanted)).toBe(0);
    expect(localName(fd)).toEqual({ address: '127.0.0.9', port: wanted });
  });

  it('to host loopback, or none in the policy: unbound', () => {
    const fd = open('127.0.0.1');
    expect(outbound({ outboundAddress4: '127.0.0.9' }).bindPort(fd, words('127.0.0.1'), 0, 0)).toBe(0);
    expect(outbound({}).bindPort(fd, words('192.0.2.1'), 0, 0)).toBe(0);
    expect(localName(fd)).toEqual({ address: '0.0.0.0', port: 0 });
  });

  it('TCP socket: bound, connect() chooses the port', () => {
    const fd = open('192.0.2.1', SOCK_STREAM);
    expect(outbound({ outboundAddress4: '127.0.0.9' }).bindStream(fd, words('192.0.2.1'), 0)).toBe(0);
    expect(localName(fd)).toEqual({ address: '127.0.0.9', port: 0 });
  });

  it('an address that the host has not: refused; with freebind: bound', () => {
    const far = words('192.0.2.1');
    const source = { outboundAddress4: '203.0.113.9' };
    expect(outbound(source).bindPort(open('192.0.2.1'), far, 0, 0)).toBe(-Errno.EADDRNOTAVAIL);
    const fd = open('192.0.2.1');
    expect(outbound({ ...source, freebind: true }).bindPort(fd, far, 0, 0)).toBe(0);
    expect(localName(fd).address).toBe('203.0.113.9');
  });

  it.each(['::1', 'localhost'])('%s as IPv4 address: refused at the start', (outboundAddress4) => {
    expect(() => outbound({ outboundAddress4 })).toThrow(`outbound address ${outboundAddress4} is no IPv4`);
  });
});

describe('interface', () => {
  const deviceOf = (fd: number): string => {
    const name = new NativeBuffer(16);
    expect(getsockoptBytes(fd, SOL_SOCKET, SO_BINDTODEVICE, name.address, 16)).toBeGreaterThanOrEqual(0);
    return Buffer.from(name.u8).toString().replace(/\0.*/s, '');
  };

  it('set per family, not for host loopback', () => {
    const o = outbound({ outboundInterface4: 'lo' });
    const cases = ['192.0.2.1', '2001:db8::1', '127.0.0.1'].map((remote) => {
      const fd = open(remote);
      expect(o.bindDevice(fd, words(remote), 0)).toBe(0);
      return deviceOf(fd);
    });
    expect(cases).toEqual(['lo', '', '']);
  });

  it('an interface that does not exist: ENODEV', () => {
    const o = outbound({ outboundInterface6: 'nosuchdev' });
    expect(o.bindDevice(open('2001:db8::1'), words('2001:db8::1'), 0)).toBe(-Errno.ENODEV);
    // 3/0 network unreachable, 1/0 no route: the guest gets an error at once.
    expect(icmpForErrno(4, Errno.ENODEV)).toBe(0x300);
    expect(icmpForErrno(6, Errno.ENODEV)).toBe(0x100);
  });

  it('link-local destinations: the scope of the plan', () => {
    const ipv6 = { ...TEST_PLAN.addresses.ipv6!, linkLocalScope: 7 };
    const o = new Outbound({ ...TEST_PLAN, addresses: { ...TEST_PLAN.addresses, ipv6 } });
    const scopes = ['fe80::9', '2001:db8::1', '169.254.0.1'].map((text) => o.scopeOf(words(text), 0));
    expect(scopes).toEqual([7, 0, 0]);
    expect(outbound({}).scopeOf(words('fe80::9'), 0)).toBe(0);
    o.hostChanged({ linkLocalScope: 8 });
    expect([o.scope, o.scopeOf(words('fe80::9'), 0)]).toEqual([8, 8]);
  });

  it('link-local destinations with a zone: that interface, whatever the plan has', () => {
    const ipv6 = { ...TEST_PLAN.addresses.ipv6!, linkLocalScope: 7 };
    const o = new Outbound({ ...TEST_PLAN, addresses: { ...TEST_PLAN.addresses, ipv6 } });
    const scopes = ['fe80::9', '2001:db8::1', '169.254.0.1'].map((text) => o.scopeOf(words(text), 0, 3));
    expect(scopes).toEqual([3, 0, 0]);
    expect(outbound({}).scopeOf(words('fe80::9'), 0, 3)).toBe(3);
  });
});
