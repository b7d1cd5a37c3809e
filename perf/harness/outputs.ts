/**
 * The files of `--json` and `--html`. They are opened before the first measurement, so that a mistyped
 * directory is an error at once and not after the run. Each is written independently at the end; one that
 * cannot be written then goes to the directory for temporary files.
 */
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type Output, ownName, UsageError } from './options.ts';
import { say } from './progress.ts';

const REASONS: Readonly<Record<string, string>> = {
  ENOTDIR: 'a part of the path is no directory',
  EISDIR: 'is a directory',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space is left on the device',
  EDQUOT: 'the disk quota is used up',
  ENXIO: 'a pipe that nobody reads',
};

/**
 * A system error in words.
 * @param missing  what is not there with ENOENT: a file to read, or the directory of one to write
 */
export function reasonText(error: unknown, missing: 'file' | 'directory' = 'directory'): string {
  const code = error instanceof Error && 'code' in error ? `${error.code}` : '';
  if (code === 'ENOENT') return `no such ${missing}`;
  return REASONS[code] ?? (error instanceof Error ? error.message : `${error}`);
}

/**
 * Open each file for writing, without changing the content of a file of an earlier run.
 * @returns the files that did not exist before; they are empty until something is written
 * @throws UsageError naming option, file and reason
 */
export function tryOutputs(outputs: readonly Output[]): string[] {
  const made: string[] = [];
  const { O_APPEND, O_CREAT, O_NONBLOCK, O_WRONLY } = constants;
  for (const { flag, file } of outputs) {
    const wasThere = existsSync(file);
    try {
      // Non-blocking: opening a named pipe would wait for its reader.
      closeSync(openSync(file, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK, 0o666));
    } catch (error) {
      removeEmpty(made);
      throw new UsageError(`${flag} ${file}: ${reasonText(error)}`);
    }
    if (!wasThere) made.push(file);
  }
  return made;
}

/** Remove those of the files that are empty, after a run that wrote nothing. */
export function removeEmpty(files: readonly string[]): void {
  for (const file of files)
    try {
      if (statSync(file).size === 0) unlinkSync(file);
    } catch {
      // The file is gone already.
    }
}

const RETRY_MS = 20;

/**
 * Write a report to standard output. Nobody reading (any more) is no error: files are written as well.
 * @returns whether all went well; if not, a message has named the reason
 */
export function printReport(text: string): boolean {
  let rest: Uint8Array = Buffer.from(`${text}\n`);
  while (rest.length > 0)
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : '';
      if (code === 'EPIPE') return true;
      if (code !== 'EAGAIN') {
        say(`${ownName()}: standard output: ${reasonText(error)}`);
        return false;
      }
      // A pipe that is full, and that somebody else has made non-blocking.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  return true;
}

/**
 * Write an output.
 * @returns whether it was written to its file; if not, a message has named the reason and place
 */
export function writeOutput({ flag, file }: Output, text: string): boolean {
  try {
    writeFileSync(file, text);
    return true;
  } catch (error) {
    const instead = join(tmpdir(), `harness-${process.pid}-${basename(file)}`);
    const failed = `${ownName()}: ${flag} ${file}: ${reasonText(error)}`;
    try {
      writeFileSync(instead, text, { flag: 'wx' });
      say(`${failed}; written to ${instead}`);
    } catch (second) {
      say(`${failed}; ${instead}: ${reasonText(second)}`);
    }
    return false;
  }
}
