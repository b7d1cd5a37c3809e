// bundle: rare
/**
 * `bucatini switch-over` and `switch-back`: our pasta and slirp4netns in the place of the stock ones for one user's Podman and
 * Buildah, and back.
 *
 *   XDG_DATA_HOME/bucatini/helpers/pasta, .../slirp4netns         links to bin/pasta, bin/slirp4netns
 *   XDG_CONFIG_HOME/containers/containers.conf.d/50-bucatini.conf  [engine] helper_binaries_dir = [that directory, those before...]
 *
 * The drop-in's first line carries a digest of the rest, and the next names the directories that were made
 * for it: a file that somebody else wrote or edited is told from ours and never touched, and what was made is
 * taken away exactly.
 *
 * Podman 5 reads the drop-ins of one directory after the other, the user's last. Podman 6 reads those of all
 * directories in one order of file names, so a file of the machine may be read after ours. Which pasta is
 * used then is Podman's to say: it is asked.
 *
 * @source containers.conf(5), containers-config(5): a list replaces the one before it
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { UsageError } from '../cli/values.ts';

/** Front ends that Podman, Buildah and their kin start by these names. */
const HELPER_NAMES = ['pasta', 'slirp4netns'] as const;
const DROP_IN = '50-bucatini.conf';
const SIGNED =
  /^# Written by bucatini switch-over \(sha256 ([0-9a-f]{64})\); bucatini switch-back takes it away\.\n/;
const MADE = /^# Directories made for it: (\[.*\])$/m;
/**
 * What Podman and Buildah look through when nothing is configured. @source containers.conf(5),
 * helper_binaries_dir
 */
const DEFAULT_DIRECTORIES = [
  '/usr/local/libexec/podman',
  '/usr/local/lib/podman',
  '/usr/libexec/podman',
  '/usr/lib/podman',
];

export interface SwitchOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
  /** Where the launchers are. */
  readonly binDir: string;
  /** Configuration of the machine, in the order it is read; for tests elsewhere than /. */
  readonly systemDirs?: readonly string[];
  /** Which pasta Podman finds; undefined where there is no Podman, or it does not tell. */
  podmanPasta?(): string | undefined;
  tell(line: string): void;
}

const PODMAN_LIMIT_MS = 15_000;

