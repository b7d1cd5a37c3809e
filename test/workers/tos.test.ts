// @vitest: beside
/**
 * TOS (DSCP and ECN) of datagrams: set on the socket when a flow's changes, and reported by the socket from
 * then on. Peers are real sockets, whose TOS the tests set and read.
 */
import { describe, expect, it } from 'vitest';
import { addressParse } from '../../src/proto/address.ts';
import { IP_TOS, IPV6_TCLASS, SOL_IP, SOL_IPV6 } from '../../src/sys/constants.ts';
import { setsockoptInt } from '../../src/sys/socket.ts';
import { SendFragment, sendFromListenerWrite, sendOptions } from '../../src/workers/link/to-host.ts';
import { datagramTos, listenerDatagramTos, unsolicitedDatagramTos } from '../../src/workers/link/to-shard.ts';
import { datagramBed } from '../support/datagram-bed.ts';
import { freePort } from '../support/datagram-peer.ts';
import { openSockets } from '../support/open-sockets.ts';
import { pattern } from '../support/packets.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const { rig, peer } = datagramBed();
/** AF31 and CE. */
const MARK = 0x6b;
const tos = (value: number) => ({ options: sendOptions(0, SendFragment.unchanged, value) });

/** A peer that marks what it sends. */
async function markingPeer(address: string, level: number, option: number) {
  const before = new Set(openSockets());
  const far = await peer(address);
  const opened = openSockets().filter((fd) => !before.has(fd));
  expect(opened.map((fd) => setsockoptInt(fd, level, option, MARK))).toEqual([0]);
  return far;
}

describe.each([
  ['127.0.0.1', SOL_IP, IP_TOS],
  ['::1', SOL_IPV6, IPV6_TCLASS],
] as const)('%s', (address, level, option) => {
  it('to and from a peer, in the order of the datagrams; unmarked flows get no control messages', async () => {
    const host = rig();
    const far = await markingPeer(address, level, option);
    const port = await freePort();
    host.openUdp(1, address, far.port, port);
    host.send(1, pattern(10));
    host.sockets.flush();
    const [first] = await far.received(1);
    await far.send(pattern(5), first!.port, address);
    const [unmarked] = await host.messages(1);
    expect(datagramTos(unmarked!, 0)).toBe(0);
    host.free(unmarked!);

    host.send(1, pattern(10), tos(0xb9));
    host.sockets.flush();
    await far.received(1);
    await far.send(pattern(5), first!.port, address);
    const [marked] = await host.messages(1);
    expect(datagramTos(marked!, 0)).toBe(MARK);
    host.free(marked!);
  });

  it('a published port: replies have the TOS of the flow, and from then on it is reported', async () => {
    const rule = { proto: 'udp', address: '', port: await freePort(), targetPort: 8080 } as const;
    const host = rig({ ...TEST_PLAN, listeners: [rule] });
    expect(host.sockets.listen(0, rule)).toBe(0);
    const far = await markingPeer(address, level, option);
    const ask = async (): Promise<number> => {
      await far.send(pattern(5), rule.port, address);
      const [m] = await host.messages(1);
      const value = listenerDatagramTos(m!, 0);
      host.free(m!);
      return value;
    };
    expect(await ask()).toBe(0);
    const both = new Uint32Array(8);
    for (const w of [0, 4]) addressParse(address, both, w);
    const { slotA, slotB, slotOffset } = host.payload(pattern(20));
    host.command((out) =>
      sendFromListenerWrite(out, 0, 0, slotA, slotB, slotOffset, 20, far.port, both, 0, 0xb9),
    );
    await far.received(1);
    expect(await ask()).toBe(MARK);
  });

  it('a peer that the guest has not sent to: with its TOS', async () => {
    const policy = { ...TEST_PLAN.policy, udpFiltering: 'endpoint-independent' } as const;
    const host = rig({ ...TEST_PLAN, policy });
    const far = await peer(address);
    const other = await markingPeer(address, level, option);
    const port = await freePort();
    host.openUdp(1, address, far.port, port);
    host.send(1, pattern(1), tos(1));
    host.sockets.flush();
    const [got] = await far.received(1);
    await other.send(pattern(5), got!.port, address);
    const [m] = await host.messages(1);
    expect(unsolicitedDatagramTos(m!, 0)).toBe(MARK);
    host.free(m!);
  });
});
