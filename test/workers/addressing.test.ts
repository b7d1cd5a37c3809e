/** What an address on the TAP means on the host, and under which address a host's peer is seen. */
import { describe, expect, it } from 'vitest';
import { addressParse, addressText } from '../../src/proto/address.ts';
import type { AddressPlan, ServicePolicy } from '../../src/workers/engine-plan.ts';
import { Addressing, Destination } from '../../src/workers/translator/addressing.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const { ipv4, ipv6 } = TEST_PLAN.addresses;
const MAPPED: AddressPlan = {
  ...TEST_PLAN.addresses,
  ipv4: { ...ipv4!, mapGuestAddr: '169.254.1.2' },
  ipv6: { ...ipv6!, mapGuestAddr: 'fd00::5' },
};
/** As the pasta front end has it: the gateway is the host's own. */
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
  ])('where the gateway is of the world, %s port %i: %s', (address, port, expected) => {
    expect(meaning(address, port, MAPPED, WORLD)).toBe(expected);
  });

  it('one address for DNS and the host: the DNS ports go to resolvers, the rest to the host', () => {
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
