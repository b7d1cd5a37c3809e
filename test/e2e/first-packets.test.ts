/** Packets that a program sends before the engine has read any from its TAP. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Bed, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { engine, ourPasta, repoRoot } from '../support/engines.ts';
import { eventually } from '../support/process.ts';
import { describeE2e } from '../support/require.ts';

const COUNT = 400;
const ECHO_PORT = 7007;
/** Of the peer's, behind the gateway. */
const FAR = [
  { family: 'IPv4', address: '198.51.100.7' },
  { family: 'IPv6', address: '2001:db8:77::7' },
] as const;
const ECHO = `
const [address, port] = process.argv.slice(1);
const socket = require('node:dgram').createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 1 << 20 });
socket.on('message', (data, from) => socket.send(data, from.port, from.address));
socket.bind(Number(port), address, () => console.log('ready'));
`;
/** Sends that many datagrams at once; prints how many returned. */
const BURST = `
const [address, port, count] = process.argv.slice(1);
const socket = require('node:dgram').createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 1 << 20 });
let left = Number(count), back = 0;
const end = () => { console.log('back ' + back); process.exit(); };
socket.on('message', () => { if (++back === Number(count)) end(); });
for (let i = Number(count); i > 0; i--)
  socket.send(String(i), Number(port), address, () => { if (--left === 0) { console.log('sent'); setTimeout(end, 5000); } });
`;

const node = (script: string, ...args: (string | number)[]): string[] => [
  ...[`${repoRoot}/scripts/node.sh`, '-e', script],
  ...args.map(String),
];

describeE2e('the first packets', [], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
    for (const { address } of FAR) {
      await succeedIn(bed, 'peer', ['ip', 'addr', 'add', address, 'dev', 'lo']);
      const echo = bed.start('peer', node(ECHO, address, ECHO_PORT));
      await eventually('the echo is ready', 10_000, () => echo.printed().stdout.includes('ready'));
    }
  });
  afterAll(() => bed?.close());

  it.each([engine, ourPasta].flatMap((tool) => FAR.map((far) => ({ tool, ...far, name: tool.name }))))(
    '$name, $family: 400 datagrams at once to an engine that is slow all arrive',
    async ({ tool, address }) => {
      const guest = await bed.engine({ engine: tool });
      try {
        expect(await succeed(guest, ['ip', 'neigh'])).toMatch(/STALE/);
        process.kill(guest.enginePid, 'SIGSTOP');
        const argv = node(BURST, address, ECHO_PORT, COUNT);
        const client = guest.startInside(argv);
        await eventually('all are sent', 10_000, () => client.printed().stdout.includes('sent'));
        process.kill(guest.enginePid, 'SIGCONT');
        await client.exited;
        expect(client.printed().stdout).toContain(`back ${COUNT}`);
      } finally {
        process.kill(guest.enginePid, 'SIGCONT');
        await guest.stop();
      }
    },
  );
});
