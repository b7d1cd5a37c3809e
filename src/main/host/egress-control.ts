// bundle: rare
/**
 * The egress policy of a front end: its options at the start, changes by the API, addresses of the host.
 * Loaded only if an option names a policy, or the API may set one.
 */
import { readFileSync } from 'node:fs';
import { strerrorOf } from '../../sys/error.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import type { AddressPlan, EgressPlan } from '../../workers/engine-plan.ts';
import { EGRESS_NAMES_BYTES } from '../../workers/flow/egress-names.ts';
import { compileEgress, type EgressNat64, type EgressRules } from '../../workers/flow/egress-policy.ts';
import type { EgressOptions } from '../cli/option-fields.ts';
import {
  joinPolicy,
  type PolicyPart,
  parsePolicyItems,
  parsePolicyText,
  policyText,
} from '../cli/policy-text.ts';
import { named, quoted, UsageError } from '../cli/values.ts';
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

export class EgressControl {
  #rules: EgressRules | undefined;
  #hosts: Uint32Array = new Uint32Array(0);
  #nat64: EgressNat64 = { trusted: [], found: [] };
  #names: SharedArrayBuffer | undefined;
  #engine: EngineHandle | undefined;
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
    return this.#compiled();
  }

  started(engine: EngineHandle): void {
    this.#engine = engine;
  }

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
   * @returns how many flows were ended
   * @throws UsageError: the text is not a policy, and nothing has changed
   */
  replace(text: string | undefined): Promise<number> {
    const rules = text === undefined ? undefined : joinPolicy([], parsePolicyText(text, 'policy'));
    return this.#afterwards(() => {
      this.#rules = rules;
      this.onChange?.();
      return this.#engine!.setEgress(this.#compiled());
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
    void this.#afterwards(() => this.#engine!.setEgress(this.#compiled()));
  }

  #compiled(): EgressPlan | undefined {
    if (this.#rules === undefined) return undefined;
    this.#names ??= new SharedArrayBuffer(EGRESS_NAMES_BYTES);
    return { policy: compileEgress(this.#rules, this.#hosts, this.#nat64), names: this.#names };
  }

  #afterwards<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#last.then(change);
    this.#last = done.catch(() => {});
    return done;
  }
}
