/** Calls that fail, among allocations and collections, and the errno that each leaves. */
import { lastErrno, nativeAddress, nativeFunction } from '#runtime/ffi';
import { Errno } from '../../src/sys/constants.ts';
import { collectGarbage } from './thread-reports.ts';

type N = number;
const P = 'uintptr_t';

const close = nativeFunction<[N]>('close', 'int', ['int']);
const read = nativeFunction<[N, N, N]>('read', 'intptr_t', ['int', P, 'size_t']);
const eventfd = nativeFunction<[N, N]>('eventfd', 'int', ['uint32_t', 'int']);
const kill = nativeFunction<[N, N]>('kill', 'int', ['int', 'int']);
const access = nativeFunction<[string, N]>('access', 'int', ['const char *', 'int']);
const getpid = nativeFunction<[]>('getpid', 'int', []);

const EFD_NONBLOCK = 0o4000;
const empty = eventfd(0, EFD_NONBLOCK);
const bytes = new Uint8Array(new SharedArrayBuffer(8));
const address = nativeAddress(bytes);

/** Each fails with its errno. */
const CASES: readonly { readonly errno: N; call(): N }[] = [
  { errno: Errno.EBADF, call: () => close(-1) },
  { errno: Errno.EAGAIN, call: () => read(empty, address, 8) },
  { errno: Errno.EINVAL, call: () => kill(getpid(), 1000) },
  { errno: Errno.ENOENT, call: () => access('/no/such/file', 0) },
];
export const ERRNO_CASES = CASES.length;

export interface ErrnoReport {
  readonly calls: number;
  /** Calls that did not return -1, or left another errno than theirs. */
  readonly wrong: number;
}

/** Between two collections. */
const CALLS = 50_000;

/**
 * @param between  allocate between the call and the look at errno: only on Bun does errno survive that
 * @param which    index of the only case; absent: all in turn
 */
export function errnoLoop(calls: number, between: boolean, which?: number): ErrnoReport {
  let wrong = 0;
  let kept: unknown[] = [];
  const allocate = (i: number): void => {
    if (i % 8 !== 0) return;
    kept.push({ i }, new Uint8Array(32), `text ${i}`);
    if (kept.length > 3000) kept = [];
    if (i % CALLS === 0) collectGarbage();
  };
  for (let i = 0; i < calls; i++) {
    const { errno, call } = CASES[which ?? (i & 1) + (i % 64 === 0 ? 2 : 0)]!;
    const result = call();
    if (between) allocate(i);
    if (result !== -1 || lastErrno() !== errno) wrong++;
    if (!between) allocate(i);
  }
  return { calls, wrong };
}
