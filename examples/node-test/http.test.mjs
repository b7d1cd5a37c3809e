/** How a client and a server of yours behave in a bad network: with node:test. See docs/library.md. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { createNetwork } from 'bucatini';

const cwd = new URL('../programs', import.meta.url).pathname;
/** Inside, this address is the host's 127.0.0.1. */
const HOST = '198.51.100.1';

test('the client gets all bytes at 5 % loss and 100 ms', async (t) => {
  const server = createServer((_request, response) => response.end('x'.repeat(100_000)));
  t.after(() => server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const network = await createNetwork({
    hostLoopback: HOST,
    impairment: { delay: '50ms', loss: '5%' }, // each way: a round trip takes 100 ms
    signal: t.signal,
  });
  t.after(() => network.close());

  const url = `http://${HOST}:${server.address().port}/`;
  const client = await network.run(process.execPath, ['download.mjs', url], { cwd });
  assert.equal(client.status, 0, client.stderr);
  const { bytes, ms } = JSON.parse(client.stdout);
  assert.equal(bytes, 100_000);
  assert.ok(ms > 200, `${ms} ms`); // one round trip to connect, one for the request
});

test('the server answers again after it has lost its network', async (t) => {
  const network = await createNetwork({ impairment: 'none' }); // a line that can be changed
  t.after(() => network.close());
  const server = network.spawn(process.execPath, ['server.mjs'], { cwd });
  await once(server.stdout, 'data');
  const { hostPort } = await network.publish(8000);
  const ask = async (ms) => {
    const signal = AbortSignal.timeout(ms);
    const headers = { connection: 'close' };
    return (await fetch(`http://127.0.0.1:${hostPort}/`, { signal, headers })).text();
  };

  assert.equal(await ask(5000), '1');
  await network.setImpairment({ loss: '100%' });
  await assert.rejects(ask(500), { name: 'TimeoutError' });
  await network.setImpairment('none');
  assert.ok(await ask(5000));
});
