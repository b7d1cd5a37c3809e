/**
 * The arena by hand: `sh scripts/node.sh test/hostile/arena/main.ts [OPTION...]`, a table for each attack.
 *
 *   --attack NAME[,NAME...]   the attacks (default: all); --list names them
 *   --front NAME[,NAME...]    run, pasta, slirp4netns, "stock pasta", "stock slirp4netns" (default: run)
 *   --plan PLAN[,PLAN...]     thread plans (default: fused)
 *   --size N                  peers (default: those of the attack)
 *   --seconds N               length of each window (default: 3)
 *   --mtu N   --splice   --iperf   --json   --stock-pasta FILE   --stock-slirp FILE
 */
import { parseArgs } from 'node:util';
import { type ArenaOptions, type ArenaResult, FRONTS, type Front, fight, type Window } from './arena.ts';
import { ATTACK_NAMES, ATTACKS, type AttackName } from './attacks.ts';
import type { Tally } from './witness.ts';

const { values } = parseArgs({
  options: {
    attack: { type: 'string' },
    front: { type: 'string', default: 'run' },
    plan: { type: 'string', default: 'fused' },
    size: { type: 'string' },
    seconds: { type: 'string', default: '3' },
    mtu: { type: 'string' },
    splice: { type: 'boolean', default: false },
    iperf: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    'stock-pasta': { type: 'string' },
    'stock-slirp': { type: 'string' },
  },
});

const chosen = <T extends string>(text: string, known: readonly T[], what: string): T[] =>
  text.split(',').map((name) => {
    const found = known.find((k) => k === name);
    if (!found) throw new Error(`--${what} ${name}: one of ${known.join(', ')}`);
    return found;
  });

const tally = (t: Tally): string => {
  if (t.asked === 0) return '-';
  const failed = Object.entries(t.failed).map(([cause, n]) => `${n} ${cause}`);
  return `${t.answered}/${t.asked}, ${t.maxMs} ms${failed.length > 0 ? ` (${failed.join(', ')})` : ''}`;
};
const row = (w: Window): Record<string, string | number> => ({
  'out old': tally(w.outbound.old),
  'out connect': tally(w.outbound.connect),
  'out udp': tally(w.outbound.udp),
  dns: tally(w.outbound.dns),
  'in old': tally(w.inbound.old),
  'in connect': tally(w.inbound.connect),
  'in udp': tally(w.inbound.udp),
  'RSS MiB': w.rssMiB,
  fds: w.descriptors,
  threads: Object.entries(w.threads)
    .map(([name, share]) => `${name.replace(/\/.*/, '')} ${share}`)
    .join(' '),
  'log lines': w.logLines,
  ...(w.upGbits !== undefined ? { 'up Gbit/s': w.upGbits, 'down Gbit/s': w.downGbits! } : {}),
});
function print(title: string, r: ArenaResult): void {
  console.log(`\n## ${title}; stood after ${r.setMs} ms\n`);
  const rows = { before: row(r.before), during: row(r.during), after: row(r.after) };
  for (const key of Object.keys(rows.before)) {
    const cells = Object.values(rows).map((cellsOf) => String(cellsOf[key]).padEnd(34));
    console.log(`  ${key.padEnd(12)}${cells.join(' ')}`);
  }
  const lines = r.log.split('\n').filter((line) => line !== '');
  if (lines.length > 0) console.log(`\n  log: ${lines.slice(0, 8).join('\n       ')}`);
}

if (values.list) {
  for (const name of ATTACK_NAMES) console.log(`${name.padEnd(20)} ${ATTACKS[name].about}`);
  process.exit(0);
}
for (const attack of chosen<AttackName>(values.attack ?? ATTACK_NAMES.join(','), ATTACK_NAMES, 'attack')) {
  for (const front of chosen<Front>(values.front, FRONTS, 'front')) {
    for (const plan of values.plan.split(',')) {
      const options: ArenaOptions = {
        ...{ front, plan, attack, size: Number(values.size ?? ATTACKS[attack].quick) },
        ...{ windowSeconds: Number(values.seconds), splice: values.splice, iperf: values.iperf },
        ...(values.mtu ? { mtu: Number(values.mtu) } : {}),
        ...(values['stock-pasta'] ? { stockPasta: values['stock-pasta'] } : {}),
        ...(values['stock-slirp'] ? { stockSlirp: values['stock-slirp'] } : {}),
      };
      const title = `${attack} × ${options.size}: ${front}${front.startsWith('stock') ? '' : ` ${plan}`}`;
      try {
        const result = await fight(options);
        if (values.json) console.log(JSON.stringify({ ...options, ...result }));
        else print(title, result);
      } catch (e) {
        console.log(`\n## ${title}: ${(e as Error).message}`);
      }
    }
  }
}
process.exit(0);
