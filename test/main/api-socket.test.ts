import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { ApiSocket } from '../../src/main/api/socket.ts';

const ask = (path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(path, () => socket.end('{}'));
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(text));
  });

describe('a request that was answered', () => {
  it('its client has closed: no timer refers to the socket', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'api-socket-'));
    const set = vi.spyOn(globalThis, 'setTimeout');
    const clear = vi.spyOn(globalThis, 'clearTimeout');
    const server = new ApiSocket({
      answer: async () => 'answer',
      tooLargeReply: '',
      onError: (error) => expect.fail(error.message),
    });
    try {
      await server.listen(join(directory, 'socket'));
      for (let i = 0; i < 5; i++) expect(await ask(join(directory, 'socket'))).toBe('answer');
      const started = set.mock.results.map(({ value }) => value);
      expect(started.length).toBeGreaterThanOrEqual(5);
      await vi.waitUntil(() =>
        started.every((timer) => clear.mock.calls.some(([cleared]) => cleared === timer)),
      );
    } finally {
      server.close();
      vi.restoreAllMocks();
      rmSync(directory, { recursive: true });
    }
  });
});
