// bundle: rare
/**
 * The egress policy of a front end: its options at the start, changes by the API, addresses of the host.
 * Loaded only if an option names a policy, or the API may set one.
 */
import { readFileSync } from 'node:fs';
import { addressParse } from '../../proto/address.ts';
import { strerrorOf } from '../../sys/error.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { AddressPlan, EgressPlan } from '../../workers/engine-plan.ts';
import { Destination } from '../../workers/flow/addressing.ts';
import { Egress } from '../../workers/flow/egress.ts';
import { EGRESS_NAMES_BYTES } from '../../workers/flow/egress-names.ts';
import {
  compileEgress,
  type EgressNat64,
  EgressProto,
  type EgressRules,
} from '../../workers/flow/egress-policy.ts';
import type { EgressOptions } from '../cli/option-fields.ts';
import {
  joinPolicy,
  type PolicyPart,
  parsePolicyItems,
  parsePolicyText,
  policyText,
} from '../cli/policy-text.ts';
import { named, quoted, UsageError } from '../cli/values.ts';
import type { Judge, SwitchedConnections } from '../switching/switched-connections.ts';
import { hostPrefixes } from './host-prefixes.ts';
import type { Log } from './log.ts';

const NO_FORWARDER =
  'egress policy: rules with names match nothing, as no query comes to our DNS forwarder (pasta: add --dns-forward)';

/**
 * The rules of the options; undefined: none is given.
 * @throws UsageError that names the option and its value
 */
function rulesOf({ egress, policy }: EgressOptions): EgressRules | undefined {
  if (egress.length === 0 && policy === undefined) return undefined;
  const rules = egress.flatMap(({ allow, text }) =>
    named(allow ? '--allow' : '--deny', text, () => parsePolicyItems(text, allow)),
  );
  return joinPolicy(rules, policy === undefined ? undefined : readPolicy(policy, '--policy '));
}

/**
 * Read and parse a policy's file.
 * @param option  in front of the file's name in errors
 * @throws UsageError
 */
