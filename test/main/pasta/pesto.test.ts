// @vitest: beside
/**
 * Our pesto: what it makes of rules, as passt's pesto of 2026-10-02 did with the same command lines, and what
 * it prints and returns against our control socket. The end-to-end tests run it from dist/.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ShownTable } from '../../../src/main/pasta/control-codec.ts';
import { ControlSocket } from '../../../src/main/pasta/control-socket.ts';
import { type Direction, ForwardError, RuleTable, ruleText } from '../../../src/main/pasta/forward-rules.ts';
import { changedRules } from '../../../src/main/pasta/pesto/changes.ts';
import { parsePesto } from '../../../src/main/pasta/pesto/options.ts';
import { usageText } from '../../../src/main/pasta/pesto/texts.ts';
import { repoRoot } from '../source-tree.ts';

const LIMITS = { ipv4: true, ipv6: true, tcp: true, udp: true };
const EPHEMERAL = { first: 32768, last: 60999 };
const empty: readonly ShownTable[] = [
  { id: 1, name: 'HOST', capabilities: 0x3f, limits: LIMITS, reports: false, rules: [] },
  { id: 3, name: 'SPLICE', capabilities: 0x3f, limits: LIMITS, reports: false, rules: [] },
];

/** Tables after a command line. */
function changed(shown: readonly ShownTable[], line: string): readonly ShownTable[] {
  const parsed = parsePesto([...line.split(' '), 'PATH']);
  if (parsed.kind !== 'go') throw new Error(line);
  const rules = changedRules(shown, parsed.steps, EPHEMERAL);
  return shown.map((table) => ({ ...table, rules: rules.get(table.id)! }));
}

/** Ports as "t8001 u8002 / T8003", of HOST and SPLICE. */
const ports = (tables: readonly ShownTable[]): string =>
  tables
    .map(({ rules }) =>
      rules.map(({ proto, first, last }) => `${proto[0]}${first}${last > first ? `-${last}` : ''}`).join(' '),
    )
    .join(' / ');

describe("changes of the rules, as passt's pesto made them", () => {
  const start = changed(empty, '-t 8001 -u 8002 -T 8003');

  it.each([
    ['-t 9001', 't9001 / t8003'],
    ['-t none', ' / t8003'],
    ['-A -t 8004', 't8001 u8002 t8004 / t8003'],
    ['-C HOST -T 8004', ' / t8004'],
    ['--clear=HOST', ' / t8003'],
    ['-C HOST -t 1 -C HOST -u 2 -t 3', 'u2 t3 / t8003'],
    ['-A -t 5 -C SPLICE -t 6', 't8001 u8002 t5 t6 / '],
    ['-t 1 -A -t 2 -u 3', 't1 t2 u3 / t8003'],
    ['-A -u 9 -D -u 8002', 't8001 u9 / t8003'],
    ['-t 1 -u none', 't1 / t8003'],
    ['-A -D -t 8001', 'u8002 / t8003'],
    ['-A', 't8001 u8002 / t8003'],
    ['-sA -t8006', 't8001 u8002 t8006 / t8003'],
    ['-A -t 8010-8020,~8015', 't8001 u8002 t8010-8014 t8016-8020 / t8003'],
  ])('%s', (line, expected) => {
    expect(ports(changed(start, line))).toBe(expected);
  });

  it.each([
    ['-A -t none', '-t none conflicts with previous options'],
    ['-D -t none', '-t none conflicts with previous options'],
    ['-C host', 'Unsupported pif name host'],
    ['-t foo', "Invalid port specifier 'foo'"],
    ['-A -T 127.0.0.1/80', 'Listening address not allowed for -T 127.0.0.1/80'],
    [
      '-D -t 80',
      "Couldn't find forwarding rule to delete: TCP [*]:80  =>  80 \nUnable to delete rule TCP [*]:80  =>  80 ",
    ],
    [
      '-D -t 8000-8001',
      "Specifier TCP [*]:8000-8001  =>  8000-8001  conflicts with rule TCP [*]:8001  =>  8001 , but doesn't match it, can't delete\nUnable to delete rule TCP [*]:8000-8001  =>  8000-8001 ",
    ],
    [
      '-A -t 8001',
      'Forwarding configuration conflict: TCP [*]:8001  =>  8001  versus TCP [*]:8001  =>  8001 \nUnable to add rule TCP [*]:8001  =>  8001 ',
    ],
  ])('%s: its message', (line, message) => {
    expect(() => changed(start, line)).toThrow(new ForwardError(message));
  });

  it('PATH before the options; none, two, an unknown option', () => {
    expect(parsePesto(['PATH', '-s'])).toMatchObject({ kind: 'go', path: 'PATH', show: true });
    for (const argv of [[], ['a', 'b'], ['--foo', 'a'], ['-t']]) expect(parsePesto(argv).kind).toBe('usage');
  });
});

