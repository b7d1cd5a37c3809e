/**
 * `bucatini attach`: serves a namespace that another program made, until it is gone
 * (host/namespace-watch.ts).
 */
import { existsSync } from 'node:fs';
import type { EngineHandle } from '../../workers/engine.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import { quoted, requireUtf8, UsageError } from '../cli/values.ts';
import type { FileWatch } from '../host/file-watch.ts';
import {
  type HeldNamespace,
  holdNamespace,
  type NamedNamespace,
  NamespaceWatch,
} from '../host/namespace-watch.ts';
import type { NetnsError } from '../host/netns.ts';
import { watchHangUp, writeReadyByte } from '../host/ready-exit.ts';
import { type Sandbox, type SetUpStep, serve } from '../host/start.ts';
import { descriptorOfPath, isInherited } from '../process/inherited-descriptors.ts';
import { SettingsFrontEnd, type SettingsStart, settingsStart } from './engine-launch.ts';
import type { NetnsTap } from './netns-setup.ts';
import type { Settings } from './options.ts';

/**
 * Run `bucatini attach`.
 * @param booted    a packet thread that is booting
 * @param operands  the process id or the path
 * @param version   of the package
 * @returns the exit status
 * @throws UsageError, NetnsError or Error with one line for the user
 */
export async function attach(
  booted: BootedThread,
  settings: Settings,
  operands: readonly string[],
  version: () => string,
): Promise<number> {
  const target = parseTarget(operands);
  for (const [option, fd] of [
    ['--ready-fd', settings.readyFd],
    ['--exit-fd', settings.exitFd],
  ] as const)
    if (fd !== undefined && !isInherited(fd))
      throw new UsageError(`${option} ${fd}: this descriptor is not open; leave it open for bucatini`);
  if (target.pid === undefined) requireUtf8('', target.path);
  const held = holdNamespace(target);
  if (held.identity === undefined) throw new UsageError(notFoundText(target));
  const start = await settingsStart({
    booted,
    settings,
    version,
    target: { kind: 'path', path: target.path },
    program: 'bucatini attach',
  });
  return serve(new Attach(start, held));
}

class Attach extends SettingsFrontEnd {
  readonly #target: HeldNamespace;
  readonly #settings: Pick<Settings, 'readyFd' | 'exitFd'>;
  readonly #end = Promise.withResolvers<string>();
  #watch: NamespaceWatch | undefined;

  constructor(start: SettingsStart, target: HeldNamespace) {
    super(start);
    this.#target = target;
    this.#settings = start.settings;
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => this.#end.resolve(name));
  }

  async setUpFailed(error: NetnsError, step: SetUpStep): Promise<Error> {
    this.giveOutputBack();
    if (step === 'tap') (await import('./reenter.ts')).reenterOwnerOf(this.#target.path, error.code);
    return error;
  }

  protected sandbox(engine: EngineHandle, files: FileWatch): Sandbox {
    const target = this.#target;
    const { readyFd, exitFd } = this.#settings;
    if (exitFd !== undefined)
      watchHangUp(exitFd, engine, () => this.#end.resolve('the descriptor of --exit-fd is closed'));
    const gone = (): void => this.#end.resolve('the namespace is gone');
    const watched = new NamespaceWatch(target, engine, files, gone);
    this.#watch = watched;
    return {
      watched,
      keepOpen: [...descriptorOfPath(target.path), ...[readyFd, exitFd].filter((fd) => fd !== undefined)],
      watchesProcess: target.pid !== undefined && watched.polls,
    };
  }

  ready({ network }: NetnsTap): void {
    this.log('info', `ready: ${network.interfaceName}: ${network.summary}`);
    if (this.#settings.readyFd !== undefined) writeReadyByte(this.#settings.readyFd);
  }

  ends(): readonly Promise<number>[] {
    const ended = this.#end.promise.then((why) => {
      this.log('info', `${why}, ending`);
      return 0;
    });
    return [ended];
  }

  stop(): void {
    this.#watch?.stop();
  }
}

/**
 * Parse the operand of `attach`: a process id or a path.
 * @throws UsageError
 */
function parseTarget(operands: readonly string[]): NamedNamespace {
  const [word, ...rest] = operands;
  if (word === undefined || word === '') {
    throw new UsageError('no namespace given; write a process id or the path of a network namespace');
  }
  if (rest.length > 0)
    throw new UsageError(
      `${quoted(rest[0]!)}: unexpected argument; write one process id or path, after the options`,
    );
  if (!/^[0-9]+$/.test(word)) return { path: word };
  const pid = Number(word);
  if (pid === 0 || pid > 0x7fff_ffff) throw new UsageError(`${word}: not a process id`);
  return { path: `/proc/${pid}/ns/net`, pid };
}

function notFoundText(target: NamedNamespace): string {
  if (target.pid === undefined) {
    const named = `/run/netns/${target.path}`; // as `ip netns add` makes it
    const hint = !target.path.includes('/') && existsSync(named) ? `; did you mean ${named}?` : '';
    return `${quoted(target.path)}: no such file, or this user may not see it${hint}`;
  }
  return `${target.pid}: no such process, or not one of yours`;
}
