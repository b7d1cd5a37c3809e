// @vitest: beside
/** Unsolicited packets of a kernel on its link: counted apart from loss. */
import { describe, expect, it } from 'vitest';
import { Counter } from '../../src/ring/counters.ts';
import { chatterKind4, chatterKind6, isLinkLocalGroup } from '../../src/workers/translator/chatter.ts';
import { addressWords, ip4, ip6 } from '../support/packets.ts';

describe('link-local groups', () => {
  it.each([
    ['224.0.0.1', true],
    ['224.0.0.251', true],
    ['224.0.1.1', false],
    ['239.255.255.250', false],
    ['255.255.255.255', false],
    ['192.0.2.1', false],
  ])('%s: %s', (text, expected) => expect(isLinkLocalGroup(addressWords(text), 0)).toBe(expected));

  it.each([
    ['ff02::16', true],
    ['ff02::1:ff00:1', true],
    ['ff12::1', true],
    ['ff01::1', true],
    ['ff05::2', false],
    ['ff0e::1', false],
    ['fe80::1', false],
    ['2001:db8::1', false],
  ])('%s: %s', (text, expected) => expect(isLinkLocalGroup(addressWords(text), 0)).toBe(expected));
});

describe('packets of an IP version that the link has not', () => {
  const v4 = (protocol: number, to: string) => [
    ...Array(9).fill(0),
    protocol,
    0,
    0,
    ...ip4('10.0.2.15'),
    ...ip4(to),
  ];
  const v6 = (next: number, to: string) => [0x60, 0, 0, 0, 0, 0, next, 1, ...ip6('fe80::1'), ...ip6(to)];

  it.each([
    ['IGMP', chatterKind4, v4(2, '224.0.0.22'), Counter.groupReports],
    ['mDNS over IPv4', chatterKind4, v4(17, '224.0.0.251'), Counter.linkLocalDatagrams],
    ['a group of the network, 224.0.1.0/24', chatterKind4, v4(17, '224.0.1.1'), -1],
    ['another, 224.1.0.0/24', chatterKind4, v4(17, '224.1.0.1'), -1],
    ['UDP to a peer', chatterKind4, v4(17, '192.0.2.1'), -1],
    ['TCP to a group', chatterKind4, v4(6, '224.0.0.1'), -1],
    ['cut short', chatterKind4, v4(2, '224.0.0.22').slice(0, 19), -1],
    ['MLD', chatterKind6, v6(0, 'ff02::16'), Counter.groupReports],
    ['a router solicitation', chatterKind6, v6(58, 'ff02::2'), Counter.discoveryUnanswered],
    ['mDNS over IPv6', chatterKind6, v6(17, 'ff02::fb'), Counter.linkLocalDatagrams],
    [
      'a group of the link that nobody has assigned',
      chatterKind6,
      v6(17, 'ff12::fb'),
      Counter.linkLocalDatagrams,
    ],
    ['ping to a peer', chatterKind6, v6(58, '2001:db8::1'), -1],
    ['a wider group', chatterKind6, v6(17, 'ff05::1'), -1],
    ['TCP', chatterKind6, v6(6, 'ff02::1'), -1],
    ['cut short', chatterKind6, v6(0, 'ff02::16').slice(0, 39), -1],
  ] as const)('%s', (_, kind, packet, expected) => {
    const u8 = Uint8Array.from([0xff, ...packet]);
    expect(kind(u8, 1, packet.length)).toBe(expected);
  });
});
