/**
 * IP protocols that the engine does not carry are refused at once: UDP-Lite by a socket of its own, SCTP and
 * DCCP by raw sockets, as kernels may lack them. Multipath TCP falls back to TCP.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { FAMILIES, PEER4, PORT } from '../support/ports.ts';
import { describeE2e, requireTool } from '../support/require.ts';

/**
 * Sends datagrams of the protocol until an error comes, and prints its name. Arguments: address, protocol,
 * socket type.
 */
const SEND = `
import errno, socket, sys, time
address, proto, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
v6 = ':' in address
family = socket.AF_INET6 if v6 else socket.AF_INET
try:
    s = socket.socket(family, socket.SOCK_RAW if kind == 'raw' else socket.SOCK_DGRAM, proto)
except OSError as e:
    print('no such socket'); sys.exit(0)
s.settimeout(3)
s.setsockopt(41 if v6 else 0, 25 if v6 else 11, 1)  # IPV6_RECVERR, IP_RECVERR
s.connect((address, 0 if kind == 'raw' else 7))
try:
    s.send(bytes(12))
    s.recv(100)
    print('answered')
except socket.timeout:
    print('timeout')
except OSError as e:
    print(errno.errorcode[e.errno])
`;

/** Sends to groups and prints what the error queues have. */
const SEND_TO_GROUPS = `
import socket
for address, v6 in (('224.0.0.9', False), ('255.255.255.255', False), ('ff02::9', True)):
    s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, 132)
    s.settimeout(0.5)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.setsockopt(41 if v6 else 0, 25 if v6 else 11, 1)
    name = next(n for i, n in socket.if_nameindex() if n != 'lo')
    to = (address, 0, 0, socket.if_nametoindex(name)) if v6 else (address, 0)
    s.sendto(bytes(12), to)
    try:
        s.recvmsg(100, 1000, socket.MSG_ERRQUEUE)
        print('an error came')
    except OSError:
        print('none')
`;

/** Connects by MPTCP, exchanges a line and prints it, and the kernel's counters of MPTCP that are not 0. */
const MPTCP = `
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.settimeout(5)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b'over plain TCP')
print(s.recv(100).decode())
names, values = [line.split()[1:] for line in open('/proc/net/netstat') if line.startswith('MPTcpExt')]
for name, value in zip(names, values):
    if value != '0': print(name, value)
`;

describeE2e('protocols that are not carried', [requireTool('python3', 'apt package python3-minimal')], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({ plan });
    });
    afterAll(() => guest?.stop());

    describe.each(FAMILIES)('$name', ({ name, peer }) => {
      const error = name === 'IPv4' ? 'ENOPROTOOPT' : 'EPROTO';
      it.each([
        ['UDP-Lite', 136, 'datagram'],
        ['SCTP', 132, 'raw'],
        ['DCCP', 33, 'raw'],
        ['an experiment (RFC 3692)', 253, 'raw'],
      ])('%s: refused at once', async (_, proto, kind) => {
        const out = await succeed(guest, ['python3', '-c', SEND, peer, String(proto), kind]);
        if (out.trim() === 'no such socket' && kind === 'datagram') return; // the kernel has no UDP-Lite
        expect(out.trim()).toBe(error);
      });
    });

    it('SCTP to groups: no error', async () => {
      expect(await succeed(guest, ['python3', '-c', SEND_TO_GROUPS])).toBe('none\nnone\nnone\n');
    });

    it('multipath TCP: the connection is plain TCP', async () => {
      if ((await guest.inside(['test', '-e', '/proc/sys/net/mptcp/enabled'])).status !== 0) return;
      const out = await succeed(guest, ['python3', '-c', MPTCP, PEER4, String(PORT.echo)]);
      expect(out).toContain('over plain TCP\n');
      expect(out).toContain('MPCapableSYNTX 1');
      expect(out).toContain('MPCapableFallbackSYNACK 1');
    });
  });
});
