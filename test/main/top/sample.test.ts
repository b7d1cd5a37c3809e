// @vitest: beside
/** Instances that come, go, hang and come back while `bucatini top` measures. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Sampler } from '../../../src/main/bucatini/top/sample.ts';

let directory: string;
const servers = new Map<string, { server: Server; sockets: Socket[] }>();
const before = process.env.XDG_RUNTIME_DIR;

beforeEach(() => {
  const root = mkdtempSync(join(tmpdir(), 'sample-'));
  process.env.XDG_RUNTIME_DIR = root;
  directory = `${root}/bucatini`;
  mkdirSync(directory, { mode: 0o700 });
});
afterEach(() => {
  for (const name of servers.keys()) stop(name);
  rmSync(process.env.XDG_RUNTIME_DIR!, { recursive: true });
  if (before === undefined) delete process.env.XDG_RUNTIME_DIR;
  else process.env.XDG_RUNTIME_DIR = before;
});

/** An engine that carries `step` bytes between two questions. @param hangs  asked before each answer */
async function serve(name: string, step: number, hangs: () => boolean = () => false): Promise<void> {
  let bytes = 0;
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
    socket.on('data', (data) => {
      if (hangs()) return;
      const { execute } = JSON.parse(data.toString());
      if (execute === 'stats') bytes += step;
      const flow = { proto: 'tcp', state: 'established', path: 'tap', guest_addr: 'g', remote_addr: 'r' };
      const answers: Record<string, unknown> = {
        info: { program: 'bucatini run', version: '1', pid: 1, threads: [], uptimeMs: 5 },
        stats: { counters: { bytesFromGuest: bytes, 'drop.x': bytes / step }, threads: [], histograms: [] },
        list_flows: { flows: [{ ...flow, id: 0, bytes_from_guest: bytes, age_ms: bytes }], more: false },
      };
      socket.end(JSON.stringify({ return: answers[execute] }));
    });
  });
  servers.set(name, { server, sockets });
  await new Promise<void>((resolve) => server.listen(`${directory}/${name}`, resolve));
}

function stop(name: string): void {
  const { server, sockets } = servers.get(name)!;
  servers.delete(name);
  for (const socket of sockets) socket.destroy();
  server.close();
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 50));

describe('measurements of top', () => {
  it('instances that come and go: shown while they exist; rates from the second measurement on', async () => {
    const sampler = new Sampler([]);
    expect(await sampler.sample(500)).toEqual([]);
    await serve('run-4999991.sock', 1000);
    const [first] = await sampler.sample(500);
    expect(first).toMatchObject({ pid: 4_999_991, name: 'run', fromGuestRate: 0, threads: [] });
    await serve('pasta-4999992.sock', 10);
    await pause();
    const [second, other] = await sampler.sample(500);
    expect(second!.fromGuestRate).toBeGreaterThan(1000);
    expect(second!.fromGuestRate).toBeLessThan(1000 / 0.05);
    expect(second!.rows[0]!.fromGuestRate).toBeGreaterThan(1000);
    expect(second!.drops).toMatchObject([{ cause: 'x', count: 2 }]);
    expect(other!.pid).toBe(4_999_992);
    stop('run-4999991.sock');
    expect((await sampler.sample(500)).map(({ pid }) => pid)).toEqual([4_999_992]);
    await serve('run-4999991.sock', 1000);
    expect((await sampler.sample(500))[0]).toMatchObject({ pid: 4_999_991, fromGuestRate: 0 });
  });

  it('one that hangs: the others are measured meanwhile; it comes back when it answers', async () => {
    let hangs = true;
    await serve('run-4999991.sock', 1, () => hangs);
    await serve('run-4999992.sock', 1);
    const sampler = new Sampler([]);
    const begin = performance.now();
    const [stuck, good] = await sampler.sample(200);
    expect(performance.now() - begin).toBeLessThan(1000);
    expect(stuck).toMatchObject({ problem: 'has not answered yet', rows: [] });
    expect(good!.problem).toBeUndefined();
    hangs = false;
    // It is asked again once its time is over: 3 s.
    for (let i = 0; i < 50 && (await sampler.sample(200))[0]!.problem !== undefined; i++) await pause();
    expect((await sampler.sample(200))[0]!.problem).toBeUndefined();
  });

  it('operands: by process id, found when it comes; by path, shown although nobody listens', async () => {
    const path = `${directory}/named`;
    const sampler = new Sampler(['4999993', path]);
    expect(await sampler.sample(500)).toMatchObject([{ path, pid: 0, problem: 'no such socket' }]);
    await serve('attach-4999993.sock', 1);
    await serve('run-4999994.sock', 1);
    await serve('named', 1);
    const found = await sampler.sample(500);
    expect(found.map(({ pid, problem }) => [pid, problem])).toEqual([
      [1, undefined],
      [4_999_993, undefined],
    ]);
  });
});
