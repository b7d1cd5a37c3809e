/**
 * Figures of rootless Podman with our pasta, with the stock one and without a network, interleaved; ratios
 * are ours/stock.
 * usage: sh scripts/node.sh test/podman/figures.ts start|throughput|loopback|memory|ports      one of them takes below a minute
 */
import { readFileSync } from 'node:fs';
import { type Bed, makeBed, succeedIn } from '../support/bed.ts';
import { HOST4, PEER4 } from '../support/ports.ts';
import { childrenOf, descendantsOf, sleepMs } from '../support/process.ts';
import { IMAGE, Podman, podmanTree, type Tool } from './podman.ts';

const TOOLS: readonly Tool[] = ['ours', 'stock'];
const ROUNDS = 10;

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;
const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
};

type Logins = Readonly<Record<Tool, Podman>>;

/** `podman run --rm IMAGE true`, milliseconds. */
async function startTimes({ ours, stock }: Logins): Promise<void> {
  const ms: Record<string, number[]> = { ours: [], stock: [], none: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, podman, network] of [
      ['ours', ours, 'pasta'],
      ['stock', stock, 'pasta'],
      ['none', stock, 'none'],
    ] as const)
      ms[name]!.push(await timed(() => podman.succeed('run', '--rm', '--network', network, IMAGE, 'true')));
  }
  for (const [name, list] of Object.entries(ms))
    console.log(`${name}: median ${median(list).toFixed(0)} ms (${list.map((v) => v.toFixed(0)).join(' ')})`);
  const [a, b, none] = [median(ms.ours!), median(ms.stock!), median(ms.none!)];
  console.log(`ours/stock ${(a / b).toFixed(2)}; beyond no network ${((a - none) / (b - none)).toFixed(2)}`);
}

/** iperf3 through a published port and, unless `loopback` alone is asked for, outbound, Gbit/s. */
async function throughput({ ours, stock }: Logins, bed: Bed, loopback: boolean): Promise<void> {
  const server = bed.start('peer', ['iperf3', '-s', '-p', '5300']);
  const rate = (json: string): number => JSON.parse(json).end.sum_received.bits_per_second / 1e9;
  const rates: Record<string, number[]> = {};
  const note = (name: string, value: number): void => {
    (rates[name] ??= []).push(value);
  };
  for (const podman of [ours, stock])
    await podman.start(
      ['--network', 'pasta', '-p', podman === ours ? '5301:5201' : '5302:5201'],
      'exec iperf3 -s',
    );
  await sleepMs(500);
  for (let round = 0; round < (loopback ? ROUNDS : 3); round++) {
    for (const [podman, port] of [
      [ours, '5301'],
      [stock, '5302'],
    ] as const) {
      const client = ['iperf3', '-J', '-t', '2', '-c'];
      for (const [where, name, address] of [
        ['host', 'published, loopback', '127.0.0.1'],
        ['peer', 'published, from outside', HOST4],
      ] as const)
        if (where === 'host' || !loopback)
          note(`${podman.tool} ${name}`, rate(await succeedIn(bed, where, [...client, address, '-p', port])));
      if (loopback) continue;
      const inside = 'c1';
      const outbound = [...client, PEER4, '-p', '5300'].join(' ');
      note(`${podman.tool} outbound`, rate(await podman.inside(inside, outbound)));
      note(`${podman.tool} outbound, reverse`, rate(await podman.inside(inside, `${outbound} -R`)));
    }
  }
  server.process.kill();
  for (const name of Object.keys(rates).filter((key) => key.startsWith('ours '))) {
    const what = name.slice(5);
    const [a, b] = [median(rates[name]!), median(rates[`stock ${what}`]!)];
    console.log(`${what}: ours ${a.toFixed(2)}, stock ${b.toFixed(2)} Gbit/s, ratio ${(a / b).toFixed(2)}`);
    for (const tool of TOOLS)
      console.log(`  ${tool} ${rates[`${tool} ${what}`]!.map((v) => v.toFixed(1)).join(' ')}`);
  }
}

/** Proportional and resident memory of the tool's processes, MiB, with 1 and with 20 idle containers. */
async function memory(logins: Logins, keeper: number): Promise<void> {
  for (const tool of TOOLS) {
    const podman = logins[tool];
    for (const count of [1, 20]) {
      for (let i = 0; i < count; i++) await podman.start(['--network', 'pasta'], 'exec sleep 1000');
      await sleepMs(500);
      let rss = 0;
      let pss = 0;
      const pids = descendantsOf(keeper).filter((pid) =>
        /^(pasta|pasta.avx2)$/.test(readFileSync(`/proc/${pid}/comm`, 'utf8').trim()),
      );
      for (const pid of pids) {
        const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
        rss += Number(/^Rss:\s+(\d+)/m.exec(rollup)![1]) / 1024;
        pss += Number(/^Pss:\s+(\d+)/m.exec(rollup)![1]) / 1024;
      }
      console.log(
        `${tool}, ${count} containers: ${pids.length} processes, RSS ${rss.toFixed(0)} MiB, PSS ${pss.toFixed(0)} MiB`,
      );
      await podman.clean();
    }
  }
}

/** Until `pasta -t 16000 ports` has returned ready, milliseconds. */
async function ports(logins: Logins): Promise<void> {
  const ms: Record<Tool, number[]> = { ours: [], stock: [] };
  for (let round = 0; round < 5; round++) {
    for (const tool of TOOLS) {
      const program = tool === 'ours' ? '/run/ours/pasta' : '/usr/bin/pasta';
      const argv = [
        program,
        '-q',
        '-f',
        '--config-net',
        '-t',
        '10000-25999',
        '-u',
        'none',
        '-T',
        'none',
        '-U',
        'none',
        '--',
        'true',
      ];
      ms[tool].push(
        await timed(async () => {
          const { status, stderr } = await logins[tool].exec(
            'sh',
            '-c',
            `ulimit -n "$(ulimit -H -n)"; exec ${argv.join(' ')}`,
          );
          if (status !== 0) throw new Error(stderr);
        }),
      );
    }
  }
  for (const tool of TOOLS)
    console.log(`${tool}: median ${median(ms[tool]).toFixed(0)} ms (${ms[tool].map((v) => v.toFixed(0))})`);
  console.log(`ours/stock ${(median(ms.ours) / median(ms.stock)).toFixed(2)}`);
}

const what = process.argv[2] ?? '';
if (!['start', 'throughput', 'loopback', 'memory', 'ports'].includes(what)) {
  console.error(`figures.ts: ${JSON.stringify(what)}: write start, throughput, loopback, memory or ports`);
  process.exit(2);
}
const tree = await podmanTree();
const bed = await makeBed({ privileged: true });
try {
  const logins: Logins = {
    ours: await Podman.login(bed, tree, 'ours'),
    stock: await Podman.login(bed, tree, 'stock'),
  };
  if (what === 'start') await startTimes(logins);
  else if (what === 'throughput' || what === 'loopback') await throughput(logins, bed, what === 'loopback');
  else if (what === 'memory') await memory(logins, childrenOf(process.pid)[0]!);
  else await ports(logins);
  for (const podman of Object.values(logins)) await podman.logout();
} finally {
  await bed.close();
}
process.exit(0);
