/**
 * Calls into C libraries on Node: koffi.
 *
 * The library is the one that this process is linked with (`koffi.load(null)`), so neither glibc nor musl
 * needs a file name. Measured with Node 26.10 on a 2-core x86-64 VM: 220-330 ns per call, kernel entry
 * included; errno 27 ns.
 */
import { createRequire } from 'node:module';
import { workerData } from 'node:worker_threads';
import type * as Koffi from 'koffi';

/** A C function. Hot calls pass numbers only; strings are for the cold path (copied as UTF-8). */
export type NativeFunction<Args extends readonly (number | string | null)[]> = (...args: Args) => number;

/** C types of arguments, as far as this program needs them. Addresses are plain numbers: `uintptr_t`. */
export type ArgumentType =
  | 'int'
  | 'uint32_t'
  | 'int64_t'
  | 'intptr_t'
  | 'uintptr_t'
  | 'size_t'
  | 'unsigned long'
  | 'const char *';
export type ResultType = 'int' | 'intptr_t' | 'uint32_t';

const koffi = loadKoffi();
const library = koffi.load(null);

/**
 * Load koffi's binary directly from its package. koffi's JavaScript detects the platform, reads Node's ELF
 * header and wraps functions that are not used here, which takes 8 of the 15 ms in each thread that loads it.
 * If the binary is elsewhere (musl, another architecture, built from source), that JavaScript is loaded and
 * finds it. In a thread that was started in the sandbox (startHeldProgram() in threads.ts) no path resolves,
 * but dlopen() finds what the process has loaded by the same path.
 */
function loadKoffi(): typeof Koffi {
  const held = (workerData as { readonly addon?: string } | null)?.addon;
  if (held !== undefined) {
    const module = { exports: {} as typeof Koffi };
    process.dlopen(module, held);
    return module.exports;
  }
  const require = createRequire(import.meta.url);
  try {
    return require(`@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`);
  } catch {
    return require('koffi');
  }
}

/** As on Bun, where arguments travel in registers. */
const MAX_ARGUMENTS = 6;

/**
 * Declare a C function.
 * @returns a function whose result is a number
 * @throws Error when the library does not have the function, RangeError for more than six arguments. The
 *   returned function throws TypeError for a string with a NUL character, which C would take for its end
 */
export function nativeFunction<Args extends readonly (number | string | null)[]>(
  name: string,
  result: ResultType,
  args: readonly ArgumentType[],
): NativeFunction<Args> {
  if (args.length > MAX_ARGUMENTS) throw new RangeError(`${name}: more than ${MAX_ARGUMENTS} arguments`);
  let made: NativeFunction<Args>;
  try {
    made = library.func(name, result, [...args]) as unknown as NativeFunction<Args>;
  } catch (cause) {
    throw new Error(`the C library has no ${name}()`, { cause });
  }
  if (!args.includes('const char *')) return made;
  return (...given) => {
    for (const value of given)
      if (typeof value === 'string' && value.includes('\0'))
        throw new TypeError(`${name}(): NUL character in ${JSON.stringify(value)}`);
    return made(...given);
  };
}

/** errno of this thread. Only meaningful directly after a call that returned -1. */
export const lastErrno = (): number => koffi.errno();

/**
 * The address of the first byte of a view. Cold: koffi returns a BigInt, which is converted. `.buffer` is
 * read first: it moves the bytes of a small typed array out of V8's heap.
 * @throws TypeError for a view of an empty buffer
 */
export function nativeAddress(view: ArrayBufferView): number {
  if (view.buffer.byteLength === 0) throw new TypeError('a view without bytes has no address');
  return Number(koffi.address(view));
}

const cStrerror = library.func('strerror', 'const char *', ['int']) as unknown as (errno: number) => string;
/** The C library's text for a positive errno. Cold. */
export const strerror = (errno: number): string => cStrerror(errno);

const cUvStrerror = library.func('uv_strerror', 'const char *', ['int']) as unknown as (
  error: number,
) => string;

/**
 * libuv's text for a positive errno. Cold. node:util's getSystemErrorMessage() is not used: importing
 * node:util makes Node load a dozen more modules, 1 ms of each thread's start.
 * @returns undefined where libuv has no text
 */
export function uvStrerror(errno: number): string | undefined {
  const text = cUvStrerror(-errno);
  return text.startsWith('Unknown system error') ? undefined : text;
}
