// bundle: rare
/**
 * The NAT64 prefixes of the host's network: found by DNS (RFC 7050, nat64-query.ts) or given by --nat64. They
 * are offered to the guest in router advertisements (RFC 8781), and the egress policy looks for IPv4
 * addresses behind them.
 *
 * It is asked for a prefix only where one matters: the host has a route to the internet over IPv6, and none
 * over IPv4, or there is an egress policy. Where IPv4 works, the guest has it from us and needs no NAT64. A
 * route by a CLAT's interface counts as one. Nothing is asked before the start is over.
 *
 * A prefix is asked for again before the TTL of its records ends. An answer without a prefix is valid until
 * the host's route or resolvers change. Without any answer we ask again, each time after twice the time; where
 * no prefix is known, LAST_TRY times.
 */
import { addressText } from '../../proto/address.ts';
import { type Nat64Prefix, nat64Equal, nat64Find } from '../../proto/nat64.ts';
import type { Pref64 } from '../../proto/ndp.ts';
import { SysError } from '../../sys/error.ts';
import type { RouteSocket } from '../../sys/netlink.ts';
import type { EngineHandle } from '../../workers/engine.ts';
import { type ChosenRoute, chosenRoute } from './chosen-route.ts';
import type { Log } from './log.ts';
import { Nat64Query } from './nat64-query.ts';
import type { Nat64Wish } from './nat64-wish.ts';

/**
 * Lifetime of an offer, the greatest of the option (RFC 8781 section 4). It is repeated and, when a prefix is
 * gone, withdrawn by us.
 */
const LIFETIME_S = 65_528;
/** Most prefixes in use, and most that are withdrawn at a time. */
const MAX_PREFIXES = 4;
/** Time from the start, or a change, to a query: routes and resolvers settle meanwhile. */
const SETTLE_MS = 100;
/** Time until an answer counts as missing, doubled with each try. */
const ANSWER_MS = 2000;
const ANSWER_MAX_MS = 3_600_000;
/** Tries where no prefix is known: about four minutes. */
const LAST_TRY = 6;
/** Tries where some resolvers answer and a known prefix is missing. */
const MISSING_TRIES = 3;
/** A prefix is asked for again this long before its TTL ends (RFC 7050 section 3). */
const REFRESH_BEFORE_S = 10;
const REFRESH_MIN_S = 60;
const REFRESH_MAX_S = 86_400;

const prefixText = ({ words, bits }: Nat64Prefix): string =>
  `${addressText(Uint32Array.from(words), 0)}/${bits}`;

const isIn = (list: readonly Nat64Prefix[], prefix: Nat64Prefix): boolean =>
  list.some((other) => nat64Equal(other, prefix));

const areSame = (a: readonly Nat64Prefix[], b: readonly Nat64Prefix[]): boolean =>
  a.length === b.length && a.every((prefix) => isIn(b, prefix));

/** Follows the prefixes of the host's network. */
export class Nat64 {
  readonly #wish: Nat64Wish;
  /** Undefined: nothing is asked. */
  readonly #query: Pick<Nat64Query, 'fd' | 'ask' | 'receive'> | undefined;
  readonly #engine: Pick<EngineHandle, 'watchReadable' | 'setPref64'>;
  readonly #host: Pick<RouteSocket, 'links' | 'routeTo'>;
  readonly #log: Log;
  #resolvers: readonly string[];
  #timer: NodeJS.Timeout | undefined;
  #lookTimer: NodeJS.Timeout | undefined;
  /** Waits for an answer once more; undefined: it was never waited for one. */
  #armAgain: (() => void) | undefined;
  /** Routes and resolvers at the last query; undefined: none was sent, or it did not matter. */
  #askedFor: string | undefined;
  #tries = 0;
  #isAsking = false;
  /** The prefixes in use are those of another route or of other resolvers. */
  #isStale = false;
  /** Resolvers that have not answered the query. */
  #silent = new Set<number>();
  /** Definite answers to it. */
  #found: Nat64Prefix[] = [];
  #hasAnswer = false;
  #ttlS = REFRESH_MAX_S;
  /** The prefixes in use. */
  #prefixes: readonly Nat64Prefix[] = [];
  /** Those of the egress policy. */
  #policys: readonly Nat64Prefix[] = [];
  #hasIpv4 = false;
  #offered: readonly Pref64[] = [];

