import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const fixture = fileURLToPath(new URL('./fixtures/outputs.ts', import.meta.url));

it('a full pipe without a reader: writes do not block, loss is reported once, a cut line gets its end, flags are kept', () => {
  const directory = mkdtempSync(`${tmpdir()}/outputs-`);
  const fifo = `${directory}/fifo`;
  execFileSync('mkfifo', [fifo]);
  const reading = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK);
  const writing = openSync(fifo, constants.O_WRONLY);
  try {
    const r = spawnSync(process.execPath, [fixture], {
      stdio: ['ignore', writing, 'pipe', reading],
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '' },
      timeout: 20_000,
    });
    expect([r.status, r.signal]).toEqual([0, null]);
    expect(JSON.parse(r.stderr)).toEqual({
      lines: [false, true, true, '1 lines were dropped here: nobody read them\none\n'],
      cut: [false, true, true, '\n1 lines were dropped here: nobody read them\ntwo\n'],
      small: [
        [false, false, false],
        ...[true, true, true],
        '4 lines were dropped here: nobody read them\nthree\nfour\n',
      ],
      flagsStay: true,
      released: [true, 'five\n'],
    });
  } finally {
    closeSync(reading);
    closeSync(writing);
    rmSync(directory, { recursive: true });
  }
});
