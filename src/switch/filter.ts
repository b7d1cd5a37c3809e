/**
 * The seccomp filter of COMMAND with --switch-sockets. It notifies the supervisor of connect, bind and listen,
 * refuses what would get past the supervisor, and lets everything else through. It sees numbers, not memory:
 * not which socket a descriptor names, and not which address is connected to.
 *
 *   connect, bind, listen        notified; not a connect() whose address is too short for IP
 *   epoll_create, epoll_create1  notified, and carried out by the kernel: the supervisor has to know whether there
 *                                are epoll sets (peer-process.ts, isInEpollSet)
 *   sendto, sendmsg, sendmmsg    EOPNOTSUPP with MSG_FASTOPEN, which connects: programs fall back to connect()
 *   io_uring_setup               EPERM, as containers' profiles do: its requests are not filtered
 *   x32 table                    ENOSYS, as without CONFIG_X86_X32
 *
 * The 32-bit table of the same kernel is open to every process (int 0x80): the same, by its numbers. socketcall(2)
 * has its arguments in memory, so of its calls that could connect by MSG_FASTOPEN nothing is seen: they get ENOSYS.
 * Programs then use send(2), or fail. Calls of AArch32 have no such call.
 */

import { Errno } from '../sys/constants.ts';
import {
  ARCH_AT,
  AUDIT_ARCH,
  argAt,
  BPF,
  type Instruction,
  NR_AT,
  RET_ALLOW,
  RET_ERRNO,
  RET_USER_NOTIF,
  X32_SYSCALL_BIT,
} from '../sys/seccomp.ts';
import { syscallNumber } from '../sys/syscall-numbers.ts';

const { LD, JEQ, JGE, JSET, RET } = BPF;
const MSG_FASTOPEN = 0x2000_0000; // <linux/socket.h>
/** sizeof(struct sockaddr_in): no IP socket accepts less. */
const SHORTEST_ADDRESS = 16;

/** The calls that the supervisor answers. */
export type SupervisedCall = 'connect' | 'bind' | 'listen';

/** A table of system calls. */
interface Table {
  readonly architecture: number;
  readonly calls: Readonly<Record<SupervisedCall | 'sendto' | 'sendmsg' | 'sendmmsg', number>>;
  /** Numbers of the calls that make epoll sets. */
  readonly epollCreate: readonly number[];
  /** Number of socketcall(2), if the table has it. */
  readonly socketcall?: number;
}

const NATIVE: Table = {
  architecture: AUDIT_ARCH,
  calls: {
    connect: syscallNumber('connect'),
    bind: syscallNumber('bind'),
    listen: syscallNumber('listen'),
    sendto: syscallNumber('sendto'),
    sendmsg: syscallNumber('sendmsg'),
    sendmmsg: syscallNumber('sendmmsg'),
  },
  epollCreate: process.arch === 'arm64' ? [20] : [213, 291],
};

/** <asm/unistd_32.h>, <linux/audit.h>: what a kernel of x86-64 or AArch64 runs of its 32-bit predecessor. */
const COMPATIBLE: Table =
  process.arch === 'arm64'
    ? {
        architecture: 0x4000_0028,
        calls: { connect: 283, bind: 282, listen: 284, sendto: 290, sendmsg: 296, sendmmsg: 374 },
        epollCreate: [250, 357],
      }
    : {
        architecture: 0x4000_0003,
        calls: { connect: 362, bind: 361, listen: 363, sendto: 369, sendmsg: 370, sendmmsg: 345 },
        epollCreate: [254, 329],
        socketcall: 102,
      };
const TABLES = [NATIVE, COMPATIBLE];
const IO_URING_SETUP = syscallNumber('io_uring_setup'); // the same in all tables

/** First arguments of socketcall(2), <linux/net.h>. */
const SOCKETCALL: Readonly<Record<SupervisedCall, number>> = { bind: 2, connect: 3, listen: 4 };
const SOCKETCALL_SENDS = [11, 16, 20]; // sendto, sendmsg, sendmmsg

/** A call that was notified of. */
export interface FoundCall {
  readonly call: SupervisedCall;
  /** Its arguments are an array of 32-bit numbers, at the address in the second argument. */
  readonly inMemory: boolean;
}

const found = new Map<number, FoundCall>();
for (const { architecture, calls } of TABLES)
  for (const call of ['connect', 'bind', 'listen'] as const)
    found.set(keyOf(architecture, calls[call]), { call, inMemory: false });

function keyOf(architecture: number, number: number): number {
  return architecture * 1024 + number;
}

