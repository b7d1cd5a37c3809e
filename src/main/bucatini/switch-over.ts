// bundle: rare
/**
 * `bucatini switch-over` makes one user's Podman and Buildah use our pasta and slirp4netns instead of the
 * installed ones; `switch-back` undoes this.
 *
 *   XDG_DATA_HOME/bucatini/helpers/       links pasta, slirp4netns and pesto to those in bin/
 *   XDG_CONFIG_HOME/containers/containers.conf.d/50-bucatini.conf
 *                                         [engine] helper_binaries_dir = [that directory, those before...]
 *   with --switch-sockets (switch-units.ts):
 *   XDG_DATA_HOME/bucatini/switch-sockets.json   the profile, which the drop-in names
 *   XDG_CONFIG_HOME/systemd/user/         units of the agent, unless a package has them
 *
 * The first line of this drop-in contains a digest of the rest. So a file that another program or the user
 * wrote or edited is recognised and never changed. The second line lists the directories that were made for
 * it, so that exactly those are removed later; the third one lists the other files, with digests.
 *
 * Podman 5 reads the drop-ins of one directory after the other, the user's directory last. Podman 6 sorts the
 * drop-ins of all directories by file name, so it may read a file of the machine after ours. Only Podman
 * knows which pasta it uses in the end: so we ask it.
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
import { AGENT_UNIT, agentSocket, switchedFiles, type WantedFile } from './switch-units.ts';

/** Names of the programs that Podman, Buildah and similar programs start. */
const HELPER_NAMES = ['pasta', 'slirp4netns', 'pesto'] as const;
const DROP_IN = '50-bucatini.conf';
const SIGNED =
  /^# Written by bucatini switch-over \(sha256 ([0-9a-f]{64})\); bucatini switch-back takes it away\.\n/;
const MADE = /^# Directories made for it: (\[.*\])$/m;
/** Path, digest, path, digest ... */
const FILES = /^# Files made for it: (\[.*\])$/m;
const PROFILE_NAME = 'switch-sockets.json';
/** Directories with links that `systemctl --user enable` makes to the units. */
const WANTS = ['default.target.wants', 'sockets.target.wants'] as const;
/**
 * The directories that Podman and Buildah search by default.
 * @source containers.conf(5), helper_binaries_dir
 */
const DEFAULT_DIRECTORIES = [
  '/usr/local/libexec/podman',
  '/usr/local/lib/podman',
  '/usr/libexec/podman',
  '/usr/lib/podman',
];

/** The environment that switch-over and switch-back work on; tests replace parts of it. */
export interface SwitchOptions {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
  /** Directory of the launchers. */
  readonly binDir: string;
  /** Configuration directories of the machine, in the order in which they are read. Tests set others. */
  readonly systemDirs?: readonly string[];
  /** Where Podman's own seccomp profile is. Tests set others. */
  readonly podmanProfiles?: readonly string[];
  /** The pasta that Podman finds. undefined: there is no Podman, or it does not report one. */
  podmanPasta?(): string | undefined;
  print(line: string): void;
}

const PODMAN_LIMIT_MS = 15_000;

/**
 * Ask Podman which pasta it uses for this user.
 * @param env  the caller's environment
 * @returns undefined if there is no Podman, or it does not report one
 */
