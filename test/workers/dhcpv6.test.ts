// @vitest: beside
/** The DHCPv6 server: a message of the guest, and the decoded reply. */
import { describe, expect, it } from 'vitest';
import { Drop } from '../../src/proto/drop.ts';
import type { ServicePolicy, TapEnginePlan } from '../../src/workers/engine-plan.ts';
import { StageDrop } from '../../src/workers/link/stage-drop.ts';
import { ResolverChoice } from '../../src/workers/translator/resolvers.ts';
import { UdpTranslator } from '../../src/workers/translator/udp.ts';
import { ip6, readIp, readUdp, text6, udpPacket } from '../support/packets.ts';
import { ShardRig, TEST_PLAN } from '../support/shard-rig.ts';

const CLIENT_ID = [0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const SERVER_ID = [0, 2, 0, 10, 0, 3, 0, 1, 0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55];
const OTHER_SERVER = [0, 2, 0, 10, 0, 3, 0, 1, 2, 2, 2, 2, 2, 2];
const GUEST = 'fd00::15';

const [SOLICIT, ADVERTISE, REQUEST, CONFIRM, RENEW, REBIND, REPLY, RELEASE, DECLINE, INFORMATION] = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 11,
];

/** An IA_NA with addresses. */
const ia = (iaid: number, ...addresses: string[]): number[] => [
  ...[0, 3, 0, 12 + 28 * addresses.length, 0, 0, 0, iaid, 0, 0, 0, 0, 0, 0, 0, 0],
  ...addresses.flatMap((text) => [0, 5, 0, 24, ...ip6(text), 0, 0, 0, 0, 0, 0, 0, 0]),
];

interface Reply {
  readonly type: number;
  readonly options: Map<number, number[]>;
  /** Of each IA_NA: its addresses as "ADDRESS LIFETIME", its status as "status N". */
  readonly associations: string[][];
}

const optionsOf = (bytes: readonly number[]): [number, number[]][] => {
  const list: [number, number[]][] = [];
  for (let i = 0; i < bytes.length; ) {
    const contentBytes = (bytes[i + 2]! << 8) | bytes[i + 3]!;
    list.push([(bytes[i]! << 8) | bytes[i + 1]!, bytes.slice(i + 4, i + 4 + contentBytes)]);
    i += 4 + contentBytes;
  }
  return list;
};

const withPolicy = (policy: Partial<ServicePolicy>): TapEnginePlan => ({
  ...TEST_PLAN,
  policy: { ...TEST_PLAN.policy, ...policy },
});

function ask(
  type: number | undefined,
  options: readonly number[],
  plan: TapEnginePlan = TEST_PLAN,
): { rig: ShardRig; reply: Reply | null } {
  const rig = new ShardRig(plan);
  const udp = new UdpTranslator(rig.ctx, new ResolverChoice(rig.plan.addresses));
  const message = [type!, 0xa1, 0xb2, 0xc3, ...options];
  udp.onPacket(rig.packet(udpPacket('fe80::15', 546, 'ff02::1:2', 547, message)));
  expect(rig.missingSlots).toBe(0);
  const [sent] = rig.takeSent();
  if (sent === undefined) return { rig, reply: null };
  const ip = readIp(sent.bytes);
  expect({ src: ip.src, dst: ip.dst }).toEqual({ src: 'fe80::2', dst: 'fe80::15' });
  const { srcPort, dstPort, payload } = readUdp(ip);
  expect({ srcPort, dstPort }).toEqual({ srcPort: 547, dstPort: 546 });
  expect(Array.from(payload.slice(1, 4))).toEqual([0xa1, 0xb2, 0xc3]);
  const list = optionsOf(Array.from(payload.slice(4)));
  const associations = list
    .filter(([code]) => code === 3)
    .map(([, content]) =>
      optionsOf(content.slice(12)).map(([code, inner]) =>
        code === 5
          ? `${text6(Uint8Array.from(inner.slice(0, 16)))} ${inner[23] === 0 ? 'withdrawn' : 'for ever'}`
          : `status ${inner[1]}`,
      ),
    );
  expect(list[0]).toEqual([2, SERVER_ID.slice(4)]);
  return { rig, reply: { type: payload[0]!, options: new Map(list), associations } };
}

