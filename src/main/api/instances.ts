// bundle: rare
/**
 * The running instances of this user: programs that were started with `--api-socket auto`
 * (socket-directory.ts), and what each says about itself. One that does not answer costs a bounded time and
 * delays no other.
 */
import { ApiError, askApi, oneLine } from './client.ts';
import { findSockets, removeOld, type SocketProgram, type Surroundings } from './socket-directory.ts';

/** Addresses of one family, in the answer to `info`. */
export interface NetworkInfo {
  readonly guest: string;
  readonly prefixLen: number;
  readonly gateway: string;
  readonly dns?: string;
}

/** The answer to `info`, checked. */
export interface InstanceInfo {
  /** For example "bucatini run". */
  readonly program: string;
  readonly version: string;
  readonly pid: number;
  /** Absent: no interface (pasta --splice-only). */
  readonly interface?: string;
  readonly mtu?: number;
  readonly ipv4?: NetworkInfo;
  readonly ipv6?: NetworkInfo;
  readonly threads: readonly string[];
  readonly forwards: number;
  readonly uptimeMs: number;
}

/** An instance: one API socket. */
export interface Instance {
  readonly path: string;
  /** By the name of the socket; "socket" if the user named one that has another name. */
  readonly program: SocketProgram | 'socket';
  /** By the name of the socket, else by `info`; 0: unknown. */
  readonly pid: number;
  /** Absent: see `problem`. */
  readonly info?: InstanceInfo;
  /** Why there is no answer to `info`, in a few words. */
  readonly problem?: string;
}

/** How long an instance may take to answer `info`. */
export const INFO_LIMIT_MS = 2000;

interface Finding {
  readonly timeoutMs?: number;
  readonly surroundings?: Surroundings;
}

/**
 * All instances of this user, by process id. All are asked at the same time. Sockets of ended processes are
 * skipped, and removed.
 */
export async function listInstances({
  timeoutMs = INFO_LIMIT_MS,
  surroundings,
}: Finding = {}): Promise<readonly Instance[]> {
  const asked = await Promise.all(
    findSockets(surroundings).map(async (socket) => {
      const answer = await askInfo(socket.path, timeoutMs);
      if (answer !== 'gone') return { ...socket, ...answer };
      removeOld(socket.path);
      return undefined;
    }),
  );
  return asked.filter((instance) => instance !== undefined);
}

/**
 * The instances that a user names.
 * @param operands  process ids, and paths of API sockets; none: all instances of this user
 * @returns in the order of `operands`; one that does not answer has a `problem`
 * @throws ApiError for a process id that no instance has; its message names the operand
 */
export async function namedInstances(
  operands: readonly string[],
  finding: Finding = {},
): Promise<readonly Instance[]> {
  if (operands.length === 0) return listInstances(finding);
  const found = operands.some(isPid) ? await listInstances(finding) : [];
  return Promise.all(
    operands.map(async (operand) => {
      if (isPid(operand)) {
        const instance = found.find(({ pid }) => pid === Number(operand));
        if (instance === undefined)
          throw new ApiError(
            'gone',
            `${operand}: no instance with this process id was started with --api-socket auto`,
          );
        return instance;
      }
      const answer = await askInfo(operand, finding.timeoutMs ?? INFO_LIMIT_MS);
      const socket = { path: operand, program: 'socket' } as const;
      if (answer === 'gone') return { ...socket, pid: 0, problem: 'nobody listens on this socket' };
      return { ...socket, pid: answer.info?.pid ?? 0, ...answer };
    }),
  );
}

const isPid = (operand: string): boolean => /^[0-9]{1,10}$/.test(operand);

async function askInfo(
  path: string,
  timeoutMs: number,
): Promise<Pick<Instance, 'info' | 'problem'> | 'gone'> {
  try {
    const info = readInfo(await askApi(path, 'info', undefined, { timeoutMs }));
    return info === undefined ? { problem: 'its answer is not understood' } : { info };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return error.kind === 'gone' ? 'gone' : { problem: error.message };
  }
}

type Json = Readonly<Record<string, unknown>>;

const MAX_NAMES = 64;

/** @returns undefined if it is no answer to `info` */
export function readInfo(answer: unknown): InstanceInfo | undefined {
  if (typeof answer !== 'object' || answer === null) return undefined;
  const from = answer as Json;
  const program = text(from.program);
  if (program === undefined) return undefined;
  const ipv4 = readNetwork(from.ipv4);
  const ipv6 = readNetwork(from.ipv6);
  const name = text(from.interface);
  return {
    program,
    version: text(from.version) ?? '',
    pid: count(from.pid),
    ...(name !== undefined && { interface: name, mtu: count(from.mtu) }),
    ...(ipv4 && { ipv4 }),
    ...(ipv6 && { ipv6 }),
    threads: (Array.isArray(from.threads) ? from.threads : [])
      .slice(0, MAX_NAMES)
      .map((thread) => text(thread) ?? '?'),
    forwards: count(from.forwards),
    uptimeMs: count(from.uptimeMs),
  };
}

function readNetwork(value: unknown): NetworkInfo | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const from = value as Json;
  const guest = text(from.guest);
  const dns = text(from.dns);
  if (guest === undefined) return undefined;
  return {
    guest,
    prefixLen: count(from.prefixLen),
    gateway: text(from.gateway) ?? '',
    ...(dns !== undefined && { dns }),
  };
}

/** Names and addresses are short; what is longer is cut. */
const MAX_TEXT = 128;

const text = (value: unknown): string | undefined =>
  typeof value === 'string' ? oneLine(value).slice(0, MAX_TEXT) : undefined;

/** A number that cannot be negative; 0 if it is none. */
const count = (value: unknown): number =>
  typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : 0;
