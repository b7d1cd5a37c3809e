/**
 * A low descriptor limit: the front ends start with a warning, and unanswered flows are ended for answered
 * ones.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { repoRoot } from '../main/source-tree.ts';
import { eventually, runToEnd, sleepMs, start } from '../support/process.ts';
import { describeNeeding, type Need, requireTool, tapNeeds } from '../support/require.ts';

const BIN = `${repoRoot}/bin`;
const FEW = 'only 64 descriptors may be open';

const START_MS = 10_000;

/**
 * Wait for these words in the output of a front end with 64 descriptors that serves a process; then SIGTERM.
 */
async function served(
  argv: (pid: number) => string[],
  ...words: string[]
): Promise<{ said: string; status: number }> {
  const target = spawn('unshare', ['-Urn', 'sh', '-c', 'echo there; exec sleep 1000'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    await new Promise((resolve) => target.stdout!.once('data', resolve));
    const script = 'ulimit -n 64; exec "$@" 2>&1';
    const started = start(['/bin/sh', '-c', script, 'sh', ...argv(target.pid!)]);
    const said = (): string => started.printed().stdout;
    await eventually('it says what it should', START_MS, () =>
      words.every((word) => said().includes(word)),
    ).catch(() => {});
    started.process.kill('SIGTERM');
    const status = await started.exited;
    return { said: said(), status };
  } finally {
    target.kill('SIGKILL');
  }
}

describeNeeding('a limit of 64 descriptors', tapNeeds, () => {
  for (const command of [
    [`${BIN}/bucatini`, 'run', '--'],
    [`${BIN}/pasta`, '--config-net', '--'],
  ]) {
    it(`${command.join(' ').replace(`${BIN}/`, '')} COMMAND: starts, and warns`, async () => {
      const script = 'ulimit -n 64; exec "$@" sh -c "echo it runs"';
      const { status, stdout, stderr } = await runToEnd(['/bin/sh', '-c', script, 'sh', ...command]);
      expect({ status, stdout }).toEqual({ status: 0, stdout: 'it runs\n' });
      expect(stderr).toContain(FEW);
    });
  }

  it('attach: starts with a warning', async () => {
    const { said, status } = await served((pid) => [`${BIN}/bucatini`, 'attach', String(pid)], FEW, 'ready:');
    expect(said).toContain(FEW);
    expect(said).toContain('ready:');
    expect(status).toBe(0);
  });

  it('slirp4netns: starts with a warning', async () => {
    const { said, status } = await served(
      (pid) => [`${BIN}/slirp4netns`, '-c', String(pid), 'tap0'],
      FEW,
      'Recommended IP',
    );
    expect(said).toContain(FEW);
    expect(said).toContain('Recommended IP');
    expect(status).toBe(143); // ended by SIGTERM, as slirp4netns is
  });
});

/** A connect() to each of 120 ports of an address that does not answer, held open. */
const FLOOD = `const net = require('node:net');
for (let i = 0; i < 120; i++) net.connect(1000 + i, '10.9.0.9').on('error', () => {});
setTimeout(() => process.exit(), 20000);`;
/** One connection after another; each must be answered. */
const ASK = `const net = require('node:net');
let good = 0;
const ask = (n) => {
  if (n === 0) { console.log('answered ' + good); process.exit(); }
  const s = net.connect(7777, '10.9.0.2');
  s.setTimeout(4000, () => s.destroy()).on('error', () => {});
  s.on('data', () => { good++; s.destroy(); }).on('close', () => ask(n - 1));
};
ask(20);`;
const SERVE = `require('node:net').createServer((s) => { s.on('error', () => {}); s.end('x'); }).listen(7777, '10.9.0.2');`;
/** A neighbour with a server, and one that has a hardware address but never answers. */
const BESIDE = `ip link set lo up && ip link add d0 type veth peer name d1 && ip addr add 10.9.0.1/24 dev d0 || exit 9
unshare -n /bin/sh -c 'sleep 0.4; ip addr add 10.9.0.2/24 dev d1; ip link set d1 up; exec "$NODE" -e "$SERVE"' & server=$!
sleep 0.2
ip link set d1 netns $server && ip link set d0 up && ip route add default via 10.9.0.254 || exit 9
ip neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev d0 nud permanent || exit 9
sleep 1
(ulimit -n 200; exec "$@" sh -c 'for i in 1 2 3; do "$NODE" -e "$FLOOD" & done; sleep 1.5; exec "$NODE" -e "$ASK"')
status=$?
kill $server
exit $status`;

describeNeeding(
  'half-open and ordinary connections, a limit of 200 descriptors',
  [...tapNeeds, requireTool('ip', 'apt package iproute2')],
  () => {
    // On Node in one plan: what is given up is the same JavaScript.
    for (const threads of process.env.BUCATINI_RUNTIME === 'node' ? ['fused'] : ['fused', 'pipeline=2']) {
      it(`run, ${threads}: 360 unanswered connections: ordinary ones are still answered`, async () => {
        const argv = ['unshare', '-Urn', '/bin/sh', '-c', BESIDE, 'sh'];
        const { stdout, stderr } = await runToEnd(
          [...argv, `${BIN}/bucatini`, 'run', `--threads=${threads}`, '--'],
          { timeoutMs: 50_000, env: { NODE: process.execPath, FLOOD, ASK, SERVE } },
        );
        expect(stdout).toContain('answered 20');
        expect(stderr).toContain('connections that nobody answers are given up');
      }, 60_000);
    }
  },
);

const requireRoot: Need = () =>
  process.getuid!() === 0 && /^\s*0\s+0\s+4294967295$/m.test(readFileSync('/proc/self/uid_map', 'latin1'))
    ? undefined
    : 'only root of the machine changes its user';

describeNeeding('root of the machine, without --runas', [...tapNeeds, requireRoot], () => {
  for (const ports of [[], ['-t', 'none', '-u', 'none']]) {
    it(`pasta PID ${ports.join(' ')}: runs as user nobody, and ends with status 0`, async () => {
      const target = spawn('unshare', ['-n', 'sh', '-c', 'echo there; exec sleep 1000'], {
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      try {
        await new Promise((resolve) => target.stdout!.once('data', resolve));
        const pasta = start([`${BIN}/pasta`, '-f', '--config-net', ...ports, String(target.pid)]);
        const uid = () =>
          /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pasta.process.pid}/status`, 'latin1'))?.[1];
        await eventually('it runs as nobody', START_MS, () => uid() === '65534');
        await sleepMs(500); // it serves
        expect(uid()).toBe('65534');
        pasta.process.kill('SIGTERM');
        expect(await pasta.exited).toBe(0);
      } finally {
        target.kill('SIGKILL');
      }
    });
  }
});
