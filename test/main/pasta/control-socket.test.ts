// @vitest: beside
/**
 * Concurrent clients of the control socket: silent, gone, half-closed, many, and two changes at once.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeRule } from '../../../src/main/pasta/control-codec.ts';
import { ControlSocket, mergedRules } from '../../../src/main/pasta/control-socket.ts';
import { type Direction, type ForwardRule, RuleTable } from '../../../src/main/pasta/forward-rules.ts';

const LIMITS = { ipv4: true, ipv6: true, tcp: true, udp: true };
const rule = (port: number): ForwardRule => ({
  ...{ proto: 'tcp', address: '0.0.0.0', interface: '', first: port, last: port, to: 80 },
  ...{ target: '10.89.0.2', weak: false, scan: false },
});
const request = (...ports: number[]): Buffer => {
  const head = Buffer.alloc(5);
  head.writeUInt8(1);
  head.writeUInt32BE(ports.length, 1);
  return Buffer.concat([head, ...ports.map((port) => encodeRule(rule(port))), Buffer.alloc(1)]);
};

let dir = '';
let path = '';
let table: RuleTable;
let warnings: string[] = [];
let control: ControlSocket;
/** A change of rules is complete when this promise is fulfilled. */
let bound: Promise<void> = Promise.resolve();
const sockets: Socket[] = [];
const ports = (): number[] => table.rules.map(({ first }) => first);

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'control-'));
  path = join(dir, 's');
  table = new RuleTable('HOST', LIMITS);
  warnings = [];
  bound = Promise.resolve();
  control = new ControlSocket({
    tables: () => [table],
    replace: async (tables: ReadonlyMap<Direction, RuleTable>) => {
      table = tables.get('HOST') ?? table;
      await bound;
      return [];
    },
    log: (_level, text) => warnings.push(text),
  });
  await control.listen(path);
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  control.close();
  rmSync(dir, { recursive: true, force: true });
});

const connect = (): Socket => {
  const socket = createConnection({ path, allowHalfOpen: true });
  socket.on('error', () => {});
  sockets.push(socket);
  return socket;
};
/** A client that has received the greeting with the rules. */
async function greeted(): Promise<Socket> {
  const socket = connect();
  await once(socket, 'data', { signal: AbortSignal.timeout(900) });
  return socket;
}
async function send(socket: Socket, ...wanted: number[]): Promise<void> {
  const end = once(socket, 'end', { signal: AbortSignal.timeout(900) });
  socket.write(request(...wanted));
  await end;
}

describe('concurrent clients', () => {
  it('silent clients, half requests and gone clients: another client is answered at once', async () => {
    await greeted();
    (await greeted()).write(request(1).subarray(0, 20));
    for (let i = 0; i < 3; i++) connect().destroy();
    await send(await greeted(), 8080);
    expect(ports()).toEqual([8080]);
  });

  it('two clients with the same greeting: additions of both and the removal of one are applied', async () => {
    await send(await greeted(), 1, 2);
    const [a, b] = [await greeted(), await greeted()];
    await send(a, 1, 2, 3);
    await send(b, 2, 4);
    expect(ports()).toEqual([2, 3, 4]);
    expect(warnings).toEqual([]);
  });

  it('two clients, one port, different targets: the second is refused with a warning, the first stays', async () => {
    const [a, b] = [await greeted(), await greeted()];
    await send(a, 1);
    const other = request(1);
    other[5 + 16 + 15] = 9;
    const end = once(b, 'end', { signal: AbortSignal.timeout(900) });
    b.write(other);
    await end;
    expect(table.rules).toEqual([rule(1)]);
    expect(warnings.join()).toMatch(/conflict/);
  });

  it('a client has sent FIN: the server closes only when the rules are in force', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    bound = promise;
    const socket = await greeted();
    let ended = false;
    socket.on('end', () => {
      ended = true;
    });
    socket.end(request(8080));
    await sleep(50);
    expect(ended).toBe(false);
    resolve();
    await expect.poll(() => ended).toBe(true);
  });

  it('more silent clients than places: closed after a second for new ones', async () => {
    const silent = Array.from({ length: 256 }, connect);
    await Promise.all(silent.map((socket) => once(socket, 'data')));
    const early = connect().resume();
    await once(early, 'end');
    await sleep(1050);
    await send(await greeted(), 8080);
    expect(ports()).toEqual([8080]);
    expect(silent.filter((socket) => socket.readableEnded || socket.destroyed)).toHaveLength(1);
  });
});

describe('merged rules', () => {
  it('unchanged since the greeting: the rules of the client, in its order', () => {
    const [a, b] = [rule(1), rule(2)];
    expect(mergedRules([a, b], [b, a], [a, b])).toEqual([b, a]);
  });

  it('both clients have added the same rule: it is kept once', () => {
    expect(mergedRules([], [rule(1)], [rule(1)])).toEqual([rule(1)]);
  });
});
