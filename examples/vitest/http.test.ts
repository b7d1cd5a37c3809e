/** How a client and a server of yours behave in a bad network: with Vitest. See docs/library.md. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createNetwork } from 'bucatini';
import { expect, test } from 'vitest';

const cwd = new URL('../programs', import.meta.url).pathname;
/** Inside, this address is the host's 127.0.0.1. */
const HOST = '198.51.100.1';

test('the client gets all bytes at 5 % loss and 100 ms', async () => {
  const server = createServer((_request, response) => response.end('x'.repeat(100_000)));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  try {
    await using network = await createNetwork({
      hostLoopback: HOST,
      impairment: { delay: '50ms', loss: '5%' }, // each way: a round trip takes 100 ms
    });
    const { port } = server.address() as AddressInfo;
    const client = await network.run(process.execPath, ['download.mjs', `http://${HOST}:${port}/`], { cwd });
    expect(client).toMatchObject({ status: 0, stderr: '' });
    const { bytes, ms } = JSON.parse(client.stdout);
    expect(bytes).toBe(100_000);
    expect(ms).toBeGreaterThan(200); // one round trip to connect, one for the request
  } finally {
    server.close();
  }
});

test('the server answers again after it has lost its network', async () => {
  await using network = await createNetwork({ impairment: 'none' }); // a line that can be changed
  await using server = network.spawn(process.execPath, ['server.mjs'], { cwd });
  await once(server.stdout!, 'data');
  const { hostPort } = await network.publish(8000);
  const ask = async (): Promise<string> => {
    const signal = AbortSignal.timeout(500);
    return (
      await fetch(`http://127.0.0.1:${hostPort}/`, { signal, headers: { connection: 'close' } })
    ).text();
  };

  expect(await ask()).toBe('1');
  await network.setImpairment({ loss: '100%' });
  await expect(ask()).rejects.toThrow('timeout');
  await network.setImpairment('none');
  await expect.poll(ask, { timeout: 5000 }).toBeTruthy();
});
