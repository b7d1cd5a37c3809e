/**
 * System call filters: seccomp(2), classic BPF as in Documentation/userspace-api/seccomp_filter.rst of the
 * kernel. Cold.
 *
 * A filter is a list of rules by number. What it does not name ends the process. The program is a binary
 * search over the numbers; calls that are allowed whatever their arguments never run it on kernels from 5.11
 * on, which keep a bitmap of them.
 *
 *   struct seccomp_data   +0 nr u32   +4 arch u32   +8 instruction pointer u64   +16 args[6] u64, low half first
 *   struct sock_filter    +0 code u16   +2 jt u8   +3 jf u8   +4 k u32
 *   struct sock_fprog     +0 length u16   +8 address of the instructions
 * @syscalls prctl seccomp
 */
import { Errno, PR_SET_NO_NEW_PRIVS, SYS_seccomp } from './constants.ts';
import { SysError } from './error.ts';
import { syscall4 } from './libc.ts';
import { NativeBuffer, writeAddress } from './memory.ts';
import { prctl } from './process.ts';
import { type SyscallName, syscallNumber } from './syscall-numbers.ts';

// <linux/audit.h>, <linux/seccomp.h>
const AUDIT_ARCH = process.arch === 'arm64' ? 0xc000_00b7 : 0xc000_003e;
/** x86-64 numbers from here on are the x32 ABI's. */
const X32_SYSCALL_BIT = 0x4000_0000;
const SECCOMP_SET_MODE_FILTER = 1;
const FLAG_TSYNC = 1;
/**
 * Without it kernels before 5.16 switch a processor's store bypass off for us, which slows every JIT down.
 */
const FLAG_SPEC_ALLOW = 4;
const RET_KILL_PROCESS = 0x8000_0000;
const RET_ERRNO = 0x0005_0000;
const RET_ALLOW = 0x7fff_0000;

// <linux/bpf_common.h>: BPF_LD | BPF_W | BPF_ABS and so on
const LD = 0x20;
const JA = 0x05;
const JEQ = 0x15;
const JGE = 0x35;
const AND = 0x54;
const RET = 0x06;
const NR_AT = 0;
const ARCH_AT = 4;
const argAt = (arg: number): number => 16 + arg * 8;

/**
 * What an argument must be. Only its low 32 bits count, which is all of a descriptor, command or flag word.
 */
export type Condition =
  | { readonly arg: number; readonly oneOf: readonly number[]; readonly mask?: number }
  /** (argument & mask) == equals */
  | { readonly arg: number; readonly mask: number; readonly equals: number }
  /** A null pointer: all 64 bits. */
  | { readonly arg: number; readonly isNull: true };

/**
 * Allowed; refused with an errno; or allowed when all conditions hold, and else what `otherwise` says
 * (absent: death).
 */
export type Rule =
  | 'allow'
  | { readonly errno: number }
  | { readonly when: readonly Condition[]; readonly otherwise?: number }
  /** Allowed when all conditions of one of these lists hold, and else the end of the process. */
  | { readonly anyOf: readonly (readonly Condition[])[] };

export type Filter = ReadonlyMap<SyscallName, Rule>;

/** [code, jt, jf, k] */
type Instruction = readonly [number, number, number, number];

const ret = (value: number): Instruction => [RET, 0, 0, value];

function actionOf(rule: Exclude<Rule, { when: unknown } | { anyOf: unknown }>): number {
  return rule === 'allow' ? RET_ALLOW : (RET_ERRNO | rule.errno) >>> 0;
}

function conditionCode(condition: Condition, fail: Instruction): Instruction[] {
  const load: Instruction = [LD, 0, 0, argAt(condition.arg)];
  if ('oneOf' in condition) {
    const { oneOf, mask } = condition;
    const masked: readonly Instruction[] = mask === undefined ? [] : [[AND, 0, 0, mask >>> 0]];
    // A hit jumps over the other comparisons and the failure behind them.
    return [load, ...masked, ...oneOf.map((v, i): Instruction => [JEQ, oneOf.length - i, 0, v >>> 0]), fail];
  }
  if ('isNull' in condition) {
    const high: Instruction = [LD, 0, 0, argAt(condition.arg) + 4];
    return [load, [JEQ, 1, 0, 0], fail, high, [JEQ, 1, 0, 0], fail];
  }
  return [load, [AND, 0, 0, condition.mask >>> 0], [JEQ, 1, 0, condition.equals >>> 0], fail];
}

