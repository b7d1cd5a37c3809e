/**
 * Rootless Podman of an ordinary user, in the tree that scripts/podman-tree.sh makes, on the network of the
 * test bed. Two logins can be open at once, one whose Podman uses our pasta and one with that of the tree;
 * each has its own storage and run-time directory in memory.
 */
import { existsSync } from 'node:fs';
import { type Bed, supportProgram } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';
import {
  childrenOf,
  eventually,
  type Finished,
  runToEnd,
  type Started,
  sleepMs,
} from '../support/process.ts';

export type Tool = 'ours' | 'stock';
/** A tree of scripts/podman-tree.sh. */
export type Tree = '5.4' | '6.1' | 'callers';
/**
 * The publisher of ports of containers on bridge networks: `rootless_port_forwarder` of containers.conf,
 * new in Podman 6.
 */
export type Forwarder = 'rootlessport' | 'pasta';
/**
 * The first directory where Podman searches pasta and slirp4netns, and the first one in a caller's PATH;
 * paths in the tree.
 */
const HELPERS: Readonly<Record<Tool, string>> = { ours: '/run/ours', stock: '/usr/bin' };
const UP_MS = 10_000;
const PODMAN_MS = 60_000;
const TENTATIVE_MS = 1000;
export const IMAGE = 'localhost/tools';

/**
 * Make a tree, or use the existing one.
 * @returns its path; @throws Error with the output of the script
 */
export async function podmanTree(which: Tree = '5.4'): Promise<string> {
  const made = await runToEnd(['sh', `${repoRoot}/scripts/podman-tree.sh`, which], { timeoutMs: 300_000 });
  const path = made.stdout.trim();
  if (made.status !== 0 || !existsSync(`${path}/image.tar`)) throw new Error(`no tree: ${made.stderr}`);
  return path;
}

/** What the machine lacks for Podman; undefined: nothing. */
export function podmanNeeds(): string | undefined {
  if (process.getuid?.() !== 0) return 'rootless Podman is tried in a tree that only root can make and enter';
  return ['/usr/bin/apt-get', '/usr/bin/dpkg-deb'].find((path) => !existsSync(path))?.concat(' is missing');
}

export class Podman {
  readonly tool: Tool;
  readonly bed: Bed;
  readonly forwarder: Forwarder;
  readonly #holder: Started;
  readonly #pid: string;
  #serial = 0;

  private constructor(tool: Tool, bed: Bed, forwarder: Forwarder, holder: Started, pid: string) {
    this.tool = tool;
    this.bed = bed;
    this.forwarder = forwarder;
    this.#holder = holder;
    this.#pid = pid;
  }

  /**
   * @param bed  a privileged one
   * @param forwarder  undefined: not set; before Podman 6 it is rootlessport
   */
  static async login(bed: Bed, tree: string, tool: Tool, forwarder?: Forwarder): Promise<Podman> {
    const enter = ['sh', `${repoRoot}/test/podman/enter.sh`, tree, repoRoot, HELPERS[tool]];
    if (forwarder !== undefined) enter.push(forwarder);
    const holder = bed.start('host', ['unshare', '--mount', '--propagation', 'private', '--', ...enter]);
    const pid = await Promise.race([
      eventually('the tree is entered', UP_MS, () => /^up (\d+)$/m.exec(holder.printed().stdout)?.[1]),
      holder.exited.then((status) => {
        throw new Error(`entering ${tree} ended with status ${status}: ${holder.printed().stderr}`);
      }),
    ]);
    const podman = new Podman(tool, bed, forwarder ?? 'rootlessport', holder, pid);
    await podman.importImage();
    return podman;
  }

  async importImage(): Promise<void> {
    await this.succeed('import', '-q', '/image.tar', IMAGE);
  }

  #argv(argv: readonly string[]): string[] {
    return [
      ...['nsenter', '-t', this.#pid, '--mount', '--root', '--'],
      ...['setpriv', '--reuid=1000', '--regid=1000', '--clear-groups', '--'],
      ...[
        'env',
        '-C',
        '/home/rl',
        '-i',
        'HOME=/home/rl',
        'USER=rl',
        'XDG_RUNTIME_DIR=/run/user/1000',
        'LANG=C.UTF-8',
      ],
      ...['CONTAINERS_CONF_OVERRIDE=/run/helpers.conf', 'PATH=/usr/bin:/usr/sbin', ...argv],
    ];
  }

