// @vitest: beside
/**
 * Peers that are gone without a word. Keep-alives of the guest become keep-alives of the host's socket; bytes
 * that nobody acknowledges end the connection within the time of the host's own time-outs. All tests wait: they
 * run at the same time.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeedIn } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { FAMILIES, HOST4, HOST6, PORT } from '../support/ports.ts';
import { eventually, killTree, sleepMs } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

/**
 * Of the host: an unanswered connection ends after 3 keep-alives, or 0.2 s * (2^5 - 1) of retransmissions.
 */
const SYSCTLS = ['tcp_keepalive_probes=3', 'tcp_retries2=4'];

/**
 * Opens an idle connection with keep-alives after 1 s, one that will send, and an idle one without. When the
 * file of argument 3 is there, the second one sends. Prints "alive" after 4.5 s, then for each of the three
 * how it ended, and after how many seconds.
 */
const GUEST = `
import errno, os, select, socket, sys, time
address, port, flag = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def connect():
    s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET)
    s.settimeout(5)
    s.connect((address, port))
    s.send(b'hello')
    s.recv(100)
    return s
names = {}
probing, sending, idle = connect(), connect(), connect()
for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
    probing.setsockopt(socket.IPPROTO_TCP, option, value)
probing.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
print('port', probing.getsockname()[1], flush=True)
time.sleep(4.5)
print('alive' if not select.select([probing, sending, idle], [], [], 0)[0] else 'dead', flush=True)
while not os.path.exists(flag): time.sleep(0.02)
sending.setsockopt(socket.IPPROTO_TCP, 18, 3000)  # TCP_USER_TIMEOUT
sending.send(b'x')
began = time.monotonic()
waiting = {probing: 'probing', sending: 'sending'}
while waiting and time.monotonic() - began < 20:
    for s in select.select(list(waiting), [], [], 1)[0]:
        try:
            result = 'EOF' if s.recv(100) == b'' else 'bytes'
        except OSError as e:
            result = errno.errorcode[e.errno]
        print(waiting.pop(s), result, round(time.monotonic() - began, 1), flush=True)
print('idle', 'open' if not select.select([idle], [], [], 0)[0] else 'ended', flush=True)
`;

/**
 * Prints "keep-alive PORT" for each keep-alive that comes in. Arguments: port of the server, IPv4 or IPv6.
 */
const SNIFF = `
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
next_of = {}
print('ready', flush=True)
while True:
    frame, (name, proto, kind, *rest) = s.recvfrom(65535)
    if kind == 4: continue  # outgoing
    ip = frame[14:]
    if proto == 0x0800 and ip[9] == 6: tcp = ip[(ip[0] & 15) * 4:struct.unpack('>H', ip[2:4])[0]]
    elif proto == 0x86dd and ip[6] == 6: tcp = ip[40:40 + struct.unpack('>H', ip[4:6])[0]]
    else: continue
    source, target, seq = struct.unpack('>HHI', tcp[:8])
    if target != int(sys.argv[1]) or (proto == 0x0800) != (sys.argv[2] == 'IPv4'): continue
    length = len(tcp) - (tcp[12] >> 4) * 4 + (1 if tcp[13] & 3 else 0)
    if length == 0 and seq == (next_of.get(source, 0) - 1) % 2**32: print('keep-alive', source, flush=True)
    next_of[source] = max(next_of.get(source, 0), (seq + length) % 2**32)
`;

/** Where the client below connects, on the host and inside. */
const HELD_PORT = 8084;

