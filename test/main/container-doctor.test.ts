import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  fromManager,
  publishedFinding,
  readRegular,
  resolverFinding,
} from '../../src/main/bucatini/container-doctor.ts';
import {
  addresses4,
  addresses6,
  defaultRoute4,
  defaultRoute6,
  interfaceNames,
  listening,
} from '../../src/main/bucatini/proc-net.ts';

describe('tables of /proc/PID/net', () => {
  it('interfaces, without lo', () => {
    const dev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets
    lo:       0       0    0    0    0     0          0         0        0       0
  eth0:     506       7    0    0    0     0          0         0      506       7\n`;
    expect(interfaceNames(dev)).toEqual(['eth0']);
  });

  it('IPv4 default route: destination and mask 0, and up', () => {
    const head = 'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n';
    const route = (destination: string, flags: string, mask: string): string =>
      `eth0\t${destination}\t010200C0\t${flags}\t0\t0\t0\t${mask}\t0\t0\t0\n`;
    expect(defaultRoute4(head + route('000200C0', '0001', '00FFFFFF'))).toBeUndefined();
    expect(defaultRoute4(head + route('00000000', '0003', '00000080'))).toBeUndefined(); // 0.0.0.0/1
    expect(defaultRoute4(head + route('00000000', '0002', '00000000'))).toBeUndefined(); // down
    expect(defaultRoute4(head + route('00000000', '0003', '00000000'))).toBe('eth0');
  });

  it('IPv6 default route: not the unreachable one that the kernel has on lo', () => {
    const zeros = '0'.repeat(32);
    const route = (device: string): string =>
      `${zeros} 00 ${zeros} 00 ${zeros} ffffffff 00000001 00000000 00200200 ${device}\n`;
    expect(defaultRoute6(route('      lo'))).toBeUndefined();
    expect(defaultRoute6(route('      lo') + route('    eth0'))).toBe('eth0');
  });

  it('addresses: no loopback, no broadcast, no link-local', () => {
    const trie = `Main:
  +-- 127.0.0.0/8 2 0 2
     |-- 127.0.0.1
        /32 host LOCAL
  +-- 192.0.2.0/24 2 0 2
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
Local:
     |-- 192.0.2.2
        /32 host LOCAL\n`;
    expect(addresses4(trie)).toEqual(['192.0.2.2']);
    const inet6 = `20010db8000000000000000000000002 04 40 00 82     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo\n`;
    expect(addresses6(inet6)).toEqual(['2001:db8::2']);
  });

  it('listening ports, and on loopback only', () => {
    const line = (local: string, state: string): string =>
      `   0: ${local} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100\n`;
    const head = '  sl  local_address rem_address   st\n';
    const tcp = (text: string) => listening('tcp', head + text);
    expect(tcp(line('00000000:0050', '0A'))).toEqual([{ protocol: 'tcp', port: 80, loopbackOnly: false }]);
    expect(tcp(line('0100007F:0050', '0A'))[0]!.loopbackOnly).toBe(true);
    expect(tcp(line('0101017F:0050', '0A'))[0]!.loopbackOnly).toBe(true); // 127.1.1.1
    expect(tcp(line('7F0200C0:0050', '0A'))[0]!.loopbackOnly).toBe(false); // 192.0.2.127
    expect(tcp(line('00000000000000000000000001000000:0050', '0A'))[0]!.loopbackOnly).toBe(true);
    expect(tcp(line('0000000000000000FFFF00000100007F:0050', '0A'))[0]!.loopbackOnly).toBe(true);
    expect(tcp(line('0100007F:0050', '01'))).toEqual([]); // established
    expect(listening('udp', head + line('00000000:0035', '07'))[0]!.port).toBe(53);
  });
});

describe('what the findings say', () => {
  const inspected = (text: object) => fromManager('podman', 'web', JSON.stringify([text]));

  it('a container that does not run: status, error, remedy', () => {
    const { finding, target } = inspected({
      State: { Status: 'exited', Pid: 0, ExitCode: 126, Error: 'no pasta' },
    });
    expect(target).toBeUndefined();
    expect(finding.grade).toBe('FAIL');
    expect(finding.text).toMatch(/exited with status 126 \(no pasta\).*podman logs web/);
  });

  it('published ports and the network mode', () => {
    const { target } = inspected({
      State: { Status: 'running', Pid: 7 },
      HostConfig: { NetworkMode: 'pasta' },
      NetworkSettings: { Ports: { '80/tcp': [{ HostIp: '', HostPort: '8080' }], '53/udp': null } },
    });
    expect(target).toMatchObject({ pid: 7, mode: 'pasta' });
    expect(target!.published).toEqual([{ protocol: 'tcp', inside: 80, outside: 8080 }]);
  });

  it('no JSON', () => {
    expect(fromManager('podman', 'web', 'Error').finding.grade).toBe('FAIL');
  });

  it('what no manager prints: a finding, one line that a terminal can show', () => {
    for (const State of [5, null, { Pid: '1 -a' }, { Pid: {} }, { Pid: -5 }])
      expect(inspected({ State }).finding).toMatchObject({ grade: 'FAIL' });
    for (const Ports of [[5], { a: 5 }, { a: [null] }])
      expect(inspected({ State: { Pid: 1 }, NetworkSettings: { Ports } }).target?.published).toHaveLength(
        Array.isArray(Ports) || Ports.a === 5 ? 0 : 1,
      );
    for (const text of ['[null]', 'null', '5', '[]'])
      expect(fromManager('podman', 'web', text).finding.text).toContain('prints no JSON');
    const { text } = inspected({ State: { Pid: 0, Error: 'a\x1b[2J\nb' } }).finding;
    expect(text).toContain('(a\ufffd[2J b)');
  });

  it('a FIFO in place of the resolv.conf inside is not waited for', () => {
    const directory = mkdtempSync(join(tmpdir(), 'doctor-'));
    try {
      execFileSync('mkfifo', [`${directory}/fifo`]);
      expect(() => readRegular(`${directory}/fifo`)).toThrow('is not a regular file');
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  const port = { protocol: 'tcp', inside: 80, outside: 8080 };
  const on = (number: number, loopbackOnly = false) => [
    { protocol: 'tcp', port: number, loopbackOnly } as const,
  ];
  it.each([
    ['reached', 'ok', on(8080), on(80)],
    ['nobody on the host', 'FAIL', [], on(80)],
    ['nobody inside', 'note', on(8080), on(8080)],
    ['inside on loopback only', 'note', on(8080), on(80, true)],
    ['inside on loopback and elsewhere', 'ok', on(8080), [...on(80, true), ...on(80)]],
  ])('a published port: %s', (_, grade, outside, inside) => {
    expect(publishedFinding(port, outside, inside).grade).toBe(grade);
  });

  it('a protocol that no user-mode network publishes', () => {
    expect(publishedFinding({ ...port, protocol: 'sctp' }, on(8080), on(80)).grade).toBe('FAIL');
  });

  it.each([
    ['ok', ['answered']],
    ['note', ['answered with error NXDOMAIN', undefined]],
    ['FAIL', [undefined]],
  ])('resolvers: %s', (grade, answers) => {
    const resolvers = answers.map((answer, n) => ({ address: `192.0.2.${n}`, answer }));
    expect(resolverFinding({ resolvers }, '192.0.2.53').grade).toBe(grade);
  });
});
