// @vitest: beside
/**
 * Multicast and broadcast (--multicast) with real programs on both ends: socat, iperf, avahi, minidlna and
 * gssdp-discover, and a program that checks payloads (clients/group.ts).
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  type Bed,
  type Guest,
  type Inside,
  makeBed,
  succeedIn,
  supportProgram,
  type Where,
} from '../support/bed.ts';
import { engine, ourPasta, repoRoot } from '../support/engines.ts';
import { GATEWAY4, HOST4, PEER4 } from '../support/ports.ts';
import { eventually, killTree, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const WAIT_MS = 10_000;
/** As long as a datagram that must not arrive is waited for. */
const SILENCE_MS = 400;
const GROUP4 = '239.1.2.3';
const GROUP6 = 'ff05::1:2';
const PORT = 5001;
const MULTICAST = ['--multicast', `all,${GROUP4}:${PORT},[${GROUP6}]:${PORT},broadcast:${PORT}`];
const HEX: Readonly<Record<string, string>> = { [GROUP4]: '030201EF', '224.0.0.251': 'FB0000E0' };

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** clients/group.ts on one side. */
class Talker {
  readonly started: Started;
  #done = 0;
  #read = 0;
  constructor(started: Started) {
    this.started = started;
  }
  get #lines(): string[] {
    return this.started.printed().stdout.split('\n');
  }
  async ready(): Promise<number> {
    const line = await eventually(`group.ts: ${this.started.printed().stderr}`, WAIT_MS, () =>
      this.#lines.find((l) => l.startsWith('ready ')),
    );
    return Number(line.slice(6));
  }
  async tell(...commands: string[]): Promise<void> {
    for (const command of commands) {
      this.started.process.stdin!.write(`${command}\n`);
      this.#done++;
      await eventually(`${command}: ${this.started.printed().stderr}`, WAIT_MS, () =>
        this.#lines.filter((l) => l === 'done').length >= this.#done ? true : undefined,
      );
    }
  }
  get heard(): string[] {
    return this.#lines.filter((l) => l.startsWith('heard ')).map((l) => l.slice(6));
  }
  /** The next datagram: "ADDRESS PORT BYTES SEED". */
  async next(): Promise<string> {
    const at = this.#read++;
    return eventually(`datagram ${at} arrives`, WAIT_MS, () => this.heard[at]);
  }
  /** Fails if a datagram arrives. */
  async silence(): Promise<void> {
    await sleep(SILENCE_MS);
    expect(this.heard.slice(this.#read)).toEqual([]);
  }
  end(): void {
    this.started.process.stdin!.end();
  }
}

const needs = [
  requireTool('socat', 'apt package socat'),
  requireTool('iperf', 'apt package iperf'),
  requireTool('avahi-daemon', 'apt package avahi-daemon'),
  requireTool('avahi-browse', 'apt package avahi-utils'),
  requireTool('dbus-daemon', 'apt package dbus-daemon'),
  requireTool('minidlnad', 'apt package minidlna'),
  requireTool('gssdp-discover', 'apt package gupnp-tools'),
];

describeE2e('multicast', needs, () => {
  let bed: Bed;
  const talkers: Talker[] = [];
  const begun: Started[] = [];
  beforeAll(async () => {
    bed = await makeBed();
    // So that programs of the peer without an interface of their own choice use the link.
    await succeedIn(bed, 'peer', ['ip', 'route', 'add', 'default', 'via', HOST4]);
  });
  afterAll(() => bed?.close());
  afterEach(() => {
    for (const talker of talkers.splice(0)) talker.end();
    for (const started of begun.splice(0)) killTree(started.pid);
  });

  const talk = async (where: Where | Inside, type: 'udp4' | 'udp6', port: number): Promise<Talker> => {
    const device = type === 'udp6' ? ['::%veth0'] : where === 'peer' ? [PEER4] : [];
    const argv = supportProgram('clients/group.ts', type, port, ...device);
    const started = typeof where === 'string' ? bed.start(where, argv) : where.startInside(argv);
    const talker = new Talker(started);
    talkers.push(talker);
    await talker.ready();
    return talker;
  };
  const start = (where: Where | Inside, argv: readonly string[]): Started => {
    const started = typeof where === 'string' ? bed.start(where, argv) : where.startInside(argv);
    begun.push(started);
    return started;
  };
  /** As eventually(), with what a program has printed in the error. */
  const shows = async (what: string, by: Started, check: () => unknown): Promise<void> => {
    await eventually(what, 2 * WAIT_MS, async () => Boolean(await check())).catch((e: Error) => {
      throw new Error(`${e.message}: ${printed(by)}`);
    });
  };
  const printed = ({ printed: p }: Started): string => `${p().stdout}\n${p().stderr}`;

  /** Groups of the host: lines of /proc/net/igmp and igmp6 without timers. */
  const hostGroups = async (): Promise<string> => {
    const out = await succeedIn(bed, 'host', ['cat', '/proc/net/igmp', '/proc/net/igmp6']);
    // Behind the group: users, and a timer that runs while a report is due.
    return out
      .split('\n')
      .map((line) =>
        line
          .trim()
          .split(/\s+/)
          .slice(0, 4)
          .join(' ')
          .replace(/ \d+:[0-9A-F]{8}$/, ''),
      )
      .join('\n');
  };
  const joined = async (group: string): Promise<void> => {
    const hex = HEX[group] ?? groupHex6(group);
    await eventually(`the host is a member of ${group}`, WAIT_MS, async () =>
      (await hostGroups()).includes(hex),
    );
  };
  const left = async (group: string): Promise<void> => {
    const hex = HEX[group] ?? groupHex6(group);
    await eventually(`the host has left ${group}`, WAIT_MS, async () => !(await hostGroups()).includes(hex));
  };

  it('without the option: nothing leaves, and nothing is joined', async () => {
    const guest = await bed.engine({ plan: 'fused' });
    try {
      const peer = await talk('peer', 'udp4', PORT);
      await peer.tell(`join ${GROUP4}`);
      const inside = await talk(guest, 'udp4', PORT);
      await inside.tell(`join ${GROUP4}`, `send ${GROUP4} ${PORT} 100 1`);
      await peer.tell(`send ${GROUP4} ${PORT} 100 2`);
      await peer.next(); // the peer's own
      expect(await inside.next()).toMatch(/ 100 1$/); // the guest's own, by its kernel
      await peer.silence();
      await inside.silence();
      expect(await hostGroups()).not.toContain(HEX[GROUP4]);
    } finally {
      await guest.stop();
    }
  });

  it('with a list of groups: others are neither sent to nor joined', async () => {
    const guest = await bed.engine({ plan: 'fused', extra: ['--multicast', `${GROUP4}:${PORT}`] });
    try {
      const peer = await talk('peer', 'udp4', PORT);
      await peer.tell(`join ${GROUP4}`, 'join 239.1.2.4');
      const inside = await talk(guest, 'udp4', 0);
      await inside.tell(`send 239.1.2.4 ${PORT} 100 1`, `send ${GROUP4} ${PORT} 100 2`);
      expect(await peer.next()).toMatch(/ 100 2$/);
      await inside.tell('join 239.1.2.4', `join ${GROUP4}`);
      await joined(GROUP4);
      expect(await hostGroups()).not.toContain('040201EF');
      await peer.silence();
    } finally {
      await guest.stop();
    }
  });

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    let before: string;
    const sameGroups = (): Promise<unknown> =>
      eventually('the host has its groups of before', WAIT_MS, async () => (await hostGroups()) === before);
    beforeAll(async () => {
      before = await hostGroups();
      guest = await bed.engine({ plan, extra: MULTICAST });
    });
    afterAll(async () => {
      if (guest === undefined) return;
      await guest.stop();
      await sameGroups();
    });

    it.each([
      ['udp4', GROUP4, PEER4],
      ['udp6', GROUP6, 'fd77::2'],
      ['udp6', 'ff02::fb', 'fe80::'],
    ] as const)(
      '%s %s: datagrams of all sizes arrive in both directions, unchanged and once',
      async (type, group, from) => {
        const sizes = [1, 1000, 1472, 5000, 60_000];
        const port = group === 'ff02::fb' ? 5353 : PORT;
        const peer = await talk('peer', type, port);
        const inside = await talk(guest, type, port);
        await peer.tell(`join ${group}`);
        await inside.tell(`join ${group}`);
        await joined(group);
        for (const [i, size] of sizes.entries()) {
          await peer.tell(`send ${group} ${port} ${size} ${i}`);
          expect(await inside.next()).toMatch(new RegExp(`^${from}.* ${port} ${size} ${i}$`));
          await peer.next();
        }
        for (const [i, size] of sizes.entries()) {
          await inside.tell(`send ${group} ${port} ${size} ${100 + i}`);
          expect(await peer.next()).toMatch(new RegExp(` ${port} ${size} ${100 + i}$`));
          expect(await inside.next()).toMatch(new RegExp(` ${size} ${100 + i}$`)); // by the guest's kernel
        }
        await inside.silence();
        await peer.silence();
        await inside.tell(`leave ${group}`);
        await left(group);
        await peer.tell(`send ${group} ${port} 100 7`);
        await inside.silence();
      },
    );

    it.each([
      ['udp4', '239.255.255.250', 1900, PEER4],
      ['udp4', '10.77.0.255', 1901, PEER4],
      ['udp4', '255.255.255.255', 1902, PEER4],
      ['udp6', 'ff02::c', 1900, 'fe80::'],
    ] as const)(
      '%s: a question to %s port %i is answered to the port that asked',
      async (type, group, port, from) => {
        const peer = await talk('peer', type, port);
        if (port === 1900) await peer.tell(`join ${group}`);
        await peer.tell('answer');
        const inside = await talk(guest, type, 0);
        await inside.tell(`send ${group} ${port} 300 50`);
        expect(await peer.next()).toMatch(/ 300 50$/);
        expect(await inside.next()).toMatch(new RegExp(`^${from}.* 300 51$`));
        await inside.silence();
      },
    );

    it('the TTL of the guest is kept', async () => {
      const server = start('peer', [
        'socat',
        '-u',
        `UDP4-RECVFROM:6000,ip-add-membership=239.7.7.7:${PEER4},ip-recvttl`,
        'SYSTEM:echo ttl $SOCAT_IP_TTL',
      ]);
      await sleep(300);
      const ask = `UDP4-DATAGRAM:239.7.7.7:6000,ip-multicast-ttl=7`;
      await eventually('socat prints the TTL', WAIT_MS, async () => {
        await guest.inside(['sh', '-c', `echo x | socat -u - ${ask}`]);
        return printed(server).includes('ttl');
      });
      expect(printed(server)).toContain('ttl 7');
    });

    it('socat with ip-add-membership inside: hears the peer', async () => {
      const inside = start(guest, [
        'socat',
        '-u',
        `UDP4-RECV:${PORT},reuseaddr,ip-add-membership=${GROUP4}:veth0`,
        '-',
      ]);
      await joined(GROUP4);
      await bed.run('peer', ['sh', '-c', `echo by socat | socat -u - UDP4-DATAGRAM:${GROUP4}:${PORT}`]);
      await eventually('the line', WAIT_MS, () => inside.printed().stdout.includes('by socat'));
    });

    it('broadcast of the peer reaches a port of the option, as broadcast', async () => {
      const inside = await talk(guest, 'udp4', PORT);
      const peer = await talk('peer', 'udp4', 0);
      await peer.tell(`send 255.255.255.255 ${PORT} 700 3`, `send 10.77.0.255 ${PORT} 700 4`);
      expect([await inside.next(), await inside.next()].map((l) => l.split(' ').slice(2).join(' '))).toEqual([
        '700 3',
        '700 4',
      ]);
      await inside.silence();
    });

    it('a source filter: only the source that was asked for is heard, and only it is joined', async () => {
      const inside = await talk(guest, 'udp4', PORT);
      await inside.tell(`join 239.1.2.9 ${GATEWAY4}`, `send 239.1.2.9 ${PORT} 10 9`);
      await eventually('the filter is set on the host', WAIT_MS, async () =>
        (await succeedIn(bed, 'host', ['cat', '/proc/net/mcfilter'])).includes('0xef010209'),
      );
      expect(await succeedIn(bed, 'host', ['cat', '/proc/net/mcfilter'])).toMatch(
        /0xef010209 0x0a4d00fe +1 +0/,
      );
      const from = (address: string, text: string): Promise<unknown> =>
        bed.run('peer', [
          'sh',
          '-c',
          `printf ${text} | socat -u - UDP4-DATAGRAM:239.1.2.9:${PORT},bind=${address}`,
        ]);
      await from(PEER4, 'wrong');
      await from(GATEWAY4, 'r');
      expect(await inside.next()).toMatch(new RegExp(`^${GATEWAY4} \\d+ 1 `));
      await inside.silence();
    });

    it('two containers with one group hear each other and the host, each datagram once', async () => {
      const other = await bed.engine({ plan, extra: MULTICAST });
      try {
        const a = await talk(guest, 'udp4', 5353);
        const b = await talk(other, 'udp4', 5353);
        const host = await talk('user', 'udp4', 5353);
        const peer = await talk('peer', 'udp4', 5353);
        for (const t of [a, b, host, peer]) await t.tell('join 224.0.0.251');
        await joined('224.0.0.251');
        await sleep(300);
        await a.tell('send 224.0.0.251 5353 400 1');
        for (const t of [a, b, host, peer]) expect(await t.next()).toMatch(/ 5353 400 1$/);
        await b.tell('send 224.0.0.251 5353 400 1'); // the same bytes
        for (const t of [a, b, host, peer]) expect(await t.next()).toMatch(/ 5353 400 1$/);
        await host.tell('send 224.0.0.251 5353 400 2');
        for (const t of [a, b, host, peer]) expect(await t.next()).toMatch(/ 5353 400 2$/);
        for (const t of [a, b, host, peer]) await t.silence();
      } finally {
        await other.stop();
      }
    });

    it('join and leave a thousand times: the host ends with the groups of before', async () => {
      const inside = await talk(guest, 'udp4', PORT);
      await inside.tell(`churn ${GROUP4} 1000`, `join ${GROUP4}`);
      await joined(GROUP4);
      const peer = await talk('peer', 'udp4', 0);
      await peer.tell(`send ${GROUP4} ${PORT} 100 5`);
      expect(await inside.next()).toMatch(/ 100 5$/);
      await inside.tell(`leave ${GROUP4}`);
      await sameGroups();
    });

    // Programs of the network; the plans differ in the thread that carries datagrams, which is tested above.
    const first = plan === engine.plans[0];

    it.runIf(first)('iperf 2 to a group with a TTL, in both directions: no datagram is lost', async () => {
      const serve = (where: Where | Inside, bind: string): Started =>
        start(where, ['iperf', '-s', '-u', '-B', bind, '-i', '1']);
      const ask = (group: string): string[] => ['iperf', '-c', group, '-u', '-T', '3', '-t', '2', '-b', '5M'];
      const report = (server: Started): Promise<string> =>
        eventually(
          'iperf prints its report',
          WAIT_MS,
          () => / [\d.]+ ms +\d+\/\d+ \(0%\)/.exec(printed(server))?.[0],
        );
      const inside = serve(guest, GROUP4);
      await joined(GROUP4);
      await succeedIn(bed, 'peer', ask(GROUP4));
      await report(inside);
      const outside = serve('peer', `${'239.1.2.5'}%veth0`);
      await sleep(500);
      expect((await guest.inside(ask('239.1.2.5'))).status).toBe(0);
      await report(outside);
    });

    const findEachOther = async (sides: readonly (readonly [string, Started])[]): Promise<void> => {
      begun.push(...sides.map(([, started]) => started));
      for (const [name, started] of sides) {
        await shows(`avahi ${name}`, started, () => printed(started).includes('published'));
      }
      for (const [name, started] of sides) {
        for (const [other] of sides.filter((side) => side[0] !== name)) {
          const line = new RegExp(`^\\+;[^;]*;IPv[46];service-of-${other};`, 'm');
          await shows(`${name} finds ${other}`, started, () => line.test(printed(started)));
        }
      }
    };

    it.runIf(first)('avahi: each side finds the service of the other', async () => {
      await findEachOther([
        ['outside', avahi(bed, 'peer', 'outside')],
        ['inside', avahi(bed, guest, 'inside')],
      ]);
    });

    it.runIf(first)(
      'avahi, beside an avahi-daemon of the host, with an address of its own: all find one another',
      async () => {
        const own = ['--address', '10.77.0.99/24', '--address', 'fd77::99/64'];
        const beside = await bed.engine({ plan, extra: [...MULTICAST, ...own] });
        try {
          const between = avahi(bed, 'host', 'between');
          begun.push(between);
          await shows('avahi of the host', between, () => printed(between).includes('published'));
          await findEachOther([
            ['outside', avahi(bed, 'peer', 'outside')],
            ['between', between],
            ['inside', avahi(bed, beside, 'inside')],
          ]);
        } finally {
          await beside.stop();
        }
      },
    );

    it.runIf(first)('SSDP: gssdp-discover inside finds minidlna outside, and the reverse', async () => {
      const outside = start('peer', dlna('10.77.0.2', 'outside'));
      const found = async (where: 'peer' | Inside): Promise<string> => {
        const argv = [
          'gssdp-discover',
          '-i',
          'veth0',
          '-n',
          '3',
          '-t',
          'urn:schemas-upnp-org:device:MediaServer:1',
        ];
        const { stdout } = where === 'peer' ? await bed.run('peer', argv) : await where.inside(argv);
        return stdout;
      };
      await shows('minidlna outside is found', outside, async () =>
        (await found(guest)).includes(`http://${PEER4}:8200/rootDesc.xml`),
      );
      const inside = start(guest, dlna(HOST4, 'inside'));
      await shows('minidlna inside is found', inside, async () =>
        (await found('peer')).includes(`http://${HOST4}:8200/rootDesc.xml`),
      );
    });
  });

  it.each(['attach', 'pasta', 'slirp4netns'] as const)('%s: a group in both directions', async (program) => {
    const extra = ['--multicast', '224.0.0.251', '--multicast', '[ff02::fb]:5353'];
    const begin = async (): Promise<[Inside, () => Promise<unknown>]> => {
      if (program === 'pasta') {
        const guest = await bed.engine({ engine: ourPasta, extra });
        return [guest, () => guest.stop()];
      }
      const empty = await bed.emptyGuest();
      const target = String(bed.pidSeenInside(empty.pid));
      if (program === 'attach') bed.attach('user', { plan: 'fused', extra }, target);
      else start('user', [`${repoRoot}/bin/slirp4netns`, '-c', ...extra, target, 'tap0']);
      await eventually('the namespace has an interface', WAIT_MS, async () =>
        (await empty.inside(['ip', 'route'])).stdout.includes('default'),
      );
      return [empty, () => empty.end()];
    };
    const [guest, end] = await begin();
    try {
      const families = [
        ['udp4', '224.0.0.251'],
        ['udp6', 'ff02::fb'],
      ] as const;
      // slirp4netns has IPv6 only with -6, and no interface of the host for link-local destinations.
      for (const [type, group] of families.slice(0, program === 'slirp4netns' ? 1 : 2)) {
        const peer = await talk('peer', type, 5353);
        const inside = await talk(guest, type, 5353);
        await peer.tell(`join ${group}`);
        await inside.tell(`join ${group}`);
        await joined(group);
        await peer.tell(`send ${group} 5353 100 1`);
        expect(await inside.next()).toMatch(/ 5353 100 1$/);
        await peer.next();
        await inside.tell(`send ${group} 5353 100 2`);
        expect(await peer.next()).toMatch(/ 5353 100 2$/);
      }
    } finally {
      await end();
      // It does not end with the namespace.
      if (program === 'slirp4netns') for (const started of begun.splice(0)) killTree(started.pid);
    }
    await left('224.0.0.251');
  });

  it('slirp4netns: the broadcast address of its own subnet becomes 255.255.255.255 on the host', async () => {
    const guest = await bed.emptyGuest();
    const argv = ['-c', '--multicast', 'broadcast', String(bed.pidSeenInside(guest.pid)), 'tap0'];
    start('user', [`${repoRoot}/bin/slirp4netns`, ...argv]);
    try {
      await eventually('the namespace has an interface', WAIT_MS, async () =>
        (await guest.inside(['ip', 'route'])).stdout.includes('default'),
      );
      const peer = await talk('peer', 'udp4', PORT);
      await peer.tell('answer');
      const inside = await talk(guest, 'udp4', 0);
      await inside.tell(`send 10.0.2.255 ${PORT} 100 1`);
      expect(await peer.next()).toMatch(/ 100 1$/);
      expect(await inside.next()).toMatch(/^10\.77\.0\.2 \d+ 100 2$/);
    } finally {
      await guest.end();
    }
  });

  it('a flood: the rate is bounded, and one log line says so', async () => {
    const guest = await bed.engine({ plan: 'fused', extra: MULTICAST });
    try {
      const inside = await talk(guest, 'udp4', PORT);
      await inside.tell(`join ${GROUP4}`);
      await joined(GROUP4);
      await succeedIn(bed, 'peer', ['iperf', '-c', GROUP4, '-u', '-l', '60', '-b', '100M', '-t', '1']);
      await shows('the log line', guest.started, () =>
        guest.started.printed().stderr.includes('multicast: more than 20000 datagrams a second'),
      );
      expect(guest.started.printed().stderr.match(/multicast: /g)).toHaveLength(1);
    } finally {
      await guest.stop();
    }
  });

  it('the guest floods a group of its own: it gets no datagram twice', async () => {
    const guest = await bed.engine({ plan: 'fused', extra: [...MULTICAST, '--stats'] });
    let stats: string;
    try {
      const inside = await talk(guest, 'udp4', PORT);
      await inside.tell(`join ${GROUP4}`);
      await joined(GROUP4);
      await guest.inside(['iperf', '-c', GROUP4, '-u', '-l', '60', '-b', '50M', '-t', '1']);
    } finally {
      await guest.stop();
      stats = guest.started.printed().stderr;
    }
    expect(Number(/groupSendsLooped +([\d,]+)/.exec(stats)?.[1]?.replaceAll(',', ''))).toBeGreaterThan(1000);
    expect(stats).not.toContain('groupDatagramsToGuest');
  });

  it('with --outbound-interface: groups are joined on that interface', async () => {
    await succeedIn(bed, 'peer', [
      'ip',
      'link',
      'add',
      'veth1',
      'type',
      'veth',
      'peer',
      'veth1',
      'netns',
      '1',
    ]);
    await succeedIn(bed, 'host', ['ip', 'addr', 'add', '10.78.0.1/24', 'dev', 'veth1']);
    await succeedIn(bed, 'host', ['ip', 'link', 'set', 'veth1', 'up']);
    await succeedIn(bed, 'peer', ['ip', 'addr', 'add', '10.78.0.2/24', 'dev', 'veth1']);
    await succeedIn(bed, 'peer', ['ip', 'link', 'set', 'veth1', 'up']);
    const guest = await bed.engine({ plan: 'fused', extra: ['--outbound-interface', 'veth1', ...MULTICAST] });
    try {
      const inside = await talk(guest, 'udp4', PORT);
      await inside.tell(`join ${GROUP4}`);
      await joined(GROUP4);
      const igmp = await succeedIn(bed, 'host', ['cat', '/proc/net/igmp']);
      expect(igmp.slice(igmp.indexOf('veth1'))).toContain(HEX[GROUP4]);
      const send = (device: string, text: string): Promise<unknown> =>
        bed.run('peer', [
          'sh',
          '-c',
          `printf ${text} | socat -u - UDP4-DATAGRAM:${GROUP4}:${PORT},ip-multicast-if=${device}`,
        ]);
      await send('10.77.0.2', 'wrong');
      await send('10.78.0.2', 'r');
      expect(await inside.next()).toMatch(/^10\.78\.0\.2 \d+ 1 /);
      await inside.silence();
      const peer = start('peer', [
        'socat',
        '-u',
        `UDP4-RECV:6001,ip-add-membership=239.7.7.8:10.78.0.2`,
        '-',
      ]);
      await eventually('a datagram arrives by veth1', WAIT_MS, async () => {
        await guest.inside(['sh', '-c', 'echo by veth1 | socat -u - UDP4-DATAGRAM:239.7.7.8:6001']);
        return peer.printed().stdout.includes('by veth1');
      });
    } finally {
      await guest.stop();
    }
  });

  it('the default route moves to another interface: the group is joined there, and heard', async () => {
    const guest = await bed.engine({ plan: 'fused', extra: MULTICAST });
    const membersOf = async (device: string): Promise<boolean> => {
      const igmp = await succeedIn(bed, 'host', ['cat', '/proc/net/igmp']);
      // The lines of a device's groups begin with a tab.
      const block = igmp.split(/^(?=\S)/m).find((lines) => lines.split(/\s+/)[1] === device);
      return block?.includes(HEX[GROUP4]!) ?? false;
    };
    try {
      const inside = await talk(guest, 'udp4', PORT);
      await inside.tell(`join ${GROUP4}`);
      await eventually('joined on veth0', WAIT_MS, () => membersOf('veth0'));
      await succeedIn(bed, 'host', ['ip', 'route', 'replace', 'default', 'via', '10.78.0.2', 'dev', 'veth1']);
      await eventually('joined on veth1', WAIT_MS, () => membersOf('veth1'));
      await bed.run('peer', [
        'sh',
        '-c',
        `printf r | socat -u - UDP4-DATAGRAM:${GROUP4}:${PORT},ip-multicast-if=10.78.0.2`,
      ]);
      expect(await inside.next()).toMatch(/^10\.78\.0\.2 \d+ 1 /);
    } finally {
      await succeedIn(bed, 'host', ['ip', 'route', 'replace', 'default', 'via', GATEWAY4, 'dev', 'veth0']);
      await guest.stop();
    }
  });
});