  /**
   * @param query  undefined if the kernel has no IPv6
   * @param resolvers  as AddressPlan.resolvers
   */
  constructor(
    wish: Nat64Wish,
    query: Pick<Nat64Query, 'fd' | 'ask' | 'receive'> | undefined,
    engine: Pick<EngineHandle, 'watchReadable' | 'setPref64'>,
    host: Pick<RouteSocket, 'links' | 'routeTo'>,
    resolvers: readonly string[],
    log: Log,
  ) {
    this.#wish = wish;
    this.#query = query;
    this.#engine = engine;
    this.#host = host;
    this.#resolvers = resolvers;
    this.#log = log;
  }

  /** The engine runs. */
  begin(): void {
    const { choice, egress } = this.#wish;
    if (choice === 'auto') {
      if (egress !== undefined) egress.onChange = () => this.#lookSoon();
      // A policy waits for the answer; for the guest there is time.
      if (egress?.isOn === true) this.#look();
      else this.#lookSoon();
      return;
    }
    this.#engine.setPref64(choice.map((prefix) => ({ ...prefix, lifetimeS: LIFETIME_S })));
  }

  /** The host's network has changed. */
  networkChanged(): void {
    this.#lookSoon();
  }

  /** The host's resolvers have changed. @param list  as AddressPlan.resolvers */
  setResolvers(list: readonly string[]): void {
    this.#resolvers = list;
    this.#lookSoon();
  }

  stop(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#lookTimer);
  }