/**
 * Which call a notification is about.
 * @param first  the call's first argument
 * @returns undefined for others, of which filters that are not ours may notify
 */
export function supervisedCall(architecture: number, number: number, first: number): FoundCall | undefined {
  if (architecture === COMPATIBLE.architecture && number === COMPATIBLE.socketcall) {
    const call = (Object.keys(SOCKETCALL) as SupervisedCall[]).find((name) => SOCKETCALL[name] === first);
    return call && { call, inMemory: true };
  }
  // Profiles of containers may allow the x32 table: its calls of these names have the same arguments.
  return found.get(keyOf(architecture, architecture === AUDIT_ARCH ? number & ~X32_SYSCALL_BIT : number));
}

/** Whether a notification is about a new epoll set. */
export const makesEpollSet = (architecture: number, number: number): boolean =>
  TABLES.some((table) => table.architecture === architecture && table.epollCreate.includes(number));

/** An instruction whose jumps are names of labels. */
type Line =
  | { readonly label: string }
  | { readonly op: number; readonly k: number; readonly yes?: string; readonly no?: string };

const load = (at: number): Line => ({ op: LD, k: at });
const refused = (label: string, errno: number): readonly Line[] => [
  { label },
  { op: RET, k: (RET_ERRNO | errno) >>> 0 },
];

/** @param name  in front of its labels */
function tableLines({ calls, epollCreate, socketcall }: Table, name: string): readonly Line[] {
  const jumps: readonly (readonly [number, string])[] = [
    [calls.connect, `${name}connect`],
    [calls.bind, 'notify'],
    [calls.listen, 'notify'],
    ...epollCreate.map((number) => [number, 'notify'] as const),
    [calls.sendto, `${name}flags3`],
    [calls.sendmsg, `${name}flags2`],
    [calls.sendmmsg, `${name}flags3`],
    [IO_URING_SETUP, 'eperm'],
    ...(socketcall === undefined ? [] : [[socketcall, `${name}socketcall`] as const]),
  ];
  const isFast = (argument: number): readonly Line[] => [
    { label: `${name}flags${argument}` },
    load(argAt(argument)),
    { op: JSET, k: MSG_FASTOPEN, yes: 'eopnotsupp', no: 'allow' },
  ];
  return [
    ...jumps.map(([k, yes]): Line => ({ op: JEQ, k, yes })),
    { op: RET, k: RET_ALLOW },
    { label: `${name}connect` },
    load(argAt(2)),
    { op: JGE, k: SHORTEST_ADDRESS, yes: 'notify', no: 'allow' },
    ...isFast(2),
    ...isFast(3),
    ...(socketcall === undefined
      ? []
      : [
          { label: `${name}socketcall` },
          load(argAt(0)),
          ...Object.values(SOCKETCALL).map((k): Line => ({ op: JEQ, k, yes: 'notify' })),
          ...SOCKETCALL_SENDS.map((k): Line => ({ op: JEQ, k, yes: 'enosys' })),
          { op: RET, k: RET_ALLOW },
        ]),
  ];
}

/** The filter's program. */
export function switchFilter(): readonly Instruction[] {
  const lines: readonly Line[] = [
    load(ARCH_AT),
    { op: JEQ, k: NATIVE.architecture, yes: 'native' },
    { op: JEQ, k: COMPATIBLE.architecture, yes: 'compatible', no: 'enosys' },
    { label: 'native' },
    load(NR_AT),
    ...(process.arch === 'x64' ? [{ op: JGE, k: X32_SYSCALL_BIT, yes: 'enosys' }] : []),
    ...tableLines(NATIVE, 'native-'),
    { label: 'compatible' },
    load(NR_AT),
    ...tableLines(COMPATIBLE, 'compatible-'),
    { label: 'notify' },
    { op: RET, k: RET_USER_NOTIF },
    { label: 'allow' },
    { op: RET, k: RET_ALLOW },
    ...refused('eperm', Errno.EPERM),
    ...refused('enosys', Errno.ENOSYS),
    ...refused('eopnotsupp', Errno.EOPNOTSUPP),
  ];
  return assembled(lines);
}

function assembled(lines: readonly Line[]): readonly Instruction[] {
  const positions = new Map<string, number>();
  const code = lines.filter((line) => 'op' in line);
  let at = 0;
  for (const line of lines) {
    if ('label' in line) positions.set(line.label, at);
    else at++;
  }
  return code.map(({ op, k, yes, no }, i): Instruction => {
    const jump = (label: string | undefined): number =>
      label === undefined ? 0 : positions.get(label)! - i - 1;
    return [op, jump(yes), jump(no), k];
  });
}
