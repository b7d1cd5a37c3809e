/**
 * The egress policy: which destinations the guest may reach. Rules in an order, the first that matches
 * decides, else the default. compileEgress() makes the rules into one block of shared memory; every packet
 * thread looks new flows up in it (EgressPolicy). A block is never changed: a new policy is a new block.
 *
 *   header | rules | port ranges | prefix lengths | prefix heads | prefixes | ports of prefixes |
 *   name heads | names | bytes of names | host's prefixes | NAT64 prefixes
 *
 * Prefixes are found as in tuple space search (Srinivasan, Suri, Varghese, SIGCOMM 1999): for each prefix
 * length that a rule has, the masked address is looked up in a hash table. A prefix has, for each protocol,
 * its first rule for each port, as a list of port ranges that do not overlap, for binary search. So the cost
 * depends on the number of different prefix lengths, not on that of rules.
 *
 * IPv4 addresses are v4-mapped: the prefix 10.0.0.0/8 has 96 + 8 bits.
 *
 * A destination behind a NAT64 prefix is two addresses, itself and the IPv4 address in it (RFC 6052), and the
 * first rule that matches one of the two decides. A prefix that DNS gave (RFC 7050) is not trusted so far: an
 * answer of the resolver's may close destinations, but not open any. For such a prefix a rule of the IPv4
 * address counts only if it denies.
 *
 * Rules with names compare with the names for which our DNS forwarder answered the destination's address
 * (egress-names.ts). A name never leads to the host itself or to link-local addresses: who owns a permitted
 * name could otherwise open services of the host, or of a cloud's metadata address, by an answer of his
 * (DNS rebinding).
 */
import { addressSetIpv4, isLinkLocal, isV4Mapped } from '../../proto/address.ts';
import { NAT64_WELL_KNOWN, type Nat64Prefix, nat64Ipv4, nat64Matches } from '../../proto/nat64.ts';
import type { EgressNames } from './egress-names.ts';

/** Protocols of a rule, as bits. dns: queries to our own forwarder. */
export const EgressProto = { tcp: 1, udp: 2, icmp: 4, dns: 8 } as const;
/** A rule without a protocol, and one with ports and no protocol. */
export const ANY_PROTO = 15;
export const PORT_PROTOS = EgressProto.tcp | EgressProto.udp;

export type EgressWord = 'any' | 'host' | 'private' | 'internet' | 'multicast';

/** What a rule matches: a word, a prefix, or a domain name. */
export type EgressTarget =
  | { readonly kind: 'word'; readonly word: EgressWord }
  /** `bits` of 128, IPv4 as v4-mapped; `words` has no other bits set. */
  | {
      readonly kind: 'prefix';
      readonly words: readonly [number, number, number, number];
      readonly bits: number;
      readonly family: 4 | 6;
    }
  /** Lower case, without a dot at the end. below: all names below it, but not itself (`*.example.org`). */
  | { readonly kind: 'name'; readonly name: string; readonly below: boolean };

export interface EgressRule {
  readonly allow: boolean;
  /** Bits of EgressProto. */
  readonly protocols: number;
  readonly targets: readonly EgressTarget[];
  /** First and last port of each range; empty: all ports, and protocols without ports. */
  readonly ports: readonly (readonly [number, number])[];
  /** Line of the policy's text, from 1; 0: the rule is an option's. */
  readonly line: number;
}

export interface EgressRules {
  readonly rules: readonly EgressRule[];
  readonly defaultAllow: boolean;
}

/** Of each prefix of the host's own: four address words, and the prefix length, of 128. */
export const HOST_PREFIX_WORDS = 5;

/** NAT64 prefixes of the host's network beside the well-known one. */
export interface EgressNat64 {
  /** By the user. */
  readonly trusted: readonly Nat64Prefix[];
  /** By DNS. */
  readonly found: readonly Nat64Prefix[];
}

const NO_NAT64: EgressNat64 = { trusted: [], found: [] };
// A NAT64 prefix: four address words, bits, whether it is trusted.
const NAT64_WORDS = 6;

/** Most rules of a policy, and most prefixes and names of all rules. */
export const MAX_EGRESS_RULES = 65_536;
export const MAX_EGRESS_TARGETS = 262_144;