describe('DHCPv6 server', () => {
  it('SOLICIT with any hint: ADVERTISE of the plan address, resolver and search list', () => {
    const { reply } = ask(SOLICIT, [...CLIENT_ID, ...ia(7, 'fd00::99'), 0, 6, 0, 4, 0, 23, 0, 24]);
    expect(reply).toMatchObject({ type: ADVERTISE, associations: [[`${GUEST} for ever`]] });
    expect(reply!.options.get(1)).toEqual(CLIENT_ID.slice(4));
    expect(reply!.options.get(23)).toEqual(ip6('fd00::3'));
    expect(reply!.options.get(24)).toEqual([7, ...Buffer.from('example'), 3, ...Buffer.from('org'), 0]);
  });

  it('SOLICIT with rapid commit: REPLY at once', () => {
    const { reply } = ask(SOLICIT, [...CLIENT_ID, ...ia(7), 0, 14, 0, 0]);
    expect(reply).toMatchObject({ type: REPLY, associations: [[`${GUEST} for ever`]] });
    expect(reply!.options.get(14)).toEqual([]);
  });

  it('REQUEST with two associations: REPLY; the second gets NoAddrsAvail', () => {
    const { reply } = ask(REQUEST, [...CLIENT_ID, ...SERVER_ID, ...ia(1, GUEST), ...ia(2)]);
    expect(reply).toMatchObject({ type: REPLY, associations: [[`${GUEST} for ever`], ['status 2']] });
  });

  it('REQUEST for another address: NotOnLink', () => {
    const { reply } = ask(REQUEST, [...CLIENT_ID, ...SERVER_ID, ...ia(1, 'fd00::99')]);
    expect(reply).toMatchObject({ type: REPLY, associations: [['status 4']] });
  });

  it('RENEW and REBIND with an old address: it gets lifetime 0', () => {
    const withdrawn = { type: REPLY, associations: [[`${GUEST} for ever`, 'fd00::99 withdrawn']] };
    expect(ask(RENEW, [...CLIENT_ID, ...SERVER_ID, ...ia(1, 'fd00::99')]).reply).toMatchObject(withdrawn);
    expect(ask(REBIND, [...CLIENT_ID, ...ia(1, 'fd00::99')]).reply).toMatchObject(withdrawn);
  });

  it('CONFIRM: Success for our address, NotOnLink for another, no answer without an address', () => {
    const status = (...addresses: string[]): number[] | undefined =>
      ask(CONFIRM, [...CLIENT_ID, ...ia(1, ...addresses)]).reply?.options.get(13);
    expect(status(GUEST)).toEqual([0, 0]);
    expect(status(GUEST, 'fd00::99')).toEqual([0, 4]);
    expect(status()).toBeUndefined();
  });

  it('RELEASE and DECLINE: Success', () => {
    for (const type of [RELEASE, DECLINE]) {
      const { reply } = ask(type, [...CLIENT_ID, ...SERVER_ID, ...ia(1, GUEST)]);
      expect(reply!.options.get(13)).toEqual([0, 0]);
    }
  });

  it('INFORMATION-REQUEST: settings only', () => {
    const { reply } = ask(INFORMATION, []);
    expect(reply).toMatchObject({ type: REPLY, associations: [] });
    expect(reply!.options.get(23)).toEqual(ip6('fd00::3'));
  });

  it.each([
    ['SOLICIT without a client id', SOLICIT, ia(1)],
    ['SOLICIT that names a server', SOLICIT, [...CLIENT_ID, ...SERVER_ID]],
    ['REQUEST to another server', REQUEST, [...CLIENT_ID, ...OTHER_SERVER, ...ia(1)]],
    ['REQUEST to nobody', REQUEST, [...CLIENT_ID, ...ia(1)]],
    ['REBIND that names a server', REBIND, [...CLIENT_ID, ...SERVER_ID, ...ia(1)]],
    ['INFORMATION-REQUEST with an association', INFORMATION, ia(1)],
    ['an ADVERTISE', ADVERTISE, CLIENT_ID],
  ])('%s: no answer', (_what, type, options) => {
    const { rig, reply } = ask(type, options);
    expect(reply).toBeNull();
    expect(rig.drops(StageDrop.dhcp)).toBe(1);
  });

  it('malformed: dropped with its cause', () => {
    expect(ask(SOLICIT, [0, 1, 0, 200]).rig.drops(Drop.dhcpv6Option)).toBe(1);
  });

  it('policy without resolver and search list: not offered; a client FQDN gets the policy name', () => {
    const plan = withPolicy({ dhcpDns: false, dhcpSearch: false, fqdn: 'box.example.org' });
    const { reply } = ask(SOLICIT, [...CLIENT_ID, ...ia(1), 0, 39, 0, 3, 0, 1, 0x78], plan);
    expect([...reply!.options.keys()]).toEqual([2, 1, 3, 39]);
    expect(ask(SOLICIT, [...CLIENT_ID, ...ia(1)], plan).reply!.options.has(39)).toBe(false);
  });

  it('switched off, or without an address to give: dropped and counted', () => {
    const { rig, reply } = ask(SOLICIT, [...CLIENT_ID, ...ia(1)], withPolicy({ dhcpv6: false }));
    expect(reply).toBeNull();
    expect(rig.drops(StageDrop.dhcp)).toBe(1);
    const ipv6 = { ...TEST_PLAN.addresses.ipv6!, guest: '::' };
    const bare = { ...TEST_PLAN, addresses: { ...TEST_PLAN.addresses, ipv6 } };
    expect(ask(SOLICIT, [...CLIENT_ID, ...ia(1)], bare).reply).toBeNull();
  });
});
