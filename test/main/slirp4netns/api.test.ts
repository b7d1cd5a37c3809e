/** Replies were read off slirp4netns 1.3.3; where it crashes or stops all traffic, ours is an error in its form. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ApiSocket, firstJsonValue } from '../../../src/main/api-socket.ts';
import { SlirpApi, TOO_LARGE_REPLY } from '../../../src/main/slirp4netns/api.ts';
import type { ListenerPlan } from '../../../src/workers/engine-plan.ts';

const EADDRINUSE = 98;
/** Ports that somebody else has. */
const TAKEN: readonly number[] = [4000];

/** What the engine was told last, and that it cannot have some ports; the engine itself is tested end to end. */
class Listeners {
  list: readonly ListenerPlan[] = [];
  counters = () => ({ bytesFromGuest: 7 });
  threadCounters = () => [{ thread: 'packets', counters: this.counters() }];
  histograms = () => [];
  async setListeners(list: readonly ListenerPlan[]) {
    this.list = list;
    return list.flatMap(({ port }, index) =>
      TAKEN.includes(port) ? [{ index, port, errno: EADDRINUSE }] : [],
    );
  }
}

const add = (args: object): string => JSON.stringify({ execute: 'add_hostfwd', arguments: args });
const tcp = (hostPort: number) => ({ proto: 'tcp', host_port: hostPort, guest_port: 80 });
const refused = (why: string): string => JSON.stringify({ error: { desc: `bad request: ${why}` } });

describe('slirp4netns requests', () => {
  it('ids begin at 1 and are never used again; what is left out is any address, and the guest', async () => {
    const engine = new Listeners();
    const api = new SlirpApi(engine, '10.0.2.100', { mtu: 1500 });
    expect(await api.answer(add(tcp(8080)))).toBe('{"return":{"id":1}}');
    expect(engine.list).toEqual([
      {
        proto: 'tcp',
        address: '0.0.0.0',
        port: 8080,
        targetPort: 80,
        targetAddress: '10.0.2.100',
        path: 'tap',
      },
    ]);
    expect(await api.answer(add({ ...tcp(8080), proto: 'udp', host_addr: '127.0.0.1' }))).toBe(
      '{"return":{"id":2}}',
    );
    const first =
      '{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80}';
    expect(await api.answer('{"execute":"remove_hostfwd","arguments":{"id":2.0}}')).toBe('{"return":{}}');
    const list = `[${first}]`;
    expect(await api.answer('{"execute":"list_hostfwd"}')).toBe(
      `{"return":{"entries":${list}},"entries":${list}}`,
    );
    expect(engine.list).toHaveLength(1);
    expect(await api.answer(add(tcp(8081)))).toBe('{"return":{"id":3}}');
    expect(await api.answer(add({ ...tcp(8082), host_addr: '::1' }))).toBe('{"return":{"id":4}}');
    expect(engine.list[2]).toMatchObject({ address: '::1' });
  });

  it('a port that is taken, by us or by others, changes nothing', async () => {
    const engine = new Listeners();
    const api = new SlirpApi(engine, '10.0.2.100', { mtu: 1500 });
    await api.answer(add(tcp(8080)));
    for (const port of [8080, 4000])
      expect(await api.answer(add(tcp(port)))).toBe(refused('add_hostfwd: slirp_add_hostfwd failed'));
    expect(engine.list.map((listener) => listener.port)).toEqual([8080]);
    expect(await api.answer(add(tcp(8081)))).toBe('{"return":{"id":2}}');
  });

  it('info and stats', async () => {
    const api = new SlirpApi(new Listeners(), '10.0.2.100', { mtu: 1500 });
    await api.answer(add(tcp(8080)));
    const told = JSON.parse(await api.answer('{"execute":"info"}')).return;
    expect(told).toEqual({ mtu: 1500, threads: ['packets'], forwards: 1, uptimeMs: expect.any(Number) });
    expect(await api.answer('{"execute":"stats"}')).toBe(
      '{"return":{"counters":{"bytesFromGuest":7},"threads":[{"thread":"packets","counters":{"bytesFromGuest":7}}],"histograms":[]}}',
    );
  });

  it.each([
    ['', 'cannot parse JSON'],
    ['{"execute":', 'cannot parse JSON'],
    ['[]', 'json_object() failed'],
    ['"x"', 'json_object() failed'],
    ['{}', 'no execute found'],
    ['{"execute":1}', 'no execute found'],
    ['{"execute":"quit"}', 'unknown execute'],
    [add({}), 'add_hostfwd: bad arguments.proto'], // slirp4netns crashes
    ['{"execute":"add_hostfwd"}', 'add_hostfwd: bad arguments.proto'],
    [add({ ...tcp(1), proto: 'tcp4' }), 'add_hostfwd: bad arguments.proto'],
    [add({ ...tcp(1), host_addr: 'x' }), 'add_hostfwd: bad arguments.host_addr'],
    [add({ ...tcp(1), host_addr: 7 }), 'add_hostfwd: bad arguments.host_addr'],
    [add({ proto: 'tcp', guest_port: 80 }), 'add_hostfwd: bad arguments.host_port'],
    [add(tcp(70_000)), 'add_hostfwd: bad arguments.host_port'],
    [add({ ...tcp(1), guest_addr: 'x' }), 'add_hostfwd: bad arguments.guest_addr'],
    [add({ ...tcp(1), guest_addr: 'fd00::1' }), 'add_hostfwd: bad arguments.guest_addr'],
    [add({ ...tcp(1), guest_port: 0 }), 'add_hostfwd: bad arguments.guest_port'],
    ['{"execute":"remove_hostfwd"}', 'remove_hostfwd: bad arguments.id'],
    ['{"execute":"remove_hostfwd","arguments":{"id":42}}', 'remove_hostfwd: slirp_remove_hostfwd failed'],
  ])('%s: %s', async (request, why) => {
    expect(await new SlirpApi(new Listeners(), '10.0.2.100', { mtu: 1500 }).answer(request)).toBe(
      refused(why),
    );
  });
});