describe('pesto with our control socket', () => {
  const dir = mkdtempSync(join(tmpdir(), 'pesto-'));
  const path = join(dir, 's');
  let table = new RuleTable('HOST', LIMITS);
  const TAKEN = 7777;
  const control = new ControlSocket({
    tables: () => [table, new RuleTable('SPLICE', LIMITS)],
    replace: async (tables: ReadonlyMap<Direction, RuleTable>) => {
      table = tables.get('HOST') ?? table;
      return table.rules
        .filter(({ first }) => first === TAKEN)
        .map((rule) => ({
          rule,
          reason: `Listen failed for HOST TCP port */${rule.first}: \x1b[2JAddress already in use`,
        }));
    },
    log: () => {},
  });
  beforeAll(() => control.listen(path));
  afterAll(() => {
    control.close();
    rmSync(dir, { recursive: true });
  });

  async function pesto(...args: readonly string[]): Promise<object> {
    const child = spawn(`${repoRoot}/bin/pesto`, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const exit = new Promise((resolve) => child.on('exit', resolve));
    const [stdout, stderr, status] = await Promise.all([text(child.stdout), text(child.stderr), exit]);
    return { status, stdout, stderr };
  }

  it('adds, shows, and says why a port cannot be opened: all rules stay as they were, status 1', async () => {
    expect(await pesto('-A', '-t', '8001', path)).toEqual({ status: 0, stdout: '', stderr: '' });
    const failed = await pesto('-A', '-t', '8002', '-t', `${TAKEN}`, path);
    expect(failed).toEqual({
      ...{ status: 1, stdout: '' },
      stderr: `Listen failed for HOST TCP port */${TAKEN}: \ufffd[2JAddress already in use\n`,
    });
    expect(table.rules.map(ruleText)).toEqual(['TCP [*]:8001  =>  8001 ']);
    expect(await pesto(path)).toEqual({
      ...{ status: 0, stderr: '' },
      stdout: `passt/pasta configuration (${path})\n  HOST\n    TCP [*]:8001  =>  8001 \n  SPLICE\n`,
    });
    // A rule of somebody else whose port cannot be opened: our changes are made.
    table.add({ ...table.rules[0]!, first: TAKEN, last: TAKEN, to: TAKEN });
    expect(await pesto('-A', '-t', '8002', path)).toEqual({ status: 0, stdout: '', stderr: '' });
    expect(await pesto('-s', '-C', 'HOST', path)).toMatchObject({
      stdout: expect.stringMatching(/^Previous .*8001.*Updated configuration.*HOST\n {2}SPLICE\n$/s),
    });
  });

  it('errors: one line, status 1', async () => {
    expect(await pesto('-s', `${dir}/none`)).toEqual({
      ...{ status: 1, stdout: '' },
      stderr: `Failed to connect to ${dir}/none: No such file or directory\n`,
    });
    const server = createServer((socket) => socket.end('not pasta')).listen(`${dir}/other`);
    expect(await pesto(`${dir}/other`)).toMatchObject({
      status: 1,
      stderr: 'Bad magic number from server\n',
    });
    server.close();
    expect(await pesto('-Z')).toMatchObject({
      ...{ status: 1, stdout: '' },
      stderr: `pesto: invalid option -- 'Z'\n${usageText()}`,
    });
  });
});
