/**
 * `bucatini run`. The start, as far as possible in parallel:
 *
 *   packet thread      main thread (or namespace thread, netns.ts)   chain (command.ts)
 *   ─────────────      ───────────────────────────────────────────   ──────────────────
 *   boots              options, read host's network, unshare
 *                      resolv.conf, spawn ─────────────────────────▶ sh … env, sh
 *                      make the TAP
 *   starts ◀────────── task
 *                      addresses, routes                             "started"
 *   "ready" ─────────▶ "go" ───────────────────────────────────────▶ COMMAND
 *
 * The launcher has put this process into a user namespace of its own, as root, and left it in the host's
 * network namespace. If COMMAND ends, the engine ends, and vice versa; if this process is killed, both end
 * (command.ts).
 */
import { closeSync, realpathSync } from 'node:fs';
import { constants as os } from 'node:os';
import { exitNow } from '../../sys/process.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { BootedThread } from '../../workers/packet-worker.ts';
import type { EgressControl } from '../host/egress-control.ts';
import type { NetnsError } from '../host/netns.ts';
import { RESOLV_CONF, readResolvConf, resolvConfText } from '../host/resolv-conf.ts';
import { endWithin, type Sandbox, type SetUpStep, serve } from '../host/start.ts';
import { queueFds } from '../host/threads.ts';
import { forgetEnvironment } from '../process/callers-environment.ts';
import { Command, CommandError, findProgram, type PrivateResolvConf, ProcError } from '../process/command.ts';
import { launcherVariable } from '../process/launcher-env.ts';
import { forwardSignals } from '../process/signals.ts';
import { Terminal } from '../process/terminal.ts';
import type { SwitchControl } from '../switching/switch-control.ts';
import { forwarders } from './address-plan.ts';
import { SettingsFrontEnd, type SettingsStart, settingsStart } from './engine-launch.ts';
import type { NetnsTap } from './netns-setup.ts';
import type { Settings } from './options.ts';

/**
 * Run `bucatini run`.
 * @param booted    a packet thread that is booting
 * @param operands  COMMAND and its arguments; empty: the user's shell
 * @param env       environment for COMMAND
 * @param version   of the package
 * @returns the exit status
 * @throws CommandError, NetnsError or Error with one line for the user
 */
export async function run(
  booted: BootedThread,
  settings: Settings,
  operands: readonly string[],
  env: NodeJS.ProcessEnv,
  version: () => string,
): Promise<number> {
  const argv = commandLine(operands, env);
  const start = await settingsStart({
    booted,
    settings,
    version,
    target: { kind: 'new' },
    program: 'bucatini run',
  });
  // Before the main thread may enter the namespace: the supervisor has to be in the host's.
  const switching =
    settings.switchSockets && new (await import('../switching/switch-control.ts')).SwitchControl(start.log);
  return serve(new Run(start, argv, env, switching));
}

class Run extends SettingsFrontEnd {
  readonly #terminal = new Terminal();
  readonly #settings: Settings;
  readonly #argv: readonly string[];
  readonly #env: NodeJS.ProcessEnv;
  override readonly switched: SwitchControl | undefined;
  readonly #egress: EgressControl | undefined;
  #namespaceFd = -1;
  #command: Command | undefined;
  #engine: EngineHandle | undefined;
  /** A signal ends this process. */
  #endingBySignal = false;