/** As in /proc/net/igmp6. */
function groupHex6(group: string): string {
  const [head = '', tail = ''] = group.split('::');
  const words = (half: string): string[] =>
    half === '' ? [] : half.split(':').map((w) => w.padStart(4, '0'));
  const front = words(head);
  const back = words(tail);
  return [...front, ...Array(8 - front.length - back.length).fill('0000'), ...back].join('');
}

/**
 * An avahi-daemon with a message bus of its own, which publishes a service and prints those that it finds.
 */
function avahi(bed: Bed, where: Where | Inside, name: string): Started {
  const script = `
    mount -t tmpfs tmpfs /run && mkdir -p /run/avahi-daemon /run/dbus || exit 1
    export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket
    cat >/run/bus.conf <<END
<busconfig><type>system</type><listen>$DBUS_SYSTEM_BUS_ADDRESS</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/><allow eavesdrop="true"/></policy>
</busconfig>
END
    printf '[server]\\nhost-name=${name}\\nuse-ipv4=yes\\nuse-ipv6=yes\\nallow-interfaces=veth0\\nenable-dbus=yes\\nratelimit-burst=1000\\n[wide-area]\\nenable-wide-area=no\\n' >/run/avahi.conf
    # avahi-daemon gives its directory to the user avahi; here there is only root.
    printf 'root:x:0:0::/:/bin/sh\\navahi:x:0:0::/:/bin/sh\\n' >/run/passwd
    printf 'root:x:0:\\navahi:x:0:\\nnetdev:x:0:\\n' >/run/group
    mount --bind /run/passwd /etc/passwd && mount --bind /run/group /etc/group || exit 1
    dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile &
    while [ ! -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
    avahi-daemon --no-drop-root --no-chroot --no-rlimits -f /run/avahi.conf &
    until avahi-browse -at >/dev/null 2>&1; do sleep 0.1; done
    avahi-publish -s service-of-${name} _bucatini._tcp 4711 2>&1 | sed -u 's/.*Established.*/published/' &
    exec avahi-browse -p _bucatini._tcp
  `;
  const argv = ['unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', script];
  return typeof where === 'string' ? bed.start(where, argv) : where.startInside(argv);
}

/** minidlna with a library of its own. */
function dlna(address: string, name: string): string[] {
  const script = `
    mount -t tmpfs tmpfs /run && mkdir -p /run/media /run/db || exit 1
    printf 'port=8200\\nnetwork_interface=veth0\\nmedia_dir=/run/media\\ndb_dir=/run/db\\nlog_dir=/run/db\\nfriendly_name=${name}\\ninotify=no\\nnotify_interval=5\\n' >/run/dlna.conf
    exec minidlnad -S -f /run/dlna.conf -P /run/dlna.pid 2>&1 # ${address}
  `;
  return ['unshare', '--mount', 'sh', '-c', script];
}