// The header, in words.
const RULES = 0;
const DEFAULT_ALLOW = 1;
const HAS_NAMES = 2;
/** Index of the first rule about the queries for all names (`dns any`), else of rules. */
const DNS_RULE = 3;
const RULES_AT = 4;
const PORTS_AT = 5;
const LENGTHS_AT = 6;
const LENGTHS = 7;
const HEADS_AT = 8;
const HEADS_MASK = 9;
const PREFIXES_AT = 10;
const NAME_HEADS_AT = 11;
const NAME_HEADS_MASK = 12;
const NAMES_AT = 13;
/** In bytes. */
const NAME_BYTES_AT = 14;
const HOST_AT = 15;
const HOSTS = 16;
/** Index of the rule that decides about queries if no rule about names or dns does, else of rules. */
const DNS_FALLBACK = 17;
const NAT64_AT = 18;
const NAT64S = 19;
const HEADER_WORDS = 20;

// A rule: allow | protocols << 1, index of its first port range, number of ranges, line.
const RULE_WORDS = 4;
// A prefix: four address words, bits | flags << 8, index of the next one in the chain + 1; then, for each
// protocol in the order of its bits, the index of its first port range in the block and their number.
const PREFIX_WORDS = 14;
const PREFIX_NEXT = 5;
const PREFIX_RANGES = 6;
/** No rule is about these ports. */
const NO_RULE = 0xffffffff;
/** Bits of a prefix's flags: what else has to hold for the destination. */
const Flag = { notHost: 1, internet: 2, host: 4, ipv6: 8 } as const;
/** What is known about the IPv4 addresses behind NAT64 prefixes in an address. */
const Embedded = { any: 1, host: 2, linkLocal: 4, notInternet: 8 } as const;
// A name: hash, offset of its bytes, number of bytes, flags, rule, next + 1.
const NAME_WORDS = 6;
const NameFlag = { below: 1, decidesQuery: 2 } as const;

const v4 = (a: number, b: number, bits: number): readonly [number[], number] => [
  [0, 0, 0xffff, ((a << 24) | (b << 16)) >>> 0],
  96 + bits,
];
const v6 = (first: number, bits: number): readonly [number[], number] => [[first, 0, 0, 0], bits];
/** RFC 1918, RFC 6598 (carrier-grade NAT), RFC 3927, RFC 4193, RFC 4291 (link-local, site-local). */
const PRIVATE = [
  ...[v4(10, 0, 8), v4(172, 16, 12), v4(192, 168, 16), v4(100, 64, 10), v4(169, 254, 16)],
  ...[v6(0xfc000000, 7), v6(0xfe800000, 10), v6(0xfec00000, 10)],
];
/** RFC 5771, RFC 4291, and the limited broadcast address. */
const MULTICAST = [v4(224, 0, 4), v6(0xff000000, 8)];
const BROADCAST = [[0, 0, 0xffff, 0xffffffff], 128] as const;

/**
 * Whether an address is one of the public internet: none of the blocks that the IANA registries of
 * special-purpose addresses (RFC 6890) give as not globally reachable, and no tunnel to an IPv4 address. Of
 * 64:ff9b::/96 the IPv4 addresses are asked for, not this.
 */
function isInternet(words: Uint32Array, w: number): boolean {
  if (isV4Mapped(words, w)) return isInternet4(words[w + 3]!);
  const a = words[w]!;
  if (a >>> 29 !== 1) return false; // outside of 2000::/3
  if (a >>> 16 === 0x2002) return false; // 6to4
  if (a >>> 9 === 0x20010000 >>> 9) return false; // 2001::/23: Teredo and others
  return a !== 0x20010db8 && a >>> 12 !== 0x3fff0; // documentation
}

function isInternet4(a: number): boolean {
  const top = a >>> 24;
  if (top === 0 || top === 10 || top === 127 || top >= 224) return false;
  // 172.16/12, 192.168/16, 169.254/16, 100.64/10
  if (a >>> 20 === 0xac1 || a >>> 16 === 0xc0a8 || a >>> 16 === 0xa9fe || a >>> 22 === 0x191) return false;
  // 192.0.0/24, 192.0.2/24, 198.51.100/24, 203.0.113/24, 198.18/15
  const c = a >>> 8;
  return c !== 0xc00000 && c !== 0xc00002 && c !== 0xc63364 && c !== 0xcb0071 && a >>> 17 !== 0x6309;
}

function hashPrefix(bits: number, a: number, b: number, c: number, d: number): number {
  let h = Math.imul(bits + 1, 0x9e3779b1);
  h = Math.imul(h ^ a, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15) ^ b, 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 13) ^ c, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 15) ^ d, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The word of a mask of `bits` of 128 that covers address word `i`. */