  constructor(
    start: SettingsStart,
    argv: readonly string[],
    env: NodeJS.ProcessEnv,
    switching: SwitchControl | undefined,
  ) {
    super(start);
    this.switched = switching;
    this.#egress = start.egress;
    if (start.egress !== undefined) start.egress.switched = switching;
    this.#settings = start.settings;
    this.#argv = argv;
    this.#env = env;
    forwardSignals(
      () => (this.#command?.running ? this.#command : undefined),
      (name) => {
        this.#endingBySignal = true;
        this.#command?.kill();
        // Threads may still be booting. The runtime's own clean-up of such threads has ended the process by
        // another signal.
        void endWithin(this.#engine).then(() => exitNow(128 + os.signals[name]));
      },
      this.#terminal,
      start.settings.pcapRing === undefined ? [] : ['SIGUSR2'],
    );
  }

  readonly tapOfOurs = ({ tap }: NetnsTap): readonly number[] => queueFds(tap);

  async setUpFailed(error: NetnsError, step: SetUpStep): Promise<Error> {
    this.giveOutputBack();
    if (step === 'namespace') (await import('./reenter.ts')).reenterOwnNamespaces(error.code);
    return error;
  }

  readonly startCommand = (namespaceFd: number): void => {
    this.#namespaceFd = namespaceFd;
    try {
      this.#command = this.#spawn(true);
    } catch (error) {
      if (!(error instanceof ProcError)) throw error;
      // COMMAND then sees ours.
      this.log(
        'warning',
        `COMMAND sees the caller's /proc, as a new one cannot be mounted (${error.message})`,
      );
      this.#command = this.#spawn(false);
    }
    this.switched?.started(this.#command.firstPid);
  };

  #spawn(mountProc: boolean): Command {
    const resolvConf = privateResolvConf(this.#settings);
    return new Command({
      argv: this.#argv,
      env: this.#env,
      mountProc,
      openFiles: launcherVariable('BUCATINI_OPEN_FILES'),
      supervised: this.switched?.supervision,
      ...(this.netns.mainInside ? {} : { namespaceFd: this.#namespaceFd }),
      ...(resolvConf && { resolvConf }),
    });
  }

  async engineStarted(engine: EngineHandle, { network }: NetnsTap): Promise<void> {
    this.#engine = engine;
    void this.switched?.setJudge(this.#egress?.judge);
    const { noSwitch, outboundInterface: device, logLevel } = this.#settings;
    const outbound = { device4: device, device6: device };
    this.switched?.begin({ noSwitch, outbound, explains: logLevel === 'debug' }, network.addresses);
    for (const note of await this.#commandStarted()) this.log('warning', note);
  }

  async #commandStarted(): Promise<readonly string[]> {
    try {
      return await this.#command!.started;
    } catch (error) {
      // A signal ended COMMAND, and will end this process in a moment.
      if (this.#endingBySignal) await new Promise(() => {});
      throw error;
    }
  }

  protected override get namespacePid(): number | undefined {
    return this.#command?.firstPid;
  }

  protected async sandbox(): Promise<Sandbox> {
    closeSync(this.#namespaceFd); // no later step enters the namespace
    forgetEnvironment(this.#env); // COMMAND has it
    await this.switched?.ready();
    const { directories, signalled } = this.#command!;
    const supervisor = this.switched === undefined ? [] : [this.switched.pid];
    return { readable: directories, signals: [...signalled, ...supervisor] };
  }

  ready({ network }: NetnsTap): void {
    this.log('info', `${network.interfaceName}: ${network.summary}`);
    this.#command!.go();
  }

  ends(): readonly Promise<number>[] {
    return [this.#command!.ended, ...(this.switched === undefined ? [] : [this.switched.lost])];
  }

  stop(): void {
    this.#command?.kill();
    this.switched?.kill();
  }

  afterEngine(): void {
    this.#terminal.restore();
  }
}

/**
 * COMMAND and its arguments; without operands the user's shell.
 * @throws CommandError if it cannot be executed
 */
function commandLine(operands: readonly string[], env: NodeJS.ProcessEnv): readonly string[] {
  if (operands.length > 0) {
    findProgram(operands[0]!);
    return operands;
  }
  const shell = env.SHELL || '/bin/sh';
  try {
    findProgram(shell);
    return [shell];
  } catch (error) {
    throw new CommandError(`your shell (SHELL): ${(error as Error).message}`, (error as CommandError).status);
  }
}

/**
 * The resolv.conf that COMMAND sees.
 * @returns undefined if the host has none or DNS is not forwarded
 */
function privateResolvConf(settings: Settings): PrivateResolvConf | undefined {
  const host = readResolvConf();
  const forwards = forwarders(settings);
  if (host === undefined || forwards.length === 0) return undefined;
  return { path: realpathSync(RESOLV_CONF), text: resolvConfText(forwards, host) };
}
