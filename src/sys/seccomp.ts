/**
 * System call filters: seccomp(2) with classic BPF, see the kernel's
 * Documentation/userspace-api/seccomp_filter.rst. Cold.
 *
 * A filter has one rule for each system call. A call without a rule ends the process. The BPF program is a
 * binary search over the call numbers. Linux 5.11 and later do not run it for calls that are allowed whatever
 * their arguments: they keep a bitmap of these.
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
export const AUDIT_ARCH = process.arch === 'arm64' ? 0xc000_00b7 : 0xc000_003e;
/** Set in the numbers of the x32 ABI, which x86-64 kernels may accept. */
export const X32_SYSCALL_BIT = 0x4000_0000;
export const SECCOMP_SET_MODE_FILTER = 1;
const FLAG_TSYNC = 1;
/**
 * Without this flag kernels before 5.16 disable speculative store bypass for the process, which slows JIT
 * code.
 */
export const SECCOMP_SPEC_ALLOW = 4;
/** SECCOMP_FILTER_FLAG_NEW_LISTENER: seccomp(2) returns a descriptor that is notified of RET_USER_NOTIF. */
export const SECCOMP_NEW_LISTENER = 8;
const RET_KILL_PROCESS = 0x8000_0000;
export const RET_ERRNO = 0x0005_0000;
export const RET_ALLOW = 0x7fff_0000;
/** The call waits until the listener has answered (seccomp-notify.ts). */
export const RET_USER_NOTIF = 0x7fc0_0000;

// <linux/bpf_common.h>: BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JA and so on.
const LD = 0x20;
const JA = 0x05;
const JEQ = 0x15;
const JGE = 0x35;
const JSET = 0x45;
const AND = 0x54;
const RET = 0x06;
/** Codes of instructions, for filters that are written out (../switch/filter.ts). */
export const BPF = { LD, JEQ, JGE, JSET, RET } as const;
/** Offsets in struct seccomp_data. */
export const NR_AT = 0;
export const ARCH_AT = 4;
export const argAt = (arg: number): number => 16 + arg * 8;

/**
 * A condition on one argument (0..5). Except for isNull, only the low 32 bits are compared, which hold a
 * descriptor, a command or a flag word completely.
 */
export type Condition =
  /** (argument & mask) is one of these values; without a mask the argument itself. */
  | { readonly arg: number; readonly oneOf: readonly number[]; readonly mask?: number }
  /** (argument & mask) == equals */
  | { readonly arg: number; readonly mask: number; readonly equals: number }
  /** A null pointer: all 64 bits. */
  | { readonly arg: number; readonly isNull: true };

/** What happens to a system call. */
export type Rule =
  | 'allow'
  /** Refused with this errno. */
  | { readonly errno: number }
  /**
   * Allowed when all conditions hold; else refused with the errno `otherwise`, or without it, ends the
   * process.
   */
  | { readonly when: readonly Condition[]; readonly otherwise?: number }
  /** Allowed when all conditions of one of the lists hold; else ends the process. */
  | { readonly anyOf: readonly (readonly Condition[])[] };

/**
 * Rules by system call. A call that the architecture does not have is ignored; a call without a rule ends the
 * process.
 */
export type Filter = ReadonlyMap<SyscallName, Rule>;

/** The fields of a struct sock_filter: [code, jt, jf, k]. */
export type Instruction = readonly [number, number, number, number];

const ret = (value: number): Instruction => [RET, 0, 0, value];

function actionOf(rule: Exclude<Rule, { when: unknown } | { anyOf: unknown }>): number {
  return rule === 'allow' ? RET_ALLOW : (RET_ERRNO | rule.errno) >>> 0;
}

/** Instructions that run on into the next ones when the condition holds, and run `fail` when it does not. */
function conditionCode(condition: Condition, fail: Instruction): Instruction[] {
  const load: Instruction = [LD, 0, 0, argAt(condition.arg)];
  if ('oneOf' in condition) {
    const { oneOf, mask } = condition;
    const masked: readonly Instruction[] = mask === undefined ? [] : [[AND, 0, 0, mask >>> 0]];
    // A match jumps over the remaining comparisons and over `fail`.
    return [load, ...masked, ...oneOf.map((v, i): Instruction => [JEQ, oneOf.length - i, 0, v >>> 0]), fail];
  }
  if ('isNull' in condition) {
    const high: Instruction = [LD, 0, 0, argAt(condition.arg) + 4];
    return [load, [JEQ, 1, 0, 0], fail, high, [JEQ, 1, 0, 0], fail];
  }
  return [load, [AND, 0, 0, condition.mask >>> 0], [JEQ, 1, 0, condition.equals >>> 0], fail];
}

/** Instructions that allow the call when all conditions hold, and else jump behind themselves. */
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

/** A range of call numbers with one rule: from `from` up to the `from` of the next segment. */
interface Segment {
  readonly from: number;
  readonly rule: Rule | undefined;
}

/** Segments that cover all call numbers; adjacent ranges with the same rule are merged. */
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

/**
 * Binary search over the segments; the accumulator holds the call number. The left half comes first. The jump
 * over it is a JA, because the offsets of conditional jumps have only 8 bits.
 */
function searchCode(segments: readonly Segment[]): readonly Instruction[] {
  if (segments.length === 1) return ruleCode(segments[0]!.rule);
  const middle = segments.length >> 1;
  const left = searchCode(segments.slice(0, middle));
  const right = searchCode(segments.slice(middle));
  return [[JGE, 0, 1, segments[middle]!.from], [JA, 0, 0, left.length], ...left, ...right];
}

/** The BPF program of a filter, one array for each struct sock_filter. */
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

/** A struct sock_fprog in memory: valid as long as this object is reachable. */
export class EncodedFilter {
  readonly #code: NativeBuffer;
  readonly #program = new NativeBuffer(16);
  readonly address: number;

  constructor(program: readonly Instruction[]) {
    this.#code = new NativeBuffer(program.length * 8);
    const { u8, u16, u32, address } = this.#code;
    program.forEach(([op, jt, jf, k], i) => {
      u16[i * 4] = op;
      u8[i * 8 + 2] = jt;
      u8[i * 8 + 3] = jf;
      u32[i * 2 + 1] = k;
    });
    this.#program.u16[0] = program.length;
    writeAddress(this.#program.u32, 2, address);
    this.address = this.#program.address;
  }
}

/**
 * Install a filter permanently in all threads of the process (TSYNC); threads and processes that they start
 * inherit it. Sets no_new_privs. SECCOMP_FILTER_FLAG_LOG is not set: the kernel logs a killed process without
 * it, and the flag would also log every call that is refused with an errno.
 * @throws SysError
 */
export function installFilter(filter: Filter): void {
  const program = new EncodedFilter(filterProgram(filter));
  const nnp = prctl(PR_SET_NO_NEW_PRIVS, 1);
  if (nnp < 0) throw new SysError('prctl', 'PR_SET_NO_NEW_PRIVS', -nnp);
  const r = syscall4(
    SYS_seccomp,
    SECCOMP_SET_MODE_FILTER,
    FLAG_TSYNC | SECCOMP_SPEC_ALLOW,
    program.address,
    0,
  );
  if (r < 0)
    throw new SysError('seccomp', 'SECCOMP_SET_MODE_FILTER', -r, 'the kernel needs CONFIG_SECCOMP_FILTER');
  // A positive result is the id of a thread that could not be synchronised: it has a filter of its own.
  if (r > 0) throw new SysError('seccomp', `SECCOMP_FILTER_FLAG_TSYNC, thread ${r}`, Errno.ESRCH);
}
