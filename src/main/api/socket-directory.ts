// bundle: rare
/**
 * Where `--api-socket auto` puts API sockets, and where other programs of the same user find them. The first of
 *
 *   $XDG_RUNTIME_DIR/bucatini    if XDG_RUNTIME_DIR is a directory of this user
 *   /run/user/UID/bucatini       if that directory belongs to this user
 *   /tmp/bucatini-UID            mode 0700, refused if another user made it
 *
 * Other programs look in the first one if XDG_RUNTIME_DIR names a directory of this user, else in all others.
 * In it a socket is called PROGRAM-PID.sock; PROGRAM-PID-N.sock if a process of another PID namespace has that
 * name. A directory is "of this user" by its owner, not by its name: inside a user namespace our user id is
 * often 0, and the owner of a file is then shown as 0 as well.
 */
import { lstatSync, mkdirSync, readdirSync, readFileSync, statSync, unlinkSync } from 'node:fs';
import { createConnection } from 'node:net';
import { SOCKET_PATH_BYTES, UsageError } from '../cli/values.ts';

/** The value of --api-socket that means: choose the path yourself, where other programs find it. */
export const AUTO_SOCKET = 'auto';

/** Programs as the names of sockets have them. */
export type SocketProgram = 'run' | 'attach' | 'pasta' | 'slirp4netns';

/** A socket of a directory of this user. Nothing is known about the process behind it. */
export interface FoundSocket {
  readonly path: string;
  readonly program: SocketProgram;
  /** As the program itself saw it when it started. */
  readonly pid: number;
}

/** What is looked at outside of this process; tests replace it. */
export interface Surroundings {
  readonly env: NodeJS.ProcessEnv;
  /** As shown in the user namespace of this process. */
  readonly uid: number;
  /** Directories of users' run-time files. */
  readonly runUser: string;
  readonly tmp: string;
}

const here = (): Surroundings => ({
  env: process.env,
  uid: process.geteuid!(),
  runUser: '/run/user',
  tmp: '/tmp',
});

const DIRECTORY = 'bucatini';
const NAME = /^(run|attach|pasta|slirp4netns)-([1-9][0-9]{0,9})(?:-[2-9])?\.sock$/;
/** A socket that nobody listens on is removed once it is older: it might be between bind() and listen(). */
const STALE_AFTER_MS = 5000;

/**
 * Choose the path of an API socket and make its directory. Removes sockets of ended processes there.
 * @throws UsageError
 */
export async function autoSocketPath(
  program: SocketProgram,
  surroundings: Surroundings = here(),
): Promise<string> {
  const directory = makeDirectory(surroundings);
  const name = `${directory}/${program}-${process.pid}`;
  let path = `${name}.sock`;
  for (let n = 2; n <= 9 && (await answers(path)) === 'connected'; n++) path = `${name}-${n}.sock`;
  if (Buffer.byteLength(path) >= SOCKET_PATH_BYTES)
    throw new UsageError(
      `--api-socket auto: ${path} is longer than ${SOCKET_PATH_BYTES - 1} bytes; write --api-socket PATH`,
    );
  const ended = socketsIn(directory).filter(({ pid }) => !isThere(`/proc/${pid}`));
  await Promise.all(ended.map((socket) => removeIfStale(socket.path)));
  return path;
}

/** All sockets in the directories of this user, by process id; those of ended processes too. */
export function findSockets(surroundings: Surroundings = here()): readonly FoundSocket[] {
  const named = namedDirectory(surroundings);
  const directories =
    named === undefined
      ? [
          ...usualDirectories(surroundings).map((of) => `${of}/${DIRECTORY}`),
          ...temporaryDirectories(surroundings),
        ]
      : [`${named}/${DIRECTORY}`];
  return directories
    .filter((directory) => isOurs(directory, surroundings.uid))
    .flatMap(socketsIn)
    .sort((a, b) => a.pid - b.pid || (a.path < b.path ? -1 : 1));
}

/**
 * Remove a socket that nobody listens on: its process has ended without removing it. A socket that accepts a
 * connection is left alone, whatever its name says: its process may be in another PID namespace.
 * @returns whether it is stale
 */