export function readPolicy(file: string, option = ''): PolicyPart {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${option}${quoted(file)}: ${strerrorOf(error)}`);
  }
  return parsePolicyText(text, `${option}${quoted(file)}`);
}

/** What a new policy has done to flows. */
export interface PolicyChange {
  /** Flows that it denies and that were ended. */
  readonly ended: number;
  /** Switched connections that it denies and that could not be ended. */
  readonly switchedLeft: number;
}

/** Most switched connections that are compared with a new policy at a time. */
const FLOWS_AT_A_TIME = 1000;

export class EgressControl {
  #rules: EgressRules | undefined;
  #hosts: Uint32Array = new Uint32Array(0);
  #nat64: EgressNat64 = { trusted: [], found: [] };
  #names: SharedArrayBuffer | undefined;
  /** The policy as the main thread reads it, for switched connections. The packet threads log refusals. */
  readonly #judge = new Egress(undefined, { isDue: () => false, tell: () => {} });
  readonly #words = new Uint32Array(4);
  #engine: EngineHandle | undefined;
  #log: Log = () => {};
  /** Set before started(). Absent: no socket switching. */
  switched: SwitchedConnections | undefined;
  /** Called when the policy was set or removed. */
  onChange: (() => void) | undefined;
  /** Changes are made one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  /** @throws UsageError that names the option and its value */
  constructor(options: EgressOptions) {
    this.#rules = rulesOf(options);
  }

  /**
   * The policy at the start.
   * @param host  queries the host's network
   * @param addresses  of the plan: rules with names need a forwarder
   */
  plan(host: RouteSocket, addresses: AddressPlan, log: Log): EgressPlan | undefined {
    this.#hosts = hostPrefixes(host);
    const forwards = addresses.ipv4?.dns !== undefined || addresses.ipv6?.dns !== undefined;
    const named = this.#rules?.rules.some(({ targets }) => targets.some(({ kind }) => kind === 'name'));
    if (named === true && !forwards) log('warning', NO_FORWARDER);
    this.#log = log;
    return this.#compiled();
  }

  started(engine: EngineHandle): void {
    this.#engine = engine;
  }

  /**
   * Whether a connection to a destination of the world may be made now, past the TAP; undefined: there is no
   * policy. What may not is left to the TAP, where it is refused, counted and logged as always.
   */
  get judge(): Judge | undefined {
    return this.#judge.isOn ? this.#permits : undefined;
  }

  readonly #permits: Judge = (address, port) => {
    const words = this.#words;
    if (!addressParse(address, words, 0)) return false;
    return !this.#judge.refuses(words, 0, Destination.world, EgressProto.tcp, port, performance.now());
  };

  /** There is a policy. */
  get isOn(): boolean {
    return this.#rules !== undefined;
  }

  /** The policy in force in the form of a file; undefined: none. */
  get text(): string | undefined {
    return this.#rules === undefined ? undefined : policyText(this.#rules);
  }

  /**
   * Replace the policy while the engine runs.
   * @param text  as a file; undefined: none
   * @throws UsageError: the text is not a policy, and nothing has changed
   */
  replace(text: string | undefined): Promise<PolicyChange> {
    const rules = text === undefined ? undefined : joinPolicy([], parsePolicyText(text, 'policy'));
    return this.#afterwards(() => {
      this.#rules = rules;
      this.onChange?.();
      return this.#apply();
    });
  }

  /** The host's network has changed: the word `host` is about other addresses then. */
  hostChanged(host: RouteSocket): void {
    const hosts = hostPrefixes(host);
    if (hosts.length === this.#hosts.length && hosts.every((word, i) => word === this.#hosts[i])) return;
    this.#hosts = hosts;
    this.#renew();
  }

  /** The NAT64 prefixes of the host's network are others. */
  setNat64(prefixes: EgressNat64): void {
    this.#nat64 = prefixes;
    this.#renew();
  }

  #renew(): void {
    if (this.#rules === undefined || this.#engine === undefined) return;
    void this.#afterwards(() => this.#apply());
  }

  /** Let everything have the policy that is in force now, and end what it denies. */
  async #apply(): Promise<PolicyChange> {
    const plan = this.#compiled();
    const ended = await this.#engine!.setEgress(plan);
    const { switched } = this;
    if (switched === undefined) return { ended, switchedLeft: 0 };
    await switched.setJudge(this.judge);
    // Connections that the policy before has permitted are listed by now.
    const denied = await this.#deniedOf(switched);
    const switchedLeft = denied.length === 0 ? 0 : await switched.end(denied);
    if (switchedLeft > 0)
      this.#log(
        'warning',
        `egress policy: it denies switched connections that could not be ended: ${switchedLeft} (docs/policy.md)`,
      );
    return { ended: ended + denied.length - switchedLeft, switchedLeft };
  }

  /** Ids of the switched connections that the policy denies. Addresses of names count whatever their time. */
  async #deniedOf(switched: SwitchedConnections): Promise<readonly number[]> {
    const denied: number[] = [];
    if (!this.#judge.isOn) return denied;
    const words = this.#words;
    for (let after = 0, more = true; more; ) {
      const page = await switched.flows(after, FLOWS_AT_A_TIME);
      for (const { id, destination, destinationPort } of page.flows) {
        addressParse(destination, words, 0);
        if (!this.#judge.stillPermits(words, 0, Destination.world, EgressProto.tcp, destinationPort))
          denied.push(id);
        after = id;
      }
      more = page.more && page.flows.length > 0;
    }
    return denied;
  }

  /** The policy in force, from now on for permitsTcp() too. */
  #compiled(): EgressPlan | undefined {
    let plan: EgressPlan | undefined;
    if (this.#rules !== undefined) {
      this.#names ??= new SharedArrayBuffer(EGRESS_NAMES_BYTES);
      plan = { policy: compileEgress(this.#rules, this.#hosts, this.#nat64), names: this.#names };
    }
    this.#judge.set(plan);
    return plan;
  }

  #afterwards<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#last.then(change);
    this.#last = done.catch(() => {});
    return done;
  }
}
