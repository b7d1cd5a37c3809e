// @vitest: beside
/**
 * The flow list by pages: from flow tables through rows to objects. The threads in between are tested end to
 * end.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { addressParse } from '../../src/proto/address.ts';
import {
  describeEntry,
  FLOW_FIELDS,
  FLOW_STATE_NAMES,
  FlowField,
  type FlowSource,
  FlowState,
  flowPage,
  MAX_PAGE_FLOWS,
} from '../../src/workers/flow/flow-report.ts';
import { FlowTable } from '../../src/workers/flow/flow-table.ts';
import { countFlows, listFlows } from '../../src/workers/flow-list.ts';

const TCP = 6;

/** A section whose flows have the numbers of `ports` as the guest's ports. */
class Section implements FlowSource {
  readonly table: FlowTable;
  readonly ids = new Map<number, number>();

  constructor(capacity: number) {
    this.table = new FlowTable(capacity);
  }

  add(port: number, guest = '192.0.2.15', remote = '2001:db8::1'): void {
    const addr = new Uint32Array(8);
    addressParse(guest, addr, 0);
    addressParse(remote, addr, 4);
    const ports = ((port << 16) | 443) >>> 0;
    this.ids.set(port, this.table.insert({ addr, hash: port * 7919, ports, proto: TCP }));
  }

  remove(port: number): void {
    this.table.remove(this.ids.get(port)!);
  }

  get placeCount(): number {
    return this.table.maxFlows;
  }

  describeFlow(place: number, rows: Float64Array, at: number): boolean {
    if (!this.table.isLive(place)) return false;
    describeEntry(this.table, place, rows, at);
    rows[at + FlowField.state] = FlowState.established;
    rows[at + FlowField.ageMs] = 1000 - this.table.bornMs[place]!;
    return true;
  }
}

const asked: number[] = [];
const pagesOf = (sections: readonly FlowSource[]) => async (section: number, from: number, limit: number) => {
  const source = sections[section];
  if (source === undefined) return { rows: new Float64Array(0), next: -1 };
  const page = flowPage(source, from, limit);
  asked.push(page.rows.length / FLOW_FIELDS);
  return page;
};

describe('flow list', () => {
  it('docs/api.md lists every state', () => {
    const page = readFileSync(new URL('../../docs/api.md', import.meta.url), 'utf8');
    expect(FLOW_STATE_NAMES.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });

  it('a page without flows: no memory is taken for it, which a busy thread would not collect', () => {
    const section = new Section(16);
    const kibBefore = process.memoryUsage().arrayBuffers / 1024;
    for (let i = 0; i < 200; i++) expect(flowPage(section, 0, MAX_PAGE_FLOWS).rows).toHaveLength(0);
    expect(process.memoryUsage().arrayBuffers / 1024 - kibBefore).toBeLessThan(64);
  });

  it('two pages: the second one leaves the rows of the first as they are', () => {
    const section = new Section(16);
    section.add(5000);
    const first = flowPage(section, 0, 1);
    const copy = [...first.rows];
    section.add(6000);
    expect(flowPage(section, first.next, 1).rows).not.toEqual(first.rows);
    expect([...first.rows]).toEqual(copy);
  });

  it('a flow: listed with key, bytes and age', async () => {
    const section = new Section(16);
    section.table.nowMs = 400;
    section.add(5000);
    const id = section.ids.get(5000)!;
    section.table.fromGuestBytes[id] = 6e9;
    section.table.toGuestBytes[id] = 11;
    expect(await listFlows(pagesOf([section]), 1, -1, 10)).toEqual({
      flows: [
        {
          ...{ id, proto: 'tcp', state: 'established', path: 'tap' },
          ...{ guestAddress: '192.0.2.15', guestPort: 5000 },
          ...{ remoteAddress: '2001:db8::1', remotePort: 443 },
          ...{ bytesFromGuest: 6e9, bytesToGuest: 11, ageMs: 600 },
        },
      ],
      more: false,
    });
  });

  it('an id used again: starts with 0 bytes; a detached flow: not listed', () => {
    const table = new FlowTable(1);
    const tuple = { addr: new Uint32Array(8), hash: 1, ports: 1, proto: TCP };
    const id = table.insert(tuple);
    table.toGuestBytes[id] = 5;
    expect(table.isLive(id)).toBe(true);
    table.detach(id);
    expect(table.isLive(id)).toBe(false);
    table.release(id);
    expect(table.insert(tuple)).toBe(id);
    expect(table.toGuestBytes[id]).toBe(0);
  });

  it('10,000 flows in two shards and a splice section, pages of 1,000, other flows change meanwhile: each lasting flow is listed once', async () => {
    const sections = [new Section(65_536), new Section(65_536), new Section(4096)];
    let port = 0;
    for (const section of sections)
      for (let i = 0; i < (section === sections[2] ? 1000 : 4500); i++) section.add(++port);
    asked.length = 0;
    const seen: string[] = [];
    let after = -1;
    for (let more = true; more; ) {
      const page = await listFlows(pagesOf(sections), 2, after, 1000);
      expect(page.flows.length).toBeLessThanOrEqual(1000);
      for (const flow of page.flows) {
        expect(flow.id).toBeGreaterThan(after);
        after = flow.id;
        seen.push(`${flow.path} ${flow.guestPort}`);
      }
      more = page.more;
      // In the first shard: some flows end, new ones get later places.
      for (let i = 0; i < 10 && more; i++) {
        const gone = 4500 - seen.length - i;
        if (gone > 0 && sections[0]!.ids.has(gone)) sections[0]!.remove(gone);
        sections[0]!.add(20_000 + seen.length + i);
      }
    }
    expect(Math.max(...asked)).toBe(MAX_PAGE_FLOWS);
    expect(new Set(seen).size).toBe(seen.length);
    const second = seen.filter((text) => {
      const [path, guestPort] = text.split(' ');
      return path === 'tap' && Number(guestPort) > 4500 && Number(guestPort) <= 9000;
    });
    expect(second).toHaveLength(4500);
    expect(seen.filter((text) => text.startsWith('splice '))).toHaveLength(1000);
  });

  it('flows are counted by protocol, state and path, over all pages', async () => {
    const sections = [new Section(2000), new Section(16), new Section(16)];
    for (let port = 1; port <= 900; port++) sections[0]!.add(port);
    for (let port = 1; port <= 3; port++) sections[2]!.add(port);
    sections[0]!.remove(7);
    const established = { proto: 'tcp', state: 'established' };
    expect(await countFlows(pagesOf(sections), 2)).toEqual([
      { ...established, path: 'tap', count: 899 },
      { ...established, path: 'splice', count: 3 },
    ]);
    expect(await countFlows(pagesOf([new Section(16)]), 1)).toEqual([]);
  });
});
