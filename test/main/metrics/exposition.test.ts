// @vitest: beside
/**
 * What is exported, and under which names: a check like that of `promtool check metrics`, which must find
 * nothing.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readReport } from '../../../src/main/api/engine-report.ts';
import { exposition, negotiate } from '../../../src/main/metrics/exposition.ts';
import {
  boundsOf,
  ENGINE_FAMILIES,
  familiesOf,
  familiesOfInstances,
  histogramSamples,
  INSTANCE_FAMILIES,
} from '../../../src/main/metrics/families.ts';
import { COUNTERS } from '../../../src/ring/counters.ts';
import { HISTOGRAMS, histogramBucket, histogramValue } from '../../../src/ring/histograms.ts';
import { REPORT } from './report.ts';

/** Parts of names that stand for units other than base units, or for types (promtool's linter). */
const NOT_BASE =
  /_(ms|us|ns|sec|millis|milliseconds|microseconds|nanoseconds|minutes|hours|kb|kib|mb|mib|kilobytes|bits|percent|counter|gauge|histogram|summary)(_|$)/;

/** Mistakes in a text exposition. */
function lint(text: string): string[] {
  const wrong: string[] = [];
  const families = new Set<string>();
  const series = new Set<string>();
  let family = '';
  let type = '';
  for (const line of text.split('\n')) {
    const [, name = '', help] = /^# HELP (\S+) (.*)$/.exec(line) ?? [];
    if (help !== undefined) {
      if (families.has(name)) wrong.push(`${name}: twice`);
      families.add(name);
      family = name;
      if (help.trim().length < 10 || help.includes('"')) wrong.push(`${name}: help`);
      if (!/^bucatini(_[a-z0-9]+)+$/.test(name) || NOT_BASE.test(name)) wrong.push(`${name}: name`);
      continue;
    }
    const typed = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line);
    if (typed !== null) {
      type = typed[2]!;
      if (typed[1] !== family) wrong.push(`${line}: behind another HELP`);
      if ((type === 'counter') !== family.endsWith('_total')) wrong.push(`${family}: _total`);
      continue;
    }
    if (line === '') continue;
    const sample = /^([a-z0-9_]+)(\{(?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+\})? (\S+)$/.exec(line);
    if (sample === null) wrong.push(`malformed: ${line}`);
    const own = (sample?.[1] ?? '').replace(type === 'histogram' ? /_(bucket|sum|count)$/ : /$^/, '');
    if (own !== family) wrong.push(`${line}: not of ${family}`);
    if (sample !== null && !(Number(sample[3]) >= 0)) wrong.push(`${line}: value`);
    const one = line.replace(/ \S+$/, '');
    if (series.has(one)) wrong.push(`${line}: twice`);
    series.add(one);
  }
  return wrong;
}

const instances = [
  { labels: { pid: '1', program: 'run' }, report: REPORT },
  { labels: { pid: '2', program: 'pasta', container: 'a "b"\\\n' }, report: REPORT, containerId: 'c0ffee' },
  { labels: { pid: '3', program: 'socket' } },
];

describe('exposition', () => {
  it('the text format, of one engine and of several, is without mistakes', async () => {
    expect(lint(await exposition(familiesOf(REPORT), 'text'))).toEqual([]);
    expect(lint(await exposition(familiesOfInstances(instances), 'text'))).toEqual([]);
  });

  it('the check finds mistakes', () => {
    const bad = `# HELP bucatini_rtt_ms Round-trip time
# TYPE bucatini_rtt_ms counter
bucatini_rtt_ms{a="x"} 1
bucatini_rtt_ms{a="x"} 2
bucatini_other{a="\\x"} 1
`;
    expect(lint(bad)).toEqual([
      'bucatini_rtt_ms: name',
      'bucatini_rtt_ms: _total',
      'bucatini_rtt_ms{a="x"} 2: twice',
      'malformed: bucatini_other{a="\\x"} 1',
      'bucatini_other{a="\\x"} 1: not of bucatini_rtt_ms',
    ]);
  });

  it('every counter and histogram of the engine is exported, under a name of its own', () => {
    const names = ENGINE_FAMILIES.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    const helps = ENGINE_FAMILIES.map(({ help }) => help);
    for (const { name, help } of [...COUNTERS, ...HISTOGRAMS])
      if (!name.startsWith('cpu')) expect(helps, name).toContain(help);
  });

  it('values, in base units', async () => {
    const text = await exposition(familiesOf(REPORT), 'text');
    for (const line of [
      'bucatini_build_info{program="run",version="1.2.3",runtime="Bun 1"} 1',
      'bucatini_start_time_seconds 1795940814.296',
      'bucatini_resident_memory_bytes 33554432',
      'bucatini_process_cpu_seconds_total 1.5',
      'bucatini_cpu_seconds_total{thread="packets",mode="system"} 0.5',
      'bucatini_frames_from_guest_total 12',
      'bucatini_from_guest_bytes_total 3456',
      'bucatini_to_guest_bytes_total 0',
      'bucatini_dropped_packets_total{cause="tcpNoFlow"} 3',
      'bucatini_dropped_packets_total{cause="short"} 0',
      'bucatini_flows{protocol="tcp",state="established"} 3',
      'bucatini_flows{protocol="tcp",state="closed"} 0',
      'bucatini_flows{protocol="132",state="replied"} 1',
      'bucatini_pool_slots{size="small",state="used"} 30',
      'bucatini_pool_slots{size="large",state="free"} 9',
      'bucatini_guest_rtt_seconds_bucket{le="0.000016"} 2',
      'bucatini_guest_rtt_seconds_bucket{le="0.000032"} 3',
      'bucatini_guest_rtt_seconds_bucket{le="16.777216"} 3',
      'bucatini_guest_rtt_seconds_bucket{le="+Inf"} 7',
      'bucatini_guest_rtt_seconds_count 7',
      'bucatini_tap_batch_frames_bucket{le="1.0"} 0',
    ])
      expect(text.split('\n')).toContain(line);
  });

  it('instances: labels on each sample, and which have not answered', async () => {
    const text = await exposition(familiesOfInstances(instances), 'text');
    for (const line of [
      'bucatini_instances 3',
      'bucatini_instance_up{pid="1",program="run"} 1',
      'bucatini_instance_up{pid="3",program="socket"} 0',
      'bucatini_instance_container_info{pid="2",program="pasta",container="a \\"b\\"\\\\\\n",id="c0ffee"} 1',
      'bucatini_flows{pid="1",program="run",protocol="udp",state="replied"} 0',
    ])
      expect(text.split('\n')).toContain(line);
    expect(text).not.toContain('bucatini_flows{pid="3"');
  });

  it('OpenMetrics: counters are named without _total, and the end is marked', async () => {
    const text = await exposition(familiesOf(REPORT), 'openmetrics');
    expect(text).toContain(
      '# TYPE bucatini_frames_from_guest counter\nbucatini_frames_from_guest_total 12\n',
    );
    expect(text.endsWith('\n# EOF\n')).toBe(true);
    expect(text).not.toMatch(/^$\n./m);
  });

  it('without an instance there is an exposition too', async () => {
    expect(lint(await exposition(familiesOfInstances([]), 'text'))).toEqual([]);
    expect(Object.keys(INSTANCE_FAMILIES)).toContain('count');
  });
});

