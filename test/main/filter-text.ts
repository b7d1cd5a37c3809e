/**
 * The meaning of a seccomp filter as text, from its instructions and not from the rules that they were made
 * of: every path that a system call can take through the program. For tests.
 */
import { type Filter, filterProgram } from '../../src/sys/seccomp.ts';

// <linux/bpf_common.h>, as in src/sys/seccomp.ts
const LD = 0x20;
const JA = 0x05;
const JEQ = 0x15;
const JGE = 0x35;
const AND = 0x54;
const RET = 0x06;
const ARCH_AT = 4;
const ARGS_AT = 16;

/** The accumulator: a known number, or part of an argument. */
type Loaded = number | { readonly name: string; readonly mask?: number };

export interface Verdict {
  /** Conditions that are true on this path, as `a0 == 2`; false ones are left out. */
  readonly held: readonly string[];
  /** The return value, e.g. 0x7fff0000. */
  readonly action: number;
}

/** Knowledge about a loaded argument on one path. */
interface Known {
  readonly equals?: number;
  readonly not: readonly number[];
}

/** Every path that system call `nr` can take. */
export function verdicts(filter: Filter, nr: number, arch: string = process.arch): readonly Verdict[] {
  const program = filterProgram(filter);
  const out: Verdict[] = [];
  const walk = (at: number, loaded: Loaded, known: ReadonlyMap<string, Known>): void => {
    const [code, jt, jf, k] = program[at]!;
    const jump = (met: boolean, facts = known): void => walk(at + 1 + (met ? jt : jf), loaded, facts);
    if (code === RET) out.push({ held: heldOn(known), action: k });
    else if (code === JA) walk(at + 1 + k, loaded, known);
    else if (code === LD) walk(at + 1, load(k, nr, arch), known);
    else if (code === AND && typeof loaded === 'object') walk(at + 1, { ...loaded, mask: k }, known);
    else if (code === JGE && typeof loaded === 'number') jump(loaded >= k);
    else if (code === JEQ && typeof loaded === 'number') jump(loaded === k);
    else if (code === JEQ && typeof loaded === 'object') {
      const { name, mask } = loaded;
      const key = mask === undefined ? name : `${name} & ${hex(mask)}`;
      const { equals, not } = known.get(key) ?? { not: [] };
      if (equals !== undefined) jump(equals === k);
      else {
        if (!not.includes(k)) jump(true, new Map([...known, [key, { equals: k, not }]]));
        jump(false, new Map([...known, [key, { not: [...not, k] }]]));
      }
    } else throw new Error(`instruction ${at}: ${code} is not among those that the filter is made of`);
  };
  walk(0, 0, new Map());
  return out;
}

const hex = (n: number): string => `0x${n.toString(16)}`;
const heldOn = (known: ReadonlyMap<string, Known>): readonly string[] =>
  [...known]
    .flatMap(([key, { equals }]) =>
      equals === undefined ? [] : [`${key} == ${equals > 4096 ? hex(equals) : equals}`],
    )
    .sort();

function load(k: number, nr: number, arch: string): Loaded {
  if (k === 0) return nr;
  if (k === ARCH_AT) return arch === 'arm64' ? 0xc000_00b7 : 0xc000_003e;
  const arg = (k - ARGS_AT) >> 3;
  return { name: (k - ARGS_AT) % 8 === 0 ? `a${arg}` : `a${arg} high` };
}

const ALLOW = 0x7fff_0000;
const ERRNO = 0x0005_0000;

/**
 * One call: "socket a0 == 2, a1 & 0xf == 0x1, a2 == 0 | …; else death"; undefined: it ends the process
 * whatever its arguments.
 */
export function callText(filter: Filter, nr: number, arch: string = process.arch): string | undefined {
  const ways = verdicts(filter, nr, arch);
  const otherwise = new Set(ways.filter(({ action }) => action !== ALLOW).map(({ action }) => action));
  const allowed = ways.filter(({ action }) => action === ALLOW).map(({ held }) => held.join(', '));
  const refusal = [...otherwise]
    .map((action) => ((action & 0x7fff_0000) === ERRNO ? `errno ${action & 0xffff}` : 'death'))
    .join(' or ');
  if (allowed.length === 0) return refusal === 'death' ? undefined : refusal;
  if (refusal === '') return 'allowed';
  return [...[...new Set(allowed)].map((when) => `allowed if ${when}`), `else ${refusal}`].join('\n    ');
}
