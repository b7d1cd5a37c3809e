/**
 * The option `--fd` of pasta: frames through a TAP that the caller has created, or through a socket. The
 * expected results are those of passt 2026-10-02, except: passt requires a non-blocking descriptor, leaves it
 * open in COMMAND and configures nothing.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Bed, isFrontEnd, makeBed, succeedIn, supportProgram } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { GATEWAY4, HOST4, PEER4, PEER6, PORT } from '../support/ports.ts';
import { eventually, type Finished, killTree, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const PASTA = `${repoRoot}/bin/pasta`;
const END_MS = 5000;
const BYTES = 5 * 2 ** 20;

const needs = [requireTool('curl', 'apt package curl'), requireTool('ping', 'apt package iputils-ping')];

describeE2e('pasta --fd', needs, () => {
  let bed: Bed;
  let netns: string;
  let givers: Started[] = [];
  beforeAll(async () => {
    bed = await makeBed();
    netns = `${bed.ramDir}/netns`;
  });
  afterAll(() => bed?.close());
  beforeEach(() => succeedIn(bed, 'host', ['sh', '-c', `: >${netns}; unshare --net=${netns} true`]));
  afterEach(async () => {
    await succeedIn(bed, 'host', ['sh', '-c', `umount ${netns}; rm ${netns}`]);
    for (const { process } of givers) killTree(process.pid!);
    givers = [];
    const pastas = (): string[] => bed.processes().filter((line) => isFrontEnd(line, 'pasta'));
    await eventually('no pasta is left', END_MS, () => pastas().length === 0);
  });

  const inside = (script: string): Promise<Finished> =>
    bed.run('host', ['nsenter', `--net=${netns}`, '--', 'sh', '-c', script]);
  /** The network namespace of the process is that of process 1, the host. */
  const asCaller = (kind: string, fd: number, ...argv: string[]): string[] => [
    ...['nsenter', `--net=${netns}`, '--', ...supportProgram('clients/fd-giver.ts', kind, 'tap9', fd)],
    ...['nsenter', '--net=/proc/1/ns/net', '--', PASTA, '-F', String(fd), ...argv],
  ];
  const give = (kind: string, fd: number, ...argv: string[]): Started => {
    const giver = bed.start('host', asCaller(kind, fd, ...argv));
    givers.push(giver);
    return giver;
  };
  const serve = async (kind: string, fd: number, ...options: string[]): Promise<Started> => {
    const pidFile = `${bed.ramDir}/fd.pid`;
    await succeedIn(bed, 'host', ['rm', '-f', pidFile]);
    const giver = give(kind, fd, '-q', '-P', pidFile, ...options, '--netns', netns);
    await eventually('pasta is ready', END_MS, async () => {
      const { stdout } = await bed.run('host', ['sh', '-c', `cat ${pidFile} 2>/dev/null; true`]);
      return /^\d+\n$/.test(stdout);
    });
    return giver;
  };
  const SET_UP = `ip link set tap9 up; ip addr add ${HOST4}/24 dev tap9; ip route add default via ${GATEWAY4}`;

  it.each([
    ['tap', 3],
    ['seqpacket', 8],
    ['datagram', 9],
  ] as const)(
    '%s on descriptor %i, in the background: ping, TCP both ways unchanged, IPv6',
    async (kind, fd) => {
      await serve(kind, fd);
      expect(await inside(SET_UP)).toMatchObject({ status: 0, stderr: '' });
      expect((await inside(`ping -c1 -W2 ${GATEWAY4}`)).stdout).toContain(' 1 received');
      const url = `http://${PEER4}:${PORT.http}`;
      const file = `${bed.ramDir}/fd-file`;
      const down = await inside(`curl -sSf -o ${file} ${url}/bytes/${BYTES}; sha256sum <${file}`);
      expect(down.stdout).toBe(`${patternSha256(BYTES)}  -\n`);
      const up = JSON.parse((await inside(`curl -sSf -H Expect: -T ${file} ${url}/upload`)).stdout);
      expect(up).toMatchObject({ bytes: BYTES, sha256: patternSha256(BYTES) });
      await succeedIn(bed, 'host', ['rm', file]);
      await eventually('IPv6 by router advertisement', END_MS, async () =>
        (await inside(`curl -sSf -m2 http://[${PEER6}]:${PORT.http}/bytes/7 | wc -c`)).stdout.includes('7'),
      );
    },
  );

  it('a short frame to a socket is padded to 60 bytes', async () => {
    const giver = await serve('seqpacket', 3, '-4');
    await inside(SET_UP);
    await inside(`ping -c1 -W2 ${GATEWAY4}`); // and ARP, 42 bytes
    expect(giver.printed().stdout.match(/\d+/g)?.at(-1)).toBe('60');
  });

  it('--config-net: configures the TAP under its own name; another --ns-ifname: a warning', async () => {
    const giver = await serve('tap', 7, '--config-net', '-I', 'other', '--ns-mac-addr', '02:00:00:00:00:07');
    const { stdout } = await inside('ip -o addr show dev tap9; ip route; ip link show tap9');
    expect(stdout).toContain(`inet ${HOST4}/24`);
    expect(stdout).toContain(`default via ${GATEWAY4} dev tap9`);
    expect(stdout).toContain('02:00:00:00:00:07');
    expect(giver.printed().stderr).toBe('--ns-ifname does nothing with --fd: frames come by tap9\n');
  });

  it('COMMAND: has neither interface nor descriptor; its status is returned; --config-net: a warning', async () => {
    const script = 'ip -o link; ls -l /proc/self/fd; exit 7';
    const giver = give('tap', 5, '--config-net', '--', 'sh', '-c', script);
    expect(await giver.exited).toBe(7);
    const { stdout, stderr } = giver.printed();
    expect(stdout.match(/^\d+: \S+/gm)).toEqual(['1: lo:']);
    expect(stdout).not.toContain('tun');
    expect(stderr).toBe('--config-net does nothing with --fd: its interface is not in this namespace\n');
  });

  it('the peer closes the socket: pasta ends with status 1', async () => {
    const giver = give('closed', 4, '-f', '-q', '--netns', netns);
    expect(await giver.exited).toBe(1);
    expect(giver.printed().stderr).toBe('whoever sent frames has closed the socket\n');
  });

  describe('descriptors that carry no frames: one line, status 1', () => {
    it.each([
      ['stream', '--fd 7: a stream does not keep frames apart; use SOCK_SEQPACKET\n'],
      ['unconnected', '--fd 7: the socket is not connected\n'],
    ])('%s', async (kind, stderr) => {
      const finished = await bed.run('host', asCaller(kind, 7, '--netns', netns));
      expect(finished).toMatchObject({ status: 1, stdout: '', stderr });
    });

    it.each([
      ['', 'Could not move --fd descriptor: Bad file descriptor\n'],
      ['</dev/null', '--fd 7: neither a TAP nor a socket\n'],
      ['<.', '--fd 7: neither a TAP nor a socket\n'],
    ])('7%s', async (file, stderr) => {
      const line = `exec 7${file === '' ? '<&-' : file}; exec ${PASTA} -F 7 true`;
      expect(await bed.run('host', ['sh', '-c', line])).toMatchObject({ status: 1, stdout: '', stderr });
    });
  });
});