function maskWord(bits: number, i: number): number {
  const left = bits - 32 * i;
  return left <= 0 ? 0 : left >= 32 ? 0xffffffff : (0xffffffff << (32 - left)) >>> 0;
}

const HASH_START = 0x811c9dc5;
/** FNV-1a, from the last byte of a name to its first: so one pass gives the hashes of all its suffixes. */
const hashByte = (h: number, byte: number): number => Math.imul(h ^ byte, 0x01000193);
const lower = (byte: number): number => (byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte);

/** A name in wire format (labels, each behind its length) without the root's zero. */
function wireName(name: string): Uint8Array {
  const bytes: number[] = [];
  for (const label of name.split('.')) {
    bytes.push(label.length);
    for (let i = 0; i < label.length; i++) bytes.push(label.charCodeAt(i));
  }
  return Uint8Array.from(bytes);
}

function powerAbove(n: number): number {
  let power = 2;
  while (power < n) power *= 2;
  return power;
}

interface RuleRange {
  readonly first: number;
  readonly last: number;
  readonly rule: number;
}

/**
 * The first rule for each port.
 * @param ranges  in the order of the rules; they may overlap
 * @returns first port and rule (or NO_RULE) of each range; ranges cover all ports, in order
 */
function firstRules(ranges: readonly RuleRange[]): number[] {
  // Ports that no rule has had yet, in order.
  const gaps: [first: number, last: number][] = [[0, 65535]];
  const found: [first: number, rule: number][] = [];
  for (const { first, last, rule } of ranges) {
    if (gaps.length === 0) break;
    let low = 0;
    for (let high = gaps.length; low < high; ) {
      const middle = (low + high) >>> 1;
      if (gaps[middle]![1] < first) low = middle + 1;
      else high = middle;
    }
    const rest: [number, number][] = [];
    let end = low;
    for (; end < gaps.length && gaps[end]![0] <= last; end++) {
      const [from, to] = gaps[end]!;
      if (from < first) rest.push([from, first - 1]);
      if (to > last) rest.push([last + 1, to]);
      found.push([Math.max(from, first), rule]);
    }
    gaps.splice(low, end - low, ...rest);
  }
  for (const [first] of gaps) found.push([first, NO_RULE]);
  found.sort((a, b) => a[0] - b[0]);
  return found.filter(([, rule], i) => i === 0 || rule !== found[i - 1]![1]).flat();
}

/** A prefix with the rules that have it, in their order. */
interface PrefixGroup {
  readonly words: readonly number[];
  readonly bits: number;
  readonly flags: number;
  readonly rules: number[];
}

const ALL_PORTS = [[0, 65535]] as const;
const PROTO_BITS = [EgressProto.tcp, EgressProto.udp, EgressProto.icmp, EgressProto.dns] as const;

/** Add the port ranges of a prefix to `out`. @returns offset in `out` and number of ranges, per protocol */
function prefixRanges(group: PrefixGroup, rules: readonly EgressRule[], out: number[]): number[] {
  // Most prefixes have one rule, with one range of ports or none.
  const [only] = group.rules as [number];
  const { protocols, ports } = rules[only]!;
  if (group.rules.length === 1 && ports.length < 2) {
    const at = out.length;
    if (ports.length === 0) out.push(0, only);
    else {
      const [[first, last]] = ports as [readonly [number, number]];
      if (first > 0) out.push(0, NO_RULE);
      out.push(first, only);
      if (last < 65535) out.push(last + 1, NO_RULE);
    }
    const count = (out.length - at) >>> 1;
    return PROTO_BITS.flatMap((bit) => (protocols & bit ? [at, count] : [0, 0]));
  }
  const placed = new Map<string, readonly [number, number]>();
  return PROTO_BITS.flatMap((bit) => {
    const applying = group.rules.filter((rule) => rules[rule]!.protocols & bit);
    if (applying.length === 0) return [0, 0];
    // Protocols with the same rules share their ranges.
    const key = applying.length < 64 ? applying.join() : `${bit}`;
    const known = placed.get(key);
    if (known !== undefined) return known;
    const ranges = applying.flatMap((rule) => {
      const { ports } = rules[rule]!;
      return (ports.length === 0 ? ALL_PORTS : ports).map(([first, last]) => ({ first, last, rule }));
    });
    const words = firstRules(ranges);
    const at = [out.length, words.length >>> 1] as const;
    placed.set(key, at);
    for (const word of words) out.push(word);
    return at;
  });
}

