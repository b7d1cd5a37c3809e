// @vitest: beside
/** The modules of both runtimes export the same names with the same types. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type * as BunChannel from '../../src/runtime/bun/channel.ts';
import type * as BunFfi from '../../src/runtime/bun/ffi.ts';
import type * as BunProgram from '../../src/runtime/bun/program.ts';
import type * as BunStreams from '../../src/runtime/bun/streams.ts';
import type * as BunCalls from '../../src/runtime/bun/system-calls.ts';
import type * as BunThreads from '../../src/runtime/bun/threads.ts';
import type * as NodeChannel from '../../src/runtime/node/channel.ts';
import type * as NodeFfi from '../../src/runtime/node/ffi.ts';
import type * as NodeProgram from '../../src/runtime/node/program.ts';
import type * as NodeStreams from '../../src/runtime/node/streams.ts';
import type * as NodeCalls from '../../src/runtime/node/system-calls.ts';
import type * as NodeThreads from '../../src/runtime/node/threads.ts';
import { ON_BUN } from '../support/runtime.ts';

/** Called only by the entry of Bun's executable (scripts/build-bun.ts). */
const BUN_ENTRY = 'chooseProgram';

/** true if a program that is written for each of the two modules compiles with the other. */
type Alike<A, B> = [A, B] extends [B, A]
  ? [keyof A, keyof B] extends [keyof B, keyof A]
    ? true
    : false
  : false;
/** Checked by the compiler: `npm run typecheck`. The lists of system calls differ, their type must not. */
const alike: {
  readonly channel: Alike<typeof NodeChannel, typeof BunChannel>;
  readonly ffi: Alike<typeof NodeFfi, typeof BunFfi>;
  readonly program: Alike<typeof NodeProgram, Omit<typeof BunProgram, typeof BUN_ENTRY>>;
  readonly streams: Alike<typeof NodeStreams, typeof BunStreams>;
  readonly 'system-calls': Alike<keyof typeof NodeCalls, keyof typeof BunCalls>;
  readonly threads: Alike<typeof NodeThreads, typeof BunThreads>;
} = { channel: true, ffi: true, program: true, streams: true, 'system-calls': true, threads: true };

const source = (path: string): string =>
  readFileSync(new URL(`../../src/runtime/${path}`, import.meta.url), 'utf8');
const files = (runtime: string): string[] =>
  readdirSync(new URL(`../../src/runtime/${runtime}/`, import.meta.url)).sort();

const DECLARED = /^export (?:async )?(const|function|class|interface|type) (?:\{ ([^}]+) \}|(\w+))/gm;

/** Names that a module exports. @param values  those that exist at run time, else types too */
function exported(path: string, values: boolean): string[] {
  const names = [...source(path).matchAll(DECLARED)].flatMap(([, kind, list, name]) =>
    values && (kind === 'type' || kind === 'interface') ? [] : (list?.split(', ') ?? [name!]),
  );
  return names.sort();
}

const NAMES = Object.keys(alike);

describe('src/runtime', () => {
  it('each module exists for both runtimes; besides, Bun has declarations and the code of trampolines', () => {
    expect(files('node')).toEqual(NAMES.map((name) => `${name}.ts`).sort());
    expect(files('bun').filter((file) => !files('node').includes(file))).toEqual([
      'bun.d.ts',
      'trampoline-code.ts',
    ]);
  });

  it.each(NAMES)('#runtime/%s: the same names, types included, and these at run time', async (name) => {
    const onBun = exported(`bun/${name}.ts`, false).filter((one) => one !== BUN_ENTRY);
    expect(onBun).toEqual(exported(`node/${name}.ts`, false));
    const module = await import(`../../src/runtime/${ON_BUN ? 'bun' : 'node'}/${name}.ts`);
    expect(
      Object.keys(module)
        .filter((one) => one !== BUN_ENTRY)
        .sort(),
    ).toEqual(exported(`node/${name}.ts`, true));
  });
});
