// @vitest: beside
/** Behaviour of TCP at both ends: half-close, resets, refusals, flow control, tiny writes. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Bed, type Guest, makeBed } from '../support/bed.ts';
import { engine, full } from '../support/engines.ts';
import { patternSha256 } from '../support/pattern.ts';
import { FAMILIES, PORT } from '../support/ports.ts';
import { describeE2e, requireTool } from '../support/require.ts';
import { converse, playClient } from '../support/transfers.ts';

const MIB = 2 ** 20;
/** More bytes than the send and receive buffers of all sockets on the path. */
const OVERFULL_BYTES = full(64, 32) * MIB;
const STOP_MS = 5000;
/** Refusals come back within a round trip; this leaves room for a busy machine. */
const AT_ONCE_MS = 500;
const LONG_MS = 60_000;

describeE2e('TCP', [requireTool('curl', 'apt package curl')], () => {
  let bed: Bed;
  beforeAll(async () => {
    bed = await makeBed();
  });
  afterAll(() => bed?.close());

  // Each plan has a guest of its own, and a third of the time is waited for.
  describe.concurrent.each(engine.plans)('%s', (plan) => {
    let guest: Guest;
    beforeAll(async () => {
      guest = await bed.engine({ plan });
    });
    afterAll(() => guest?.stop());

    describe.each(FAMILIES)('$name', { concurrent: false }, (family) => {
      it('the guest finishes sending first: it still reads the whole answer', async () => {
        const { client, server } = await converse(
          bed,
          guest,
          family.peer,
          [['send', MIB], ['fin'], ['recvEof']],
          [['recvEof'], ['send', 8 * MIB], ['fin']],
        );
        expect(server).toMatchObject({
          receivedBytes: MIB,
          sha256: patternSha256(MIB),
          eof: true,
          error: null,
        });
        expect(client).toMatchObject({
          receivedBytes: 8 * MIB,
          sha256: patternSha256(8 * MIB),
          eof: true,
          error: null,
        });
      });

      it('the peer finishes sending first: it still reads the whole answer', async () => {
        const { client, server } = await converse(
          bed,
          guest,
          family.peer,
          [['recvEof'], ['pause', 200], ['send', 8 * MIB], ['fin']],
          [['send', MIB], ['fin'], ['recvEof']],
        );
        expect(client).toMatchObject({
          receivedBytes: MIB,
          sha256: patternSha256(MIB),
          eof: true,
          error: null,
        });
        expect(server).toMatchObject({
          receivedBytes: 8 * MIB,
          sha256: patternSha256(8 * MIB),
          eof: true,
          error: null,
        });
      });

      it('both sides send at the same time: both streams arrive unchanged', {
        timeout: LONG_MS,
      }, async () => {
        const steps = [['both', 16 * MIB, 16 * MIB], ['fin'], ['recvEof']] as const;
        const { client, server } = await converse(bed, guest, family.peer, steps, steps, LONG_MS);
        const whole = { receivedBytes: 16 * MIB, sha256: patternSha256(16 * MIB), eof: true, error: null };
        expect(client).toMatchObject(whole);
        expect(server).toMatchObject(whole);
      });

      it('the peer resets: the guest sees ECONNRESET', async () => {
        const { client } = await converse(
          bed,
          guest,
          family.peer,
          [['recv', 1], ['send', 1], ['awaitError']],
          [['send', 1], ['recv', 1], ['reset']],
        );
        expect(client).toMatchObject({ receivedBytes: 1, error: 'ECONNRESET' });
      });

      it('the guest resets: the peer sees ECONNRESET', async () => {
        const { server } = await converse(
          bed,
          guest,
          family.peer,
          // The peer's second byte says that it has read.
          [['recv', 1], ['send', 1], ['recv', 1], ['reset']],
          [['send', 1], ['recv', 1], ['send', 1], ['awaitError']],
        );
        expect(server).toMatchObject({ receivedBytes: 1, error: 'ECONNRESET' });
      });

      it('the guest resets right after its last byte: the peer gets the byte, then ECONNRESET', async () => {
        const { server } = await converse(
          bed,
          guest,
          family.peer,
          [['recv', 1], ['send', 1], ['reset']],
          [['send', 1], ['awaitError']],
        );
        expect(server).toMatchObject({ receivedBytes: 1, error: 'ECONNRESET' });
      });

      it('the peer resets right after its last byte: the guest gets the byte, then ECONNRESET', async () => {
        const { client } = await converse(
          bed,
          guest,
          family.peer,
          [['awaitError']],
          [['send', 1], ['reset']],
        );
        expect(client).toMatchObject({ receivedBytes: 1, error: 'ECONNRESET' });
      });

      it('the peer resets as soon as it has accepted: the guest sees ECONNRESET', async () => {
        expect(await playClient(guest, family.peer, PORT.reset, [['awaitError']])).toMatchObject({
          error: 'ECONNRESET',
        });
      });

      it('the peer closes as soon as it has accepted: the guest sees the end of the stream', async () => {
        expect(await playClient(guest, family.peer, PORT.close, [['recvEof'], ['fin']])).toMatchObject({
          receivedBytes: 0,
          eof: true,
          error: null,
        });
      });

      it('nobody listens on the port: the guest sees ECONNREFUSED at once', async () => {
        const outcome = await playClient(guest, family.peer, PORT.closed, []);
        expect(outcome.error).toBe('ECONNREFUSED');
        expect(outcome.ms).toBeLessThan(AT_ONCE_MS);
      });

      it.skipIf(!engine.can.honestUnreachable)(
        'the network is unreachable: the guest sees EHOSTUNREACH or ENETUNREACH at once',
        async () => {
          const outcome = await playClient(guest, family.unreachable, PORT.echo, []);
          expect(outcome.error).toMatch(/^E(HOST|NET)UNREACH$/);
          expect(outcome.ms).toBeLessThan(AT_ONCE_MS);
        },
      );

      // These two tests wait 5 s each: run concurrently.
      it.concurrent('the peer stops reading for 5 s and goes on: everything arrives', {
        timeout: LONG_MS,
      }, async () => {
        const { client, server } = await converse(
          bed,
          guest,
          family.peer,
          [['send', OVERFULL_BYTES], ['fin'], ['recvEof']],
          [['pause', STOP_MS], ['recvEof'], ['send', 1], ['fin']],
          LONG_MS,
        );
        expect(server).toMatchObject({
          receivedBytes: OVERFULL_BYTES,
          sha256: patternSha256(OVERFULL_BYTES),
          eof: true,
          error: null,
        });
        expect(client).toMatchObject({ receivedBytes: 1, eof: true, error: null });
        expect(client.ms).toBeGreaterThanOrEqual(STOP_MS - 100);
      });

      it.concurrent('the guest stops reading for 5 s (zero window) and goes on: everything arrives', {
        timeout: LONG_MS,
      }, async () => {
        const { client, server } = await converse(
          bed,
          guest,
          family.peer,
          [['pause', STOP_MS], ['recvEof'], ['send', 1], ['fin']],
          [['send', OVERFULL_BYTES], ['fin'], ['recvEof']],
          LONG_MS,
        );
        expect(client).toMatchObject({
          receivedBytes: OVERFULL_BYTES,
          sha256: patternSha256(OVERFULL_BYTES),
          eof: true,
          error: null,
        });
        expect(server).toMatchObject({ receivedBytes: 1, eof: true, error: null });
        expect(server.ms).toBeGreaterThanOrEqual(STOP_MS - 100);
      });

      it('writes of one byte with TCP_NODELAY: every byte arrives, both ways', async () => {
        const bytes = 2000;
        const { client, server } = await converse(
          bed,
          guest,
          family.peer,
          [['sendSingles', bytes], ['recv', bytes], ['fin'], ['recvEof']],
          [['recv', bytes], ['sendSingles', bytes], ['fin'], ['recvEof']],
        );
        const whole = { receivedBytes: bytes, sha256: patternSha256(bytes), eof: true, error: null };
        expect(client).toMatchObject(whole);
        expect(server).toMatchObject(whole);
      });
    });
  });
});