/** Whether a rule decides about a query, for a name that its target matches: see EgressPolicy.decideName(). */
const decidesQuery = (rule: EgressRule): boolean =>
  rule.allow || ((rule.protocols & EgressProto.dns) !== 0 && rule.ports.length === 0);

/** Whether some name may have an address that the target matches. */
function leadsSomewhere(target: EgressTarget, allow: boolean): boolean {
  if (target.kind === 'name') return false;
  if (!allow) return target.kind === 'word' && target.word === 'any';
  return target.kind === 'prefix' || (target.word !== 'host' && target.word !== 'multicast');
}

/**
 * Compile rules.
 * @param hostPrefixes  addresses of the host, HOST_PREFIX_WORDS each, IPv4 as v4-mapped: for the word `host`
 * @param nat64  prefixes behind which there are IPv4 addresses
 * @returns the block, for EgressPolicy
 * @throws RangeError if there are more than MAX_EGRESS_RULES or MAX_EGRESS_TARGETS
 */
export function compileEgress(
  { rules, defaultAllow }: EgressRules,
  hostPrefixes: Uint32Array = new Uint32Array(0),
  nat64: EgressNat64 = NO_NAT64,
): SharedArrayBuffer {
  if (rules.length > MAX_EGRESS_RULES) throw new RangeError(`more than ${MAX_EGRESS_RULES} rules`);
  const prefixes = new Map<string, PrefixGroup>();
  let targetCount = 0;
  const names: { bytes: Uint8Array; flags: number; rule: number }[] = [];
  const ranges: number[] = [];
  const ruleWords: number[] = [];
  let dnsRule = rules.length;
  let dnsFallback = rules.length;
  let nameBytes = 0;
  rules.forEach((rule, index) => {
    const { allow, protocols, targets, ports, line } = rule;
    ruleWords.push((allow ? 1 : 0) | (protocols << 1), ranges.length, ports.length, line);
    for (const [first, last] of ports) ranges.push(((first << 16) | last) >>> 0);
    const add = (words: readonly number[], bits: number, flags: number): void => {
      const key = `${bits} ${flags} ${words.join()}`;
      let group = prefixes.get(key);
      if (group === undefined) prefixes.set(key, (group = { words, bits, flags, rules: [] }));
      if (group.rules.at(-1) !== index) group.rules.push(index);
      targetCount++;
    };
    for (const target of targets) {
      if (decidesQuery(rule) && leadsSomewhere(target, allow)) {
        if (protocols & EgressProto.dns && protocols !== ANY_PROTO) dnsRule = Math.min(dnsRule, index);
        else dnsFallback = Math.min(dnsFallback, index);
      }
      if (target.kind === 'name') {
        const bytes = wireName(target.name);
        const flags = (target.below ? NameFlag.below : 0) | (decidesQuery(rule) ? NameFlag.decidesQuery : 0);
        names.push({ bytes, flags, rule: index });
        nameBytes += bytes.length;
      } else if (target.kind === 'prefix')
        add(target.words, target.bits, target.family === 6 ? Flag.ipv6 : 0);
      else if (target.word === 'private') for (const [words, bits] of PRIVATE) add(words, bits, Flag.notHost);
      else if (target.word === 'multicast')
        for (const [words, bits] of [...MULTICAST, BROADCAST]) add(words, bits, 0);
      else if (target.word === 'internet') add([0, 0, 0, 0], 0, Flag.internet | Flag.notHost);
      else if (target.word === 'host') add([0, 0, 0, 0], 0, Flag.host);
      else add([0, 0, 0, 0], 0, 0);
    }
    if (targetCount + names.length > MAX_EGRESS_TARGETS)
      throw new RangeError(`more than ${MAX_EGRESS_TARGETS} prefixes and names`);
  });
  const groups = [...prefixes.values()];
  const lengths = [...new Set(groups.map(({ bits }) => bits))].sort((a, b) => a - b);
  const prefixPorts: number[] = [];
  const portsOf = groups.map((group) => prefixRanges(group, rules, prefixPorts));
  const heads = powerAbove(2 * groups.length);
  const nameHeads = powerAbove(2 * names.length);

  const header = new Uint32Array(HEADER_WORDS);
  let end = HEADER_WORDS;
  const place = (words: number): number => {
    const at = end;
    end += words;
    return at;
  };
  header[RULES] = rules.length;
  header[DEFAULT_ALLOW] = defaultAllow ? 1 : 0;
  header[HAS_NAMES] = names.length > 0 ? 1 : 0;
  header[DNS_RULE] = dnsRule;
  header[DNS_FALLBACK] = dnsFallback;
  header[RULES_AT] = place(ruleWords.length);
  header[PORTS_AT] = place(ranges.length);
  header[LENGTHS_AT] = place(lengths.length);
  header[LENGTHS] = lengths.length;
  header[HEADS_AT] = place(heads);
  header[HEADS_MASK] = heads - 1;
  header[PREFIXES_AT] = place(groups.length * PREFIX_WORDS);
  const prefixPortsAt = place(prefixPorts.length);
  header[NAME_HEADS_AT] = place(nameHeads);
  header[NAME_HEADS_MASK] = nameHeads - 1;
  header[NAMES_AT] = place(names.length * NAME_WORDS);
  header[NAME_BYTES_AT] = 4 * place(Math.ceil(nameBytes / 4));
  header[HOST_AT] = place(hostPrefixes.length);
  header[HOSTS] = hostPrefixes.length / HOST_PREFIX_WORDS;
  const nat64Words = [
    ...[NAT64_WELL_KNOWN, ...nat64.trusted].map(({ words, bits }) => [...words, bits, 1]),
    ...nat64.found.map(({ words, bits }) => [...words, bits, 0]),
  ].flat();
  header[NAT64_AT] = place(nat64Words.length);
  header[NAT64S] = nat64Words.length / NAT64_WORDS;

  const block = new SharedArrayBuffer(4 * end);
  const u32 = new Uint32Array(block);
  const u8 = new Uint8Array(block);
  u32.set(header);
  u32.set(ruleWords, header[RULES_AT]);
  u32.set(ranges, header[PORTS_AT]);
  u32.set(lengths, header[LENGTHS_AT]);
  u32.set(hostPrefixes, header[HOST_AT]);
  u32.set(nat64Words, header[NAT64_AT]);
  // Chains of names are in the order of the rules: each new element goes to the end of its chain.
  const tails = new Map<number, number>();
  const chain = (headAt: number, index: number, nextAt: number): void => {
    const tail = tails.get(headAt);
    u32[tail ?? headAt] = index + 1;
    tails.set(headAt, nextAt);
  };
  u32.set(prefixPorts, prefixPortsAt);
  groups.forEach(({ words, bits, flags }, i) => {
    const at = header[PREFIXES_AT]! + i * PREFIX_WORDS;
    u32.set(words, at);
    u32[at + 4] = bits | (flags << 8);
    portsOf[i]!.forEach((word, k) => {
      u32[at + PREFIX_RANGES + k] = k % 2 === 0 ? prefixPortsAt + word : word;
    });
    const hash = hashPrefix(bits, words[0]!, words[1]!, words[2]!, words[3]!);
    chain(header[HEADS_AT]! + (hash & (heads - 1)), i, at + PREFIX_NEXT);
  });
  let bytesAt = header[NAME_BYTES_AT]!;
  names.forEach(({ bytes, flags, rule }, i) => {
    u8.set(bytes, bytesAt);
    let hash = HASH_START;
    for (let b = bytes.length - 1; b >= 0; b--) hash = hashByte(hash, bytes[b]!);
    const at = header[NAMES_AT]! + i * NAME_WORDS;
    u32.set([hash >>> 0, bytesAt, bytes.length, flags, rule, 0], at);
    chain(header[NAME_HEADS_AT]! + ((hash >>> 0) & (nameHeads - 1)), i, at + 5);
    bytesAt += bytes.length;
  });
  return block;
}

