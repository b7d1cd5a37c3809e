// @vitest: beside
/** A signal as an event of a descriptor: its handler is machine code. */
import { afterAll, expect, it } from 'vitest';
import { close, eventfdDrain } from '../../src/sys/io.ts';
import { kill, signalDefault } from '../../src/sys/process.ts';
import { signalEvent } from '../../src/sys/signal-event.ts';
import { eventually } from '../support/process.ts';

const SIGURG = 23; // <asm-generic/signal.h>: ignored by default

afterAll(() => signalDefault(SIGURG));

it('each signal makes the descriptor readable; whichever thread gets it', async () => {
  const fd = signalEvent([SIGURG]);
  expect(eventfdDrain(fd)).toBe(-11); // EAGAIN
  for (let i = 0; i < 3; i++) {
    expect(kill(process.pid, SIGURG)).toBe(0);
    await eventually('the signal has come', 5000, () => eventfdDrain(fd) === 8);
  }
  expect(eventfdDrain(fd)).toBe(-11);
  close(fd);
});
