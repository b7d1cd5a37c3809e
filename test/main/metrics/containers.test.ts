// @vitest: beside
/** Which container a network namespace belongs to, from a /proc made here. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { conmonsContainer, findContainers } from '../../../src/main/metrics/containers.ts';

let proc: string;
beforeAll(() => {
  proc = mkdtempSync(`${tmpdir()}/bucatini-proc-`);
});
afterAll(() => rmSync(proc, { recursive: true, force: true }));

function processWith(pid: string, words: readonly string[], netns: string | undefined, children = ''): void {
  mkdirSync(`${proc}/${pid}/task/${pid}`, { recursive: true });
  mkdirSync(`${proc}/${pid}/ns`);
  writeFileSync(`${proc}/${pid}/cmdline`, `${words.join('\0')}\0`);
  writeFileSync(`${proc}/${pid}/task/${pid}/children`, children);
  if (netns !== undefined) symlinkSync(`net:[${netns}]`, `${proc}/${pid}/ns/net`);
}

/** The beginning of conmon's command line under Podman 5. */
const conmon = (id: string, ...more: readonly string[]): readonly string[] => [
  ...['/usr/bin/conmon', '--api-version', '1', '-c', id, '-u', id, '-r', '/usr/bin/crun', ...more],
];

describe('containers', () => {
  it('by network namespace: name and id of the conmon above', () => {
    processWith('self', ['node'], '1');
    processWith('10', conmon('aa', '-n', 'web', '--exit-dir', '/x'), '1', '11 12');
    processWith('11', ['nginx'], '100');
    processWith('12', ['gone'], undefined);
    processWith('20', conmon('bb'), '1', '21');
    processWith('21', ['sh'], '200');
    processWith('30', conmon('cc', '-n', 'of-the-host'), '1', '31');
    processWith('31', ['sh'], '1');
    processWith('40', conmon('dd', '-n', 'same-pod'), '1', '41');
    processWith('41', ['sh'], '100');
    processWith('50', ['/bin/sh', 'conmon', '-c', 'ee'], '1', '51');
    processWith('51', ['sh'], '300');
    processWith('55', conmon('ff', '-n', 'made-up-inside'), '400', '56');
    processWith('56', ['sh'], '401');
    mkdirSync(`${proc}/60`);
    expect([...findContainers(proc)]).toEqual([
      ['net:[100]', { id: 'aa', name: 'web' }],
      ['net:[200]', { id: 'bb' }],
    ]);
    expect(findContainers(`${proc}/missing`).size).toBe(0);
  });

  it("other programs' command lines are no container", () => {
    for (const words of [
      [],
      [''],
      ['conmon'],
      ['conmon', '-c'],
      ['conmon', '-n', 'x'],
      ['xconmon', '-c', 'a'],
    ])
      expect(conmonsContainer(words)).toBeUndefined();
  });
});