export function podmanPasta(env: NodeJS.ProcessEnv): string | undefined {
  const asked = spawnSync('podman', ['info', '--format', '{{.Host.Pasta.Executable}}'], {
    encoding: 'utf8',
    env,
    timeout: PODMAN_LIMIT_MS,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const path = asked.status === 0 ? asked.stdout.trim() : '';
  return path.startsWith('/') ? path : undefined;
}

/** Whether switch-over has been done, for reports. */
export function isSwitchedOver(options: Omit<SwitchOptions, 'print'>): boolean {
  return existsSync(placesOf(options).dropIn);
}

/** The files and directories of the switch-over. */
interface Places {
  readonly uid: number;
  readonly config: string;
  readonly dropIn: string;
  readonly helpers: string;
  readonly profile: string;
  /** Directory of the user's units of systemd. */
  readonly units: string;
}

/**
 * Do the switch-over.
 * @param sockets  also for the sockets of containers (--switch-sockets); without it, what was made for them is
 *   removed
 * @returns the exit status: 0, or 1 if Podman still finds another pasta
 * @throws UsageError if a file or link of another program is in the way; nothing has been changed then
 */
export function switchOver(options: SwitchOptions, sockets = false): number {
  const { print } = options;
  const places = placesOf(options);
  const present = ourDropIn(places.dropIn);
  const names = HELPER_NAMES.filter((name) => existsSync(`${options.binDir}/${name}`));
  const links = names.map((name) => ({
    path: `${places.helpers}/${name}`,
    target: `${options.binDir}/${name}`,
    now: ourLink(`${places.helpers}/${name}`, options.binDir),
  }));

  const madeBefore = present === undefined ? [] : madeOf(present);
  const others = configuredDirectories(options, places);
  const filesBefore = ourFiles(present);
  const files = sockets ? wantedFiles(options, places, others.profile) : [];
  for (const file of files) if (!filesBefore.includes(file.path)) requireFree(file);
  const obsolete = filesBefore.filter((path) => !files.some((file) => file.path === path));
  const parents = [places.dropIn, `${places.helpers}/-`, ...files.map(({ path }) => path)].map(dirname);
  const absent = [...new Set(parents.flatMap(missingDirectories))];
  const made = [...new Set([...madeBefore, ...absent])];
  const text = signed(dropInText(places, others.directories, made, files));

  let changes = 0;
  for (const path of absent) {
    if (existsSync(path)) continue;
    mkdirSync(path, { mode: 0o755 });
    print(`made     ${path}`);
    changes++;
  }
  for (const { path, target, now } of links) {
    if (now === target) continue;
    if (now !== undefined) unlinkSync(path);
    symlinkSync(target, path);
    print(`linked   ${path} -> ${target}`);
    changes++;
  }
  for (const { path, text } of files) {
    if (textOf(path) === text) continue;
    writeFileSync(`${path}.new`, text, { mode: 0o644 });
    renameSync(`${path}.new`, path);
    print(`wrote    ${path}`);
    changes++;
  }
  if (present !== text) {
    // Replace the file atomically: Podman may read it at any moment.
    writeFileSync(`${places.dropIn}.new`, text, { mode: 0o644 });
    renameSync(`${places.dropIn}.new`, places.dropIn);
    print(`wrote    ${places.dropIn}`);
    changes++;
  }
  // The profile is removed after the drop-in that names it.
  changes += removeFiles(obsolete, places, print);
  for (const later of others.later)
    print(
      `note     ${later} also sets helper_binaries_dir and is read after ours (by Podman 6, or by every version): add "${places.helpers}" there in front`,
    );
  for (const later of sockets ? others.laterProfile : [])
    print(`note     ${later} also sets seccomp_profile and is read after ours: take it out there`);
  if (sockets) {
    print(`START    systemctl --user daemon-reload && systemctl --user enable --now ${AGENT_UNIT}`);
    print(`         without it no container starts: nobody listens at ${agentSocket(options)}`);
  }
  if (obsolete.length > 0) print(STOP_LATER);
  const found = options.podmanPasta?.();
  if (found !== undefined && found !== `${places.helpers}/pasta`) {
    print(`NOT YET  Podman still uses ${found}; see podman info -f '{{.Host.Pasta.Executable}}'`);
    return 1;
  }
  if (found !== undefined) print(`checked  podman info: ${found}`);
  else if (changes > 0) print("see      podman info -f '{{.Host.Pasta.Executable}}'");
  print(
    changes === 0
      ? 'Nothing to do: Podman and Buildah of this user already use bucatini.'
      : 'New containers of this user use bucatini; running ones keep their network. To undo: bucatini switch-back',
  );
  return 0;
}

/**
 * Undo the switch-over.
 * @returns the exit status, 0
 * @throws UsageError if a file is no longer ours; nothing has been changed then
 */
export function switchBack(options: SwitchOptions): number {
  const { print } = options;
  const places = placesOf(options);
  const present = ourDropIn(places.dropIn);
  const links = HELPER_NAMES.map((name) => `${places.helpers}/${name}`).filter(
    (path) => ourLink(path, options.binDir) !== undefined,
  );
  const files = ourFiles(present);
  if (present === undefined && links.length === 0) {
    print('Nothing to do: switch-over is not in force.');
    return 0;
  }
  if (present !== undefined) {
    unlinkSync(places.dropIn);
    print(`removed  ${places.dropIn}`);
  }
  for (const path of links) {
    unlinkSync(path);
    print(`removed  ${path}`);
  }
  removeFiles(files, places, print);
  for (const path of (present === undefined ? [] : madeOf(present)).toSorted((a, b) => b.length - a.length)) {
    if (!existsSync(path)) continue;
    if (readdirSync(path).length > 0) {
      print(`kept     ${path}: something else is in it now`);
      continue;
    }
    rmdirSync(path);
    print(`removed  ${path}`);
  }
  if (files.length > 0) print(STOP_LATER);
  print('New containers of this user use the stock tools again; running ones keep their network.');
  return 0;
}

const STOP_LATER = `STOP     systemctl --user stop ${AGENT_UNIT}.socket ${AGENT_UNIT}, once no container runs that was started with it
         (those cannot open a connection without it), then systemctl --user daemon-reload`;

/** Remove files of ours, and links to units among them. @returns how many */
function removeFiles(paths: readonly string[], { units }: Places, print: SwitchOptions['print']): number {
  const enabled = paths
    .filter((path) => dirname(path) === units)
    .flatMap((path) => WANTS.map((wants) => `${units}/${wants}/${basename(path)}`))
    .filter((path) => lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink());
  const present = [...enabled, ...paths.filter((path) => existsSync(path))];
  for (const path of present) {
    unlinkSync(path);
    print(`removed  ${path}`);
  }
  return present.length;
}

function wantedFiles(
  { env, uid, binDir, podmanProfiles }: SwitchOptions,
  { profile, units }: Places,
  base: string | undefined,
): readonly WantedFile[] {
  try {
    return switchedFiles({
      env,
      uid,
      binDir,
      profile,
      units,
      base,
      ...(podmanProfiles && { podmanProfiles }),
    });
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(`--switch-sockets: ${error.message}`);
  }
}

/** The text of a file; undefined: there is none. */
function textOf(path: string): string | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.isFile() ? readFileSync(path, 'utf8') : undefined;
}

/** @throws UsageError if another file is where one of ours is to be */
function requireFree({ path, text }: WantedFile): void {
  // A run that was interrupted may have left the same text.
  if (lstatSync(path, { throwIfNoEntry: false }) !== undefined && textOf(path) !== text)
    throw new UsageError(`${path}: was not written by switch-over; move it away`);
}

/**
 * The other files that our drop-in names; some may be missing.
 * @throws UsageError if one is not as we wrote it
 */
function ourFiles(dropIn: string | undefined): readonly string[] {
  const list = JSON.parse(FILES.exec(dropIn ?? '')?.[1] ?? '[]') as string[];
  const paths: string[] = [];
  for (let i = 0; i + 1 < list.length; i += 2) {
    const path = list[i]!;
    if (
      lstatSync(path, { throwIfNoEntry: false }) !== undefined &&
      sha256(textOf(path) ?? '') !== list[i + 1]
    )
      throw new UsageError(`${path}: was edited after switch-over wrote it; move it away, then repeat`);
    paths.push(path);
  }
  return paths;
}

function placesOf({ env, uid }: Omit<SwitchOptions, 'print'>): Places {
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
  const configHome = base('XDG_CONFIG_HOME', '.config');
  const config = `${configHome}/containers`;
  const data = `${base('XDG_DATA_HOME', '.local/share')}/bucatini`;
  return {
    uid,
    config,
    dropIn: `${config}/containers.conf.d/${DROP_IN}`,
    helpers: `${data}/helpers`,
    profile: `${data}/${PROFILE_NAME}`,
    units: `${configHome}/systemd/user`,
  };
}

/**
 * Read our drop-in.
 * @returns its text; undefined if there is none
 * @throws UsageError if it is not exactly as we wrote it
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
 * Read one of our links.
 * @returns its target; undefined if there is none
 * @throws UsageError if it is anything but a link to a launcher of ours
 */
function ourLink(path: string, binDir: string): string | undefined {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return undefined;
  const target = status.isSymbolicLink() ? readlinkSync(path) : '';
  // The directory of our launchers contains `bucatini`. A dangling link is also ours: its copy of bucatini
  // has been moved.
  const beside =
    existsSync(`${dirname(target)}/bucatini`) || !existsSync(target) || dirname(target) === binDir;
  if (target === '' || basename(target) !== basename(path) || !beside)
    throw new UsageError(`${path}: is not a link that switch-over made; move it away`);
  return target;
}

/** Missing directories of `path`, itself included; the outermost first. */
function missingDirectories(path: string): string[] {
  const missing: string[] = [];
  for (let at = path; !existsSync(at); at = dirname(at)) missing.unshift(at);
  return missing;
}

const madeOf = (text: string): string[] => JSON.parse(MADE.exec(text)?.[1] ?? '[]') as string[];

/** What is configured without our drop-in. */
interface Configured {
  /** helper_binaries_dir. */
  readonly directories: readonly string[];
  /** Files that set it and are read after ours. */
  readonly later: readonly string[];
  /** seccomp_profile; undefined: not set. */
  readonly profile: string | undefined;
  readonly laterProfile: readonly string[];
}

function configuredDirectories(options: SwitchOptions, { uid, config, dropIn }: Places): Configured {
  const files = [...(options.systemDirs ?? ['/usr/share/containers', '/etc/containers']), config].flatMap(
    (dir) => [
      `${dir}/containers.conf`,
      ...dropIns(`${dir}/containers.conf.d`),
      ...(dir === config ? [] : ofUser(dir, uid).flatMap(dropIns)),
    ],
  );
  let directories: readonly string[] = DEFAULT_DIRECTORIES;
  let profile: string | undefined;
  const later: string[] = [];
  const laterProfile: string[] = [];
  for (const file of files) {
    if (file === dropIn) continue;
    const { directories: list, profile: named } = settingsOf(file);
    const isLater = dirname(file).includes('.conf.d') && basename(file) > DROP_IN;
    const isEarlier = dirname(file) !== dirname(dropIn) || file < dropIn;
    if (isLater && list !== undefined) later.push(file);
    if (isLater && named !== undefined) laterProfile.push(file);
    if (isEarlier) {
      directories = list ?? directories;
      profile = named ?? profile;
    }
  }
  return { directories, later, profile: profile || undefined, laterProfile };
}

/** Directories of the machine's drop-ins for root only, or for other users and for this user. */
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
 * The values of helper_binaries_dir and seccomp_profile in a file: undefined if the file does not set them, or this
 * user (and so their Podman) may not read it.
 */
function settingsOf(file: string): Partial<Pick<Configured, 'directories' | 'profile'>> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return {};
  }
  const directories = helperDirectories(text);
  const profile = /^\s*seccomp_profile\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*')/m.exec(text)?.[1];
  return {
    ...(directories && { directories }),
    ...(profile && { profile: stringOfToml(profile) }),
  };
}

