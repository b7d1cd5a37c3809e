/**
 * TCP frames beyond 64 KiB (decision 040): the guest gets them, and a guest that forwards to others through a
 * bridge, whose ports accept no such frames, delivers all data. transfer.test.ts compares the bytes at every
 * MTU and plan.
 */
import { release } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasBigTcp } from '../../src/sys/tap.ts';
import { type Bed, type Guest, makeBed, succeed, supportProgram } from '../support/bed.ts';
import { patternSha256 } from '../support/pattern.ts';
import { FAMILIES, PORT, urlHost } from '../support/ports.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { curlDownload, type Transferred } from '../support/transfers.ts';

const BYTES = 64 * 2 ** 20;
const TIMEOUT_MS = 60_000;
const INNER = '10.99.0.2';

/**
 * A namespace behind a bridge of the guest; $1: MTU, $2: its initial hop limit, $3: the command. A hop limit
 * of 64 arrives at the engine as 63, which shows that the guest forwards; 65 arrives as 64, and the guest has
 * to segment the large frames.
 */
const BEHIND_BRIDGE = `
set -e
mtu=$1
ip link add br0 type bridge
ip link set br0 mtu "$mtu" up
ip addr add 10.99.0.1/24 dev br0
echo 1 >/proc/sys/net/ipv4/ip_forward
unshare -n sleep 50 &
inner=$!
trap 'kill $inner; ip link del br0' EXIT
until [ "$(readlink /proc/$inner/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link add port0 mtu "$mtu" type veth peer name eth0 netns $inner mtu "$mtu"
ip link set port0 master br0 up
behind() { nsenter --preserve-credentials -n -t $inner "$@"; }
behind ip addr add ${INNER}/24 dev eth0
behind ip link set eth0 up
behind sh -c "echo $2 >/proc/sys/net/ipv4/ip_default_ttl"
behind ip route add default via 10.99.0.1
behind sh -c "$3"
`;

/** Bytes and frames that the guest's interface has received. */
async function received(guest: Guest): Promise<{ bytes: number; frames: number }> {
  const lines = (await succeed(guest, ['cat', '/proc/net/dev'])).split('\n');
  const line = lines.find((l) => l.includes(':') && !/^\s*(lo|br0|port0):/.test(l)) ?? '';
  const fields = line
    .slice(line.indexOf(':') + 1)
    .trim()
    .split(/\s+/);
  return { bytes: Number(fields[0]), frames: Number(fields[1]) };
}

describeE2e('TCP frames beyond 64 KiB', [requireTool('curl', 'apt package curl')], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed.close());

  describe.each([65520, 1500])('MTU %i', (mtu) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({ plan: 'fused', mtu });
    });
    afterAll(() => guest?.stop());

    it.runIf(hasBigTcp(release())).each(FAMILIES)(
      '$name: a download arrives in frames beyond 64 KiB',
      async (family) => {
        const before = await received(guest);
        const url = `http://${urlHost(family.peer)}:${PORT.http}/bytes/${BYTES}`;
        const got = await curlDownload(guest, url, TIMEOUT_MS);
        expect(got).toMatchObject({ bytes: BYTES, sha256: patternSha256(BYTES) });
        const after = await received(guest);
        expect((after.bytes - before.bytes) / (after.frames - before.frames)).toBeGreaterThan(65_600);
      },
    );

    it.each([64, 65])('behind a bridge in the guest, hop limit %i: a download arrives whole', async (ttl) => {
      const url = `http://${FAMILIES[0]!.peer}:${PORT.http}/bytes/${BYTES}`;
      const hasher = supportProgram('clients/sha-stdin.ts').join(' ');
      const fetch = `curl -sSf --noproxy '*' '${url}' | ${hasher}`;
      const out = await succeed(guest, ['sh', '-c', BEHIND_BRIDGE, 'sh', String(mtu), String(ttl), fetch], {
        timeoutMs: TIMEOUT_MS,
      });
      const got = JSON.parse(out) as Transferred;
      expect(got).toMatchObject({ bytes: BYTES, sha256: patternSha256(BYTES) });
      console.log(
        `behind a bridge, MTU ${mtu}, hop limit ${ttl}: ${((got.bytes * 8) / got.ms / 1e6).toFixed(2)} Gbit/s`,
      );
    });
  });
});
