// @vitest: beside
/** The seccomp filter of COMMAND with --switch-sockets, run by an interpreter of classic BPF. */
import { describe, expect, it } from 'vitest';
import { makesEpollSet, supervisedCall, switchFilter } from '../../src/switch/filter.ts';
import { Errno } from '../../src/sys/constants.ts';
import { RET_ALLOW, RET_ERRNO, RET_USER_NOTIF } from '../../src/sys/seccomp.ts';
import { syscallNames, syscallNumber } from '../../src/sys/syscall-numbers.ts';

const NATIVE = process.arch === 'arm64' ? 0xc000_00b7 : 0xc000_003e;
const I386 = 0x4000_0003;
const MSG_FASTOPEN = 0x2000_0000;
const program = switchFilter();

/** @returns the action for a call. @throws Error for a program that the kernel would refuse */
function run(architecture: number, number: number, args: readonly number[] = []): number {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(0, number >>> 0, true);
  data.setUint32(4, architecture, true);
  args.forEach((arg, i) => {
    data.setBigInt64(16 + i * 8, BigInt(arg), true);
  });
  let accumulator = 0;
  for (let at = 0; at < program.length; at++) {
    const [op, yes, no, k] = program[at]!;
    if (op === 0x20) accumulator = data.getUint32(k, true);
    else if (op === 0x06) return k;
    else {
      const isTrue =
        op === 0x15 ? accumulator === k : op === 0x35 ? accumulator >= k : (accumulator & k) !== 0;
      if (![0x15, 0x35, 0x45].includes(op)) throw new Error(`instruction ${op}`);
      at += isTrue ? yes : no;
    }
  }
  throw new Error('the program has no end');
}

const error = (errno: number): number => (RET_ERRNO | errno) >>> 0;

describe('the native table', () => {
  const call = (name: Parameters<typeof syscallNumber>[0], ...args: number[]): number =>
    run(NATIVE, syscallNumber(name), args);

  it.each([16, 17, 28, 110, 128, 129, 0x7fff_ffff, -1])('connect with %i bytes: notified', (length) => {
    expect(call('connect', 3, 0x1000, length)).toBe(RET_USER_NOTIF);
  });

  it.each([0, 2, 15])('connect with %i bytes, too few for IP: to the kernel', (length) => {
    expect(call('connect', 3, 0x1000, length)).toBe(RET_ALLOW);
  });

  it('bind and listen: notified', () => {
    expect(call('bind', 3, 0x1000, 16)).toBe(RET_USER_NOTIF);
    expect(call('listen', 3, 5)).toBe(RET_USER_NOTIF);
  });

  it.each([
    ['sendto', 3],
    ['sendmsg', 2],
    ['sendmmsg', 3],
  ] as const)('%s: refused with MSG_FASTOPEN, which is argument %i', (name, at) => {
    const flags = (value: number): number[] => [...new Array<number>(at).fill(0), value];
    expect(call(name, ...flags(MSG_FASTOPEN))).toBe(error(Errno.EOPNOTSUPP));
    expect(call(name, ...flags(MSG_FASTOPEN | 0x4000))).toBe(error(Errno.EOPNOTSUPP));
    expect(call(name, ...flags(0x4000))).toBe(RET_ALLOW);
  });

  it('io_uring_setup is refused, and x32', () => {
    expect(call('io_uring_setup', 1, 0)).toBe(error(Errno.EPERM));
    if (process.arch === 'x64') expect(run(NATIVE, 0x4000_0000 + 42)).toBe(error(Errno.ENOSYS));
  });

  it('epoll_create1: notified', () => {
    expect(call('epoll_create1', 0)).toBe(RET_USER_NOTIF);
    expect(makesEpollSet(NATIVE, syscallNumber('epoll_create1'))).toBe(true);
    expect(makesEpollSet(NATIVE, syscallNumber('connect'))).toBe(false);
  });

  it('all other calls: to the kernel', () => {
    const special = ['connect', 'bind', 'listen', 'io_uring_setup', 'epoll_create1'];
    for (const name of syscallNames.filter((each) => !special.includes(each) && syscallNumber(each) >= 0))
      expect(call(name), name).toBe(RET_ALLOW);
  });
});

describe.runIf(process.arch === 'x64')('the 32-bit table', () => {
  it.each([
    ['connect', 362, [3, 0x1000, 16]],
    ['bind', 361, [3, 0x1000, 16]],
    ['listen', 363, [3, 5]],
  ] as const)('%s: notified', (name, number, args) => {
    expect(run(I386, number, args)).toBe(RET_USER_NOTIF);
    expect(supervisedCall(I386, number, args[0])).toEqual({ call: name, inMemory: false });
  });

  it.each([
    [2, 'bind'],
    [3, 'connect'],
    [4, 'listen'],
  ] as const)('socketcall %i, %s: notified, with its arguments in memory', (first, name) => {
    expect(run(I386, 102, [first, 0x1000])).toBe(RET_USER_NOTIF);
    expect(supervisedCall(I386, 102, first)).toEqual({ call: name, inMemory: true });
  });

  it.each([11, 16, 20])('socketcall %i, which could be a Fast Open: ENOSYS', (first) => {
    expect(run(I386, 102, [first, 0x1000])).toBe(error(Errno.ENOSYS));
  });

  it.each([1, 5, 9, 10, 17])('socketcall %i: to the kernel', (first) => {
    expect(run(I386, 102, [first, 0x1000])).toBe(RET_ALLOW);
  });

  it.each([
    [369, [0, 0, 0, MSG_FASTOPEN]],
    [370, [0, 0, MSG_FASTOPEN]],
    [345, [0, 0, 0, MSG_FASTOPEN]],
  ] as const)('call %i with MSG_FASTOPEN: refused', (number, args) => {
    expect(run(I386, number, args)).toBe(error(Errno.EOPNOTSUPP));
    expect(run(I386, number, [])).toBe(RET_ALLOW);
  });
});

it('a table that nobody knows: no call', () => {
  expect(run(0x1234, syscallNumber('connect'))).toBe(error(Errno.ENOSYS));
});

it('a notification of another filter is not ours', () => {
  expect(supervisedCall(NATIVE, syscallNumber('close'), 3)).toBeUndefined();
  expect(supervisedCall(I386, 42, 3)).toBeUndefined();
});