export async function removeIfStale(path: string): Promise<boolean> {
  const refused = (await answers(path)) === 'ECONNREFUSED';
  if (refused) removeOld(path);
  return refused;
}

/** Connect to a Unix socket, and close at once. @returns "connected", or the code of the error */
export function answers(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.on('connect', () => {
      socket.destroy();
      resolve('connected');
    });
    socket.on('error', ({ code }: NodeJS.ErrnoException) => resolve(code));
  });
}

/** Remove the socket of an ended process, unless it has just been made. */
export function removeOld(path: string): void {
  try {
    const stat = lstatSync(path);
    if (stat.isSocket() && Math.abs(Date.now() - stat.mtimeMs) > STALE_AFTER_MS) unlinkSync(path);
  } catch {
    // Another process has removed it.
  }
}

function makeDirectory(surroundings: Surroundings): string {
  const { uid, tmp } = surroundings;
  const runtime = namedDirectory(surroundings) ?? usualDirectories(surroundings)[0];
  const directory =
    runtime === undefined
      ? (temporaryDirectories(surroundings)[0] ?? `${tmp}/${DIRECTORY}-${outerUid(uid)}`)
      : `${runtime}/${DIRECTORY}`;
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') throw new UsageError(`--api-socket auto: cannot make ${directory}: ${code}`);
  }
  if (!isOurs(directory, uid))
    throw new UsageError(
      `--api-socket auto: ${directory} is not a directory of this user alone; write --api-socket PATH`,
    );
  return directory;
}

/** XDG_RUNTIME_DIR, if it is a directory of this user: after su or sudo it may be another's. */
function namedDirectory({ env, uid }: Surroundings): string | undefined {
  const named = env.XDG_RUNTIME_DIR?.replace(/\/+$/, '');
  return named?.startsWith('/') && ownerOf(named) === uid ? named : undefined;
}

/** Directories of users' run-time files that belong to this user: one, or none. */
const usualDirectories = ({ uid, runUser }: Surroundings): readonly string[] =>
  names(runUser)
    .filter((name) => /^[0-9]+$/.test(name))
    .map((name) => `${runUser}/${name}`)
    .filter((path) => ownerOf(path) === uid);

/** Our directories among those in /tmp. */
const temporaryDirectories = ({ uid, tmp }: Surroundings): readonly string[] =>
  names(tmp)
    .filter((name) => name.startsWith(`${DIRECTORY}-`) && /^[0-9]+$/.test(name.slice(DIRECTORY.length + 1)))
    .map((name) => `${tmp}/${name}`)
    .filter((path) => isOurs(path, uid));

function socketsIn(directory: string): FoundSocket[] {
  return names(directory).flatMap((name) => {
    const [, program, pid] = NAME.exec(name) ?? [];
    if (program === undefined) return [];
    return [{ path: `${directory}/${name}`, program: program as SocketProgram, pid: Number(pid) }];
  });
}

function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** @returns undefined if it is not a directory */
function ownerOf(path: string): number | undefined {
  try {
    const stat = statSync(path);
    return stat.isDirectory() ? stat.uid : undefined;
  } catch {
    return undefined;
  }
}

/** Whether it is a directory, not a link, that belongs to this user and that nobody else can use. */
function isOurs(path: string, uid: number): boolean {
  try {
    const stat = lstatSync(path);
    return stat.isDirectory() && stat.uid === uid && (stat.mode & 0o077) === 0;
  } catch {
    return false;
  }
}

function isThere(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Our user id in the user namespace around ours, user_namespaces(7): inside of ours it is often 0. */
function outerUid(uid: number): number {
  let map = '';
  try {
    map = readFileSync('/proc/self/uid_map', 'utf8');
  } catch {
    // Without /proc.
  }
  for (const line of map.split('\n')) {
    const [inner, outer, count] = line.trim().split(/\s+/).map(Number);
    if (inner !== undefined && uid >= inner && uid < inner + (count ?? 0)) return outer! + uid - inner;
  }
  return uid;
}