/** Where a condition does not hold, on to what follows the alternative. */
function alternativeCode(when: readonly Condition[]): Instruction[] {
  const next: Instruction = [JA, 0, 0, 0];
  const code = [...when.flatMap((condition) => conditionCode(condition, next)), ret(RET_ALLOW)];
  return code.map((op, i) => (op === next ? [JA, 0, 0, code.length - i - 1] : op));
}

function ruleCode(rule: Rule | undefined): readonly Instruction[] {
  if (rule === undefined) return [ret(RET_KILL_PROCESS)];
  if (rule === 'allow' || 'errno' in rule) return [ret(actionOf(rule))];
  if ('anyOf' in rule) return [...rule.anyOf.flatMap(alternativeCode), ret(RET_KILL_PROCESS)];
  const fail = ret(rule.otherwise === undefined ? RET_KILL_PROCESS : actionOf({ errno: rule.otherwise }));
  return [...rule.when.flatMap((condition) => conditionCode(condition, fail)), ret(RET_ALLOW)];
}

/** From number `from` up to the next segment's. */
interface Segment {
  readonly from: number;
  readonly rule: Rule | undefined;
}

/** Segments that cover all numbers, neighbours of the same simple rule made one. */
function segmentsOf(filter: Filter): readonly Segment[] {
  const numbered = [...filter]
    .map(([name, rule]) => ({ number: syscallNumber(name), rule }))
    .filter(({ number }) => number >= 0)
    .sort((a, b) => a.number - b.number);
  const segments: Segment[] = [{ from: 0, rule: undefined }];
  const add = (from: number, rule: Rule | undefined): void => {
    const last = segments.at(-1)!;
    if (last.from === from) segments.pop();
    if (segments.at(-1)?.rule !== rule || segments.length === 0) segments.push({ from, rule });
  };
  for (const { number, rule } of numbered) {
    add(number, rule);
    add(number + 1, undefined);
  }
  return segments;
}

/** The accumulator holds the number. Halves are laid out left, right; a jump of any length needs JA. */
function searchCode(segments: readonly Segment[]): readonly Instruction[] {
  if (segments.length === 1) return ruleCode(segments[0]!.rule);
  const middle = segments.length >> 1;
  const left = searchCode(segments.slice(0, middle));
  const right = searchCode(segments.slice(middle));
  return [[JGE, 0, 1, segments[middle]!.from], [JA, 0, 0, left.length], ...left, ...right];
}

/** The program of a filter, as struct sock_filter each. */
export function filterProgram(filter: Filter): readonly Instruction[] {
  const x32: readonly Instruction[] =
    process.arch === 'x64' ? [[JGE, 0, 1, X32_SYSCALL_BIT], ret(RET_KILL_PROCESS)] : [];
  return [
    [LD, 0, 0, ARCH_AT],
    [JEQ, 1, 0, AUDIT_ARCH],
    ret(RET_KILL_PROCESS),
    [LD, 0, 0, NR_AT],
    ...x32,
    ...searchCode(segmentsOf(filter)),
  ];
}

/**
 * Put the whole process under a filter, for good: all threads there are, and what they start. No thread can
 * gain privileges any more. The kernel's log tells of a violation by itself; FLAG_LOG would add every call
 * that is refused with an errno.
 * @throws SysError
 */
export function installFilter(filter: Filter): void {
  const program = filterProgram(filter);
  const code = new NativeBuffer(program.length * 8);
  program.forEach(([op, jt, jf, k], i) => {
    code.u16[i * 4] = op;
    code.u8[i * 8 + 2] = jt;
    code.u8[i * 8 + 3] = jf;
    code.u32[i * 2 + 1] = k;
  });
  const fprog = new NativeBuffer(16);
  fprog.u16[0] = program.length;
  writeAddress(fprog.u32, 2, code.address);
  const nnp = prctl(PR_SET_NO_NEW_PRIVS, 1);
  if (nnp < 0) throw new SysError('prctl', 'PR_SET_NO_NEW_PRIVS', -nnp);
  const r = syscall4(SYS_seccomp, SECCOMP_SET_MODE_FILTER, FLAG_TSYNC | FLAG_SPEC_ALLOW, fprog.address, 0);
  if (r < 0)
    throw new SysError('seccomp', 'SECCOMP_SET_MODE_FILTER', -r, 'the kernel needs CONFIG_SECCOMP_FILTER');
  // A thread with a filter that is not ours.
  if (r > 0) throw new SysError('seccomp', `SECCOMP_FILTER_FLAG_TSYNC, thread ${r}`, Errno.ESRCH);
}
