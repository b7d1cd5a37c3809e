/** A namespace with a network, and what can be done with it. */
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { type Capture, type CaptureOptions, startCapture } from './capture.ts';
import { Engine } from './engine.ts';
import { BucatiniError } from './error.ts';
import { type Impairment, lineArguments, type NetworkOptions, toArguments } from './options.ts';
import {
  type NetworkProcess,
  type RunOptions,
  type RunResult,
  type SpawnOptions,
  spawnInside,
} from './process.ts';

/** Addresses of one family inside. */
export interface AddressInfo {
  /** Address inside. */
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  /** Address of the DNS forwarder, as programs inside use it. Absent: DNS is not forwarded. */
  readonly dns?: string;
}

/** What the network is like. It does not change. */
export interface NetworkInfo {
  /** Version of bucatini. */
  readonly version: string;
  /** Process id of the engine, for example for `bucatini top`. */
  readonly pid: number;
  /** Process id of a process in the new namespaces, for example for `nsenter --target`. */
  readonly namespacePid: number;
  /** Name of the interface inside. */
  readonly interfaceName: string;
  /** In bytes. */
  readonly mtu: number;
  /** Absent: there is no IPv4 inside. */
  readonly ipv4?: AddressInfo;
  /** Absent: there is no IPv6 inside. */
  readonly ipv6?: AddressInfo;
}

/** A flow: a connection, the datagrams between two ports, or a ping. docs/api.md explains the fields. */
export interface Flow {
  readonly id: number;
  readonly proto: 'tcp' | 'udp' | 'icmp' | 'icmpv6';
  /** For example `established`. */
  readonly state: string;
  readonly path: 'tap' | 'splice';
  /** Address inside. */
  readonly guestAddress: string;
  /** Absent: a ping. */
  readonly guestPort?: number;
  readonly remoteAddress: string;
  /** Absent: a ping. */
  readonly remotePort?: number;
  /** Of a ping. */
  readonly echoId?: number;
  /** Payload in bytes. */
  readonly bytesFromGuest: number;
  /** Payload in bytes. */
  readonly bytesToGuest: number;
  /** Milliseconds since the first packet. */
  readonly ageMs: number;
  /** Round-trip time of the host's TCP connection in microseconds; absent where the kernel knows none. */
  readonly rttUs?: number;
  /** Segments that the host's kernel has sent again on it. */
  readonly retransmits?: number;
  /** Congestion window of it, in segments. */
  readonly cwnd?: number;
  /** Round-trip time between the engine and the program inside, in microseconds. */
  readonly guestRttUs?: number;
  /** Segments that the engine has sent again to the program inside. */
  readonly guestRetransmits?: number;
}

/** Counters by name: docs/counters.md. */
export type Counters = Readonly<Record<string, number>>;

/** What the engine has counted. */
export interface Stats {
  /** Milliseconds since the engine's start. */
  readonly uptimeMs: number;
  /** When this was, in milliseconds as of Date.now(). */
  readonly timeMs: number;
  readonly counters: Counters;
  /** The same for each thread. */
  readonly threads: readonly { readonly thread: string; readonly counters: Counters }[];
  /** Latencies: docs/counters.md. */
  readonly histograms: Readonly<Record<string, unknown>>;
}

/**
 * The emulated line as the engine has it: rates in bit/s, sizes in bytes, shares from 0 to 1 (docs/api.md).
 */
export interface ImpairmentState {
  readonly seed: number;
  /** What leaves the namespace. */
  readonly up: Readonly<Record<string, unknown>>;
  /** What comes to it. */
  readonly down: Readonly<Record<string, unknown>>;
  /** The sections for some destinations. */
  readonly rules: readonly Readonly<Record<string, unknown>>[];
}

/** A port to publish. */
export interface PublishOptions {
  /** Port inside. */
  readonly port: number;
  /** Port of the host. Default: a free one. */
  readonly hostPort?: number | undefined;
  /** Address of the host to listen on. Default: 127.0.0.1, so only programs of this host can connect. */
  readonly hostAddress?: string | undefined;
  /** Address inside, of the same family. Default: that of the namespace. */
  readonly address?: string | undefined;
  /** Default: `tcp`. */
  readonly protocol?: 'tcp' | 'udp' | undefined;
}

