// @vitest: beside
/**
 * Socket options of flows that send through the listener of a published port, as the 33rd peer of an endpoint does: TTL and DF are
 * set for the family of the peer, and what a flow has set does not reach the replies to other peers.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { expect, it } from 'vitest';
import { addressParse } from '../../src/proto/address.ts';
import {
  IP_MTU_DISCOVER,
  IP_PMTUDISC_DO,
  IP_PMTUDISC_WANT,
  IP_TTL,
  IPV6_MTU_DISCOVER,
  IPV6_UNICAST_HOPS,
  SOL_IP,
  SOL_IPV6,
} from '../../src/sys/constants.ts';
import { getsockoptInt } from '../../src/sys/socket.ts';
import { SendFragment, sendFromListenerWrite, sendOptions } from '../../src/workers/link/to-host.ts';
import { datagramBed } from '../support/datagram-bed.ts';
import { freePort } from '../support/datagram-peer.ts';
import { pattern } from '../support/packets.ts';
import { TEST_PLAN } from '../support/shard-rig.ts';

const { rig, peer } = datagramBed();
/** Peers of one endpoint that get a socket of their own. */
const OWN_SOCKETS = 32;
const TTL = 7;
const PROBE = sendOptions(TTL, SendFragment.never);

const openSockets = (): string[] =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
    } catch {
      return false; // the descriptor of the directory itself
    }
  });

/** Descriptors of the sockets that `open` opens. */
function opened(open: () => void): number[] {
  const before = new Set(openSockets());
  open();
  return openSockets()
    .filter((fd) => !before.has(fd))
    .map(Number);
}

const options4 = (fd: number) => ({
  ttl: getsockoptInt(fd, SOL_IP, IP_TTL),
  discover: getsockoptInt(fd, SOL_IP, IP_MTU_DISCOVER),
});
const options6 = (fd: number) => ({
  ttl: getsockoptInt(fd, SOL_IPV6, IPV6_UNICAST_HOPS),
  discover: getsockoptInt(fd, SOL_IPV6, IPV6_MTU_DISCOVER),
});
const SET = { ttl: TTL, discover: IP_PMTUDISC_DO };

/** A listener, and as many flows to `far` as get sockets of their own. @returns its descriptor too */
async function listening(address: string, far: string) {
  const rule = { proto: 'udp', address, port: await freePort(), targetPort: 8080 } as const;
  const pool = { ...TEST_PLAN.pool, flows: 256 };
  const host = rig({ ...TEST_PLAN, listeners: [rule, rule], pool });
  const [fd = -1] = opened(() => expect(host.sockets.listen(0, rule)).toBe(0));
  for (let flow = 1; flow <= OWN_SOCKETS; flow++)
    host.openUdp(flow, far, (await peer(far)).port, rule.targetPort);

  /** A flow without a socket of its own sends a datagram with TTL 7 and DF. */
  const probe = async (flow: number, to: string) => {
    const p = await peer(to);
    expect(opened(() => host.openUdp(flow, to, p.port, rule.targetPort))).toEqual([]);
    host.send(flow, pattern(10), { options: PROBE });
    host.sockets.flush();
    expect((await p.received(1))[0]!.port).toBe(rule.port);
    return p;
  };
  return { rule, host, fd, probe };
}

it.each([
  ['0.0.0.0', '127.0.0.1', options4],
  ['', '127.0.0.1', options4],
  ['', '::1', options6],
] as const)('listener "%s", peer %s: TTL and DF of the flow are set', async (address, far, optionsOf) => {
  const { fd, probe } = await listening(address, far);
  await probe(40, far);
  expect(optionsOf(fd)).toEqual(SET);
});

it('port published again at the same index: options are set again', async () => {
  const { rule, host, probe } = await listening('', '::1');
  await probe(40, '::1');
  host.sockets.unlisten(0);
  const [again = -1] = opened(() => expect(host.sockets.listen(0, rule)).toBe(0));
  await probe(41, '::1');
  expect(options6(again)).toEqual(SET);
});

it('reply by the listener after such a flow: it has the default options', async () => {
  const { host, fd, probe } = await listening('', '::1');
  const p = await probe(40, '::1');
  const both = new Uint32Array(8);
  for (const w of [0, 4]) addressParse('::1', both, w);
  const { slotA, slotB, slotOffset } = host.payload(pattern(20));
  host.command((out) => sendFromListenerWrite(out, 0, 0, slotA, slotB, slotOffset, 20, p.port, both, 0));
  await p.received(1);
  expect(options6(fd)).toEqual({ ttl: 64, discover: IP_PMTUDISC_WANT });
  expect(options4(fd)).toEqual({ ttl: 64, discover: IP_PMTUDISC_WANT });
});

it('dual-stack listener, an IPv4 flow and then an IPv6 flow with one TTL: both are set', async () => {
  const { host, rule, fd, probe } = await listening('', '127.0.0.1');
  for (let i = 1; i <= OWN_SOCKETS; i++)
    host.openUdp(50 + i, '::1', (await peer('::1')).port, rule.targetPort);
  await probe(40, '127.0.0.1');
  await probe(41, '::1');
  expect([options4(fd), options6(fd)]).toEqual([SET, SET]);
});