/** A basic or literal string of TOML. JSON's escapes are among those of TOML. */
const stringOfToml = (text: string): string =>
  text.startsWith('"') ? (JSON.parse(text) as string) : text.slice(1, -1);

function helperDirectories(text: string): readonly string[] | undefined {
  const list = /^\s*helper_binaries_dir\s*=\s*\[([^\]]*)\]/m.exec(text)?.[1];
  if (list === undefined) return undefined;
  const uncommented = list.replace(/^\s*#.*$/gm, '');
  return [...uncommented.matchAll(/"(?:[^"\\]|\\.)*"|'[^']*'/g)].map(([word]) => stringOfToml(word));
}

function dropInText(
  { helpers, profile }: Places,
  others: readonly string[],
  made: readonly string[],
  files: readonly WantedFile[],
): string {
  const digests = files.flatMap(({ path, text }) => [path, sha256(text)]);
  // JSON strings and arrays are also valid TOML strings and arrays.
  return [
    `# Directories made for it: ${JSON.stringify(made)}`,
    ...(files.length > 0 ? [`# Files made for it: ${JSON.stringify(digests)}`] : []),
    '[engine]',
    `helper_binaries_dir = ${JSON.stringify([helpers, ...others.filter((dir) => dir !== helpers)])}`,
    ...(files.length > 0 ? ['[containers]', `seccomp_profile = ${JSON.stringify(profile)}`] : []),
    '',
  ].join('\n');
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
const signed = (text: string): string =>
  `# Written by bucatini switch-over (sha256 ${sha256(text)}); bucatini switch-back takes it away.\n${text}`;
