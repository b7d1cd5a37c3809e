/** A thread of ffi.test.ts on Bun, with trampolines of its own. */
import { readFileSync } from 'node:fs';
import { nativeFunction } from '#runtime/ffi';
import { onFirstMessage, postToCreator } from '#runtime/threads';
import { CODE_BYTES } from '../../src/runtime/bun/trampoline-code.ts';

const declareAbs = (): ((value: number) => number) => nativeFunction<[number]>('abs', 'int', ['int']);

interface Mapping {
  readonly from: number;
  readonly to: number;
  readonly rights: string;
}

function mappings(): Mapping[] {
  const lines = readFileSync('/proc/self/maps', 'latin1').matchAll(/^([0-9a-f]+)-([0-9a-f]+) (....)/gm);
  const hex = (text: string): number => Number.parseInt(text, 16);
  return [...lines].map(([, from, to, rights]) => ({ from: hex(from!), to: hex(to!), rights: rights! }));
}

const writableAndExecutable = (): number =>
  mappings().filter(({ rights }) => rights.startsWith('rwx')).length;

/** Functions of one number that change nothing: tests of characters, and functions of doubles. */
const HARMLESS: readonly string[] = [
  ...[
    'alnum',
    'alpha',
    'cntrl',
    'digit',
    'graph',
    'lower',
    'print',
    'punct',
    'space',
    'upper',
    'xdigit',
  ].flatMap((kind) => [`is${kind}`, `isw${kind}`]),
  ...[
    'sin',
    'cos',
    'tan',
    'asin',
    'acos',
    'atan',
    'sinh',
    'cosh',
    'tanh',
    'asinh',
    'acosh',
    'atanh',
    'exp',
  ].flatMap((name) => [name, `${name}f`]),
  ...[
    'exp2',
    'expm1',
    'log',
    'log2',
    'log10',
    'log1p',
    'logb',
    'ilogb',
    'sqrt',
    'cbrt',
    'ceil',
    'floor',
  ].flatMap((name) => [name, `${name}f`]),
  ...[
    'round',
    'trunc',
    'rint',
    'nearbyint',
    'lrint',
    'llrint',
    'lround',
    'llround',
    'erf',
    'erfc',
    'fabs',
  ].flatMap((name) => [name, `${name}f`]),
  ...['tgamma', 'j0', 'j1', 'y0', 'y1', 'significand'].flatMap((name) => [name, `${name}f`]),
  ...['getpid', 'getppid', 'getuid', 'geteuid', 'getgid', 'getegid', 'getpgrp', 'getpagesize', 'sched_yield'],
  ...[
    'tolower',
    'toupper',
    'towlower',
    'towupper',
    'labs',
    'llabs',
    'ffs',
    'ffsl',
    'ffsll',
    'htonl',
    'htons',
  ],
  ...['isblank', 'iswblank', 'wctob', 'btowc', 'toascii', 'gettid', 'getdtablesize'],
];

onFirstMessage((what: 'rights' | 'exhaust' | 'repeat') => {
  const abs = declareAbs();
  if (what === 'rights') {
    const before = writableAndExecutable(); // JavaScriptCore's own
    abs(-1);
    const all = mappings();
    const code = all.findIndex(({ from, to, rights }) => to - from === CODE_BYTES && rights === 'r-xp');
    const trampolines = [all[code]?.rights, all[code + 1]?.rights];
    postToCreator({ trampolines, madeWritableAndExecutable: writableAndExecutable() - before });
  } else if (what === 'exhaust') {
    abs(-1);
    let linked = 1;
    try {
      for (const name of HARMLESS) {
        nativeFunction<[number]>(name, 'int', ['int'])(0);
        linked++;
      }
      postToCreator({ linked });
    } catch (error) {
      postToCreator({ linked, error: (error as Error).message, works: abs(-3) === 3 });
    }
  } else {
    let linked = 0;
    for (; linked < 1000; linked++) declareAbs()(-1);
    postToCreator({ linked, works: abs(-4) === 4 });
  }
});
