// @vitest: beside
/** Mapping of destinations from the guest to the host, and of peer addresses on the host to the guest. */
import { describe, expect, it } from 'vitest';
import { addressParse, addressText } from '../../src/proto/address.ts';
import type { AddressPlan, ServicePolicy } from '../../src/workers/engine-plan.ts';
import { Addressing, Destination } from '../../src/workers/flow/addressing.ts';
import { listenerGuest } from '../../src/workers/listen/bind-address.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const { ipv4, ipv6 } = TEST_PLAN.addresses;
const MAPPED: AddressPlan = {
  ...TEST_PLAN.addresses,
  ipv4: { ...ipv4!, mapGuestAddr: '169.254.1.2' },
  ipv6: { ...ipv6!, mapGuestAddr: 'fd00::5' },
};
/** As in the pasta front end: the gateway is that of the host. */
const WORLD: ServicePolicy = { ...TEST_PLAN.policy, gateway: 'world', dnsPorts: [53, 853] };

const words = (text: string): Uint32Array => {
  const w = new Uint32Array(4);
  if (!addressParse(text, w, 0)) throw new Error(text);
  return w;
};

/** "KIND HOST-SIDE-ADDRESS" of a destination. */
function meaning(address: string, port: number, plan = MAPPED, policy = TEST_PLAN.policy): string {
  const addressing = new Addressing(plan, policy);
  const destination = addressing.classify(words(address), 0, port);
  const name = Object.entries(Destination).find(([, value]) => value === destination)?.[0];
  const out = new Uint32Array(4);
  addressing.toHost(words(address), 0, destination, out, 0);
  const isMapped = destination === Destination.hostLoopback || destination === Destination.hostGuest;
  return isMapped || destination === Destination.world ? `${name} ${addressText(out, 0)}` : `${name}`;
}

describe('destinations', () => {
  it.each([
    ['192.0.2.1', 80, 'world 192.0.2.1'],
    ['10.0.2.4', 80, 'hostLoopback 127.0.0.1'],
    ['fd00::4', 80, 'hostLoopback ::1'],
    ['169.254.1.2', 80, 'hostGuest 10.0.2.15'],
    ['fd00::5', 80, 'hostGuest fd00::15'],
    ['10.0.2.3', 53, 'dns'],
    ['10.0.2.3', 853, 'gateway'],
    ['10.0.2.2', 80, 'gateway'],
    ['fe80::2', 80, 'gateway'],
    ['127.0.0.1', 80, 'invalid'],
    ['::1', 80, 'invalid'],
  ])('%s port %i: %s', (address, port, expected) => {
    expect(meaning(address, port)).toBe(expected);
  });

  it.each([
    ['10.0.2.3', 53, 'dns'],
    ['fd00::3', 853, 'dns'],
    ['10.0.2.3', 80, 'world 10.0.2.3'],
    ['10.0.2.2', 80, 'world 10.0.2.2'],
    ['fe80::2', 80, 'world fe80::2'],
    ['10.0.2.4', 80, 'hostLoopback 127.0.0.1'],
  ])('the gateway is an ordinary destination, %s port %i: %s', (address, port, expected) => {
    expect(meaning(address, port, MAPPED, WORLD)).toBe(expected);
  });

  it('one address for DNS and host loopback: DNS ports lead to resolvers, others to the host', () => {
    const both = { ...MAPPED, ipv4: { ...ipv4!, dns: '10.0.2.4' } };
    expect(meaning('10.0.2.4', 53, both)).toBe('dns');
    expect(meaning('10.0.2.4', 54, both)).toBe('hostLoopback 127.0.0.1');
  });
});

describe('peers on the host', () => {
  it.each([
    ['192.0.2.9', '192.0.2.9', '192.0.2.9'],
    ['127.0.0.1', '10.0.2.4', '10.0.2.4'],
    ['::1', 'fd00::4', 'fd00::4'],
    ['10.0.2.15', '169.254.1.2', '10.0.2.2'],
    ['fd00::15', 'fd00::5', 'fd00::2'],
  ])('%s is seen as %s; without a mapping of the guest address, as %s', (peer, mapped, unmapped) => {
    const seen = (plan: AddressPlan): string => {
      const out = new Uint32Array(4);
      new Addressing(plan, WORLD).fromHost(words(peer), 0, out, 0);
      return addressText(out, 0);
    };
    expect([seen(MAPPED), seen(TEST_PLAN.addresses)]).toEqual([mapped, unmapped]);
  });
});

