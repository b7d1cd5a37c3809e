/**
 * The expected replies are those of slirp4netns 1.3.3. Where slirp4netns crashes or stops all traffic, the
 * expected reply is an error in its format.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { portsBeside } from '../../src/main/api/added-ports.ts';
import { Api, type ApiOptions, TOO_LARGE_REPLY } from '../../src/main/api/api.ts';
import { ApiSocket, firstJsonValue } from '../../src/main/api/socket.ts';
import { parseLineOptions } from '../../src/main/cli/lines.ts';
import type { SwitchedConnections } from '../../src/main/switching/switched-connections.ts';
import type { SwitchedFlow } from '../../src/switch/flow-records.ts';
import { Errno } from '../../src/sys/constants.ts';
import type { ListenerPlan, ShapingPlan } from '../../src/workers/engine-plan.ts';

/** Ports that another owner uses. */
const TAKEN: readonly number[] = [4000];

/**
 * Stands for the engine: records the last rules, and refuses some ports. The engine itself is tested end to
 * end.
 */
class Listeners {
  list: readonly ListenerPlan[] = [];
  counters = () => ({ bytesFromGuest: 7 });
  threadCounters = () => [{ thread: 'packets', counters: this.counters() }];
  histograms = () => [];
  measure = async () => ({
    flows: [{ proto: 'tcp', state: 'established', path: 'tap' as const, count: 2 }],
    pool: { small: { slots: 8, used: 1 }, large: { slots: 2, used: 0 } },
  });
  lines: ShapingPlan[] = [];
  setShaping = (plan: ShapingPlan): void => {
    this.lines.push(plan);
  };
  asked: number[][] = [];
  async listFlows(after: number, limit: number) {
    this.asked.push([after, limit]);
    const ports = { guestPort: 5000, remotePort: 443, bytesFromGuest: 7, bytesToGuest: 9, ageMs: 12 };
    const tcp = { id: 3, proto: 'tcp', state: 'established', path: 'tap' as const };
    const ping = { ...tcp, id: 4, proto: 'icmp', state: 'replied' };
    const ends = { guestAddress: '10.0.2.100', remoteAddress: '192.0.2.1', ...ports };
    return {
      flows: [
        { ...tcp, ...ends },
        { ...ping, ...ends },
      ],
      more: true,
    };
  }
  /** Rules that were sent to the engine. */
  sent = 0;
  async changeListeners(remove: readonly ListenerPlan[], add: readonly ListenerPlan[]) {
    this.sent += remove.length + add.length;
    const gone = new Set(remove.map((plan) => JSON.stringify(plan)));
    const had = add.filter(({ port }) => !TAKEN.includes(port));
    this.list = [...this.list.filter((plan) => !gone.has(JSON.stringify(plan))), ...had];
    return add.flatMap(({ port }, index) =>
      TAKEN.includes(port) ? [{ index, port, errno: Errno.EADDRINUSE }] : [],
    );
  }
}

/** As in slirp4netns without --enable-ipv6. */
const IPV4 = { guest: '10.0.2.100', prefixLen: 24, gateway: '10.0.2.2', dns: '10.0.2.3' };
const IPV6 = { guest: '::', prefixLen: 64, gateway: 'fd00::2', linkLocal: 'fe80::2' };
const api = (engine = new Listeners(), options: Partial<ApiOptions> = {}): Api =>
  new Api({
    ...{ engine, ports: portsBeside(engine, []), addresses: { mtu: 1500, ipv4: IPV4, ipv6: IPV6 } },
    ...{ interfaceName: 'tap0', program: 'test', version: '0' },
    ...options,
  });

const bind = (it: Api) => ({ answer: (text: string) => it.answer(text) });

const add = (args: object): string => JSON.stringify({ execute: 'add_hostfwd', arguments: args });
const tcp = (hostPort: number) => ({ proto: 'tcp', host_port: hostPort, guest_port: 80 });
const refused = (why: string, reason?: string): string =>
  JSON.stringify({ error: { desc: `bad request: ${why}`, ...(reason !== undefined && { reason }) } });
const ADD_FAILED = 'add_hostfwd: slirp_add_hostfwd failed';
const OWN_PORT = refused(ADD_FAILED, 'this program publishes the port already');
const TAKEN_PORT = refused(ADD_FAILED, 'Address already in use');

