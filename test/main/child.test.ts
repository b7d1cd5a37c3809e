// @vitest: beside
/** Child processes with a channel: their ends are noticed, each once, however many there are. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CHANNEL, Child } from '../../src/main/process/child.ts';
import { eventually } from '../support/process.ts';

const child = (script: string, ...args: string[]): Child =>
  new Child({
    file: '/bin/sh',
    argv: ['sh', '-c', script, 'sh', ...args],
    env: { PATH: '/usr/bin:/bin' },
    descriptors: [undefined, undefined, CHANNEL],
  });

const descriptors = (): number => readdirSync('/proc/self/fd').length;

/** Our children that have ended and are not waited for. */
function zombies(): number[] {
  const children = readdirSync('/proc/self/task').flatMap((tid) =>
    readFileSync(`/proc/self/task/${tid}/children`, 'utf8').trim().split(' '),
  );
  return children
    .filter((pid) => pid !== '')
    .map(Number)
    .filter((pid) => {
      try {
        return /^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
      } catch {
        return false;
      }
    });
}

describe('a child', () => {
  it('lines in both directions, then its status, which comes after all data', async () => {
    const one = child('echo ready >&2; read -r line <&2; echo "got $line" >&2; seq 20000 >&2; exit 5');
    let text = '';
    one.channel.onData((chunk) => {
      text += chunk;
    });
    await eventually('ready', 5000, () => text === 'ready\n');
    one.channel.end('gö ahead\n');
    expect(await one.closed).toBe(5);
    expect(await one.exited).toBe(5);
    expect(text.startsWith('ready\ngot gö ahead\n1\n2\n')).toBe(true);
    expect(text.endsWith('\n20000\n')).toBe(true);
  });

  it('ends with its output still open in its own child: exited resolves, closed only later', async () => {
    const one = child('sleep 0.3 & exit 3');
    let closed = false;
    void one.closed.then(() => {
      closed = true;
    });
    expect(await one.exited).toBe(3);
    expect(closed).toBe(false);
    expect(await one.closed).toBe(3);
  });

  it('kill(): status 137; afterwards it signals nobody', async () => {
    const one = child('exec sleep 100');
    one.kill();
    expect(await one.exited).toBe(137);
    const sent: unknown[] = [];
    const { kill } = process;
    process.kill = (...args) => {
      sent.push(args);
      return true;
    };
    one.kill();
    process.kill = kill;
    expect(sent).toEqual([]);
  });

  it('cannot be started: the reason; nothing is left behind', () => {
    const before = { descriptors: descriptors(), listeners: process.listenerCount('SIGCHLD') };
    const start = (file: string) => () =>
      new Child({ file, argv: [file], env: {}, descriptors: [undefined, undefined, CHANNEL] });
    expect(start('/no/such/program')).toThrow('/no/such/program: no such file or directory');
    expect(start('/')).toThrow('/: permission denied');
    expect(start('/bin/true\0')).toThrow('invalid argument');
    // Of children before, a descriptor may be closed meanwhile.
    expect(descriptors()).toBeLessThanOrEqual(before.descriptors);
    expect(process.listenerCount('SIGCHLD')).toBeLessThanOrEqual(before.listeners);
  });
});

describe('many children', () => {
  it('500 at once: each end is noticed with its status; no zombie, no descriptor, no listener stays', async () => {
    const before = { descriptors: descriptors(), listeners: process.listenerCount('SIGCHLD') };
    const warnings: Error[] = [];
    const warn = (warning: Error): void => void warnings.push(warning);
    process.on('warning', warn);
    const all = Array.from({ length: 500 }, (_, i) => child(`read -r x <&2; exit ${i % 100}`));
    for (const one of all) one.channel.end('go\n');
    const statuses = await Promise.all(all.map((one) => one.closed));
    process.off('warning', warn);
    expect(statuses).toEqual(Array.from({ length: 500 }, (_, i) => i % 100));
    expect(zombies()).toEqual([]);
    await eventually('descriptors as before', 5000, () => descriptors() <= before.descriptors);
    expect(process.listenerCount('SIGCHLD')).toBe(before.listeners);
    expect(warnings).toEqual([]);
  }, 60_000);

  it('200 one after another that end at once: none is missed', async () => {
    for (let i = 0; i < 200; i++) expect(await child(`exit ${i % 7}`).exited).toBe(i % 7);
    expect(zombies()).toEqual([]);
  }, 60_000);

  it('all end while the event loop is busy: one signal for all, each is noticed', async () => {
    const all = Array.from({ length: 50 }, (_, i) => child(`exit ${i}`));
    spawnSync('sleep', ['0.5']); // blocks this thread
    expect(await Promise.all(all.map((one) => one.exited))).toEqual(all.map((_, i) => i));
    expect(zombies()).toEqual([]);
  });

  it('beside children of node:child_process: neither takes the status of the other', async () => {
    const ours = Array.from({ length: 20 }, (_, i) => child(`sleep 0.0${i % 10}; exit ${i}`));
    const theirs = Array.from({ length: 20 }, (_, i) => spawnSync('sh', ['-c', `exit ${i}`]).status);
    expect(theirs).toEqual(theirs.map((_, i) => i));
    expect(await Promise.all(ours.map((one) => one.exited))).toEqual(ours.map((_, i) => i));
  });
});