  #lookSoon(): void {
    if (this.#wish.choice !== 'auto') return;
    this.#lookTimer ??= setTimeout(() => {
      this.#lookTimer = undefined;
      this.#look();
    }, SETTLE_MS).unref();
  }

  /** Ask, if a prefix matters, and if something has changed since the last query. */
  #look(): void {
    if (this.#query === undefined) return;
    const reason = this.#reason();
    if (reason === this.#askedFor) {
      this.#publish(this.#prefixes); // the host may have got or lost IPv4
      return;
    }
    this.#askedFor = reason;
    clearTimeout(this.#timer);
    this.#tries = 0;
    this.#isAsking = false;
    this.#isStale = true;
    if (reason === undefined) this.#publish([]);
    else this.#ask();
  }

  /** What the answer depends on: the route over IPv6 and the resolvers. @returns undefined: no need to ask */
  #reason(): string | undefined {
    const { bound, egress } = this.#wish;
    if (this.#resolvers.length === 0) return undefined;
    let six: ChosenRoute | undefined;
    try {
      const links = bound === undefined ? [] : this.#host.links();
      six = chosenRoute(this.#host, 6, links, bound);
      if (six === undefined) return undefined;
      this.#hasIpv4 = chosenRoute(this.#host, 4, links, bound) !== undefined;
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      return undefined; // the next change comes here again
    }
    if ((this.#hasIpv4 || !this.#wish.offers) && egress?.isOn !== true) return undefined;
    return [six.linkIndex, six.gateway, six.source, ...this.#resolvers].join(' ');
  }

  #ask(): void {
    this.#tries++;
    this.#found = [];
    this.#hasAnswer = false;
    this.#ttlS = REFRESH_MAX_S;
    this.#silent = new Set(this.#query!.ask(this.#resolvers));
    this.#isAsking = true;
    if (this.#silent.size > 0) this.#wait();
    const gapMs = Math.min(ANSWER_MS * 2 ** (this.#tries - 1), ANSWER_MAX_MS);
    this.#after(gapMs, () => this.#settle());
  }

  #after(ms: number, then: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, ms).unref();
  }

  #wait(): void {
    if (this.#armAgain === undefined)
      this.#armAgain = this.#engine.watchReadable(this.#query!.fd, () => this.#onReadable());
    else this.#armAgain();
  }

  #onReadable(): void {
    // Until all have answered: a resolver that goes on to send must not keep the main thread here.
    while (this.#silent.size > 0) {
      const answer = this.#query!.receive();
      if (answer === undefined) break;
      // The first answer of each resolver.
      if (!this.#silent.delete(answer.resolver) || !answer.isDefinite) continue;
      this.#hasAnswer = true;
      const found = nat64Find(answer.addresses);
      if (found.length > 0) this.#ttlS = Math.min(this.#ttlS, answer.ttlS);
      for (const prefix of found)
        if (!isIn(this.#found, prefix) && this.#found.length < MAX_PREFIXES) this.#found.push(prefix);
    }
    if (!this.#isAsking) return;
    if (this.#silent.size > 0) this.#wait();
    else if (this.#hasAnswer) this.#settle();
  }

  /** All resolvers have answered, or the time for it is over. */
  #settle(): void {
    const isSilent = this.#silent.size > 0;
    this.#isAsking = false;
    this.#silent.clear();
    if (!this.#hasAnswer) {
      const isKnown = this.#prefixes.length > 0 && !this.#isStale;
      if (this.#tries < LAST_TRY || isKnown) this.#ask();
      else this.#publish([]);
      return;
    }
    // The resolver that knows a prefix may be one that was silent.
    const isMissing = isSilent && !this.#prefixes.every((prefix) => isIn(this.#found, prefix));
    if (isMissing && this.#tries < MISSING_TRIES) {
      this.#ask();
      return;
    }
    this.#tries = 0;
    this.#isStale = false;
    clearTimeout(this.#timer);
    if (this.#found.length > 0) {
      const refreshS = Math.min(Math.max(this.#ttlS - REFRESH_BEFORE_S, REFRESH_MIN_S), REFRESH_MAX_S);
      this.#after(1000 * refreshS, () => this.#ask());
    }
    // The policy keeps a prefix until an answer is another one: it closes, and does no harm elsewhere.
    if (!areSame(this.#found, this.#policys)) {
      this.#policys = this.#found;
      this.#wish.egress?.setNat64({ trusted: [], found: this.#found });
    }
    this.#publish(this.#found);
  }

  /** Use these prefixes from now on, in advertisements. */
  #publish(prefixes: readonly Nat64Prefix[]): void {
    const texts = prefixes.map(prefixText).join(', ');
    if (!areSame(prefixes, this.#prefixes))
      this.#log('info', texts === '' ? "the host's network has no NAT64 any more" : `NAT64 prefix: ${texts}`);
    this.#prefixes = prefixes;
    if (!this.#wish.offers) return;
    const offer = this.#hasIpv4 ? [] : prefixes;
    const live = this.#offered.filter(({ lifetimeS }) => lifetimeS > 0);
    if (areSame(offer, live)) return;
    const gone = this.#offered.filter((prefix) => !isIn(offer, prefix)).slice(0, MAX_PREFIXES);
    this.#offered = [
      ...offer.map((prefix) => ({ ...prefix, lifetimeS: LIFETIME_S })),
      ...gone.map((prefix) => ({ ...prefix, lifetimeS: 0 })),
    ];
    this.#engine.setPref64(this.#offered);
  }
}

/**
 * Follow the prefixes of the host's network.
 * @param socket  of openQuerySocket(); below 0: nothing is asked
 * @param resolvers  as AddressPlan.resolvers
 */
export function followNat64(
  wish: Nat64Wish,
  socket: number,
  engine: EngineHandle,
  host: RouteSocket,
  resolvers: readonly string[],
  log: Log,
): Nat64 {
  const query = socket < 0 ? undefined : new Nat64Query(socket, wish.bound);
  return new Nat64(wish, query, engine, host, resolvers, log);
}
