/**
 * Hostile clients of an API socket, all at once: `api-hostile.ts PATH SECONDS`. 300 send nothing; others
 * repeatedly send half a request, garbage, or 10 MiB; one requests `list_flows` without a pause. Prints the
 * distinct replies of each kind as {half, garbage, huge, clients: connections, flows: replies of list_flows,
 * refused: connections that were not accepted}.
 */
import { once } from 'node:events';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const [path = '', seconds = '1'] = process.argv.slice(2);
const SILENT = 300;
const end = performance.now() + Number(seconds) * 1000;
const huge = `{"execute":"${'x'.repeat(10 * 2 ** 20)}"}`;
const told = { half: new Set<string>(), garbage: new Set<string>(), huge: new Set<string>() };
let clients = 0;
let flows = 0;
let refused = 0;

const connect = (text: string): net.Socket => {
  clients++;
  const socket = net.createConnection({ path, allowHalfOpen: true }, () => socket.write(text));
  socket.on('error', (e: NodeJS.ErrnoException) => {
    if (e.code === 'ECONNREFUSED' || e.code === 'EAGAIN') refused++;
  });
  return socket;
};
async function ask(text: string): Promise<string> {
  const socket = connect(text);
  let reply = '';
  socket.on('data', (chunk) => {
    reply += String(chunk);
  });
  await Promise.race([once(socket, 'end'), once(socket, 'close')]);
  socket.destroy();
  return reply;
}
const repeat = async (step: () => Promise<unknown>): Promise<void> => {
  while (performance.now() < end) await step();
};

const silent = Array.from({ length: SILENT }, () => connect(''));
await Promise.all([
  ...Array.from({ length: 4 }, () => repeat(async () => told.garbage.add(await ask('\0\xff not JSON')))),
  ...Array.from({ length: 2 }, () => repeat(async () => told.huge.add(await ask(huge)))),
  repeat(async () => told.half.add(await ask('{"execute":"list_'))),
  repeat(async () => {
    const reply = await ask('{"execute":"list_flows"}');
    if (Array.isArray(JSON.parse(reply).return.flows)) flows++;
  }),
  repeat(() => sleep(100)),
]);
for (const socket of silent) socket.destroy();
const list = (set: Set<string>): string[] => [...set];
console.log(
  JSON.stringify({
    ...{ half: list(told.half), garbage: list(told.garbage), huge: list(told.huge) },
    ...{ clients, flows, refused },
  }),
);