/**
 * A compiled policy, as one thread reads it. Results of decide() and decideName(): the index of the rule that
 * allows; or -1 - index of the rule that denies. The default has the index `rules`.
 */
export class EgressPolicy {
  readonly block: SharedArrayBuffer;
  /** Number of rules. */
  readonly rules: number;
  /** Some rule has a name: the forwarder's answers have to be noted (EgressNames). */
  readonly hasNames: boolean;
  readonly #names: EgressNames;
  readonly #u32: Uint32Array;
  readonly #u8: Uint8Array;
  readonly #rulesAt: number;
  readonly #lengths: number;
  readonly #headsAt: number;
  readonly #headsMask: number;
  readonly #prefixesAt: number;
  /** Offset of the suffix at each label of a name, from the last label on, and its hash. */
  readonly #suffixAt = new Uint8Array(128);
  readonly #suffixHash = new Uint32Array(128);
  #suffixes = 0;
  /** An IPv4 address behind a NAT64 prefix. */
  readonly #embedded = new Uint32Array(4);

  constructor(block: SharedArrayBuffer, names: EgressNames) {
    const u32 = new Uint32Array(block);
    this.block = block;
    this.#names = names;
    this.#u32 = u32;
    this.#u8 = new Uint8Array(block);
    this.rules = u32[RULES]!;
    this.hasNames = u32[HAS_NAMES] === 1;
    this.#rulesAt = u32[RULES_AT]!;
    this.#lengths = u32[LENGTHS]!;
    this.#headsAt = u32[HEADS_AT]!;
    this.#headsMask = u32[HEADS_MASK]!;
    this.#prefixesAt = u32[PREFIXES_AT]!;
  }