describeE2e('peers that are gone', [requireTool('python3', 'apt package python3-minimal')], () => {
  // Each has a bed of its own: they set the host's time-outs, count what reaches the peer, and cut it off.
  describe.concurrent.each(engine.plans)('%s', (plan) => {
    let bed: Bed;
    let guest: Guest;
    beforeAll(async () => {
      bed = await makeBed();
      for (const sysctl of SYSCTLS) {
        const [name, value] = sysctl.split('=');
        await succeedIn(bed, 'host', ['sh', '-c', `echo ${value} >/proc/sys/net/ipv4/${name}`]);
      }
      guest = await bed.engine({ plan });
    });
    afterAll(async () => {
      await guest?.stop();
      await bed?.close();
    });

    it.each(FAMILIES)(
      '$name: keep-alives of the guest reach the peer; when it is gone, the connection fails',
      {
        timeout: 40_000,
      },
      async ({ name, peer }) => {
        const host = name === 'IPv4' ? `${HOST4}/32` : `${HOST6}/128`;
        const flag = `${bed.ramDir}/dead-${plan}-${name}`;
        const sniff = bed.start('peer', ['python3', '-c', SNIFF, String(PORT.echo), name]);
        await eventually('the peer is watched', 5000, () => sniff.printed().stdout.includes('ready'));
        const program = guest.startInside(['python3', '-c', GUEST, peer, String(PORT.echo), flag]);
        await eventually('the connections have been idle', 10_000, () =>
          program.printed().stdout.includes('alive'),
        );
        // The engine learns the idle time from the first keep-alive; those of the host follow each second.
        const seen = (): number => sniff.printed().stdout.match(/keep-alive/g)?.length ?? 0;
        expect(seen()).toBeGreaterThanOrEqual(2);
        expect(new Set(sniff.printed().stdout.match(/keep-alive \d+/g)).size).toBe(1);

        await succeedIn(bed, 'peer', ['ip', 'route', 'add', 'blackhole', host]);
        try {
          bed.write(flag, '');
          await program.exited;
        } finally {
          await succeedIn(bed, 'peer', ['ip', 'route', 'del', 'blackhole', host]);
          process.kill(sniff.pid);
        }
        const { stdout, stderr } = program.printed();
        expect(stderr).toBe('');
        const secondsOf = (who: string): number =>
          Number(new RegExp(`${who} ECONNRESET (.*)`).exec(stdout)?.[1]);
        expect(secondsOf('probing'), stdout).toBeGreaterThan(1);
        expect(secondsOf('probing'), stdout).toBeLessThan(8);
        // The engine has acknowledged the byte: TCP_USER_TIMEOUT of the guest does not end the connection.
        expect(secondsOf('sending'), stdout).toBeGreaterThan(4);
        expect(secondsOf('sending'), stdout).toBeLessThan(15);
        expect(stdout).toContain('idle open');
      },
    );
  });

  // The timer is the engine's own, the same in all plans and on both runtimes.
  it.concurrent('a published port from loopback: the server inside has closed and ended, the client never closes: the flow is freed after a minute', {
    timeout: 80_000,
  }, async () => {
    const bed = await makeBed();
    try {
      const guest = await bed.engine({
        plan: engine.plans[0]!,
        publish: [`${HELD_PORT}:${HELD_PORT}`],
        extra: engine.name === 'bucatini' ? ['--splice'] : [],
      });
      await guest.inside(['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/tcp_fin_timeout']);
      const node = (code: string): string[] => [process.execPath, '-e', code];
      const serve = `require('net').createServer((s) => { s.end(); setTimeout(() => process.exit(), 200); })
        .listen(${HELD_PORT}, () => console.log('ready'))`;
      const server = guest.startInside(node(serve));
      await eventually('it listens', 5000, () => server.printed().stdout.includes('ready'));
      const hold = `const s = require('net').connect({ host: '127.0.0.1', port: ${HELD_PORT}, allowHalfOpen: true });
        s.resume().on('end', () => console.log('end')); setInterval(() => {}, 1000)`;
      const held = async (): Promise<string> =>
        (await bed.run('host', ['ss', '-Htan', 'state', 'fin-wait-2', 'sport', '=', `:${HELD_PORT}`])).stdout;
      const client = bed.start('host', node(hold));
      await eventually('the client gets FIN', 5000, () => client.printed().stdout.includes('end'));
      expect(await held()).not.toBe('');
      await eventually('its socket is closed', 60_000, async () => {
        await sleepMs(500);
        return (await held()) === '';
      });
      killTree(client.pid);
      await guest.stop();
    } finally {
      await bed.close();
    }
  });
});
