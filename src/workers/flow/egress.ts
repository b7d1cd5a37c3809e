/**
 * The egress policy at work: every stage that opens flows for the guest has one object, and asks it once for
 * each new flow. Without a policy the answer is a comparison. See egress-policy.ts and egress-names.ts.
 */
import { addressText } from '../../proto/address.ts';
import type { EgressPlan } from '../engine-plan.ts';
import { Destination } from './addressing.ts';
import { EgressNames } from './egress-names.ts';
import { EgressPolicy, EgressProto } from './egress-policy.ts';

/** Where refusals are logged, limited by rate. */
export interface EgressReports {
  isDue(): boolean;
  tell(text: string): void;
}

const PROTO_NAMES = new Map(Object.entries(EgressProto).map(([name, bit]) => [bit as number, name]));

export class Egress {
  readonly #reports: EgressReports;
  #policy: EgressPolicy | null = null;
  #names: EgressNames | null = null;

  constructor(plan: EgressPlan | undefined, reports: EgressReports) {
    this.#reports = reports;
    this.set(plan);
  }

  get isOn(): boolean {
    return this.#policy !== null;
  }

  /** Take a policy over, or none. Flows that exist are the caller's matter: stillPermits(). */
  set(plan: EgressPlan | undefined): void {
    if (plan === undefined) {
      this.#policy = null;
      return;
    }
    if (this.#names?.memory !== plan.names) this.#names = new EgressNames(plan.names);
    this.#policy = new EgressPolicy(plan.policy, this.#names);
  }

  /**
   * Whether a new flow of the guest is refused. A refusal is logged.
   * @param words,w  destination as the guest sees it
   * @param destination  what Addressing.classify() says about it
   * @param proto  one bit of EgressProto
   * @param port  0 for ping
   * @param nowMs  performance.now()
   */
  refuses(
    words: Uint32Array,
    w: number,
    destination: number,
    proto: number,
    port: number,
    nowMs: number,
  ): boolean {
    if (this.#policy === null) return false;
    const verdict = this.#verdict(words, w, destination, proto, port, this.#names!.now(nowMs));
    if (verdict >= 0) return false;
    if (this.#reports.isDue()) {
      const address = addressText(words, w);
      const host = address.includes(':') && port !== 0 ? `[${address}]` : address;
      this.#tell(`${PROTO_NAMES.get(proto)} to ${host}${port === 0 ? '' : `:${port}`}`, verdict);
    }
    return true;
  }

  /** Whether a flow that exists may stay, under a new policy. Addresses of names count whatever their time. */
  stillPermits(words: Uint32Array, w: number, destination: number, proto: number, port: number): boolean {
    return this.#policy === null || this.#verdict(words, w, destination, proto, port, 0) >= 0;
  }

  #verdict(
    words: Uint32Array,
    w: number,
    destination: number,
    proto: number,
    port: number,
    nowS: number,
  ): number {
    const policy = this.#policy!;
    // The forwarder's own address: queries over UDP come to refusesQuery(). Others it does not read.
    if (destination === Destination.dns) return policy.readsQueries ? -1 - policy.rules : policy.rules;
    const leadsToHost = destination === Destination.hostLoopback || destination === Destination.hostGuest;
    return policy.decide(words, w, leadsToHost, proto, port, nowS);
  }

  /**
   * Whether a query to our forwarder is refused. A refusal is logged.
   * @param u8,at,bytes  the name in wire format without the root's zero; bytes below 0: the query has none
   */
  refusesQuery(u8: Uint8Array, at: number, bytes: number): boolean {
    const policy = this.#policy;
    if (policy === null) return false;
    if (bytes < 0) return policy.readsQueries;
    const verdict = policy.decideName(u8, at, bytes);
    if (verdict >= 0) return false;
    if (this.#reports.isDue()) this.#tell(`query for ${nameText(u8, at, bytes)}`, verdict);
    return true;
  }

  /** Whether addresses of the name have to be noted. Parameters as refusesQuery(). */
  concerns(u8: Uint8Array, at: number, bytes: number): boolean {
    return this.#policy?.concerns(u8, at, bytes) ?? false;
  }

  /**
   * Note an address of a name.
   * @param u8,at,bytes  as refusesQuery()
   * @param ttlS  as the answer gives it
   */
  learn(u8: Uint8Array, at: number, bytes: number, words: Uint32Array, ttlS: number, nowMs: number): void {
    const names = this.#names!;
    names.learn(u8, at, bytes, words, 0, ttlS, names.now(nowMs));
  }

  #tell(what: string, verdict: number): void {
    const policy = this.#policy!;
    const rule = -1 - verdict;
    const line = policy.lineOf(verdict);
    const by = rule === policy.rules ? 'by default' : line > 0 ? `in line ${line}` : `by rule ${rule + 1}`;
    this.#reports.tell(`egress policy: ${what} is denied ${by}`);
  }
}

/** A name for the log; bytes that are not printable as \\DDD (RFC 1035 section 5.1). */
function nameText(u8: Uint8Array, at: number, bytes: number): string {
  let text = '';
  for (let i = 0; i < bytes; ) {
    const end = Math.min(i + 1 + u8[at + i]!, bytes);
    if (text !== '') text += '.';
    for (i++; i < end; i++) {
      const byte = u8[at + i]!;
      const isPlain = byte > 0x20 && byte < 0x7f && byte !== 0x2e && byte !== 0x5c;
      text += isPlain ? String.fromCharCode(byte) : `\\${String(byte).padStart(3, '0')}`;
    }
  }
  return text === '' ? '.' : text;
}