  /**
   * Some names are refused, or names have to be noted: then queries over TCP, which the forwarder does not
   * read, are refused.
   */
  get readsQueries(): boolean {
    return this.hasNames || this.#verdict(this.#queryRule(this.#u32[DNS_RULE]!)) < 0;
  }

  /** Line of the policy's text in which the rule of a verdict is; 0: it has none. */
  lineOf(verdict: number): number {
    const rule = verdict < 0 ? -1 - verdict : verdict;
    return rule < this.rules ? this.#u32[this.#rulesAt + rule * RULE_WORDS + 3]! : 0;
  }

  /** Whether an address is one of the host's own. */
  isHostAddress(words: Uint32Array, w: number): boolean {
    const u32 = this.#u32;
    const first = u32[HOST_AT]!;
    const end = first + HOST_PREFIX_WORDS * u32[HOSTS]!;
    for (let at = first; at < end; at += HOST_PREFIX_WORDS) {
      const bits = u32[at + 4]!;
      let i = 0;
      while (i < 4 && ((words[w + i]! ^ u32[at + i]!) & maskWord(bits, i)) === 0) i++;
      if (i === 4) return true;
    }
    return false;
  }

  /**
   * Decide about a new flow.
   * @param words,w  destination as the guest sees it
   * @param leadsToHost  the address plan maps it to the host
   * @param proto  one bit of EgressProto
   * @param port  0 for ping
   * @param nowS  EgressNames.now(); 0: names count though their time is over
   */
  decide(
    words: Uint32Array,
    w: number,
    leadsToHost: boolean,
    proto: number,
    port: number,
    nowS: number,
  ): number {
    const isHost = leadsToHost || this.isHostAddress(words, w);
    const embedded = isV4Mapped(words, w) ? 0 : this.#readEmbedded(words, w);
    const best = this.#firstRule(words, w, isHost, embedded, proto, port, nowS);
    return this.#verdict(embedded === 0 ? best : this.#byEmbedded(words, w, proto, port, nowS, best));
  }

