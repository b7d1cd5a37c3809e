// @vitest: beside
/** When a NAT64 prefix is asked for, offered and withdrawn, with a clock, resolvers and routes of the test's. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseNat64 } from '../../src/main/cli/nat64.ts';
import { UsageError } from '../../src/main/cli/values.ts';
import { Nat64 } from '../../src/main/host/nat64.ts';
import type { Nat64Answer } from '../../src/main/host/nat64-query.ts';
import { type EgressWithNat64, nat64Wish } from '../../src/main/host/nat64-wish.ts';
import { addressParse, addressText } from '../../src/proto/address.ts';
import type { Nat64Prefix } from '../../src/proto/nat64.ts';
import type { Pref64 } from '../../src/proto/ndp.ts';
import { RT_TABLE_MAIN, RTN_UNICAST } from '../../src/sys/constants.ts';
import type { RouteSocket } from '../../src/sys/netlink.ts';

const prefixText = ({ words, bits }: Nat64Prefix): string =>
  `${addressText(Uint32Array.from(words), 0)}/${bits}`;

function addresses(texts: readonly string[]): Uint32Array {
  const words = new Uint32Array(4 * texts.length);
  texts.forEach((text, i) => {
    expect(addressParse(text, words, 4 * i)).toBe(true);
  });
  return words;
}

/** A policy, in place of an EgressControl. */
class Policy implements EgressWithNat64 {
  isOn = true;
  onChange: (() => void) | undefined;
  readonly prefixes: string[] = [];
  setNat64({ trusted, found }: Parameters<EgressWithNat64['setNat64']>[0]): void {
    this.prefixes.push(`trusted ${trusted.map(prefixText)} found ${found.map(prefixText)}`);
  }
}

interface Options {
  readonly choice?: string;
  readonly byDefault?: 'auto' | 'off';
  readonly policy?: Policy;
  readonly resolvers?: readonly string[];
}

/** A host with IPv6 and no IPv4. */
class Rig {
  has4 = false;
  has6 = true;
  gateway = 'fe80::1';
  /** Number of resolvers of each query. */
  readonly asked: number[] = [];
  received = 0;
  /** The offers: prefixes, those without lifetime with a minus. */
  readonly offers: string[] = [];
  readonly nat64: Nat64 | undefined;
  readonly #answers: Nat64Answer[] = [];
  #onReadable: () => void = () => {};

  constructor({ choice, byDefault = 'auto', policy, resolvers = ['192.0.2.53'] }: Options = {}) {
    const wish = nat64Wish(choice === undefined ? undefined : parseNat64(choice), byDefault, policy);
    const query = {
      fd: 9,
      ask: (list: readonly string[]) => {
        this.asked.push(list.length);
        return [...list.keys()];
      },
      receive: () => {
        this.received++;
        return this.#answers.shift();
      },
    };
    const engine = {
      watchReadable: (_fd: number, onReadable: () => void) => {
        this.#onReadable = onReadable;
        return () => {};
      },
      setPref64: (list: readonly Pref64[]) => {
        this.offers.push(list.map((one) => `${one.lifetimeS === 0 ? '-' : ''}${prefixText(one)}`).join(' '));
      },
    };
    const host = {
      links: () => [],
      routeTo: (family: 4 | 6) =>
        (family === 4 ? this.has4 : this.has6)
          ? { oif: 2, type: RTN_UNICAST, table: RT_TABLE_MAIN, gateway: this.gateway }
          : undefined,
    } as unknown as RouteSocket;
    this.nat64 = wish && new Nat64(wish, query, engine, host, resolvers, () => {});
    this.nat64?.begin();
  }

  queue(resolver: number, records: readonly string[], ttlS = 3600, isDefinite = true): void {
    this.#answers.push({ resolver, isDefinite, addresses: addresses(records), ttlS });
  }

  answer(...of: Parameters<Rig['queue']>): void {
    this.queue(...of);
    this.#onReadable();
  }

  change(): void {
    this.nat64!.networkChanged();
    vi.advanceTimersByTime(200);
  }
}

