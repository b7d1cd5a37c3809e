// @vitest: beside
/** The options of the library beside those of `bucatini run`, of which they are the counterparts. */
import { describe, expect, it } from 'vitest';
import { createNetwork } from '../../src/library/network.ts';
import {
  type Impairment,
  lineArguments,
  type NetworkOptions,
  toArguments,
} from '../../src/library/options.ts';
import { OPTIONS, parseArguments, type Settings } from '../../src/main/bucatini/options.ts';
import { LineSettings } from '../../src/main/cli/lines.ts';

/** Every option with a value; `run` accepts them together. */
const EVERYTHING = {
  logLevel: 'info',
  address: ['192.0.2.7/24'],
  gateway: '192.0.2.1',
  dns: ['192.0.2.53', '192.0.2.54'],
  interfaceName: 'net0',
  mtu: 1400,
  ipv6: false,
  configure: false,
  publish: [8080, '127.0.0.1:5353:53/udp'],
  splice: true,
  hostLoopback: '192.0.2.2',
  multicast: ['224.0.0.251', '239.1.2.3:5001'],
  outboundInterface: 'eth7',
  allow: ['192.0.2.0/24:443', 'private'],
  deny: 'host',
  policyFile: '/dev/null',
  threads: 'fused',
  poolSize: 16,
} satisfies NetworkOptions;
/** Those that exclude one another, or need --pcap. */
const OTHERS = {
  ipv4: false,
  impairment: 'none',
  nat64: '64:ff9b::/96',
  pcapRotate: 'size=1mb,files=2',
  pcapRing: '1mb',
  pcapSnaplen: 96,
  pcapFilter: 'tcp port 443',
} satisfies NetworkOptions;
/** Exhaustive, so that no option is left out of these tests. */
const ALL: Required<Omit<NetworkOptions, 'signal' | 'onLog'>> = { ...EVERYTHING, ...OTHERS, pcap: 'x.pcap' };
/**
 * Options of `run` that the library needs itself, has its own way for, or replaces: its log is lines of text, and
 * counters come from stats(). Socket switching is for COMMAND and its children; programs of the library are none of
 * them: nsenter(1) starts them.
 */
const NOT_MIRRORED = [
  ...['api-socket', 'rate', 'delay', 'loss', 'help', 'version'],
  ...['stats', 'stats-json', 'stats-interval', 'metrics', 'log-format'],
  ...['switch-sockets', 'no-switch'],
];

const settingsOf = (options: NetworkOptions): Settings => {
  const parsed = parseArguments('run', toArguments(options));
  if (parsed.kind !== 'go') throw new Error(parsed.kind);
  return parsed.settings;
};

describe('options', () => {
  it('each becomes the option of `run` that it is named after', () => {
    expect(settingsOf(EVERYTHING)).toMatchObject({
      logLevel: 'info',
      address4: { address: '192.0.2.7', prefixLen: 24 },
      gateway4: '192.0.2.1',
      dns: ['192.0.2.53', '192.0.2.54'],
      interfaceName: 'net0',
      mtu: 1400,
      ipv4: true,
      ipv6: false,
      configure: false,
      publish: [{ port: 8080 }, { address: '127.0.0.1', port: 5353, targetPort: 53, proto: 'udp' }],
      splice: true,
      hostLoopback4: '192.0.2.2',
      outboundInterface: 'eth7',
      threads: { kind: 'fused' },
      poolMib: 16,
    });
    expect(settingsOf({ pcap: 'x.pcap', ipv4: false })).toMatchObject({ pcap: 'x.pcap', ipv4: false });
    for (const option of Object.entries(OTHERS)) {
      const options = Object.fromEntries([option]);
      const [name] = /(?<=--)[a-z0-9-]+/.exec(toArguments(options)[0]!)!;
      if (OPTIONS.some((one) => one.name === name)) settingsOf({ pcap: 'x.pcap', ...options });
    }
    expect(settingsOf({ splice: false, ipv4: true, configure: true, mtu: undefined })).toEqual(
      settingsOf({}),
    );
  });

  it('no option of `run` is missing', () => {
    const args = toArguments(ALL);
    const used = new Set(args.map((arg) => /^--([a-z0-9-]+)/.exec(arg)![1]));
    const ofRun = OPTIONS.filter(({ commands }) => commands.includes('run')).map(({ name }) => name);
    expect(ofRun.filter((name) => !used.has(name) && !NOT_MIRRORED.includes(name))).toEqual([]);
  });

  it('one that does not exist is refused, whatever its name', async () => {
    for (const name of ['mtuu', 'toString', '__proto__x'])
      await expect(createNetwork({ [name]: 1 })).rejects.toMatchObject({
        code: 'argument',
        message: `createNetwork: "${name}": unknown option`,
      });
    expect(() => toArguments({ pcap: '-' })).toThrow('write the name of a file');
  });
});

describe('an emulated line', () => {
  const LINE: Required<Omit<Impairment, 'to' | 'seed'>> = {
    profile: '3g',
    rate: ['10mbit/up', '20mbit/down'],
    queue: '256k',
    delay: '50ms,5ms',
    loss: '1%,5',
    duplicate: '1%',
    reorder: '1%,5ms',
    corrupt: '0.1%',
    maxPacket: '1400',
  };

  it('every setting is one that `set_impairment` knows, under its name there', () => {
    const settings = new LineSettings();
    for (const [key, value] of Object.entries(lineArguments(LINE)))
      for (const text of [value].flat()) settings.set(key, text as string);
    const { fromGuest: up, toGuest: down } = settings.plan().rest;
    expect(up).toMatchObject({ bytesPerSecond: 1.25e6, delayMs: 50, duplicate: 0.01, maxPacketBytes: 1400 });
    expect(down).toMatchObject({ bytesPerSecond: 2.5e6, jitterMs: 5, corrupt: 0.001 });
  });

  it('a seed and a name are for the start, sections are settings of their own', () => {
    expect(toArguments({ impairment: '3g' })).toEqual(['--impair=3g']);
    expect(toArguments({ impairment: { ...LINE, seed: 7 } })).toEqual(['--impair=none', '--impair=seed=7']);
    expect(settingsOf({ impairment: { seed: 7 } }).shaping?.seed).toBe(7);
    expect(lineArguments('none')).toEqual({});
    expect(lineArguments('3g')).toEqual({ profile: '3g' });
    const section = { addresses: '192.0.2.0/24', maxPacket: '1300', delay: undefined };
    expect(lineArguments({ seed: 1, to: section })).toEqual({
      to: [{ addresses: '192.0.2.0/24', 'max-packet': '1300' }],
    });
  });
});
