// @vitest: beside
import { closeSync } from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { describe, expect, it } from 'vitest';
import { foreignPorts, openTables, scan } from '../../../src/main/pasta/port-scan.ts';

describe('port scan', () => {
  it('a socket table longer than one read: read to its end', async () => {
    // 150 bytes per line: one read returns about 27 lines.
    const servers = await Promise.all(
      Array.from(
        { length: 100 },
        () =>
          new Promise<Server>((resolve, reject) => {
            const server = createServer().once('error', reject);
            server.listen(0, '127.0.0.1', () => resolve(server));
          }),
      ),
    );
    const tables = openTables();
    try {
      const ports = servers.map((server) => (server.address() as AddressInfo).port);
      expect(ports.filter((port) => !scan(tables).tcp.has(port))).toEqual([]);
    } finally {
      for (const fd of Object.values(tables)) if (fd >= 0) closeSync(fd);
      for (const server of servers) server.close();
    }
  });

  it('ports in ascending order, without our own; a foreign TCP listener counts for UDP too', () => {
    const found = { tcp: new Set([900, 80, 443]), udp: new Set([53, 443, 5000]) };
    const ours = { tcp: new Set([443]), udp: new Set([5000]) };
    expect(foreignPorts(found, ours)).toEqual({ tcp: [80, 900], udp: [53, 80, 443, 900] });
  });
});
