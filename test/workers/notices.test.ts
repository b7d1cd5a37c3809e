// @vitest: beside
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { NOTICES, Notice, Notices } from '../../src/workers/thread/notices.ts';

const WORKERS = path.resolve(import.meta.dirname, '../../src/workers');

describe('log lines that traffic can cause', () => {
  it.each(Object.entries(Notice))(
    '%s: one line in ten seconds, then the number of suppressed ones',
    (_name, kind) => {
      let now = 0;
      const lines: string[] = [];
      const notices = new Notices(
        (level, text) => lines.push(`${level}: ${text}`),
        () => now,
      );
      for (let i = 0; i < 100_000; i++) {
        now = i / 100;
        notices.tell(kind, 'warning', 'full');
      }
      expect(lines).toEqual(['warning: full']);
      now = 10_000;
      notices.tell(kind, 'warning', 'full');
      expect(lines[1]).toBe('warning: full (99999 more times since the last such line)');
      now = 20_000;
      notices.tell(kind, 'warning', 'full');
      expect(lines[2]).toBe('warning: full');
      expect(kind).toBeLessThan(NOTICES);
    },
  );

  it('only the packet thread logs without this limit, for events that no packet can cause', () => {
    const sites: string[] = [];
    for (const file of readdirSync(WORKERS, { recursive: true, encoding: 'utf8' })) {
      if (!file.endsWith('.ts') || ['thread/notices.ts', 'thread/log-ring.ts'].includes(file)) continue;
      const lines = readFileSync(path.join(WORKERS, file), 'utf8').split('\n');
      for (const line of lines) {
        if (/^\s*(\*|\/\/|\/\*)/.test(line)) continue;
        if (/\blog\(|\bconsole\.|LogWriter\(|process\.std(out|err)/.test(line))
          sites.push(`${file}: ${line.trim()}`);
      }
    }
    expect(sites.map((site) => site.split(':')[0]).filter((file) => file !== 'packet-thread.ts')).toEqual([]);
    expect(sites).toHaveLength(3); // the writer itself, its epoll instance, and the output of Notices
  });
});
