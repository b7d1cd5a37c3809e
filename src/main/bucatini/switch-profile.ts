// bundle: rare
/**
 * The seccomp profile with which containers are started for `bucatini switch-agent`: an existing profile with
 * these changes and no others.
 *
 *   connect, bind, listen, epoll_create, epoll_create1   where they are allowed: SCMP_ACT_NOTIFY
 *   sendto, sendmsg, sendmmsg         where they are allowed: only without MSG_FASTOPEN, else EOPNOTSUPP. TCP Fast
 *                                     Open connects without connect()
 *   io_uring_*                        where they are allowed: EPERM, as they connect without connect() too
 *   listenerPath                      the agent's socket
 *   SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV   removed: with it no signal interrupts a connect() that waits
 *
 * A call that the profile refuses stays refused in the same way. Conditions of rules (`args`, `includes`,
 * `excludes`) stay. The architectures stay as well, with the 32-bit ones: without them libseccomp's filter
 * would kill every 32-bit program (docs/decisions/138-switch-agent.md).
 *
 * @source runtime-spec, config-linux.md#seccomp; the format with archMap, includes and excludes is that of
 *   Podman's seccomp.json (containers/common, pkg/seccomp) and Docker's
 */
import { readFileSync } from 'node:fs';
import { UsageError } from '../cli/values.ts';

/** Podman's own choice: the first of these that exists. @source containers/common, pkg/config */
export const PODMAN_PROFILES = [
  '/etc/containers/seccomp.json',
  '/usr/share/containers/seccomp.json',
] as const;

/** Larger files are not profiles. */
const MAX_PROFILE_BYTES = 4 * 1024 * 1024;

const ALLOW = 'SCMP_ACT_ALLOW';
/** Also executes the call. */
const ALLOWING: readonly unknown[] = [ALLOW, 'SCMP_ACT_LOG', 'SCMP_ACT_TRACE'];
const NOTIFY = 'SCMP_ACT_NOTIFY';
const ERRNO = 'SCMP_ACT_ERRNO';
const WAIT_KILLABLE = 'SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV';
const MSG_FASTOPEN = 0x2000_0000; // <linux/socket.h>
/**
 * <asm-generic/errno.h>. `errno` is the name, which Podman takes first if it is there; undefined: left out of the
 * JSON.
 */
const REFUSE = { action: ERRNO, errnoRet: 1, errno: undefined } as const; // EPERM
const NOT_SUPPORTED = { action: ERRNO, errnoRet: 95, errno: undefined } as const; // EOPNOTSUPP

/** The last two are carried out by the kernel: the agent has to know whether there are epoll sets. */
const NOTIFIED: readonly string[] = ['connect', 'bind', 'listen', 'epoll_create', 'epoll_create1'];
const REFUSED: readonly string[] = ['io_uring_setup', 'io_uring_enter', 'io_uring_register'];
/** Index of the argument with the flags. */
const FLAGS_ARGUMENT: Readonly<Record<string, number>> = { sendto: 3, sendmsg: 2, sendmmsg: 3 };

type Json = Readonly<Record<string, unknown>>;

/** A condition on an argument. For SCMP_CMP_MASKED_EQ `value` is the mask. */
interface Argument {
  readonly index: number;
  readonly value: number;
  readonly valueTwo: number;
  readonly op: string;
}

const fastOpen = (name: string, valueTwo: number): Argument => ({
  index: FLAGS_ARGUMENT[name]!,
  value: MSG_FASTOPEN,
  valueTwo,
  op: 'SCMP_CMP_MASKED_EQ',
});

/**
 * Make the profile.
 * @param base          a profile, as parsed JSON
 * @param name          of `base`, for errors
 * @param listenerPath  absolute path of the agent's socket
 * @throws UsageError if `base` is not a profile
 */
export function switchProfile(base: unknown, name: string, listenerPath: string): Json {
  if (!isObject(base)) throw new UsageError(`${name}: is not a JSON object`);
  const { defaultAction, syscalls = [], flags } = base;
  if (typeof defaultAction !== 'string')
    throw new UsageError(`${name}: is not a seccomp profile: it has no defaultAction`);
  if (!Array.isArray(syscalls) || !syscalls.every(isRule))
    throw new UsageError(`${name}: is not a seccomp profile: "syscalls" is not a list of rules with names`);
  const rules = (syscalls as Json[]).flatMap((rule) => changedRules(rule, name));
  return {
    ...base,
    ...(Array.isArray(flags) && { flags: flags.filter((flag) => flag !== WAIT_KILLABLE) }),
    listenerPath,
    syscalls: ALLOWING.includes(defaultAction) ? [...rules, ...rulesOfDefault(rules)] : rules,
  };
}

