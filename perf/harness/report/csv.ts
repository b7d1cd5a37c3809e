/** A result as comma-separated values (RFC 4180), a line for each figure of each round. Pure. */
import type { Result } from '../result.ts';

const field = (value: string | number): string => {
  const text = `${value}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

export function csv({ date, machine, measurements }: Result): string {
  const lines = measurements.flatMap(({ cell, peer, round, values, error }) => {
    const common = [date, machine.commit, cell, peer, round];
    const figures: (string | number)[][] = Object.entries(values);
    // A round without a figure has a line too, with its error.
    if (figures.length === 0) figures.push(['', '']);
    return figures.map((pair) => [...common, ...pair, error ?? '']);
  });
  const head = ['date', 'commit', 'cell', 'peer', 'round', 'metric', 'value', 'error'];
  return [head, ...lines].map((line) => `${line.map(field).join(',')}\r\n`).join('');
}
