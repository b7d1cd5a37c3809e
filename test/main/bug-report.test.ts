import { describe, expect, it } from 'vitest';
import { optionsText, withoutAddresses } from '../../src/main/bucatini/bug-report.ts';
import { engineProgram } from '../../src/main/bucatini/engine-process.ts';

describe('a bug report about an engine', () => {
  it.each([
    [
      "Podman's command line: option names, harmless values, no address, no path",
      'pasta',
      '--config-net -t 10.1.2.3/8080-8080:80-80 -u none --dns-forward 169.254.1.1 --quiet --netns /run/user/1000/netns/x -m 1500',
      '--config-net --tcp-ports … --udp-ports none --dns-forward … --quiet --netns … --mtu 1500',
    ],
    ['ports alone are harmless', 'pasta', '-t 8080,9090-9099 1234', '--tcp-ports 8080,9090-9099'],
    ['bundled and with =', 'pasta', '-qm1500 --hostname=secret', '--quiet --mtu 1500 --hostname …'],
    [
      'the command and its arguments are left out',
      'bucatini',
      'run -p 8080:80 --dns 192.0.2.1 --threads fused -- curl https://secret.example/',
      'run --publish 8080:80 --dns … --threads fused',
    ],
    ['thread plans are harmless', 'bucatini', 'attach --threads lanes=1-8 5', 'attach --threads lanes=1-8'],
    ['the stand-in for slirp4netns', 'slirp4netns', '-c --mtu=65520 4711 tap0', '--configure --mtu 65520'],
    ['an operand ends the options', 'bucatini', 'attach --mtu 1500 /run/netns/secret', 'attach --mtu 1500'],
  ] as const)('%s', (_what, name, line, expected) => {
    expect(optionsText({ name, args: line.split(' ') })).toBe(expected);
  });

  it.each([
    ['forwarded to 192.0.2.53, 2001:db8::53, fe80::1', 'forwarded to ADDRESS, ADDRESS, ADDRESS'],
    ['::1 and 9a:55:9a:55:9a:55', 'ADDRESS and ADDRESS'],
    ['version 5.4.2, 2023-03-29, 12:30 and 6.18.44-1', 'version 5.4.2, 2023-03-29, 12:30 and 6.18.44-1'],
  ])('addresses are removed: %s', (text, expected) => {
    expect(withoutAddresses(text)).toBe(expected);
  });
});

it('command lines of engines: found on Node, with flags of its own, and on Bun; other programs are not', () => {
  const found = (line: string) => engineProgram(line.split(' '));
  expect(found('/x/bin/node /x/dist/main/pasta/main.js -q 1')).toEqual({ name: 'pasta', args: ['-q', '1'] });
  expect(found('node --trace /x/dist/main/bucatini.js run -- true')?.name).toBe('bucatini');
  expect(found('/x/dist/bun/bucatini slirp4netns/main -c 5 tap0')).toEqual({
    name: 'slirp4netns',
    args: ['-c', '5', 'tap0'],
  });
  expect(found('/x/dist/bun/bucatini bucatini attach 5')?.args).toEqual(['attach', '5']);
  expect(found('/x/dist/bun/bucatini peer')).toBeUndefined();
  expect(found('vi /x/bucatini pasta/main')).toBeUndefined();
});