  /** The IPv4 addresses in an address, by all NAT64 prefixes that it has. @returns bits of Embedded */
  #readEmbedded(words: Uint32Array, w: number): number {
    const u32 = this.#u32;
    const first = u32[NAT64_AT]!;
    const end = first + NAT64_WORDS * u32[NAT64S]!;
    let embedded = 0;
    for (let at = first; at < end; at += NAT64_WORDS) {
      const bits = u32[at + 4]!;
      if (!nat64Matches(words, w, u32, at, bits)) continue;
      const ipv4 = this.#embedded;
      addressSetIpv4(ipv4, 0, nat64Ipv4(words, w, bits));
      embedded |= Embedded.any;
      if (this.isHostAddress(ipv4, 0)) embedded |= Embedded.host;
      if (isLinkLocal(ipv4, 0)) embedded |= Embedded.linkLocal;
      if (!isInternet(ipv4, 0)) embedded |= Embedded.notInternet;
    }
    return embedded;
  }

  /**
   * The rules about the IPv4 addresses in an address.
   * @param best  the first rule about the address itself
   * @returns the first rule about one of these addresses
   */
  #byEmbedded(
    words: Uint32Array,
    w: number,
    proto: number,
    port: number,
    nowS: number,
    best: number,
  ): number {
    const u32 = this.#u32;
    const first = u32[NAT64_AT]!;
    const end = first + NAT64_WORDS * u32[NAT64S]!;
    for (let at = first; at < end; at += NAT64_WORDS) {
      const bits = u32[at + 4]!;
      if (!nat64Matches(words, w, u32, at, bits)) continue;
      const ipv4 = this.#embedded;
      addressSetIpv4(ipv4, 0, nat64Ipv4(words, w, bits));
      const rule = this.#firstRule(ipv4, 0, this.isHostAddress(ipv4, 0), 0, proto, port, nowS);
      if (rule < best && (u32[at + 5] === 1 || this.#verdict(rule) < 0)) best = rule;
    }
    return best;
  }

  /**
   * The first rule about an address.
   * @param embedded  bits of Embedded: a rule that allows by a word or a name must be right for the IPv4
   *   addresses in it, too
   */
  #firstRule(
    words: Uint32Array,
    w: number,
    isHost: boolean,
    embedded: number,
    proto: number,
    port: number,
    nowS: number,
  ): number {
    const u32 = this.#u32;
    const a = words[w]!;
    const b = words[w + 1]!;
    const c = words[w + 2]!;
    const d = words[w + 3]!;
    const lengthsAt = u32[LENGTHS_AT]!;
    let best = this.rules;
    for (let l = 0; l < this.#lengths; l++) {
      const bits = u32[lengthsAt + l]!;
      const ma = (a & maskWord(bits, 0)) >>> 0;
      const mb = (b & maskWord(bits, 1)) >>> 0;
      const mc = (c & maskWord(bits, 2)) >>> 0;
      const md = (d & maskWord(bits, 3)) >>> 0;
      let next = u32[this.#headsAt + (hashPrefix(bits, ma, mb, mc, md) & this.#headsMask)]!;
      while (next !== 0) {
        const at = this.#prefixesAt + (next - 1) * PREFIX_WORDS;
        next = u32[at + PREFIX_NEXT]!;
        const lengthAndFlags = u32[at + 4]!;
        if ((lengthAndFlags & 0xff) !== bits || u32[at + 3] !== md || u32[at + 2] !== mc) continue;
        if (u32[at + 1] !== mb || u32[at] !== ma) continue;
        const rule = this.#ruleOfPort(at, proto, port);
        if (rule >= best) continue;
        const flags = lengthAndFlags >>> 8;
        if (flags !== 0) {
          if (flags & Flag.host && !isHost) continue;
          if (flags & Flag.notHost && isHost) continue;
          if (flags & Flag.ipv6 && isV4Mapped(words, w)) continue;
          if (flags & Flag.internet && !isInternet(words, w)) continue;
          if (embedded > Embedded.any && this.#verdict(rule) >= 0) {
            if (flags & Flag.notHost && embedded & Embedded.host) continue;
            if (flags & Flag.internet && embedded & Embedded.notInternet) continue;
          }
        }
        best = rule;
      }
    }
    if (!this.hasNames) return best;
    const mayAllow =
      !isHost && !isLinkLocal(words, w) && (embedded & (Embedded.host | Embedded.linkLocal)) === 0;
    return this.#byNames(words, w, mayAllow, proto, port, nowS, best);
  }

  /** @returns the first rule of the prefix at `at` for a protocol and port, or NO_RULE */
  #ruleOfPort(at: number, proto: number, port: number): number {
    const u32 = this.#u32;
    // proto is 1, 2, 4 or 8.
    const ranges = at + PREFIX_RANGES + 2 * (31 - Math.clz32(proto));
    const first = u32[ranges]!;
    let low = 0;
    let high = u32[ranges + 1]!;
    if (high === 0) return NO_RULE;
    // The last range that begins at the port or before it.
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (u32[first + 2 * middle]! <= port) low = middle;
      else high = middle;
    }
    return u32[first + 2 * low + 1]!;
  }

  /** @returns the first rule before `best` whose name has the address, or `best` */
  #byNames(
    words: Uint32Array,
    w: number,
    mayAllow: boolean,
    proto: number,
    port: number,
    nowS: number,
    best: number,
  ): number {
    const names = this.#names;
    for (let entry = names.first(words, w, nowS); entry >= 0; entry = names.next(words, w, nowS)) {
      this.#findSuffixes(names.name, 0, names.nameBytes);
      best = this.#firstNamed(names.name, 0, names.nameBytes, best, proto, port, mayAllow);
    }
    return best;
  }

  /**
   * Decide about a query to our forwarder, whatever addresses the name has. The first rule decides that has
   * the name, or is about the queries of all names (`dns any`); a deny-rule only if it denies everything to
   * the name, or its queries. If there is none, the first other rule decides that allows some addresses,
   * which may be the name's, or denies everything; then the default.
   * @param u8,at,bytes  the name in wire format, any letter case, without the root's zero
   */
  decideName(u8: Uint8Array, at: number, bytes: number): number {
    let rule = this.#u32[DNS_RULE]!;
    if (this.hasNames) {
      this.#findSuffixes(u8, at, bytes);
      rule = this.#firstNamed(u8, at, bytes, rule, 0, 0, true);
    }
    return this.#verdict(this.#queryRule(rule));
  }

  #queryRule(rule: number): number {
    return rule < this.rules ? rule : this.#u32[DNS_FALLBACK]!;
  }

  /** Whether some rule is about the name: then its addresses have to be noted. Parameters as decideName(). */
  concerns(u8: Uint8Array, at: number, bytes: number): boolean {
    if (!this.hasNames) return false;
    this.#findSuffixes(u8, at, bytes);
    return this.#firstNamed(u8, at, bytes, this.rules, -1, 0, true) < this.rules;
  }

  #verdict(rule: number): number {
    const word =
      rule < this.rules ? this.#u32[this.#rulesAt + rule * RULE_WORDS]! : this.#u32[DEFAULT_ALLOW]!;
    return word & 1 ? rule : -1 - rule;
  }

  /** Whether a rule is about this protocol and port. */
  #applies(rule: number, proto: number, port: number): boolean {
    const u32 = this.#u32;
    const at = this.#rulesAt + rule * RULE_WORDS;
    if (((u32[at]! >>> 1) & proto) === 0) return false;
    const ranges = u32[at + 2]!;
    if (ranges === 0) return true;
    const first = u32[PORTS_AT]! + u32[at + 1]!;
    for (let i = first; i < first + ranges; i++) {
      const range = u32[i]!;
      if (port >= range >>> 16 && port <= (range & 0xffff)) return true;
    }
    return false;
  }

  /** Fill in #suffixAt and #suffixHash. A name that is not well-formed has no suffixes. */
  #findSuffixes(u8: Uint8Array, at: number, bytes: number): void {
    this.#suffixes = 0;
    let labels = 0;
    for (let i = 0; i < bytes; i += u8[at + i]! + 1) {
      if (labels === this.#suffixAt.length || u8[at + i] === 0) return;
      this.#suffixAt[labels++] = i;
    }
    let end = bytes;
    let hash = HASH_START;
    for (let label = labels - 1; label >= 0; label--) {
      const start = this.#suffixAt[label]!;
      for (let i = end - 1; i >= start; i--) hash = hashByte(hash, lower(u8[at + i]!));
      this.#suffixHash[label] = hash >>> 0;
      end = start;
    }
    this.#suffixes = labels;
  }

  /**
   * The first rule with a name that matches the one whose suffixes were found, and that applies.
   * @param best  a rule; only earlier ones count
   * @param proto  bit of EgressProto; 0: the rule must decide about queries; -1: any rule counts
   * @returns the rule, or `best`
   */
  #firstNamed(
    u8: Uint8Array,
    at: number,
    bytes: number,
    best: number,
    proto: number,
    port: number,
    mayAllow: boolean,
  ): number {
    const u32 = this.#u32;
    const headsAt = u32[NAME_HEADS_AT]!;
    const mask = u32[NAME_HEADS_MASK]!;
    const namesAt = u32[NAMES_AT]!;
    for (let label = 0; label < this.#suffixes; label++) {
      const hash = this.#suffixHash[label]!;
      const suffixAt = this.#suffixAt[label]!;
      const suffixBytes = bytes - suffixAt;
      let next = u32[headsAt + (hash & mask)]!;
      while (next !== 0) {
        const entry = namesAt + (next - 1) * NAME_WORDS;
        next = u32[entry + 5]!;
        const rule = u32[entry + 4]!;
        if (rule >= best) break;
        if (u32[entry] !== hash || u32[entry + 2] !== suffixBytes) continue;
        const flags = u32[entry + 3]!;
        if (((flags & NameFlag.below) !== 0) !== label > 0) continue;
        if (proto === 0 && !(flags & NameFlag.decidesQuery)) continue;
        if (proto > 0 && !this.#applies(rule, proto, port)) continue;
        if (!mayAllow && this.#verdict(rule) >= 0) continue;
        const nameAt = u32[entry + 1]!;
        let i = 0;
        while (i < suffixBytes && this.#u8[nameAt + i] === lower(u8[at + suffixAt + i]!)) i++;
        if (i < suffixBytes) continue;
        best = rule;
        break;
      }
    }
    return best;
  }
}
