/** The figures at the top of the README, from the newest report. Pure. */
import type { Metric, Result } from '../result.ts';
import { versionText } from './overview.ts';
import { Figures } from './statistics.ts';
import { timesText, unitFor } from './units.ts';

const BEGIN = '<!-- figures: made by `npm run comparison` -->';
const END = '<!-- end of the figures -->';

/** bucatini's figure with its unit, and its ratio to the best stock tool. null: one of them is missing. */
function besideBest(
  figures: Figures,
  cell: string,
  metric: Metric,
): { readonly text: string; readonly times: string } | null {
  const ours = figures.ours === null ? null : figures.median(cell, figures.ours.name, metric);
  const best = figures.best(cell, metric)?.median ?? null;
  if (ours === null || best === null || best === 0) return null;
  const unit = unitFor(metric, [ours]);
  return { text: `${unit.text(ours)} ${unit.label}`, times: timesText(ours / best) };
}

/** What the stock tools did beside 10,000 idle connections, which not all can hold. */
function othersBesideIdle(figures: Figures, cell: string): string {
  return figures.stock
    .flatMap(({ kind, name }) => {
      if (figures.of(cell, name).length === 0) return [];
      const mbit = figures.median(cell, name, 'mbit');
      const held = figures.median(cell, name, 'flows');
      if (mbit === null) return [`${kind} failed: ${figures.error(cell, name) ?? 'no figure'}`];
      const unit = unitFor('mbit', [mbit]);
      const only =
        held !== null && held < 10_000 ? `, and only ${held.toLocaleString('en-US')} could be opened` : '';
      return [`${kind} ${unit.text(mbit)} ${unit.label}${only}`];
    })
    .join('; ');
}

/** Three bullets at most, and when and with what they were measured. */
export function gainsText(result: Result): string {
  const figures = new Figures(result);
  const of = (cell: string, metric: Metric) => besideBest(figures, cell, metric);
  const [up, down] = [of('tcp-1-up-65520', 'mbit'), of('tcp-1-down-65520', 'mbit')];
  const [smallUp, smallDown] = [of('tcp-1-up-1500', 'mbit'), of('tcp-1-down-1500', 'mbit')];
  const connect = of('connect-out-65520', 'perSecond');
  const idleCell = 'flows-10000-65520';
  const idle = figures.ours === null ? null : figures.median(idleCell, figures.ours.name, 'mbit');
  const idleUnit = unitFor('mbit', [idle ?? 0]);
  const bullets = [
    up &&
      down &&
      `- **Throughput:** one TCP stream uploads ${up.text} (${up.times} times as much) and downloads ${down.text} (${down.times} times).${
        smallUp && smallDown
          ? ` At an MTU of 1500 the factors are ${smallUp.times} and ${smallDown.times}.`
          : ''
      }`,
    connect &&
      `- **Connections:** ${connect.text.replace('per second', 'new ones per second')}, ${connect.times} times as many.`,
    idle !== null &&
      `- **Many connections:** beside 10,000 idle ones a busy stream uploads ${idleUnit.text(idle)} ${idleUnit.label} (${othersBesideIdle(figures, idleCell)}).`,
  ].filter((bullet) => typeof bullet === 'string');
  const { date, machine, peers } = result;
  const stock = peers.filter(({ kind }) => kind === 'pasta' || kind === 'slirp4netns').map(versionText);
  const ours = `${figures.ours === null ? 'bucatini' : versionText(figures.ours)} (commit ${machine.commit}, on ${machine.runtime ?? 'Node'})`;
  return [
    bullets.join('\n'),
    `Measured on ${date} with ${ours} on ${machine.cores} processors. The factors are to the better of ${stock.join(' and ')}.`,
  ].join('\n\n');
}

/**
 * The README with new figures.
 * @throws Error when it has no place for them
 */
export function withGains(readme: string, result: Result): string {
  const [begin, end] = [readme.indexOf(BEGIN), readme.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`README.md: no lines '${BEGIN}' and '${END}'`);
  return `${readme.slice(0, begin + BEGIN.length)}\n\n${gainsText(result)}\n\n${readme.slice(end)}`;
}