describe('API socket', () => {
  let dir: string;
  let path: string;
  let server: ApiSocket;
  const errors: Error[] = [];
  beforeAll(async () => {
    dir = mkdtempSync(`${tmpdir()}/api-`);
    path = `${dir}/socket`;
    server = new ApiSocket({
      answer: async (request) => `<${request}>`,
      tooLargeReply: TOO_LARGE_REPLY,
      onError: (error) => errors.push(error),
    });
    await server.listen(path);
  });
  afterAll(() => {
    server.close();
    rmSync(dir, { recursive: true, force: true });
    expect(errors).toEqual([]);
  });

  const connect = (): Socket => createConnection({ path, allowHalfOpen: true }).on('error', () => {});
  const replyTo = (socket: Socket): Promise<string> =>
    new Promise((resolve) => {
      let text = '';
      socket.on('data', (chunk) => {
        text += String(chunk);
      });
      socket.on('end', () => resolve(text));
    });

  it('the reply comes with the end of the first value, without the client having ended; the rest is ignored', async () => {
    const socket = connect();
    socket.write('  {"a":"}\\"{"} {"b":2}');
    expect(await replyTo(socket)).toBe('<{"a":"}\\"{"}>');
    socket.end();
  });

  it('a request in pieces is one request; a client that is done without one is answered', async () => {
    const socket = connect();
    const reply = replyTo(socket);
    for (const piece of ['{"exe', 'cute":', '"x"}']) {
      socket.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(await reply).toBe('<{"execute":"x"}>');
    const empty = connect();
    empty.end();
    expect(await replyTo(empty)).toBe('<>');
  });

  it('clients that say nothing, or half of it, do not keep others waiting', async () => {
    const silent = Array.from({ length: 50 }, connect);
    const half = connect();
    half.write('{"execute":');
    const socket = connect();
    socket.end('{}');
    expect(await replyTo(socket)).toBe('<{}>');
    for (const s of [...silent, half]) s.destroy();
  });

  it('10 MiB are refused after 4 KiB, and the reply arrives', async () => {
    const socket = connect();
    const reply = replyTo(socket);
    socket.end(`{"x":"${'a'.repeat(10 * 1024 * 1024)}`);
    expect(await reply).toBe(refused('too large message'));
  });

  it.each([
    ['{"a":[1,{"b":"]}"}]}x', '{"a":[1,{"b":"]}"}]}'],
    ['\n[ ] ', '[ ]'],
    ['{"a":"\\', undefined],
    ['', undefined],
    ['12', undefined],
  ])('firstJsonValue(%j)', (text, value) => {
    expect(firstJsonValue(text)).toBe(value);
  });
});