describe('slirp4netns requests', () => {
  it('add_hostfwd: ids begin at 1 and are not used again; absent addresses default to any and to the guest', async () => {
    const engine = new Listeners();
    const { answer } = bind(api(engine));
    expect(await answer(add(tcp(8080)))).toBe('{"return":{"id":1}}');
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
    expect(await answer(add({ ...tcp(8080), proto: 'udp', host_addr: '127.0.0.1' }))).toBe(
      '{"return":{"id":2}}',
    );
    const first =
      '{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80}';
    expect(await answer('{"execute":"remove_hostfwd","arguments":{"id":2.0}}')).toBe('{"return":{}}');
    const list = `[${first}]`;
    expect(await answer('{"execute":"list_hostfwd"}')).toBe(
      `{"return":{"entries":${list}},"entries":${list}}`,
    );
    expect(engine.list).toHaveLength(1);
    expect(await answer(add(tcp(8081)))).toBe('{"return":{"id":3}}');
    expect(await answer(add({ ...tcp(8082), host_addr: '::1' }))).toBe('{"return":{"id":4}}');
    expect(engine.list[2]).toMatchObject({ address: '::1' });
  });

  it.each([null, 7, ''])('an address of %j counts as absent', async (none) => {
    const engine = new Listeners();
    await api(engine).answer(add({ ...tcp(80), host_addr: none, guest_addr: none }));
    expect(engine.list).toMatchObject([{ address: '0.0.0.0', targetAddress: '10.0.2.100' }]);
  });

  it('a port that is in use, by us or by others: an error, nothing changes', async () => {
    const engine = new Listeners();
    const { answer } = bind(api(engine));
    await answer(add(tcp(8080)));
    expect(await answer(add(tcp(8080)))).toBe(OWN_PORT);
    expect(await answer(add(tcp(4000)))).toBe(TAKEN_PORT);
    expect(engine.list.map((listener) => listener.port)).toEqual([8080]);
    expect(await answer(add(tcp(8081)))).toBe('{"return":{"id":2}}');
  });

  it('info and stats: the documented replies', async () => {
    const { answer } = bind(api());
    await answer(add(tcp(8080)));
    const told = JSON.parse(await answer('{"execute":"info"}')).return;
    expect(told).toEqual({
      ...{ program: 'test', version: '0', pid: process.pid, interface: 'tap0', mtu: 1500 },
      ipv4: IPV4,
      ipv6: { guest: '::', prefixLen: 64, gateway: 'fd00::2' },
      ...{ threads: ['packets'], forwards: 1, uptimeMs: expect.any(Number) },
    });
    expect(JSON.parse(await answer('{"execute":"stats"}'))).toEqual({
      return: {
        counters: { bytesFromGuest: 7 },
        threads: [{ thread: 'packets', counters: { bytesFromGuest: 7 } }],
        ...{ histograms: [], uptimeMs: expect.any(Number), timeMs: expect.any(Number) },
      },
    });
  });

  it('set_impairment: replaces the lines, get_impairment reports them; wrong values change nothing', async () => {
    const engine = new Listeners();
    const shaping = parseLineOptions([['rate', '10mbit']], () => '');
    const { answer } = bind(api(engine, { shaping }));
    const ask = async (args: object) =>
      JSON.parse(await answer(JSON.stringify({ execute: 'set_impairment', arguments: args })));
    const get = async () => JSON.parse(await answer('{"execute":"get_impairment"}')).return;
    expect(await get()).toMatchObject({ seed: 1, up: { rate: 10e6 }, down: { rate: 10e6 }, rules: [] });
    const rule = { addresses: '192.0.2.0/24', loss: '5%' };
    const { return: set } = await ask({ profile: '3g', delay: ['50ms/up', '9ms/down'], to: [rule] });
    expect(set).toMatchObject({ up: { rate: 768e3, delay_ms: 50 }, down: { rate: 1.6e6, delay_ms: 9 } });
    expect(set.rules).toMatchObject([{ to: ['192.0.2.0/24'], up: { loss: { loss_good: 0.05 } } }]);
    expect(await get()).toEqual(set);
    expect(engine.lines).toHaveLength(1);
    for (const [args, why] of [
      [{ delay: '50' }, 'delay 50: 50 is not a time; write for example 50ms, 0.5ms, 200us or 1s'],
      [{ delay: 50 }, 'bad arguments.delay'],
      [{ to: [{ delay: '5ms' }] }, 'bad arguments.to'],
    ] as const)
      expect(JSON.stringify(await ask(args))).toBe(refused(`set_impairment: ${why}`));
    expect(engine.lines).toHaveLength(1);
  });

  it('get_impairment and set_impairment without an emulated line: refused', async () => {
    const { answer } = bind(api());
    for (const execute of ['get_impairment', 'set_impairment'])
      expect(await answer(JSON.stringify({ execute }))).toBe(
        refused('no emulated line: start with --impair none to set one later'),
      );
  });

  it('list_flows: page size is limited; entries have the field names of list_hostfwd', async () => {
    const engine = new Listeners();
    const { answer } = bind(api(engine));
    const { return: told } = JSON.parse(await answer('{"execute":"list_flows"}'));
    const ends = { guest_addr: '10.0.2.100', remote_addr: '192.0.2.1' };
    const counts = { bytes_from_guest: 7, bytes_to_guest: 9, age_ms: 12 };
    expect(told).toEqual({
      flows: [
        {
          ...{ id: 3, proto: 'tcp', state: 'established', path: 'tap', guest_port: 5000, remote_port: 443 },
          ...ends,
          ...counts,
        },
        { id: 4, proto: 'icmp', state: 'replied', path: 'tap', echo_id: 5000, ...ends, ...counts },
      ],
      more: true,
    });
    await answer('{"execute":"list_flows","arguments":{"after":4,"limit":1000}}');
    expect(engine.asked).toEqual([
      [-1, 256],
      [4, 1000],
    ]);
  });

  it('ports of other owners, alone or in a range: refused, and kept', async () => {
    const engine = new Listeners();
    const others: ListenerPlan[] = [
      { proto: 'tcp', address: '127.0.0.1', port: 9000, lastPort: 9010, targetPort: 9000 },
      { proto: 'tcp', from: 'guest', address: '', port: 7000, targetPort: 7000 },
    ];
    engine.list = others;
    const { answer } = bind(api(engine, { ports: portsBeside(engine, others) }));
    for (const port of [9000, 9010]) expect(await answer(add(tcp(port)))).toBe(OWN_PORT);
    expect(await answer(add(tcp(4000)))).toBe(TAKEN_PORT);
    expect(engine.list).toEqual(others);
    for (const port of [9011, 7000]) expect(await answer(add(tcp(port)))).toMatch(/return/);
    expect(engine.list.slice(0, 2)).toEqual(others);
  });

  it('a thousand ports, added and removed: each is sent to the engine once per change', async () => {
    const engine = new Listeners();
    const { answer } = bind(api(engine));
    for (let i = 0; i < 1000; i++) await answer(add(tcp(10_000 + i)));
    expect(engine.list).toHaveLength(1000);
    for (let i = 0; i < 1000; i++)
      await answer(JSON.stringify({ execute: 'remove_hostfwd', arguments: { id: i + 1 } }));
    expect(engine.list).toEqual([]);
    expect(engine.sent).toBe(2000);
  });

  it('a family that is off: refused; without IPv4, any address means IPv6', async () => {
    const refusal = refused('add_hostfwd: bad arguments.host_addr');
    const ipv4Only = api(new Listeners(), { addresses: { mtu: 1500, ipv4: IPV4 } });
    expect(await ipv4Only.answer(add({ ...tcp(80), host_addr: '::' }))).toBe(refusal);
    const engine = new Listeners();
    const ipv6Only = api(engine, { addresses: { mtu: 1500, ipv6: IPV6 } });
    expect(await ipv6Only.answer(add({ ...tcp(80), host_addr: '127.0.0.1' }))).toBe(refusal);
    await ipv6Only.answer(add(tcp(80)));
    expect(engine.list).toEqual([{ proto: 'tcp', address: '::', port: 80, targetPort: 80, path: 'tap' }]);
  });

  it('without an interface: ports lead to loopback inside, by sockets; other targets are refused', async () => {
    const engine = new Listeners();
    const { answer } = bind(
      new Api({
        ...{ engine, ports: portsBeside(engine, []), addresses: { mtu: 1500 } },
        ...{ program: 'test', version: '0' },
      }),
    );
    expect(await answer(add({ ...tcp(80), guest_addr: '10.0.2.100' }))).toBe(
      refused('add_hostfwd: bad arguments.guest_addr'),
    );
    await answer(add({ ...tcp(80), guest_addr: '127.0.0.1' }));
    expect(engine.list).toEqual([
      { proto: 'tcp', address: '0.0.0.0', port: 80, targetPort: 80, path: 'splice' },
    ]);
  });

  it.each([
    ['', 'cannot parse JSON'],
    ['{"execute":"list_flows","arguments":{"after":"x"}}', 'list_flows: bad arguments.after'],
    ['{"execute":"list_flows","arguments":{"after":-2}}', 'list_flows: bad arguments.after'],
    ['{"execute":"list_flows","arguments":{"limit":0}}', 'list_flows: bad arguments.limit'],
    ['{"execute":"list_flows","arguments":{"limit":1001}}', 'list_flows: bad arguments.limit'],
    ['{"execute":', 'cannot parse JSON'],
    ['[]', 'json_object() failed'],
    ['"x"', 'json_object() failed'],
    ['{}', 'no execute found'],
    ['{"execute":1}', 'no execute found'],
    [add({}), 'add_hostfwd: bad arguments.proto'], // slirp4netns crashes
    ['{"execute":"add_hostfwd"}', 'add_hostfwd: bad arguments.proto'],
    [add({ ...tcp(1), proto: 'tcp4' }), 'add_hostfwd: bad arguments.proto'],
    [add({ ...tcp(1), host_addr: 'x' }), 'add_hostfwd: bad arguments.host_addr'],
    [add({ proto: 'tcp', guest_port: 80 }), 'add_hostfwd: bad arguments.host_port'],
    [add(tcp(70_000)), 'add_hostfwd: bad arguments.host_port'],
    [add({ ...tcp(1), guest_addr: 'x' }), 'add_hostfwd: bad arguments.guest_addr'],
    [add({ ...tcp(1), guest_addr: 'fd00::1' }), 'add_hostfwd: bad arguments.guest_addr'],
    [add({ ...tcp(1), guest_port: 0 }), 'add_hostfwd: bad arguments.guest_port'],
    ['{"execute":"remove_hostfwd"}', 'remove_hostfwd: bad arguments.id'],
    ['{"execute":"remove_hostfwd","arguments":{"id":0}}', 'remove_hostfwd: bad arguments.id'],
    ['{"execute":"remove_hostfwd","arguments":{"id":1e99}}', 'remove_hostfwd: bad arguments.id'],
    ['{"execute":"remove_hostfwd","arguments":{"id":42}}', 'remove_hostfwd: bad arguments.id'],
  ])('%s: %s', async (request, why) => {
    expect(await api().answer(request)).toBe(refused(why));
  });

  it('an unknown request: the reply names those that exist, and each of them is known', async () => {
    const { error } = JSON.parse(await api().answer('{"execute":"quit"}'));
    expect(error.desc).toBe('bad request: unknown execute');
    const names = error.reason.replace('known requests: ', '').split(', ');
    expect(names).toContain('list_ports');
    const options = { egress: { text: undefined, replace: async () => ({ ended: 0, switchedLeft: 0 }) } };
    for (const execute of names)
      expect(await api(new Listeners(), options).answer(JSON.stringify({ execute }))).not.toMatch(
        /unknown execute/,
      );
  });

  describe('with socket switching', () => {
    /** Three switched connections. */
    const switched = (): SwitchedConnections & { readonly asked: number[][] } => {
      const asked: number[][] = [];
      const flow: SwitchedFlow = {
        ...{ id: 1, protocol: 'tcp', container: 'COMMAND', state: 'established', device: 'eth0' },
        ...{ source: '192.0.2.9', sourcePort: 40_000, destination: '192.0.2.1', destinationPort: 443 },
        ...{ ageMs: 5, bytesSent: 11, bytesReceived: 22, rttUs: 33, retransmits: 0, congestionWindow: 10 },
      };
      const all = [flow, { ...flow, id: 4 }, { ...flow, id: 9, state: 'connecting', rttUs: 0 }];
      let counts = { switchedConnections: 0, switchPassedOn: 0, switchRefused: 0, switchFailed: 0 };
      const refresh = async (): Promise<void> => {
        counts = { switchedConnections: 5, switchPassedOn: 4, switchRefused: 3, switchFailed: 2 };
      };
      return {
        asked,
        refresh,
        counts: () => counts,
        flows: async (after, limit) => {
          asked.push([after, limit]);
          const rest = all.filter(({ id }) => id > after);
          return { flows: rest.slice(0, limit), more: rest.length > limit };
        },
        active: async () => {
          await refresh();
          return 3;
        },
        setJudge: async () => {},
        end: async () => 0,
      };
    };
    const FIRST = 2 ** 40;

    class LastPage extends Listeners {
      override async listFlows(after: number, limit: number) {
        const { flows } = await super.listFlows(after, limit);
        const rest = flows.filter(({ id }) => id > after);
        return { flows: rest.slice(0, limit), more: rest.length > limit };
      }
    }

    it('list_flows: switched connections after those of the engine, page by page', async () => {
      const connections = switched();
      const { answer } = bind(api(new LastPage(), { switched: connections }));
      const page = async (after: number, limit: number) =>
        JSON.parse(await answer(JSON.stringify({ execute: 'list_flows', arguments: { after, limit } })))
          .return;
      const ids = async (limit: number): Promise<number[][]> => {
        const pages: number[][] = [];
        for (let after = -1, more = true; more; ) {
          const answered = await page(after, limit);
          pages.push(answered.flows.map(({ id }: { id: number }) => id));
          after = pages.at(-1)!.at(-1)!;
          more = answered.more;
        }
        return pages;
      };
      expect((await page(-1, 3)).flows[2]).toEqual({
        ...{ id: FIRST + 1, proto: 'tcp', state: 'established', path: 'switched', device: 'eth0' },
        ...{ guest_addr: '192.0.2.9', guest_port: 40_000, remote_addr: '192.0.2.1', remote_port: 443 },
        ...{ bytes_from_guest: 11, bytes_to_guest: 22, age_ms: 5, rtt_us: 33, retransmits: 0, cwnd: 10 },
      });
      expect((await page(FIRST + 4, 3)).flows).toEqual([
        expect.not.objectContaining({ rtt_us: expect.anything() }),
      ]);
      const all = [3, 4, FIRST + 1, FIRST + 4, FIRST + 9];
      for (const limit of [1, 2, 3, 4, 5, 1000]) {
        const pages = await ids(limit);
        expect(pages.flat()).toEqual(all);
        expect(Math.max(...pages.map(({ length }) => length))).toBeLessThanOrEqual(limit);
      }
      expect(connections.asked).toContainEqual([4, 1]);
    });

    it('info and metrics: what the supervisor has counted; stats asks it first', async () => {
      const connections = switched();
      const { answer } = bind(api(new Listeners(), { switched: connections }));
      await answer('{"execute":"stats"}');
      expect(connections.counts().switchedConnections).toBe(5);
      expect(JSON.parse(await answer('{"execute":"info"}')).return.switching).toEqual({
        ...{ switched: 5, passedOn: 4, refused: 3, failed: 2, active: 3 },
      });
      expect(JSON.parse(await answer('{"execute":"metrics"}')).return.switched).toBe(3);
      const silent = { ...switched(), active: async () => undefined };
      const without = bind(api(new Listeners(), { switched: silent }));
      expect(JSON.parse(await without.answer('{"execute":"metrics"}')).return).not.toHaveProperty('switched');
      expect(JSON.parse(await without.answer('{"execute":"info"}')).return.switching).not.toHaveProperty(
        'active',
      );
    });

    it('captures and emulated lines: refused', async () => {
      const stream = () => {
        throw new Error('started');
      };
      const captures = { stream, stop: async () => false, dump: () => undefined };
      const { answer } = bind(api(new Listeners(), { switched: switched(), captures }));
      const why = 'not with --switch-sockets: switched connections do not cross the interface';
      expect(await answer('{"execute":"start_capture"}')).toBe(refused(`start_capture: ${why}`));
      for (const execute of ['get_impairment', 'set_impairment'])
        expect(await answer(JSON.stringify({ execute }))).toBe(refused(`no emulated line: ${why}`));
    });

    it('set_policy: says how many connections could not be ended', async () => {
      const egress = { text: undefined, replace: async () => ({ ended: 3, switchedLeft: 1 }) };
      const set = '{"execute":"set_policy","arguments":{"policy":null}}';
      expect(await api(new Listeners(), { egress, switched: switched() }).answer(set)).toBe(
        '{"return":{"flows_ended":3,"switched_flows_left":1}}',
      );
      expect(await api(new Listeners(), { egress }).answer(set)).toBe('{"return":{"flows_ended":3}}');
    });
  });

  it('list_ports: ports of options and of requests, ranges, and those that could not be bound', async () => {
    const engine = new Listeners();
    const range: ListenerPlan = {
      proto: 'tcp',
      address: '127.0.0.1',
      port: 9000,
      lastPort: 9010,
      targetPort: 80,
    };
    const weak: ListenerPlan = {
      proto: 'udp',
      from: 'guest',
      address: '',
      port: 53,
      targetPort: 5353,
      path: 'splice',
    };
    const failed = () => [{ listener: weak, port: 53, errno: Errno.EACCES }];
    const { answer } = bind(api(engine, { ports: { ...portsBeside(engine, [range, weak]), failed } }));
    await answer(add(tcp(8080)));
    const ofRange = { proto: 'tcp', from: 'host', address: '127.0.0.1', port: 9000, last_port: 9010 };
    const ofWeak = { proto: 'udp', from: 'guest', address: '', port: 53, target_addr: '', target_port: 5353 };
    expect(JSON.parse(await answer('{"execute":"list_ports"}')).return).toEqual({
      ports: [
        { ...ofRange, target_addr: '', target_port: 80, path: 'tap' },
        { ...ofWeak, path: 'splice' },
        {
          ...{ id: 1, proto: 'tcp', from: 'host', address: '0.0.0.0', port: 8080 },
          ...{ target_addr: '10.0.2.100', target_port: expect.any(Number), path: 'tap' },
        },
      ],
      failed: [{ ...ofWeak, path: 'splice', failed_port: 53, reason: 'Permission denied' }],
    });
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

  it('a whole value, no FIN yet: the reply is sent, further bytes are ignored', async () => {
    const socket = connect();
    socket.write('  {"a":"}\\"{"} {"b":2}');
    expect(await replyTo(socket)).toBe('<{"a":"}\\"{"}>');
    socket.end();
  });

  it('a request in pieces: one reply; FIN without a request: an error reply', async () => {
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

  it('silent clients and half requests: other clients are answered at once', async () => {
    const silent = Array.from({ length: 50 }, connect);
    const half = connect();
    half.write('{"execute":');
    const socket = connect();
    socket.end('{}');
    expect(await replyTo(socket)).toBe('<{}>');
    for (const s of [...silent, half]) s.destroy();
  });

  it('a first byte that begins no object: an error reply at once, before FIN', async () => {
    const socket = connect();
    socket.write(' GET / HTTP/1.1\r\n');
    expect(await replyTo(socket)).toBe('< GET / HTTP/1.1\r\n>');
    socket.end();
  });

  it('half a request, then silence: an error reply after five seconds', async () => {
    const socket = connect();
    socket.write('{"execute":');
    const begin = performance.now();
    expect(await replyTo(socket)).toBe('<{"execute":>');
    expect(performance.now() - begin).toBeGreaterThan(4000);
    socket.end();
  }, 15_000);

  it('400 clients at once are all answered', async () => {
    const sockets = Array.from({ length: 400 }, connect);
    const replies = sockets.map(replyTo);
    for (const socket of sockets) socket.write('{}');
    expect(new Set(await Promise.all(replies))).toEqual(new Set(['<{}>']));
    for (const socket of sockets) socket.destroy();
  });

  it('hundreds of silent clients: the oldest are closed for new ones', async () => {
    const silent = Array.from({ length: 300 }, connect);
    await Promise.all(silent.map((socket) => once(socket, 'connect')));
    await new Promise((resolve) => setTimeout(resolve, 1200));
    const closed = once(silent[0]!.resume(), 'close');
    const socket = connect();
    socket.end('{}');
    expect(await replyTo(socket)).toBe('<{}>');
    silent[0]!.end();
    await closed;
    expect(silent.at(-1)!.destroyed).toBe(false);
    for (const s of silent) s.destroy();
  });

  it.each([
    [4094, '{}'],
    [4095, 'too large'],
  ])('%i bytes: %s', async (bytes, outcome) => {
    const socket = connect();
    socket.end(`${' '.repeat(bytes - 2)}{}`);
    expect(await replyTo(socket)).toContain(outcome);
  });

  it('a request of 10 MiB: refused after 4 KiB, and the reply arrives', async () => {
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
