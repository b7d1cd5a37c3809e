/** The traffic programs of the harness over loopback: real sockets, real processes, small loads. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';

const children: ReturnType<typeof spawn>[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** Below the ephemeral ports, and different for concurrent test runs. */
const FLOWS = 20;
let nextPort = 16_384 + (process.pid % 400) * (FLOWS + 4);

/** Start a program of perf/harness/traffic. @returns its output, line by line */
function program(name: string, ...args: (string | number)[]) {
  const file = fileURLToPath(new URL(`../../perf/harness/traffic/${name}.ts`, import.meta.url));
  const child = spawn(process.execPath, [file, ...args.map(String)], { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const lines: string[] = [];
  let rest = '';
  let wake = () => {};
  child.stdout.on('data', (chunk) => {
    const parts = `${rest}${chunk}`.split('\n');
    rest = parts.pop() ?? '';
    lines.push(...parts);
    wake();
  });
  return {
    child,
    async line(): Promise<string> {
      while (lines.length === 0)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      return lines.shift() ?? '';
    },
  };
}

async function stream(mode: string, amount: number) {
  const port = nextPort++;
  const server = program('stream-server', mode, port, 64);
  expect(await server.line()).toBe('listening');
  const client = program('stream-client', mode, '127.0.0.1', port, 64, amount);
  return { client, report: JSON.parse(await client.line()) };
}

it('programs in a container: output, status and signals are passed on; they end with their client', async () => {
  const path = `${mkdtempSync(`${tmpdir()}/contained-`)}/socket`;
  const server = program('contained', 'serve', path);
  expect(await server.line()).toBe('listening');
  const script = `echo $$; trap 'kill $!; echo caught; exit 7' USR2; sleep 60 & wait $!`;
  const [first, second] = [0, 1].map(() => program('contained', 'run', path, 'sh', '-c', script));
  const [pid] = [await first!.line(), await second!.line()].map(Number);
  second!.child.kill('SIGUSR2');
  expect(await second!.line()).toBe('caught');
  await expect.poll(() => second!.child.exitCode).toBe(7);
  first!.child.kill('SIGKILL');
  await expect.poll(() => existsSync(`/proc/${pid}`)).toBe(false);
  const missing = program('contained', 'run', path, '/no/such/program');
  await expect.poll(() => missing.child.exitCode).toBe(127);
  server.child.kill();
  rmSync(dirname(path), { recursive: true });
});

it('request and response: every round trip recorded, warm-up left out', async () => {
  const { report } = await stream('echo', 1);
  expect(report).toMatchObject({ failed: 0 });
  expect(report.count).toBeGreaterThan(100);
  // The measured time is 0.8 s: requests in that time give the rate.
  expect(report.perSecond / report.count).toBeCloseTo(1 / 0.8, 1);
  expect(report.p50Us).toBeGreaterThan(0);
  expect(report.p999Us).toBeGreaterThanOrEqual(report.p99Us);
});

it('connections: the server closes first, the client keeps none in TIME-WAIT', async () => {
  const { report } = await stream('once', 1);
  expect(report).toMatchObject({ failed: 0 });
  expect(report.count).toBeGreaterThan(100);
});

it('idle flows: the requested number, held until the client is killed', async () => {
  const { report, client } = await stream('hold', 200);
  expect(report).toEqual({ flows: 200 });
  expect(client.child.exitCode).toBeNull();
});

it('a server that stalls: each unanswered request counts with the time-out as its time', async () => {
  const port = nextPort++;
  const server = program('stream-server', 'echo', port, 64);
  expect(await server.line()).toBe('listening');
  const client = program('stream-client', 'echo', '127.0.0.1', port, 64, 5);
  setTimeout(() => server.child.kill('SIGSTOP'), 2500);
  const report = JSON.parse(await client.line());
  expect(report.count).toBeGreaterThan(100);
  expect(report.failed).toBeGreaterThan(0);
  // The maximum; earlier requests were fast.
  expect(report.distribution.at(-1)[1]).toBeGreaterThan(1.9e6);
  expect(report.p50Us).toBeLessThan(1e5);
  server.child.kill('SIGCONT');
});

it('a server that ends: the closed connection is not counted as an answer', async () => {
  const port = nextPort++;
  const server = program('stream-server', 'echo', port, 64);
  expect(await server.line()).toBe('listening');
  const client = program('stream-client', 'echo', '127.0.0.1', port, 64, 4);
  setTimeout(() => server.child.kill('SIGKILL'), 1500);
  const report = JSON.parse(await client.line());
  expect(report.failed).toBeGreaterThan(10);
  expect(report.distribution.at(-1)[1]).toBeGreaterThan(1.9e6);
});

it('idle flows that were closed: not counted as held', async () => {
  const port = nextPort++;
  const server = program('stream-server', 'hold', port, 1);
  expect(await server.line()).toBe('listening');
  const client = program('stream-client', 'hold', '127.0.0.1', port, 1, 20);
  expect(JSON.parse(await client.line())).toEqual({ flows: 20 });
  client.child.kill('SIGUSR2');
  expect(JSON.parse(await client.line())).toEqual({ open: 20 });
  const ended = new Promise((resolve) => server.child.on('exit', resolve));
  server.child.kill('SIGKILL');
  await ended;
  client.child.kill('SIGUSR2');
  expect(JSON.parse(await client.line())).toEqual({ open: 0 });
});

it('many UDP flows over loopback: offered rate in both directions, no loss', async () => {
  const load = [nextPort, FLOWS, 1200, 2, 1] as const;
  const peer = program('many-udp', 'peer', ...load);
  expect(await peer.line()).toBe('listening');
  const guest = JSON.parse(await program('many-udp', 'guest', ...load, '127.0.0.1').line());
  const there = JSON.parse(await peer.line());
  // 2 Mbit/s of 1200 B for a second.
  expect(guest.sent).toBe(208);
  expect(there).toMatchObject({ received: guest.sent });
  expect(guest.received).toBe(there.sent);
  expect(there.sent).toBeGreaterThan(190);
});
