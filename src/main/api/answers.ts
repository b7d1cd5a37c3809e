// bundle: rare
/**
 * Answers of the API (docs/api.md), checked and typed, for its clients (client.ts). What an engine leaves out
 * is absent; what it should not say is dropped: clients print it and compute with it.
 */
import { type ApiClientOptions, askApi, oneLine } from './client.ts';

type Json = Readonly<Record<string, unknown>>;

/** One flow. Names as in the API's answer. */
export interface FlowAnswer {
  readonly id: number;
  readonly proto: string;
  readonly state: string;
  readonly path: string;
  /** Of a switched connection: interface of the host. */
  readonly device?: string;
  readonly guest_addr: string;
  readonly guest_port?: number;
  readonly echo_id?: number;
  readonly remote_addr: string;
  readonly remote_port?: number;
  readonly bytes_from_guest: number;
  readonly bytes_to_guest: number;
  readonly age_ms: number;
  readonly rtt_us?: number;
  readonly retransmits?: number;
  readonly cwnd?: number;
  readonly guest_rtt_us?: number;
  readonly guest_retransmits?: number;
}

export interface HistogramAnswer {
  readonly name: string;
  readonly unit: 'us' | 'frames';
  readonly help: string;
  readonly buckets: readonly (readonly [value: number, count: number])[];
}

export interface StatsAnswer {
  readonly counters: Readonly<Record<string, number>>;
  readonly threads: readonly {
    readonly thread: string;
    readonly counters: Record<string, number>;
  }[];
  readonly histograms: readonly HistogramAnswer[];
  readonly uptimeMs?: number;
  /** When it was answered, in milliseconds since 1970. */
  readonly timeMs?: number;
}

/** A listener: a port or a range of ports. */
export interface PortAnswer {
  readonly proto: string;
  /** Side that connects: host or guest. */
  readonly from: string;
  readonly address: string;
  readonly interface?: string;
  readonly port: number;
  readonly last_port?: number;
  readonly target_addr: string;
  readonly target_port: number;
  readonly path: string;
  /** Of a port that the API socket added. */
  readonly id?: number;
}

export interface FailedPortAnswer extends PortAnswer {
  /** Absent: none of the listener's ports could be bound. */
  readonly failed_port?: number;
  readonly reason: string;
}

export interface PortsAnswer {
  readonly ports: readonly PortAnswer[];
  readonly failed: readonly FailedPortAnswer[];
}

export interface FlowsAnswer {
  readonly flows: readonly FlowAnswer[];
  /** There are more than were asked for. */
  readonly more: boolean;
}

const PAGE_FLOWS = 1000;
const MAX_TEXT = 128;
const MAX_COUNTERS = 1000;
const MAX_THREADS = 64;
/** Of a bucket: the engine's are below (ring/histograms.ts), and tables have no higher ones. */
const MAX_VALUE = 2 ** 28 - 1;
/** Of a bucket: the sums of a histogram stay whole numbers that a double has exactly. */
const MAX_COUNT = 2 ** 40;

/**
 * All flows of an engine, at most `limit`.
 * @throws ApiError
 */
export async function askFlows(path: string, limit: number, options: ApiClientOptions): Promise<FlowsAnswer> {
  const flows: FlowAnswer[] = [];
  let after = -1;
  while (flows.length < limit) {
    const page = record(
      await askApi(path, 'list_flows', { after, limit: Math.min(PAGE_FLOWS, limit - flows.length) }, options),
    );
    const listed = list(page.flows, PAGE_FLOWS).map(readFlow);
    flows.push(...listed);
    const last = listed.at(-1)?.id ?? -1;
    // An id that does not rise would be asked for without end.
    if (page.more !== true || last <= after) return { flows, more: page.more === true };
    after = last;
  }
  return { flows, more: true };
}

