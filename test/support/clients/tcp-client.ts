/**
 * Runs one end of a TCP conversation and prints its outcome (tcp-script.ts) as JSON.
 *
 *   tcp-client.ts ADDRESS PORT STEPS [REQUEST]
 *
 * STEPS and REQUEST are JSON; REQUEST, when given, goes to the script server as the first line. A connect
 * that fails is an outcome with its error and the time it took.
 */
import net from 'node:net';
import { type Outcome, playSteps, type Step } from '../tcp-script.ts';

const [address = '', port = '', steps = '[]', request] = process.argv.slice(2);
const startedAt = performance.now();
const socket = net.connect({ host: address, port: Number(port), allowHalfOpen: true, noDelay: true });
const print = (outcome: Partial<Outcome>): void => console.log(JSON.stringify(outcome));
const failed = (e: NodeJS.ErrnoException): void =>
  print({ error: e.code ?? e.message, receivedBytes: 0, ms: Math.round(performance.now() - startedAt) });
socket.once('error', failed);
socket.once('connect', async () => {
  socket.off('error', failed);
  if (request !== undefined) socket.write(`${request}\n`);
  print(await playSteps(socket, JSON.parse(steps) as Step[]));
});