/**
 * Read a profile, and make the one for the agent.
 * @param file  undefined: Podman's own
 * @param own   where Podman's own is; tests set others
 * @returns its text
 * @throws UsageError with one line that names the file
 */
export function switchProfileText(
  file: string | undefined,
  listenerPath: string,
  own: readonly string[] = PODMAN_PROFILES,
): string {
  for (const path of file === undefined ? own : [file]) {
    const text = textOf(path, file === undefined);
    if (text === undefined) continue;
    let base: unknown;
    try {
      base = JSON.parse(text);
    } catch (error) {
      throw new UsageError(`${path}: is not JSON: ${(error as Error).message}`);
    }
    return `${JSON.stringify(switchProfile(base, path, listenerPath), undefined, '\t')}\n`;
  }
  throw new UsageError(
    `neither ${own.join(' nor ')} is there; install the package containers-common or golang-github-containers-common`,
  );
}

/** @returns undefined if `optional` and there is no such file */
function textOf(path: string, optional: boolean): string | undefined {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > MAX_PROFILE_BYTES)
      throw new UsageError(`${path}: is larger than ${MAX_PROFILE_BYTES >>> 20} MiB`);
    return bytes.toString('utf8');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (optional && code === 'ENOENT') return undefined;
    throw new UsageError(`${path}: cannot be read: ${message.replace(/^[A-Z]+: |, \w+.*$/g, '')}`);
  }
}

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isTexts = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((one) => typeof one === 'string');

function isRule(rule: unknown): rule is Json {
  if (!isObject(rule) || typeof rule.action !== 'string') return false;
  if (
    rule.args !== undefined &&
    rule.args !== null &&
    !(Array.isArray(rule.args) && rule.args.every(isObject))
  )
    return false;
  return isTexts(rule.names) || typeof rule.name === 'string'; // one name: Docker's older format
}

/** The rules that replace one of the base. */
function changedRules(rule: Json, file: string): readonly Json[] {
  const names = namesOf(rule);
  const changed = names.filter(
    (name) => NOTIFIED.includes(name) || REFUSED.includes(name) || Object.hasOwn(FLAGS_ARGUMENT, name),
  );
  if (!ALLOWING.includes(rule.action) || changed.length === 0) return [rule];
  const { name: _, ...rest } = rule;
  const made: Json[] = [];
  const put = (names: readonly string[], changes: Json): void => {
    if (names.length > 0) made.push({ ...rest, names, ...changes });
  };
  put(
    names.filter((name) => !changed.includes(name)),
    {},
  );
  put(
    names.filter((name) => NOTIFIED.includes(name)),
    { action: NOTIFY },
  );
  put(
    names.filter((name) => REFUSED.includes(name)),
    REFUSE,
  );
  for (const name of names.filter((one) => Object.hasOwn(FLAGS_ARGUMENT, one))) {
    const before = (rule.args ?? []) as readonly Json[];
    const onFlags = before.filter(({ index }) => index === FLAGS_ARGUMENT[name]);
    if (onFlags.some(isWithoutFastOpen)) {
      put([name], {}); // a profile that this function has made
      continue;
    }
    // Runtimes take two conditions on one argument for alternatives.
    if (onFlags.length > 0)
      throw new UsageError(`${file}: has a condition on the flags of ${name}; a second one cannot be added`);
    put([name], { args: [...before, fastOpen(name, 0)] });
    put([name], { args: [...before, fastOpen(name, MSG_FASTOPEN)], ...NOT_SUPPORTED });
  }
  return made;
}

/** Of a profile that allows what no rule names: the rules for calls that it does not name without condition. */
function rulesOfDefault(rules: readonly Json[]): readonly Json[] {
  const named = new Set(rules.flatMap(namesOf));
  const left = (names: readonly string[]): readonly string[] => names.filter((name) => !named.has(name));
  const notified = left(NOTIFIED);
  const refused = left(REFUSED);
  return [
    ...(notified.length > 0 ? [{ names: notified, action: NOTIFY }] : []),
    ...(refused.length > 0 ? [{ names: refused, ...REFUSE }] : []),
    ...left(Object.keys(FLAGS_ARGUMENT)).map((name) => ({
      names: [name],
      ...NOT_SUPPORTED,
      args: [fastOpen(name, MSG_FASTOPEN)],
    })),
  ];
}

const namesOf = (rule: Json): readonly string[] =>
  typeof rule.name === 'string' && rule.names === undefined ? [rule.name] : (rule.names as readonly string[]);

const isWithoutFastOpen = ({ value, valueTwo, op }: Json): boolean =>
  op === 'SCMP_CMP_MASKED_EQ' && value === MSG_FASTOPEN && valueTwo === 0;