/** @throws ApiError */
export async function askStats(path: string, options: ApiClientOptions): Promise<StatsAnswer> {
  const from = record(await askApi(path, 'stats', undefined, options));
  return {
    counters: readCounters(from.counters),
    threads: list(from.threads, MAX_THREADS).map((thread) => ({
      thread: text(thread.thread),
      counters: readCounters(thread.counters),
    })),
    histograms: list(from.histograms, MAX_THREADS).map((histogram) => ({
      name: text(histogram.name),
      unit: histogram.unit === 'frames' ? 'frames' : 'us',
      help: text(histogram.help),
      buckets: readBuckets(histogram.buckets),
    })),
    ...optional('uptimeMs', from.uptimeMs),
    ...optional('timeMs', from.timeMs),
  };
}

/** @throws ApiError */
export async function askPorts(path: string, options: ApiClientOptions): Promise<PortsAnswer> {
  const from = record(await askApi(path, 'list_ports', undefined, options));
  return {
    ports: list(from.ports, Number.POSITIVE_INFINITY).map(readPort),
    failed: list(from.failed, Number.POSITIVE_INFINITY).map((port) => ({
      ...readPort(port),
      ...optional('failed_port', port.failed_port),
      reason: text(port.reason),
    })),
  };
}

/** @returns the text of a policy; null: there is none. @throws ApiError */
export async function askPolicy(path: string, options: ApiClientOptions): Promise<string | null> {
  const { policy } = record(await askApi(path, 'get_policy', undefined, options));
  return typeof policy === 'string' ? policy : null;
}

function readFlow(from: Json): FlowAnswer {
  return {
    id: number(from.id),
    proto: text(from.proto),
    state: text(from.state),
    path: text(from.path),
    ...(typeof from.device === 'string' && { device: text(from.device) }),
    guest_addr: text(from.guest_addr),
    ...optional('guest_port', from.guest_port),
    ...optional('echo_id', from.echo_id),
    remote_addr: text(from.remote_addr),
    ...optional('remote_port', from.remote_port),
    bytes_from_guest: number(from.bytes_from_guest),
    bytes_to_guest: number(from.bytes_to_guest),
    age_ms: number(from.age_ms),
    ...optional('rtt_us', from.rtt_us),
    ...optional('retransmits', from.retransmits),
    ...optional('cwnd', from.cwnd),
    ...optional('guest_rtt_us', from.guest_rtt_us),
    ...optional('guest_retransmits', from.guest_retransmits),
  };
}

function readPort(from: Json): PortAnswer {
  return {
    proto: text(from.proto),
    from: text(from.from),
    address: text(from.address),
    ...(typeof from.interface === 'string' && { interface: text(from.interface) }),
    port: number(from.port),
    ...optional('last_port', from.last_port),
    target_addr: text(from.target_addr),
    target_port: number(from.target_port),
    path: text(from.path),
    ...optional('id', from.id),
  };
}

function readCounters(value: unknown): Record<string, number> {
  const counters: [string, number][] = Object.entries(record(value))
    .slice(0, MAX_COUNTERS)
    .map(([name, count]) => [text(name), number(count)]);
  return Object.fromEntries(counters);
}

const readBuckets = (value: unknown): (readonly [number, number])[] =>
  (Array.isArray(value) ? value : [])
    .slice(0, MAX_COUNTERS)
    .filter((pair) => Array.isArray(pair))
    .map(([at, count]) => [Math.min(number(at), MAX_VALUE), Math.min(number(count), MAX_COUNT)] as const);

const record = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {});

const list = (value: unknown, most: number): Json[] =>
  (Array.isArray(value) ? value : []).slice(0, most).map(record);

const text = (value: unknown): string =>
  typeof value === 'string' ? oneLine(value).slice(0, MAX_TEXT) : typeof value === 'number' ? `${value}` : '';

/** A finite number that is not negative; 0 if it is none. */
const number = (value: unknown): number =>
  typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : 0;

function optional<K extends string>(name: K, value: unknown): { readonly [key in K]?: number } {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0
    ? ({ [name]: value } as { readonly [key in K]: number })
    : {};
}
