// @vitest: beside
/**
 * The seccomp profile for `bucatini switch-agent`. What a profile decides about a call is compared before and after by
 * a small model of libseccomp: a rule applies to a call when all its conditions hold.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { switchProfile, switchProfileText } from '../../src/main/bucatini/switch-profile.ts';

const AGENT = '/run/user/1000/bucatini-switch.sock';
const FASTOPEN = 0x2000_0000;
const NOSIGNAL = 0x4000;

type Argument = { index: number; value: number; valueTwo: number; op: string };
type Rule = {
  names: string[];
  action: string;
  args?: Argument[] | null;
  errnoRet?: number;
  includes?: object;
  excludes?: object;
};
type Profile = {
  defaultAction: string;
  defaultErrnoRet?: number;
  syscalls: Rule[];
  flags?: string[];
  listenerPath?: string;
};
const changed = (base: object): Profile => switchProfile(base, 'base', AGENT) as unknown as Profile;

/** The parts of Podman's profile that matter, as it writes them. */
const podman = (): Profile & Record<string, unknown> => ({
  defaultAction: 'SCMP_ACT_ERRNO',
  defaultErrnoRet: 38,
  defaultErrno: 'ENOSYS',
  archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86', 'SCMP_ARCH_X32'] }],
  syscalls: [
    { names: ['bdflush', 'io_pgetevents'], action: 'SCMP_ACT_ERRNO', args: [], errnoRet: 1 },
    {
      names: [
        'accept',
        'bind',
        'close',
        'connect',
        'epoll_create',
        'epoll_create1',
        'listen',
        'sendmmsg',
        'sendmsg',
        'sendto',
        'socketcall',
      ],
      action: 'SCMP_ACT_ALLOW',
      args: [],
      includes: {},
      excludes: {},
    },
    { names: ['setns'], action: 'SCMP_ACT_ALLOW', args: [], includes: { caps: ['CAP_SYS_ADMIN'] } },
    {
      names: ['socket'],
      action: 'SCMP_ACT_ERRNO',
      args: [{ index: 0, value: 40, valueTwo: 0, op: 'SCMP_CMP_EQ' }],
      errnoRet: 22,
    },
  ],
});

/** What a profile answers to a call with these flags, without capabilities. */
function verdict(profile: Profile, name: string, flags = 0): string {
  const holds = ({ index, value, valueTwo, op }: Argument): boolean => {
    const of = (name === 'sendmsg' ? 2 : 3) === index ? flags : 0;
    return op === 'SCMP_CMP_MASKED_EQ' ? (of & value) >>> 0 === valueTwo : of === value;
  };
  const rule = profile.syscalls.find(
    (one) =>
      one.names.includes(name) &&
      !JSON.stringify(one.includes ?? {}).includes('CAP_') &&
      (one.args ?? []).every(holds),
  );
  const { action, errnoRet } = rule ?? { action: profile.defaultAction, errnoRet: profile.defaultErrnoRet };
  return action === 'SCMP_ACT_ERRNO' ? `${action} ${errnoRet}` : action;
}

