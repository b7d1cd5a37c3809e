/**
 * DSCP and ECN: those of the guest's packets are those of the host's, for TCP the DSCP alone; those of
 * datagrams to the guest are what the peer sent, once the guest marks its own.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { FAMILIES, HOST4, HOST6, PORT } from '../support/ports.ts';
import { eventually, type Started } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const PEER_PORT = 7300;
const GUEST_PORT = 7301;
/** Expedited forwarding and ECT(1): RFC 3246, RFC 3168. */
const EF_ECT1 = 0xb8 | 1;
/** AF31 and CE: what the peer sends. */
const AF31_CE = 0x68 | 3;

const LIB = `
import socket, struct, sys
def level(v6): return (41, 67, 66) if v6 else (0, 1, 13)  # level, IP_TOS, IP_RECVTOS
def tos_of(ancillary):
    for l, t, data in ancillary:
        if (l, t) in ((0, 1), (41, 67)): return data[0]
    return -1
def udp(v6):
    s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(3)
    l, tos, recv = level(v6)
    s.setsockopt(l, recv, 1)
    return s
def mark(s, v6, value):
    l, tos, recv = level(v6)
    s.setsockopt(l, tos, value)
`;

/** Answers each datagram with its TOS as text, and the TOS of argument 2. Argument 1: port. */
const SERVER = `${LIB}
import select
both = []
for v6 in (False, True):
    s = udp(v6)
    if v6: s.setsockopt(41, 26, 1)
    s.bind(('::' if v6 else '0.0.0.0', int(sys.argv[1])))
    mark(s, v6, int(sys.argv[2]))
    both.append(s)
print('ready', flush=True)
while True:
    for s in select.select(both, [], [])[0]:
        data, ancillary, flags, peer = s.recvmsg(2000, 200)
        s.sendto(str(tos_of(ancillary)).encode(), peer)
`;

/** Sends a datagram for each TOS of arguments 3 on; prints what the peer saw and what its answer has. */
const ASK = `${LIB}
v6 = ':' in sys.argv[1]
s = udp(v6)
for value in map(int, sys.argv[3:]):
    mark(s, v6, value)
    s.sendto(b'?', (sys.argv[1], int(sys.argv[2])))
    data, ancillary, flags, peer = s.recvmsg(2000, 200)
    print(data.decode(), tos_of(ancillary))
`;

/** Prints flags and TOS of each TCP segment to the port of argument 1 that comes in: "S 184". */
const SNIFF = `
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print('ready', flush=True)
while True:
    frame, (name, proto, kind, *rest) = s.recvfrom(65535)
    if kind == 4: continue  # outgoing
    ip = frame[14:]
    if proto == 0x0800 and ip[9] == 6: tos, tcp = ip[1], ip[(ip[0] & 15) * 4:]
    elif proto == 0x86dd and ip[6] == 6: tos, tcp = (ip[0] & 15) << 4 | ip[1] >> 4, ip[40:]
    else: continue
    if struct.unpack('>H', tcp[2:4])[0] != int(sys.argv[1]): continue
    print('S' if tcp[13] & 2 else 'P' if len(tcp) > (tcp[12] >> 4) * 4 else '-', tos, flush=True)
`;

/** Connects with DSCP EF, sends, changes to AF31, sends, and waits for each echo. */
const CONNECT = `${LIB}
v6 = ':' in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
s.settimeout(3)
for value in (0xb8, 0x68, 0):
    mark(s, v6, value)
    if value == 0xb8: s.connect((sys.argv[1], int(sys.argv[2])))
    s.send(b'x' * 10)
    s.recv(100)
`;

describeE2e('DSCP and ECN', [requireTool('python3', 'apt package python3-minimal')], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
    await ready(bed.start('peer', ['python3', '-c', SERVER, String(PEER_PORT), String(AF31_CE)]));
  });
  afterAll(() => bed?.close());

  const ready = (started: Started): Promise<unknown> =>
    eventually('the program is ready', 5000, () => started.printed().stdout.includes('ready'));
  const lines = (text: string): string[] => text.trim().split('\n');

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({ plan, publish: [`${GUEST_PORT}/udp`] });
      await ready(guest.startInside(['python3', '-c', SERVER, String(GUEST_PORT), String(EF_ECT1)]));
    });
    afterAll(() => guest?.stop());

    describe.each(FAMILIES)('$name', ({ name, peer }) => {
      it('UDP: marks of single datagrams go out; those of answers come in from the first one on', async () => {
        const marks = [0, EF_ECT1, EF_ECT1, 2, 0, 0xff].map(String);
        const ask = ['python3', '-c', ASK, peer, String(PEER_PORT), ...marks];
        // The socket of the first, unmarked datagram does not report marks.
        expect(lines(await succeed(guest, ask))).toEqual([
          `0 0`,
          ...[EF_ECT1, EF_ECT1, 2, 0, 0xff].map((mark) => `${mark} ${AF31_CE}`),
        ]);
      });

      it('UDP to a published port: marks of the answers go out; those of datagrams come in from then on', async () => {
        const host = name === 'IPv4' ? HOST4 : HOST6;
        const argv = ['python3', '-c', ASK, host, String(GUEST_PORT), '104', '107', '0'];
        const { stdout, stderr } = await bed.run('peer', argv);
        expect(stderr).toBe('');
        // The first answer carries the mark, before which the listener did not report any.
        const [first, ...rest] = lines(stdout);
        expect(first).toMatch(new RegExp(`^(0|104) ${EF_ECT1}$`));
        expect(rest).toEqual([`107 ${EF_ECT1}`, `0 ${EF_ECT1}`]);
      });

      it('TCP: the DSCP from the SYN on, and when it changes', async () => {
        const sniff = bed.start('peer', ['python3', '-c', SNIFF, String(PORT.echo)]);
        await ready(sniff);
        await succeed(guest, ['python3', '-c', CONNECT, peer, String(PORT.echo)]);
        const seen = await eventually('all three segments were seen', 3000, () => {
          const out = lines(sniff.printed().stdout);
          return out.filter((line) => line.startsWith('P')).length >= 3 && out;
        });
        process.kill(sniff.pid);
        expect(seen.filter((line) => /^[SP]/.test(line))).toEqual(['S 184', 'P 184', 'P 104', 'P 0']);
      });
    });
  });
});
