/**
 * Open files of each kind, to be inherited by a program under test. The test shares the open file description
 * and notices when its flags change.
 */
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { AF_UNIX, F_GETFD, SOCK_CLOEXEC, SOCK_STREAM } from '../../src/sys/constants.ts';
import {
  fcntl,
  fcntlGetFlags,
  ioctlReadInt,
  ioctlWriteInt,
  pipe2,
  setNonBlocking,
} from '../../src/sys/io.ts';
import { NativeBuffer } from '../../src/sys/memory.ts';
import { socketpair } from '../../src/sys/socket.ts';

const TIOCGPTN = 0x80045430;
const TIOCSPTLCK = 0x40045431;

export type Kind = 'pipe' | 'terminal' | 'file' | 'socket';
export const KINDS: readonly Kind[] = ['pipe', 'terminal', 'file', 'socket'];

export interface Three {
  /** Standard input, output and error. */
  readonly fds: readonly [number, number, number];
  /** Status flags and descriptor flags of the three. */
  flags(): readonly number[];
  blocking(): void;
  close(): void;
}

function pair(): [number, number] {
  const fds = new Int32Array(2);
  pipe2(fds, 0);
  return [fds[0]!, fds[1]!];
}

function socketPair(): [number, number] {
  const ends = new NativeBuffer(8);
  socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.address);
  return [ends.i32[0]!, ends.i32[1]!];
}

export function openThree(kind: Kind, nonBlocking: boolean): Three {
  const all: number[] = [];
  let dir: string | undefined;
  let fds: [number, number, number];
  if (kind === 'pipe') {
    const [input, output, error] = [pair(), pair(), pair()];
    all.push(...input, ...output, ...error);
    fds = [input[0], output[1], error[1]];
  } else if (kind === 'socket') {
    const [input, output, error] = [socketPair(), socketPair(), socketPair()];
    all.push(...input, ...output, ...error);
    fds = [input[0], output[0], error[0]];
  } else if (kind === 'file') {
    dir = mkdtempSync(`${tmpdir()}/bucatini-flags-`);
    const open = (name: string): number => openSync(`${dir}/${name}`, 'a+');
    fds = [open('in'), open('out'), open('err')];
    all.push(...fds);
  } else {
    const master = openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY);
    ioctlWriteInt(master, TIOCSPTLCK, 0);
    const name = `/dev/pts/${ioctlReadInt(master, TIOCGPTN)}`;
    const open = (): number => openSync(name, constants.O_RDWR | constants.O_NOCTTY);
    fds = [open(), open(), open()];
    all.push(master, ...fds);
  }
  if (nonBlocking) for (const fd of fds) setNonBlocking(fd);
  return {
    fds,
    flags: () => fds.flatMap((fd) => [fcntlGetFlags(fd), fcntl(fd, F_GETFD, 0)]),
    blocking: () => {
      for (const fd of fds) setNonBlocking(fd, false);
    },
    close: () => {
      for (const fd of all) closeSync(fd);
      if (dir !== undefined) rmSync(dir, { recursive: true });
    },
  };
}
