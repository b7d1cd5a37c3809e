// @vitest: beside
/** Which frames take the emulated line, and which stay on the link between guest and gateway. */
import { describe, expect, it } from 'vitest';
import { isLinkFrame } from '../../../src/workers/shaping/link-frames.ts';

/** A frame of 90 bytes. @param bytes  by offset from the Ethernet header */
function frame(etherType: number, bytes: Readonly<Record<number, readonly number[]>>): Uint8Array {
  const u8 = new Uint8Array(90);
  u8.set([etherType >> 8, etherType & 255], 12);
  for (const [at, list] of Object.entries(bytes)) u8.set(list, Number(at));
  return u8;
}
const v4 = (protocol: number, upper: readonly number[], more = {}) =>
  frame(0x0800, { 14: [0x45], 23: [protocol], 34: upper, ...more });
const v6 = (next: number, upper: readonly number[]) => frame(0x86dd, { 14: [0x60], 20: [next], 54: upper });
const ports = (src: number, dst: number) => [src >> 8, src & 255, dst >> 8, dst & 255];
const UDP = 17;
const ICMPV6 = 58;

describe('frames of the link', () => {
  it.each<readonly [string, Uint8Array]>([
    ['ARP', frame(0x0806, {})],
    ['IGMP', v4(2, [0x16])],
    ['DHCP, client', v4(UDP, ports(68, 67))],
    ['DHCP, server, IP options', v4(UDP, [], { 14: [0x46], 38: ports(67, 68) })],
    ['DHCPv6', v6(UDP, ports(546, 547))],
    ...[130, 131, 132, 133, 134, 135, 136, 137, 143].map(
      (type) => [`ICMPv6 ${type}`, v6(ICMPV6, [type])] as const,
    ),
    ['MLD behind a router alert', v6(0, [ICMPV6, 0, 5, 2, 0, 0, 1, 0, 143])],
  ])('%s: not on the line', (_, u8) => {
    expect(isLinkFrame(u8, 0, u8.length)).toBe(true);
    const shifted = new Uint8Array(100);
    shifted.set(u8, 10);
    expect(isLinkFrame(shifted, 10, u8.length)).toBe(true);
  });

  it.each([
    ['ping', v4(1, [8])],
    ['ping, IPv6', v6(ICMPV6, [128])],
    ['ICMPv6 error', v6(ICMPV6, [1])],
    ['TCP with the ports of DHCP', v4(6, ports(68, 67))],
    ['DNS', v4(UDP, ports(40_000, 53))],
    ['UDP to port 67 of a program', v4(UDP, ports(40_000, 67))],
    ['a later fragment', v4(UDP, ports(68, 67), { 20: [0, 9] })],
    ['hop-by-hop options before TCP', v6(0, [6, 0, 5, 2, 0, 0, 1, 0, 143])],
    ['longer hop-by-hop options', v6(0, [ICMPV6, 1, 5, 2, 0, 0, 1, 0, 143])],
    ['neither', frame(0x88cc, {})],
  ])('%s: on the line', (_, u8) => {
    expect(isLinkFrame(u8, 0, u8.length)).toBe(false);
  });

  it('cut off before what is looked at: on the line', () => {
    for (const [u8, least] of [
      [frame(0x0806, {}), 14],
      [v4(UDP, ports(68, 67)), 38],
      [v6(ICMPV6, [135]), 58],
    ] as const)
      for (let bytes = 0; bytes < 80; bytes++) expect(isLinkFrame(u8, 0, bytes)).toBe(bytes >= least);
  });
});