  /** Any program, as the user in the tree. */
  exec(...argv: string[]): Promise<Finished> {
    return this.bed.run('host', this.#argv(argv), { timeoutMs: PODMAN_MS });
  }

  /**
   * The same in the background, finding the tool in PATH; `end` gives a signal to the program itself and
   * waits.
   */
  background(...argv: string[]): Started & { end(signal: NodeJS.Signals): Promise<number> } {
    const path = `PATH=${HELPERS[this.tool]}:/usr/bin:/usr/sbin`;
    const started = this.bed.start('host', this.#argv(['env', path, ...argv]));
    const end = (signal: NodeJS.Signals): Promise<number> => {
      const [program] = childrenOf(started.pid); // our own child waits outside of the bed's PID namespace
      if (program !== undefined) process.kill(program, signal);
      return started.exited;
    };
    return { ...started, end };
  }

  run(...argv: string[]): Promise<Finished> {
    return this.exec('podman', ...argv);
  }

  /** @returns the output of a command. @throws Error when the status is not 0 */
  async succeed(...argv: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(...argv);
    if (status !== 0) throw new Error(`podman ${argv.join(' ')}: status ${status}: ${stderr || stdout}`);
    return stdout.trim();
  }

  /** A container in the background. @returns its name */
  async start(options: readonly string[], script: string): Promise<string> {
    const name = `c${++this.#serial}`;
    // A shell as the first process ignores SIGTERM: --init passes it on.
    const argv = ['run', '-d', '--init', '--name', name, ...options, IMAGE, 'sh', '-c', script];
    await this.#despiteTentative(() => this.succeed(...argv), name);
    return name;
  }

  /** @returns the output of `script` in a container of its own */
  once(network: string, script: string, ...options: string[]): Promise<string> {
    const name = `c${++this.#serial}`;
    const argv = ['run', '--rm', '--name', name, '--network', network, ...options];
    return this.#despiteTentative(() => this.succeed(...argv, IMAGE, 'sh', '-c', script), name);
  }

  /**
   * aardvark-dns fails while the bridge's IPv6 address is still tentative, with any pasta: try again, twice
   * at most.
   */
  async #despiteTentative<T>(work: () => Promise<T>, name: string): Promise<T> {
    for (let triesLeft = 2; ; triesLeft--) {
      try {
        return await work();
      } catch (error) {
        if (triesLeft === 0 || !(error as Error).message.includes('aardvark-dns')) throw error;
        await this.run('rm', '-f', '-t', '0', name);
        await sleepMs(TENTATIVE_MS);
      }
    }
  }

  inside(name: string, script: string): Promise<string> {
    return this.succeed('exec', name, 'sh', '-c', script);
  }

  /** All processes of pasta and slirp4netns, ours or the tree's. */
  engines(): string[] {
    const pattern = /(\/| )(pasta|slirp4netns)\/main(\.js)? |^\d+ (\S*\/)?(pasta(\.avx2)?|slirp4netns) /;
    return this.bed.processes().filter((line) => pattern.test(line));
  }

  /** Where Podman keeps the files of the pasta of its bridges. */
  async bridgesDir(): Promise<string> {
    return `${await this.succeed('info', '-f', '{{.Store.RunRoot}}')}/networks/rootless-netns`;
  }

  /** Processes of Podman's other helpers of networks. */
  helpers(): string[] {
    return this.bed.processes().filter((line) => /^\d+ \S*(aardvark-dns|netavark|rootlessport)/.test(line));
  }

  /** The version line of a program of the tree. */
  async version(program: string): Promise<string> {
    return (await this.exec(program, '--version')).stdout.split('\n')[0]!;
  }

  /** Check that no process or container of a case is left for the next one. */
  async clean(): Promise<void> {
    await this.run('rm', '-f', '-a', '-t', '0');
    await this.run('pod', 'rm', '-f', '-a', '-t', '0');
    await this.run('network', 'prune', '-f');
  }

  async logout(): Promise<void> {
    await this.clean();
    this.#holder.process.kill();
  }
}

/** Answer of a server that may not listen yet. */
export async function answer(bed: Bed, where: 'host' | 'peer', argv: readonly string[]): Promise<string> {
  let last: Finished | undefined;
  try {
    return await eventually('an answer', 5000, async () => {
      last = await bed.run(where, argv);
      return last.status === 0 && last.stdout !== '' && last.stdout;
    });
  } catch (error) {
    throw new Error(`${argv.join(' ')}: ${last?.stderr ?? ''} ${last?.stdout ?? ''}`, { cause: error });
  }
}

export const fetched = (bed: Bed, where: 'host' | 'peer', url: string): Promise<string> =>
  answer(bed, where, ['curl', '-sS', '-f', '-m', '3', url]);

/** Send a datagram from `where`. @returns the answer */
export const asked = (bed: Bed, where: 'host' | 'peer', address: string, port: number): Promise<string> =>
  answer(bed, where, supportProgram('clients/udp-ask.ts', address, port, 40_100 + (port % 100), 'hello'));