describe('guest address for peers', () => {
  const begin = (plan: AddressPlan = TEST_PLAN.addresses) => {
    const addressing = new Addressing(plan, WORLD);
    return {
      addressing,
      hear: (address: string) =>
        address.includes(':')
          ? addressing.learnGuestAddress6(words(address), 0)
          : addressing.learnGuestAddress4(words(address)[3]!),
      guestFor: (peer: string): string | null => {
        const out = new Uint32Array(4);
        return addressing.guestFor(words(peer), 0, out, 0) ? addressText(out, 0) : null;
      },
    };
  };

  it('no packet of the guest yet: the address of the plan', () => {
    const { guestFor } = begin();
    expect([guestFor('192.0.2.9'), guestFor('2001:db8::9')]).toEqual(['10.0.2.15', 'fd00::15']);
  });

  it('the guest uses other addresses: the last one that it used', () => {
    const { hear, guestFor } = begin();
    for (const address of ['0.0.0.0', '10.0.2.77', 'fd00::a1', 'fd00::a2', '::']) hear(address);
    expect([guestFor('192.0.2.9'), guestFor('2001:db8::9')]).toEqual(['10.0.2.77', 'fd00::a2']);
  });

  it('the guest uses the planned address: that one, whatever else it uses', () => {
    const { hear, guestFor } = begin();
    for (const address of ['10.0.2.77', '10.0.2.15', '10.0.2.78', 'fd00::a1', 'fd00::15', 'fd00::a2'])
      hear(address);
    expect([guestFor('192.0.2.9'), guestFor('2001:db8::9')]).toEqual(['10.0.2.15', 'fd00::15']);
  });

  it('a link-local peer: the link-local address of the guest, once known', () => {
    const { hear, guestFor } = begin();
    expect(guestFor('fe80::9')).toBe('fd00::15');
    hear('fe80::a1');
    expect([guestFor('fe80::9'), guestFor('2001:db8::9')]).toEqual(['fe80::a1', 'fd00::15']);
  });

  it('no address planned: none, until a packet of the guest', () => {
    const { hear, guestFor } = begin({ ...TEST_PLAN.addresses, ipv6: { ...ipv6!, guest: '::' } });
    expect(guestFor('2001:db8::9')).toBeNull();
    hear('fe80::a1');
    expect(guestFor('2001:db8::9')).toBe('fe80::a1');
    hear('fd00::a1');
    expect(guestFor('2001:db8::9')).toBe('fd00::a1');
  });

  it('one thread learns the guest address: all threads use it', () => {
    const one = begin();
    const other = new Addressing(TEST_PLAN.addresses, WORLD, one.addressing.seen);
    one.hear('10.0.2.77');
    const out = new Uint32Array(4);
    expect(other.guestFor(words('192.0.2.9'), 0, out, 0)).toBe(true);
    expect(addressText(out, 0)).toBe('10.0.2.77');
  });

  it("a host peer with the guest's address: shown to the guest as the gateway", () => {
    const { addressing, hear } = begin();
    hear('10.0.2.77');
    const out = new Uint32Array(4);
    addressing.fromHost(words('10.0.2.77'), 0, out, 0);
    expect(addressText(out, 0)).toBe('10.0.2.2');
  });

  it('a rule with a target address: that one, if the family matches', () => {
    const { addressing } = begin();
    const rule = { proto: 'tcp', address: '', port: 80, targetPort: 80, path: 'tap' } as const;
    const out = new Uint32Array(4);
    const led = (targetAddress: string, peer: string): string | null =>
      listenerGuest({ ...rule, targetAddress }, addressing, words(peer), 0, out) ? addressText(out, 0) : null;
    expect(led('10.9.9.9', '192.0.2.9')).toBe('10.9.9.9');
    expect(led('10.9.9.9', '2001:db8::9')).toBeNull();
    expect(led('fd99::9', '2001:db8::9')).toBe('fd99::9');
  });
});