/** A published port. */
export interface PublishedPort extends AsyncDisposable {
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
  /** Close the port of the host; connections continue. Later calls have no effect. */
  close(): Promise<void>;
}

type Json = Readonly<Record<string, unknown>>;

const LISTEN_HERE = '127.0.0.1';
/** A free port may be taken by another program before the engine listens on it. */
const FREE_PORT_TRIES = 5;
const FLOWS_OF_A_PAGE = 1000;

/** A namespace with a network; see {@link createNetwork}. */
export class Network implements AsyncDisposable, Disposable {
  /** What the network is like. */
  readonly info: NetworkInfo;
  readonly #ended: Promise<BucatiniError | undefined>;
  readonly #engine: Engine;
  readonly #processes = new Set<NetworkProcess>();
  readonly #captures = new Set<Capture>();
  #closed: Promise<void> | undefined;
  #isOver = false;

  /** @internal */
  constructor(engine: Engine, info: NetworkInfo, signal: AbortSignal | undefined) {
    this.#engine = engine;
    this.info = info;
    const abort = (): void => void this.close();
    signal?.addEventListener('abort', abort, { once: true });
    this.#ended = engine.ended.then((error) => {
      this.#isOver = true;
      signal?.removeEventListener('abort', abort);
      return error;
    });
  }

  /**
   * Resolves when the network has ended: with `undefined` after close(), else with the reason, for example
   * that the engine was killed. A network does not keep this process from ending, unless `ended` has been
   * read.
   */
  get ended(): Promise<BucatiniError | undefined> {
    this.#engine.ref();
    return this.#ended;
  }

  /**
   * Run a program inside to its end. An exit status other than 0 is no error.
   * @param command  a program, by path or in PATH; not a shell's command line
   * @throws BucatiniError if there is no such program, or it prints too much; the reason of `options.signal`
   */
  async run(command: string, args: readonly string[] = [], options: RunOptions = {}): Promise<RunResult> {
    const { input, maxOutputBytes, ...others } = options;
    others.signal?.throwIfAborted();
    const stdio = [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] as const;
    const child = this.spawn(command, args, { ...others, stdio: [...stdio] });
    if (input !== undefined) child.stdin?.end(input);
    const result = await child.output(maxOutputBytes);
    others.signal?.throwIfAborted();
    return result;
  }

  /**
   * Start a program inside. It ends with the network at the latest.
   * @param command  a program, by path or in PATH; not a shell's command line
   * @throws BucatiniError if there is no such program
   */
  spawn(command: string, args: readonly string[] = [], options: SpawnOptions = {}): NetworkProcess {
    if (this.#closed !== undefined || this.#isOver)
      throw new BucatiniError('ended', `${command}: the network has ended`);
    const child = spawnInside(this.info.namespacePid, command, args, options);
    this.#processes.add(child);
    const forget = (): void => void this.#processes.delete(child);
    child.exited.then(forget, forget);
    return child;
  }

  /**
   * Publish a port: connections to the port of the host reach the port inside.
   * @param port  a TCP port inside, or more than that
   * @throws BucatiniError if the port of the host is taken or may not be opened
   */
  async publish(port: number | PublishOptions): Promise<PublishedPort> {
    const options = typeof port === 'number' ? { port } : port;
    const { protocol = 'tcp', hostAddress = LISTEN_HERE } = options;
    checkPort(options.port);
    if (options.hostPort !== undefined) checkPort(options.hostPort);
    for (let tries = options.hostPort === undefined ? FREE_PORT_TRIES : 1; ; tries--) {
      const hostPort = options.hostPort ?? (await freePort(protocol, hostAddress));
      try {
        return await this.#publish({ ...options, protocol, hostAddress, hostPort });
      } catch (error) {
        if (tries > 1 && (error as BucatiniError).code === 'refused') continue;
        throw error;
      }
    }
  }

  async #publish(plan: PublishOptions & Omit<PublishedPort, keyof AsyncDisposable | 'close'>) {
    const { port, hostPort, hostAddress, address, protocol } = plan;
    const answer = this.#engine.ask('add_hostfwd', {
      proto: protocol,
      host_addr: hostAddress,
      host_port: hostPort,
      guest_port: port,
      ...(address !== undefined && { guest_addr: address }),
    });
    const { id } = (await answer.catch((error: BucatiniError) => {
      if (error.code !== 'refused') throw error;
      const why = (error.cause as { readonly reason?: string }).reason ?? error.message;
      const text = `publish ${hostAddress} port ${hostPort}/${protocol} to port ${port}: ${why}`;
      throw new BucatiniError('refused', text, { cause: error });
    })) as { readonly id: number };
    let closed: Promise<void> | undefined;
    const close = (): Promise<void> => (closed ??= this.#unpublish(id));
    return { hostAddress, hostPort, port, protocol, close, [Symbol.asyncDispose]: close };
  }

  async #unpublish(id: number): Promise<void> {
    try {
      await this.#engine.ask('remove_hostfwd', { id });
    } catch (error) {
      if ((error as BucatiniError).code !== 'ended') throw error; // with the network all ports are closed
    }
  }

  /** All flows that exist. */
  async flows(): Promise<Flow[]> {
    const all: Flow[] = [];
    for (let after: number | undefined = -1; after !== undefined; ) {
      const page = (await this.#engine.ask('list_flows', { after, limit: FLOWS_OF_A_PAGE })) as {
        readonly flows: readonly Json[];
        readonly more: boolean;
      };
      all.push(...page.flows.map(toFlow));
      after = page.more ? all.at(-1)?.id : undefined;
    }
    return all;
  }

  /** What the engine has counted so far. */
  async stats(): Promise<Stats> {
    return (await this.#engine.ask('stats')) as Stats;
  }

  /** The rules of the egress policy, as docs/policy.md writes them; `null`: there is none. */
  async policy(): Promise<string | null> {
    return ((await this.#engine.ask('get_policy')) as { readonly policy: string | null }).policy;
  }

  /**
   * Replace the egress policy: what programs inside may reach. Flows that the new one denies end.
   * @param rules  as in a file (docs/policy.md), one in each line; `null`: everything may be reached
   * @returns how many flows ended
   * @throws BucatiniError with the line that is wrong
   */
  async setPolicy(rules: string | null): Promise<number> {
    const answer = await this.#engine.ask('set_policy', { policy: rules });
    return (answer as { readonly flows_ended: number }).flows_ended;
  }

  /**
   * The emulated line.
   * @throws BucatiniError if the network was made without the option `impairment`
   */
  async impairment(): Promise<ImpairmentState> {
    return (await this.#engine.ask('get_impairment').catch(explainNoLine)) as ImpairmentState;
  }

  /**
   * Replace the emulated line. Settings that are not given are as on a line that changes nothing; the seed
   * stays.
   * @param line  settings, the name of a profile, or `none`
   * @throws BucatiniError with the setting that is wrong, or if the network was made without the option
   *   `impairment`
   */
  async setImpairment(line: Omit<Impairment, 'seed'> | string): Promise<ImpairmentState> {
    const answer = this.#engine.ask('set_impairment', lineArguments(line));
    return (await answer.catch(explainNoLine)) as ImpairmentState;
  }

  /**
   * Capture frames, from now on. One capture can run at a time, that of the option `pcap` included.
   * @throws BucatiniError, for example about the filter
   */
  async capture(options: CaptureOptions = {}): Promise<Capture> {
    const capture = await startCapture(this.#engine, options);
    this.#captures.add(capture);
    return capture;
  }

  /**
   * Write the frames that the option `pcapRing` keeps to the file of `pcap`, for example when a test has failed.
   * @returns what was written, in words
   * @throws BucatiniError if the network was made without the option `pcapRing`
   */
  async writeCapture(): Promise<string> {
    return ((await this.#engine.ask('write_capture')) as { readonly written: string }).written;
  }

  /**
   * End the network and all programs inside, by SIGKILL, and wait for that. Then nothing of it is left: no
   * process, no descriptor, no listener. Later calls wait for the same end.
   */
  close(): Promise<void> {
    this.#closed ??= this.#end();
    return this.#closed;
  }

  async #end(): Promise<void> {
    // Their files are complete then. What failed is for who calls stop().
    await Promise.all(Array.from(this.#captures, (capture) => capture.stop().catch(() => {})));
    await this.#engine.end();
    await Promise.all(Array.from(this.#processes, (child) => child.exited.catch(() => {})));
  }

  /** The same as close(), for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** For `using`: ends everything at once, but does not wait. Prefer `await using`. */
  [Symbol.dispose](): void {
    this.#engine.kill();
    void this.close();
  }
}

/**
 * Make a namespace with a network: new user, network, mount and PID namespaces, without privileges. Programs
 * inside see the files of this machine, their own processes, and a network that the engine connects to the
 * host's. The network ends with close(), with `await using`, when `options.signal` aborts, and when this
 * process ends, however that happens.
 * @throws BucatiniError with the message of `bucatini run`; the reason of `options.signal`
 * @example
 * ```ts
 * await using network = await createNetwork({ impairment: { delay: '50ms', loss: '5%' } });
 * const { status, stdout } = await network.run('curl', ['-s', 'https://example.org/']);
 * ```
 */
export async function createNetwork(options: NetworkOptions = {}): Promise<Network> {
  const { signal, onLog, impairment } = options;
  signal?.throwIfAborted();
  const engine = new Engine(toArguments(options), onLog);
  const abort = (): void => void engine.end();
  signal?.addEventListener('abort', abort, { once: true });
  try {
    await engine.ready();
    const info = toInfo((await engine.ask('info')) as Json);
    if (typeof impairment === 'object') await engine.ask('set_impairment', lineArguments(impairment));
    signal?.throwIfAborted();
    return new Network(engine, info, signal);
  } catch (error) {
    await engine.end();
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

function toInfo(answer: Json): NetworkInfo {
  const ipv4 = toAddressInfo(answer.ipv4 as Json | undefined);
  const ipv6 = toAddressInfo(answer.ipv6 as Json | undefined);
  return {
    version: answer.version as string,
    pid: answer.pid as number,
    namespacePid: answer.namespacePid as number,
    interfaceName: answer.interface as string,
    mtu: answer.mtu as number,
    ...(ipv4 && { ipv4 }),
    ...(ipv6 && { ipv6 }),
  };
}

function toAddressInfo(plan: Json | undefined): AddressInfo | undefined {
  if (plan === undefined) return undefined;
  const { guest, prefixLen, gateway, dns } = plan as Record<string, never>;
  return { address: guest!, prefixLength: prefixLen!, gateway: gateway!, ...(dns !== undefined && { dns }) };
}

/** Names of the API in this library's style: guest_addr becomes guestAddress. */
function toFlow(entry: Json): Flow {
  const named = (name: string): string =>
    name.replace(/_addr$/, '_address').replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(
    Object.entries(entry).map(([name, value]) => [named(name), value]),
  ) as unknown as Flow;
}

function checkPort(port: number): void {
  if (Number.isInteger(port) && port > 0 && port < 65536) return;
  throw new BucatiniError('argument', `publish: port ${port}: write a number from 1 to 65535`);
}

function explainNoLine(error: BucatiniError): never {
  if (!error.message.startsWith('no emulated line')) throw error;
  const text = "no emulated line: write createNetwork({ impairment: 'none' }) to set one later";
  throw new BucatiniError('refused', text, { cause: error });
}

/**
 * A port of the host that is free at this moment.
 * @throws BucatiniError if the address is none of this host's
 */
async function freePort(protocol: 'tcp' | 'udp', address: string): Promise<number> {
  try {
    return await (protocol === 'udp' ? freeUdpPort(address) : freeTcpPort(address));
  } catch (error) {
    throw new BucatiniError('refused', `publish: no port of ${address} can be opened`, { cause: error });
  }
}

function freeTcpPort(address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, address, () => {
      const { port } = server.address() as { readonly port: number };
      server.close(() => resolve(port));
    });
  });
}

function freeUdpPort(address: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    socket.once('error', (error) => {
      socket.close();
      reject(error);
    });
    socket.bind(0, address, () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}
