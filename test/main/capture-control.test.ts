import { afterEach, expect, it } from 'vitest';
import { CaptureControl } from '../../src/main/host/capture-control.ts';

const before = process.listeners('SIGUSR2');
afterEach(() => {
  for (const listener of process.listeners('SIGUSR2'))
    if (!before.includes(listener)) process.removeListener('SIGUSR2', listener);
});

it('--pcap-ring: signals that come together are one, and the next one counts again', async () => {
  let dumps = 0;
  const engine = {
    startCapture: () => {},
    stopCapture: async () => true,
    dumpCapture: () => `${++dumps}`,
  };
  const told: string[] = [];
  new CaptureControl({ pcap: 'x.pcapng', pcapRing: 1_000_000 }).started(engine, (text) => told.push(text));
  const looks = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  for (let i = 0; i < 50; i++) process.emit('SIGUSR2');
  await looks();
  process.emit('SIGUSR2');
  await looks();
  expect(told).toEqual(['--pcap-ring: 1', '--pcap-ring: 2']);
});