const RECORDS = ['64:ff9b::c000:aa', '64:ff9b::c000:ab'];
const OTHER = ['2001:db8:c000:aa::', '2001:db8:c000:ab::'];
const begun = (options?: Options): Rig => {
  const rig = new Rig(options);
  vi.advanceTimersByTime(200);
  return rig;
};

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe('whether it is asked', () => {
  it('a host with IPv6 alone: once, after the start', () => {
    const rig = new Rig();
    expect(rig.asked).toEqual([]);
    vi.advanceTimersByTime(200);
    expect(rig.asked).toEqual([1]);
  });

  it('IPv4 on the host, no IPv6, no resolver, off, a drop-in: never, whatever changes', () => {
    for (const [options, has4, has6] of [
      [{}, true, true],
      [{}, false, false],
      [{ resolvers: [] }, false, true],
      [{ choice: 'off' }, false, true],
      [{ byDefault: 'off' }, false, true],
    ] as const) {
      const rig = new Rig(options);
      Object.assign(rig, { has4, has6 });
      rig.nat64?.networkChanged();
      vi.advanceTimersByTime(86_400_000);
      expect([rig.asked, rig.offers]).toEqual([[], []]);
    }
  });

  it('a resolver that goes on to send is read no further than its answer', () => {
    const rig = begun();
    for (let i = 0; i < 9; i++) rig.queue(0, RECORDS);
    rig.answer(0, RECORDS);
    expect([rig.received, rig.offers]).toEqual([1, ['64:ff9b::/96']]);
  });

  it("with a policy: at once, IPv4 or not; found ones are the policy's and are not offered beside IPv4", () => {
    for (const byDefault of ['auto', 'off'] as const) {
      const policy = new Policy();
      const rig = new Rig({ policy, byDefault });
      expect(rig.asked).toEqual([1]);
      rig.has4 = true;
      rig.change();
      rig.answer(0, RECORDS);
      expect(policy.prefixes).toEqual(['trusted  found 64:ff9b::/96']);
      expect(rig.offers).toEqual([]);
      policy.isOn = false;
      policy.onChange!();
      vi.advanceTimersByTime(200);
      policy.isOn = true;
      policy.onChange!();
      vi.advanceTimersByTime(200);
      expect(rig.asked).toEqual([1, 1]);
      rig.has6 = false;
      rig.change();
      rig.has6 = true;
      rig.change();
      expect(policy.prefixes.length, 'kept until another answer').toBe(1);
      rig.answer(0, OTHER);
      expect(policy.prefixes.at(-1)).toBe('trusted  found 2001:db8::/32');
    }
  });

  it('a drop-in with a policy on a host without IPv4: not offered', () => {
    const rig = new Rig({ policy: new Policy(), byDefault: 'off' });
    rig.answer(0, RECORDS);
    expect(rig.offers).toEqual([]);
  });

  it('given prefixes: offered and trusted, nothing is asked', () => {
    const policy = new Policy();
    const rig = begun({ choice: '64:ff9b::/96,2001:db8:64::/48', policy, byDefault: 'off' });
    expect(rig.offers).toEqual(['64:ff9b::/96 2001:db8:64::/48']);
    expect(policy.prefixes).toEqual(['trusted 64:ff9b::/96,2001:db8:64::/48 found ']);
    expect(rig.asked).toEqual([]);
  });
});

