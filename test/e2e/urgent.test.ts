// @vitest: beside
/**
 * Urgent data of TCP (RFC 6093; MSG_OOB): the byte and its place in the stream arrive at the other end, as
 * urgent data and not as a byte of the stream.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed, succeed, succeedIn } from '../support/bed.ts';
import { engine } from '../support/engines.ts';
import { FAMILIES } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import { describeE2e, requireTool } from '../support/require.ts';

const SENDS = 7400;
const RECEIVES = 7401;

/**
 * send(s, script) sends the parts of a script: "a3" three bytes, "!x" an urgent byte x, "p" a pause of 50 ms, "w" one
 * that suffices for the other end to read.
 * receive(s) reads up to the end; returns the stream with the urgent bytes in brackets at their marks, runs
 * of more than 8 equal bytes as "a*1000".
 */
const LIB = `
import fcntl, itertools, json, select, socket, struct, sys, time
def send(s, script):
    for part in script.split():
        if part[0] == '!': s.send(part[1].encode(), socket.MSG_OOB)
        elif part == 'p': time.sleep(0.05)
        elif part == 'w': time.sleep(0.3)
        else: s.sendall(part[0].encode() * int(part[1:]))
    s.shutdown(socket.SHUT_WR)
def receive(s):
    out, urgent, marked = [], b'', False
    while True:
        readable, _, exceptional = select.select([s], [], [s] if not urgent else [], 10)
        if not readable and not exceptional: return 'timeout after ' + show(out)
        if exceptional: urgent = s.recv(1, socket.MSG_OOB)
        if struct.unpack('i', fcntl.ioctl(s, 0x8905, bytes(4)))[0] and urgent and not marked:  # SIOCATMARK
            out.append('[' + urgent.decode() + ']')
            marked = True
        if readable or marked:
            data = s.recv(65536)
            if not data: return show(out) + ('' if marked or not urgent else ' and ' + urgent.decode())
            out.append(data.decode())
            if marked: urgent, marked = b'', False
def show(out):
    runs = [(c, len(list(g))) for c, g in itertools.groupby(''.join(out))]
    return ''.join(c * n if n <= 8 else c + '*' + str(n) for c, n in runs)
`;

const SERVER = `${LIB}
import threading
def serve(port, handle):
    l = socket.socket(socket.AF_INET6)
    l.setsockopt(41, 26, 0)
    l.bind(('::', port))
    l.listen(20)
    while True:
        s, _ = l.accept()
        threading.Thread(target=handle, args=(s,)).start()
def sends(s):
    send(s, s.recv(1000).decode())
    s.recv(1)
    s.close()
def receives(s):
    s.sendall(receive(s).encode())
    s.close()
for port, handle in ((int(sys.argv[1]), sends), (int(sys.argv[2]), receives)):
    threading.Thread(target=serve, args=(port, handle)).start()
print('ready', flush=True)
`;

/** Arguments: address, port, script, "get": the server sends the script, "put": this program does. */
const CLIENT = `${LIB}
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
if sys.argv[4] == 'put':
    send(s, sys.argv[3])
    print(s.makefile().read())
else:
    s.sendall(sys.argv[3].encode())
    print(receive(s))
`;

const SCRIPTS: readonly (readonly [string, string])[] = [
  ['a3 !x b3', 'aaa[x]bbb'],
  ['a3 p !x p b3', 'aaa[x]bbb'],
  ['!x b3', '[x]bbb'],
  ['a3 p !x', 'aaa[x]'],
  ['a2 p !x w b2 w !y p c2', 'aa[x]bb[y]cc'],
  ['a1000000 !x b1000000', 'a*1000000[x]b*1000000'],
];

describeE2e('urgent data', [requireTool('python3', 'apt package python3-minimal')], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
    const server = bed.start('peer', ['python3', '-c', SERVER, String(SENDS), String(RECEIVES)]);
    await eventually('the server listens', 5000, () => server.printed().stdout.includes('ready'));
  });
  afterAll(() => bed?.close());

  const client = (peer: string, port: number, script: string, mode: string): string[] => [
    ...['python3', '-c', CLIENT, peer, String(port), script, mode],
  ];

  it.each(SCRIPTS)('without an engine, "%s": %s', async (script, expected) => {
    for (const [port, mode] of [
      [SENDS, 'get'],
      [RECEIVES, 'put'],
    ] as const) {
      const out = await succeedIn(bed, 'host', client(FAMILIES[0]!.peer, port, script, mode));
      expect(out.trim(), mode).toBe(expected);
    }
  });

  describe.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({ plan });
    });
    afterAll(() => guest?.stop());

    describe.each(FAMILIES)('$name', ({ peer }) => {
      it.each(SCRIPTS)('to the guest, "%s": %s', async (script, expected) => {
        expect((await succeed(guest, client(peer, SENDS, script, 'get'))).trim()).toBe(expected);
      });

      it.each(SCRIPTS)('from the guest, "%s": %s', async (script, expected) => {
        expect((await succeed(guest, client(peer, RECEIVES, script, 'put'))).trim()).toBe(expected);
      });
    });
  });
});
