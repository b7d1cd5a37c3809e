// @vitest: beside
/**
 * The Debian package (scripts/package-deb.sh) of this build: what is in it, and that its programs run from the
 * unpacked tree, through the links in usr/bin. The tarball and the RPM are made of the same tree; installing in
 * a system and lintian are tried by hand (docs/decisions/136-packages.md).
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { repoRoot } from '../main/source-tree.ts';
import { describeNeeding, type Need, requireNamespaces, requireTool } from '../support/require.ts';

const PROGRAMS = ['bucatini', 'pasta', 'slirp4netns', 'pesto'];
const { version } = JSON.parse(readFileSync(`${repoRoot}/package.json`, 'utf8'));

const requireBuild: Need = () =>
  existsSync(`${repoRoot}/dist/bun/bucatini`) ? undefined : 'a build for Bun is missing (npm run build)';

const run = (command: string, ...args: readonly string[]): string => {
  const { stdout, stderr, status } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout: 60_000,
    env: { PATH: process.env.PATH, PACKAGE_COMPRESSION: 'zstd' },
  });
  expect({ status, stderr }, `${command} ${args.join(' ')}`).toEqual({ status: 0, stderr: '' });
  return stdout;
};

describeNeeding(
  'Debian package',
  [requireTool('dpkg-deb', 'apt package dpkg'), requireBuild, requireNamespaces],
  () => {
    const dir = mkdtempSync(`${tmpdir()}/package-`);
    const tree = `${dir}/tree`;
    let deb = '';
    beforeAll(() => {
      chmodSync(dir, 0o755); // pasta as root runs as nobody
      deb = run('sh', `${repoRoot}/scripts/package-deb.sh`, dir).trim();
      run('dpkg-deb', '-x', deb, tree);
    }, 60_000);
    afterAll(() => rmSync(dir, { recursive: true }));

    it('name and control file: version, architecture, size; the installed files have their digests', () => {
      const [name, made, arch, size, depends] = run(
        'dpkg-deb',
        '-W',
        `--showformat=${['Package', 'Version', 'Architecture', 'Installed-Size', 'Depends'].map((field) => `\${${field}}`).join(' ')}`,
        deb,
      ).split(' ');
      expect({ name, made }).toEqual({ name: 'bucatini', made: `${version}-1` });
      expect(deb).toBe(`${dir}/bucatini_${version}-1_${arch}.deb`);
      expect(Number(size)).toBeGreaterThan(50_000);
      expect(Number(size)).toBeLessThan(140_000);
      expect(depends).toBe('libc6');
      const sums = run('dpkg-deb', '-I', deb, 'md5sums').trim().split('\n');
      expect(sums.length).toBeGreaterThan(50);
      expect(sums.every((line) => /^[0-9a-f]{32} {2}usr\//.test(line))).toBe(true);
    });

    it('files: owned by root, no path of a distribution package passt or slirp4netns, a manual page and completions for each program', () => {
      const lines = run('dpkg-deb', '-c', deb).trim().split('\n');
      expect(lines.filter((line) => !/^[dl-][rwx-]{9} root\/root /.test(line))).toEqual([]);
      const files = lines.map((line) => line.replace(/^.* \.\//, '/').replace(/ -> .*$/, ''));
      for (const name of PROGRAMS) {
        const as = name === 'bucatini' ? name : `bucatini-${name}`;
        expect(files).toEqual(
          expect.arrayContaining([
            `/usr/bin/${as}`,
            `/usr/share/man/man1/${as}.1.gz`,
            `/usr/share/bash-completion/completions/${as}`,
            `/usr/share/zsh/vendor-completions/_${as}`,
            `/usr/share/fish/vendor_completions.d/${as}.fish`,
          ]),
        );
      }
      const foreign = /^\/usr\/(s?bin|share\/.*)\/_?(pasta|slirp4netns|pesto)(\.|$)/;
      expect(files.filter((file) => foreign.test(file))).toEqual([]);
      expect(files).toContain('/etc/apparmor.d/bucatini');
      expect(files.filter((file) => /\.ts$|\.map$|node_modules|\/test\//.test(file))).toEqual([]);
    });

    it('completions are for the names in usr/bin', () => {
      const read = (file: string): string => readFileSync(`${tree}/usr/share/${file}`, 'utf8');
      expect(read('bash-completion/completions/bucatini-pasta')).toMatch(/^complete .* bucatini-pasta$/m);
      expect(read('zsh/vendor-completions/_bucatini-pasta')).toMatch(/^#compdef bucatini-pasta$/m);
      expect(read('fish/vendor_completions.d/bucatini-pesto.fish')).not.toMatch(/-c pesto /);
    });

    it('programs run from the unpacked tree, through the links', () => {
      const bin = `${tree}/usr/bin`;
      expect(readdirSync(bin).sort()).toEqual([
        ...['bucatini', 'bucatini-pasta', 'bucatini-pesto', 'bucatini-slirp4netns'],
      ]);
      expect(run(`${bin}/bucatini`, 'run', '--', 'echo', 'inside')).toBe('inside\n');
      const pasta = ['--config-net', '-q', '--', 'echo', 'inside'];
      expect(spawnSync(`${bin}/bucatini-pasta`, pasta, { encoding: 'utf8' }).stdout).toBe('inside\n');
      expect(run(`${bin}/bucatini-slirp4netns`, '--version')).toContain(`+bucatini.${version}`);
      const plan = spawnSync(`${bin}/bucatini`, ['bench', '--plan'], { encoding: 'utf8' });
      expect(plan.stdout, plan.stderr).toMatch(/^[0-9]+ cells, about /m);
      const { status, stderr } = spawnSync(`${bin}/bucatini-pesto`, ['/none'], { encoding: 'utf8' });
      expect({ status, stderr }).toMatchObject({
        status: 1,
        stderr: expect.stringMatching(/^Failed to connect/),
      });
    });

    it('a damaged installation: the message says to install again, not to build', () => {
      rmSync(`${tree}/usr/lib/bucatini/dist/bun/bucatini`);
      const { status, stderr } = spawnSync(`${tree}/usr/bin/bucatini`, ['run', 'true'], {
        encoding: 'utf8',
        env: { PATH: '/usr/bin:/bin' },
      });
      expect(status).toBe(1);
      expect(stderr).toMatch(
        /^bucatini: [^\n]*\/dist\/bun\/bucatini is missing; install the package again\n$/,
      );
    });
  },
);

it('docs/install.md has the AppArmor profile of the package', () => {
  const profile = readFileSync(`${repoRoot}/packaging/apparmor/bucatini`, 'utf8');
  const page = readFileSync(`${repoRoot}/docs/install.md`, 'utf8');
  const lines = profile.split('\n').filter((line) => line !== '' && !/^#|local/.test(line));
  expect(page).toContain(`${lines.join('\n')}\n`);
});

it('npm package: public, and its dependencies are those of Node', () => {
  const made = JSON.parse(readFileSync(`${repoRoot}/package.json`, 'utf8'));
  expect(made).not.toHaveProperty('private');
  expect(Object.keys(made.optionalDependencies).filter((name) => name.startsWith('@oven/'))).toEqual([]);
  expect(Object.keys(made.bin).filter((name) => !name.startsWith('bucatini'))).toEqual([]);
  const lock = JSON.parse(readFileSync(`${repoRoot}/package-lock.json`, 'utf8'));
  const bun = JSON.parse(readFileSync(`${repoRoot}/packaging/bun/package.json`, 'utf8'));
  expect(lock.packages['packaging/bun'].optionalDependencies).toEqual(bun.optionalDependencies);
});