/** What Podman of this user uses, as it says itself. */
export function podmanPasta(): string | undefined {
  const asked = spawnSync('podman', ['info', '--format', '{{.Host.Pasta.Executable}}'], {
    encoding: 'utf8',
    timeout: PODMAN_LIMIT_MS,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const path = asked.status === 0 ? asked.stdout.trim() : '';
  return path.startsWith('/') ? path : undefined;
}

/** Where switch-over has been, for reports. */
export function isSwitchedOver(options: Omit<SwitchOptions, 'tell'>): boolean {
  return existsSync(placesOf(options).dropIn);
}

interface Places {
  readonly uid: number;
  readonly config: string;
  readonly dropIn: string;
  readonly helpers: string;
}

/** @returns 0, or 1 where Podman says that it finds another pasta; @throws UsageError where something is in the way, and then nothing is changed */
export function switchOver(options: SwitchOptions): number {
  const { tell } = options;
  const places = placesOf(options);
  const present = ourDropIn(places.dropIn);
  const names = HELPER_NAMES.filter((name) => existsSync(`${options.binDir}/${name}`));
  const links = names.map((name) => ({
    path: `${places.helpers}/${name}`,
    target: `${options.binDir}/${name}`,
    now: ourLink(`${places.helpers}/${name}`, options.binDir),
  }));

  const madeBefore = present === undefined ? [] : madeOf(present);
  const absent = [...missingDirectories(dirname(places.dropIn)), ...missingDirectories(places.helpers)];
  const made = [...new Set([...madeBefore, ...absent])];
  const others = configuredDirectories(options, places);
  const text = signed(dropInText(places.helpers, others.directories, made));

  let changes = 0;
  for (const path of absent) {
    if (existsSync(path)) continue;
    mkdirSync(path, { mode: 0o755 });
    tell(`made     ${path}`);
    changes++;
  }
  for (const { path, target, now } of links) {
    if (now === target) continue;
    if (now !== undefined) unlinkSync(path);
    symlinkSync(target, path);
    tell(`linked   ${path} -> ${target}`);
    changes++;
  }
  if (present !== text) {
    // Whole or not at all: Podman may read it at any moment.
    writeFileSync(`${places.dropIn}.new`, text, { mode: 0o644 });
    renameSync(`${places.dropIn}.new`, places.dropIn);
    tell(`wrote    ${places.dropIn}`);
    changes++;
  }
  for (const later of others.later)
    tell(
      `note     ${later} also sets helper_binaries_dir and is read after ours (by Podman 6, or by every version): add "${places.helpers}" there in front`,
    );
  const found = options.podmanPasta?.();
  if (found !== undefined && found !== `${places.helpers}/pasta`) {
    tell(`NOT YET  Podman still uses ${found}; see podman info -f '{{.Host.Pasta.Executable}}'`);
    return 1;
  }
  if (found !== undefined) tell(`checked  podman info: ${found}`);
  else if (changes > 0) tell("see      podman info -f '{{.Host.Pasta.Executable}}'");
  tell(
    changes === 0
      ? 'Nothing to do: Podman and Buildah of this user already use bucatini.'
      : 'New containers of this user use bucatini; running ones keep their network. To undo: bucatini switch-back',
  );
  return 0;
}

/** @returns 0; @throws UsageError where a file is not ours any more, and then nothing is changed */
export function switchBack(options: SwitchOptions): number {
  const { tell } = options;
  const places = placesOf(options);
  const present = ourDropIn(places.dropIn);
  const links = HELPER_NAMES.map((name) => `${places.helpers}/${name}`).filter(
    (path) => ourLink(path, options.binDir) !== undefined,
  );
  if (present === undefined && links.length === 0) {
    tell('Nothing to do: switch-over is not in force.');
    return 0;
  }
  if (present !== undefined) {
    unlinkSync(places.dropIn);
    tell(`removed  ${places.dropIn}`);
  }
  for (const path of links) {
    unlinkSync(path);
    tell(`removed  ${path}`);
  }
  for (const path of (present === undefined ? [] : madeOf(present)).toSorted((a, b) => b.length - a.length)) {
    if (!existsSync(path)) continue;
    if (readdirSync(path).length > 0) {
      tell(`kept     ${path}: something else is in it now`);
      continue;
    }
    rmdirSync(path);
    tell(`removed  ${path}`);
  }
  tell('New containers of this user use the stock tools again; running ones keep their network.');
  return 0;
}

function placesOf({ env, uid }: Omit<SwitchOptions, 'tell'>): Places {
  const home = env.HOME ?? '';
  if (!home.startsWith('/')) throw new UsageError(`HOME ${JSON.stringify(home)}: is not an absolute path`);
  const owner = statSync(home, { throwIfNoEntry: false })?.uid;
  if (owner === undefined) throw new UsageError(`HOME ${JSON.stringify(home)}: no such directory`);
  if (owner !== uid)
    throw new UsageError(
      `HOME ${JSON.stringify(home)}: belongs to user ${owner}, but this runs as user ${uid}; run it as the user whose containers are meant`,
    );
  const base = (name: string, fallback: string): string => {
    const value = env[name] || `${home}/${fallback}`; // empty means unset, XDG Base Directory Specification
    if (!value.startsWith('/'))
      throw new UsageError(`${name} ${JSON.stringify(value)}: is not an absolute path`);
    return value.replace(/\/+$/, '');
  };
  const config = `${base('XDG_CONFIG_HOME', '.config')}/containers`;
  return {
    uid,
    config,
    dropIn: `${config}/containers.conf.d/${DROP_IN}`,
    helpers: `${base('XDG_DATA_HOME', '.local/share')}/bucatini/helpers`,
  };
}

/**
 * The drop-in's text, undefined where there is none.
 * @throws UsageError for one that is not as we wrote it
 */
function ourDropIn(path: string): string | undefined {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return undefined;
  if (!lstatSync(path).isFile())
    throw new UsageError(`${path}: is not a file that switch-over wrote; move it away`);
  const text = readFileSync(path, 'utf8');
  const digest = SIGNED.exec(text)?.[1];
  if (digest === undefined) throw new UsageError(`${path}: was not written by switch-over; move it away`);
  if (digest !== sha256(text.replace(SIGNED, '')))
    throw new UsageError(`${path}: was edited after switch-over wrote it; move it away, then repeat`);
  return text;
}

/**
 * Where the link leads, undefined where there is none.
 * @throws UsageError for anything but a link to a launcher of ours
 */
function ourLink(path: string, binDir: string): string | undefined {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return undefined;
  const target = status.isSymbolicLink() ? readlinkSync(path) : '';
  // Ours lie beside a `bucatini`; one that leads nowhere is ours too when it was made by a copy that has been
  // moved.
  const beside =
    existsSync(`${dirname(target)}/bucatini`) || !existsSync(target) || dirname(target) === binDir;
  if (target === '' || basename(target) !== basename(path) || !beside)
    throw new UsageError(`${path}: is not a link that switch-over made; move it away`);
  return target;
}

/** Directories on the way to `path`, itself included, that are not there; outermost first. */
function missingDirectories(path: string): string[] {
  const missing: string[] = [];
  for (let at = path; !existsSync(at); at = dirname(at)) missing.unshift(at);
  return missing;
}

const madeOf = (text: string): string[] => JSON.parse(MADE.exec(text)?.[1] ?? '[]') as string[];

/** The list in force without us, and files that are read after ours and set it again. */
function configuredDirectories(
  options: SwitchOptions,
  { uid, config, dropIn }: Places,
): { directories: readonly string[]; later: readonly string[] } {
  const files = [...(options.systemDirs ?? ['/usr/share/containers', '/etc/containers']), config].flatMap(
    (dir) => [
      `${dir}/containers.conf`,
      ...dropIns(`${dir}/containers.conf.d`),
      ...(dir === config ? [] : ofUser(dir, uid).flatMap(dropIns)),
    ],
  );
  let directories: readonly string[] = DEFAULT_DIRECTORIES;
  const later: string[] = [];
  for (const file of files) {
    if (file === dropIn) continue;
    const list = helperDirectories(file);
    if (list === undefined) continue;
    const isDropIn = dirname(file).includes('.conf.d');
    if (isDropIn && basename(file) > DROP_IN) later.push(file);
    if (dirname(file) !== dirname(dropIn) || file < dropIn) directories = list;
  }
  return { directories, later };
}

/** Drop-ins of the machine for root alone, or for other users and for this one. */
const ofUser = (dir: string, uid: number): string[] =>
  uid === 0
    ? [`${dir}/containers.rootful.conf.d`]
    : [`${dir}/containers.rootless.conf.d`, `${dir}/containers.rootless.conf.d/${uid}`];

function dropIns(dir: string): string[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir)
    .filter((name) => name.endsWith('.conf'))
    .sort()
    .map((name) => `${dir}/${name}`);
}

/**
 * helper_binaries_dir of a file; undefined: not set there, or not readable for us as it then is not for
 * Podman either.
 */
function helperDirectories(file: string): readonly string[] | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
  const list = /^\s*helper_binaries_dir\s*=\s*\[([^\]]*)\]/m.exec(text)?.[1];
  if (list === undefined) return undefined;
  const uncommented = list.replace(/^\s*#.*$/gm, '');
  return [...uncommented.matchAll(/"((?:[^"\\]|\\.)*)"|'([^']*)'/g)].map((m) =>
    m[1] === undefined ? m[2]! : (JSON.parse(`"${m[1]}"`) as string),
  );
}

function dropInText(helpers: string, others: readonly string[], made: readonly string[]): string {
  // JSON's strings are TOML's basic strings, its arrays TOML's arrays.
  return [
    `# Directories made for it: ${JSON.stringify(made)}`,
    '[engine]',
    `helper_binaries_dir = ${JSON.stringify([helpers, ...others.filter((dir) => dir !== helpers)])}`,
    '',
  ].join('\n');
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const signed = (text: string): string =>
  `# Written by bucatini switch-over (sha256 ${sha256(text)}); bucatini switch-back takes it away.\n${text}`;