describe('the profile for the agent', () => {
  it("Podman's own: calls are notified or refused as documented, all else is as it was", () => {
    const base = podman();
    const made = changed(base);
    for (const name of ['connect', 'bind', 'listen', 'epoll_create', 'epoll_create1'])
      expect(verdict(made, name)).toBe('SCMP_ACT_NOTIFY');
    for (const name of ['sendto', 'sendmsg', 'sendmmsg']) {
      expect(verdict(made, name)).toBe('SCMP_ACT_ALLOW');
      expect(verdict(made, name, NOSIGNAL)).toBe('SCMP_ACT_ALLOW');
      expect(verdict(made, name, FASTOPEN)).toBe('SCMP_ACT_ERRNO 95');
      expect(verdict(made, name, FASTOPEN | NOSIGNAL)).toBe('SCMP_ACT_ERRNO 95');
    }
    for (const name of ['accept', 'close', 'socketcall', 'bdflush', 'mount', 'io_uring_setup', 'setns'])
      expect(verdict(made, name)).toBe(verdict(base, name));
    const { syscalls: _, listenerPath, ...rest } = made;
    const { syscalls: __, ...before } = base;
    expect(listenerPath).toBe(AGENT);
    expect(rest).toEqual(before);
    expect(made.syscalls[0]).toEqual(base.syscalls[0]);
    expect(made.syscalls.at(-1)).toEqual(base.syscalls[3]);
  });

  it('a base that allows io_uring: EPERM; one that refuses connect: still refused in its way', () => {
    const base = podman();
    base.syscalls.push({ names: ['io_uring_setup', 'io_uring_enter', 'read'], action: 'SCMP_ACT_ALLOW' });
    base.syscalls[1]!.names = base.syscalls[1]!.names.filter((name) => name !== 'connect');
    base.syscalls.push({ names: ['connect'], action: 'SCMP_ACT_ERRNO', errnoRet: 13 });
    const made = changed(base);
    expect(verdict(made, 'io_uring_setup')).toBe('SCMP_ACT_ERRNO 1');
    expect(verdict(made, 'io_uring_register')).toBe('SCMP_ACT_ERRNO 38');
    expect(verdict(made, 'read')).toBe('SCMP_ACT_ALLOW');
    expect(verdict(made, 'connect')).toBe('SCMP_ACT_ERRNO 13');
  });

  it("bypass4netns's profile, which allows all and notifies of more: its rules stay, ours are added", () => {
    const made = changed({
      defaultAction: 'SCMP_ACT_ALLOW',
      listenerPath: '/run/user/1000/bypass4netns.sock',
      syscalls: [{ names: ['bind', 'close', 'connect', 'setsockopt'], action: 'SCMP_ACT_NOTIFY' }],
    });
    for (const name of ['bind', 'close', 'connect', 'setsockopt', 'listen'])
      expect(verdict(made, name)).toBe('SCMP_ACT_NOTIFY');
    expect(verdict(made, 'io_uring_enter')).toBe('SCMP_ACT_ERRNO 1');
    expect(verdict(made, 'sendto', FASTOPEN)).toBe('SCMP_ACT_ERRNO 95');
    expect(verdict(made, 'sendto')).toBe('SCMP_ACT_ALLOW');
    expect(made.listenerPath).toBe(AGENT);
  });

  it('WAIT_KILLABLE_RECV is removed, other flags stay; the older format with one name is understood', () => {
    const made = changed({
      defaultAction: 'SCMP_ACT_ERRNO',
      flags: ['SECCOMP_FILTER_FLAG_LOG', 'SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV'],
      syscalls: [
        { name: 'connect', action: 'SCMP_ACT_ALLOW', args: null },
        { name: 'read', action: 'SCMP_ACT_ALLOW', args: null },
      ],
    });
    expect(made.flags).toEqual(['SECCOMP_FILTER_FLAG_LOG']);
    expect(made.syscalls).toEqual([
      { names: ['connect'], action: 'SCMP_ACT_NOTIFY', args: null },
      { name: 'read', action: 'SCMP_ACT_ALLOW', args: null },
    ]);
  });

  const names = fc.uniqueArray(
    fc.constantFrom(
      ...[
        'connect',
        'bind',
        'listen',
        'epoll_create',
        'epoll_create1',
        'sendto',
        'sendmsg',
        'sendmmsg',
        'io_uring_setup',
        'io_uring_enter',
      ],
      ...['read', 'close', 'socket', 'setns', 'toString', 'constructor'],
    ),
    { minLength: 1 },
  );
  const actions = fc.constantFrom(
    'SCMP_ACT_ALLOW',
    'SCMP_ACT_ERRNO',
    'SCMP_ACT_LOG',
    'SCMP_ACT_NOTIFY',
    'SCMP_ACT_KILL',
  );
  const anyProfile = fc.record({
    defaultAction: actions,
    defaultErrnoRet: fc.constant(38),
    architectures: fc.array(fc.constantFrom('SCMP_ARCH_X86_64', 'SCMP_ARCH_X86')),
    syscalls: fc.array(
      fc.record(
        {
          names,
          action: actions,
          errnoRet: fc.nat(100),
          args: fc.constantFrom([], [{ index: 0, value: 1, valueTwo: 0, op: 'SCMP_CMP_EQ' }]),
          includes: fc.constantFrom({}, { caps: ['CAP_SYS_ADMIN'] }),
        },
        { requiredKeys: ['names', 'action'] },
      ),
    ),
  });

  it('any profile: nothing becomes allowed, only the named calls change, a second time changes nothing', () => {
    const named = /^(connect|bind|listen|epoll_create1?|io_uring_\w+)$/;
    fc.assert(
      fc.property(anyProfile, (base) => {
        const before = structuredClone(base) as unknown as Profile;
        const made = changed(base);
        expect(base).toEqual(before);
        expect(changed(made)).toEqual(made);
        const calls = [...new Set(base.syscalls.flatMap((rule) => rule.names)), 'connect', 'sendto', 'mount'];
        for (const name of calls) {
          for (const flags of [0, NOSIGNAL, FASTOPEN]) {
            const was = verdict(before, name, flags);
            const is = verdict(made, name, flags);
            if (!named.test(name) && !(flags === FASTOPEN && /^send/.test(name))) expect(is).toBe(was);
            // Stricter or equal.
            if (is !== was) {
              expect(was).toMatch(/ALLOW|LOG/);
              expect(is).toMatch(/NOTIFY|ERRNO/);
            }
          }
        }
        const { syscalls: _, listenerPath: __, ...rest } = made;
        const { syscalls: ___, ...restBefore } = before;
        expect(rest).toEqual(restBefore);
      }),
    );
  });

  describe('files', () => {
    let dir = '';
    beforeAll(() => {
      dir = mkdtempSync(join(tmpdir(), 'profile-'));
    });
    afterAll(() => rmSync(dir, { recursive: true, force: true }));
    const at = (name: string, text: string): string => {
      writeFileSync(join(dir, name), text);
      return join(dir, name);
    };

    it("without a base: the first of Podman's own that is there", () => {
      const own = [join(dir, 'none'), at('own.json', JSON.stringify(podman()))];
      expect(JSON.parse(switchProfileText(undefined, AGENT, own))).toEqual(changed(podman()));
      expect(() => switchProfileText(undefined, AGENT, own.slice(0, 1))).toThrow(
        /none is there; install the package/,
      );
    });

    it.each([
      ['empty', '', 'is not JSON'],
      ['no-json', '{"defaultAction"', 'is not JSON'],
      ['list', '[]', 'is not a JSON object'],
      ['other', '{"a":1}', 'is not a seccomp profile: it has no defaultAction'],
      ['rules', '{"defaultAction":"SCMP_ACT_ERRNO","syscalls":{}}', 'is not a list of rules'],
      [
        'names',
        '{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":[1],"action":"x"}]}',
        'is not a list of rules',
      ],
      [
        'args',
        '{"defaultAction":"x","syscalls":[{"names":["a"],"action":"x","args":[1]}]}',
        'is not a list of rules',
      ],
      [
        'flags',
        '{"defaultAction":"x","syscalls":[{"names":["sendto"],"action":"SCMP_ACT_ALLOW","args":[{"index":3}]}]}',
        'has a condition on the flags of sendto',
      ],
    ])('%s: refused with the name of the file', (name, text, why) => {
      const path = at(`${name}.json`, text);
      expect(() => switchProfileText(path, AGENT)).toThrow(
        `${path}: ${why === 'is not a list of rules' ? '' : why}`,
      );
      expect(() => switchProfileText(path, AGENT)).toThrow(why);
    });

    it('a file that is missing or a directory: refused in one line', () => {
      expect(() => switchProfileText(join(dir, 'none'), AGENT)).toThrow(
        `${join(dir, 'none')}: cannot be read: no such file or directory`,
      );
      expect(() => switchProfileText(dir, AGENT)).toThrow(
        /^\S+: cannot be read: illegal operation on a directory$/,
      );
    });
  });
});
