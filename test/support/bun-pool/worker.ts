/** The program of a test process on Bun: vitest's own, with our format of messages. */
import { init, runBaseTests, setupEnvironment } from 'vitest/worker';
import { decode, encode } from './messages.ts';

const send = process.send!.bind(process);
const exit = process.exit.bind(process);
process.on('disconnect', () => exit(1)); // nobody is there to get results

const listeners = new Map<(message: unknown) => void, (text: string) => void>();
init({
  post: (message) => void send(encode(message)),
  on: (listener) => {
    const decoded = (text: string): void => listener(decode(text));
    listeners.set(listener, decoded);
    process.on('message', decoded);
  },
  off: (listener) => {
    const decoded = listeners.get(listener);
    if (decoded !== undefined) process.off('message', decoded);
    listeners.delete(listener);
  },
  runTests: (state, traces) => runBaseTests('run', state, traces),
  collectTests: (state, traces) => runBaseTests('collect', state, traces),
  setup: setupEnvironment,
  teardown: () => process.removeAllListeners('message'),
});