describe('answers', () => {
  it('a prefix is offered, asked for again before its TTL ends, and withdrawn when it is gone', () => {
    const rig = begun();
    rig.answer(0, RECORDS, 600);
    expect(rig.offers).toEqual(['64:ff9b::/96']);
    vi.advanceTimersByTime(589_000);
    expect(rig.asked.length).toBe(1);
    vi.advanceTimersByTime(1_000);
    expect(rig.asked.length).toBe(2);
    rig.answer(0, RECORDS, 600);
    expect(rig.offers, 'the same').toEqual(['64:ff9b::/96']);
    vi.advanceTimersByTime(590_000);
    rig.answer(0, OTHER, 0);
    expect(rig.offers.at(-1)).toBe('2001:db8::/32 -64:ff9b::/96');
    vi.advanceTimersByTime(59_000);
    expect(rig.asked.length, 'a TTL of 0 is a minute').toBe(3);
    vi.advanceTimersByTime(1000);
    rig.answer(0, []);
    expect(rig.offers.at(-1)).toBe('-2001:db8::/32 -64:ff9b::/96');
    vi.advanceTimersByTime(86_400_000);
    expect(rig.asked.length, 'none: not asked again').toBe(4);
  });

  it('several resolvers: all their prefixes; one that is silent or fails does not count', () => {
    const rig = begun({ resolvers: ['192.0.2.53', '192.0.2.54', '192.0.2.55'] });
    rig.answer(1, RECORDS);
    rig.answer(1, OTHER);
    expect(rig.offers, 'the others may still answer').toEqual([]);
    rig.answer(0, OTHER, 1000);
    rig.answer(2, [], 0, false);
    expect(rig.offers).toEqual(['64:ff9b::/96 2001:db8::/32']);
    vi.advanceTimersByTime(990_000);
    expect(rig.asked).toEqual([3, 3]);
    rig.answer(0, RECORDS);
    vi.advanceTimersByTime(2000);
    expect(rig.asked, 'the second prefix may be the silent ones').toEqual([3, 3, 3]);
    rig.answer(0, RECORDS);
    vi.advanceTimersByTime(4000);
    expect(rig.offers.length).toBe(1);
    rig.answer(0, RECORDS);
    vi.advanceTimersByTime(8000);
    expect(rig.offers.at(-1)).toBe('64:ff9b::/96 -2001:db8::/32');
    expect(rig.asked.length).toBe(4);
  });

  it('no answer: six times, each after twice the time', () => {
    const rig = begun();
    const times: number[] = [];
    for (let s = 0; s < 3600; s++) {
      const before = rig.asked.length;
      vi.advanceTimersByTime(1000);
      if (rig.asked.length > before) times.push(s + 1);
    }
    expect(times).toEqual([2, 6, 14, 30, 62]);
  });

  it('no answer where a prefix is known: it stays, and is asked for at most each hour', () => {
    const rig = begun();
    rig.answer(0, RECORDS, 60);
    vi.advanceTimersByTime(24 * 3_600_000);
    expect(rig.offers).toEqual(['64:ff9b::/96']);
    expect(rig.asked.length).toBeGreaterThan(20);
    expect(rig.asked.length).toBeLessThan(40);
  });
});

describe('changes', () => {
  it('another route or resolver: asked again; without an answer there the prefix goes', () => {
    const rig = begun();
    rig.answer(0, RECORDS);
    rig.change();
    expect(rig.asked.length, 'nothing that matters has changed').toBe(1);
    rig.gateway = 'fe80::2';
    rig.change();
    expect(rig.asked.length).toBe(2);
    rig.answer(0, RECORDS);
    rig.nat64!.setResolvers(['192.0.2.99']);
    vi.advanceTimersByTime(200);
    expect(rig.asked.length).toBe(3);
    expect(rig.offers).toEqual(['64:ff9b::/96']);
    vi.advanceTimersByTime(300_000);
    expect(rig.offers.at(-1)).toBe('-64:ff9b::/96');
  });

  it('the host gets IPv4: withdrawn; loses it: offered again', () => {
    const rig = begun();
    rig.answer(0, RECORDS);
    rig.has4 = true;
    rig.change();
    expect(rig.offers.at(-1)).toBe('-64:ff9b::/96');
    rig.has4 = false;
    rig.change();
    rig.answer(0, RECORDS);
    expect(rig.offers.at(-1)).toBe('64:ff9b::/96');
  });

  it('late answers of the network before do not count', () => {
    const rig = begun({ resolvers: ['192.0.2.53', '192.0.2.54'] });
    rig.has6 = false;
    rig.change();
    rig.answer(0, RECORDS);
    rig.answer(1, RECORDS);
    expect(rig.offers).toEqual([]);
  });

  it('stopped: no timer is left', () => {
    const rig = new Rig();
    rig.nat64!.stop();
    const other = begun();
    other.nat64!.stop();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('--nat64', () => {
  it.each([
    ['', 'write auto, off, or an IPv6 prefix'],
    ['on', 'write auto, off, or an IPv6 prefix'],
    ['64:ff9b::', '32, 40, 48, 56, 64 or 96 bits'],
    ['64:ff9b::/95', '32, 40, 48, 56, 64 or 96 bits'],
    ['64:ff9b::1/96', 'has bits behind its 96'],
    ['64:ff9b::/96/1', 'write auto, off, or an IPv6 prefix'],
    ['10.0.0.0/32', 'write auto, off, or an IPv6 prefix'],
    ['ff02::/96', 'is not the prefix of a translator'],
    ['fe80::/64', 'is not the prefix of a translator'],
    ['64:ff9b::/96,', 'write auto, off, or an IPv6 prefix'],
    [Array.from({ length: 5 }, () => '64:ff9b::/96').join(), 'more than 4 prefixes'],
  ])('%s: an error that says what to write', (text, why) => {
    expect(() => parseNat64(text)).toThrow(UsageError);
    expect(() => parseNat64(text)).toThrow(why);
  });
});