describe('histograms', () => {
  /** Of every size, as likely as any other. */
  const VALUE = fc.integer({ min: 0, max: 2700 }).map((n) => 2 ** (n / 100) - 1);
  it('cumulative counts are exact at every bound, whatever was recorded', () => {
    for (const unit of ['us', 'frames'] as const)
      fc.assert(
        fc.property(fc.array(VALUE), (values) => {
          const recorded = unit === 'us' ? values : values.map(Math.floor);
          const buckets = new Map<number, number>();
          for (const value of recorded) {
            const middle = histogramValue(histogramBucket(value));
            buckets.set(middle, (buckets.get(middle) ?? 0) + 1);
          }
          const samples = histogramSamples(unit, [...buckets]);
          boundsOf(unit).forEach((bound, i) => {
            const edge = unit === 'us' ? Math.round(bound * 1e6) : bound + 1;
            expect(samples[i]!.value).toBe(recorded.filter((value) => value < edge).length);
          });
          const [total, count] = [samples.at(-2)!, samples.at(-1)!];
          expect(count).toMatchObject({ suffix: '_count', value: recorded.length });
          const exact = recorded.reduce((n, value) => n + value, 0) / (unit === 'us' ? 1e6 : 1);
          const slack = unit === 'us' ? recorded.length / 1e6 : recorded.length;
          expect(Math.abs(total.value - exact)).toBeLessThanOrEqual(exact / 8 + slack);
        }),
      );
  });
});

describe('content negotiation', () => {
  const PROMETHEUS_3 =
    'application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2';
  it.each([
    [undefined, 'text'],
    ['', 'text'],
    ['*/*', 'text'],
    ['text/*', 'text'],
    ['text/html,application/xhtml+xml,*/*;q=0.8', 'text'],
    ['application/openmetrics-text', 'openmetrics'],
    ['Application/OpenMetrics-Text; Version="1.0.0"; q=0.5, */*;q=0.1', 'openmetrics'],
    [PROMETHEUS_3, 'openmetrics'],
    ['application/openmetrics-text;version=1.0.0;q=0.1, text/plain;q=0.9', 'text'],
    ['application/openmetrics-text;version=2.0.0', undefined],
    ['application/openmetrics-text;q=0, */*', 'text'],
    ['application/json', undefined],
    ['text/plain;q=0, */*', undefined],
    ['text/plain;q=7, nonsense', undefined],
  ])('%s: %s', (accept, format) => expect(negotiate(accept)).toBe(format));
});

describe('reports of other processes', () => {
  it('a report survives the way through JSON', () => {
    expect(readReport(JSON.parse(JSON.stringify(REPORT)))).toEqual(REPORT);
  });

  it('whatever an API socket answers, the exposition is without mistakes', async () => {
    const fields = Object.keys(REPORT).filter((name) => name !== 'program');
    const report = fc.record(Object.fromEntries(fields.map((name) => [name, fc.jsonValue()])), {
      requiredKeys: [],
    });
    await fc.assert(
      fc.asyncProperty(report, fc.string(), async (answer, program) => {
        const read = readReport(JSON.parse(JSON.stringify({ ...answer, program })))!;
        const one = { labels: { pid: '1', program }, report: read };
        const text = await exposition(familiesOfInstances([one]), 'text');
        expect(lint(text)).toEqual([]);
      }),
      { numRuns: 50 },
    );
    for (const none of [undefined, null, 3, [], {}, { program: 3 }]) expect(readReport(none)).toBeUndefined();
  });
});
