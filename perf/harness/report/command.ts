/** The command that repeats a run. Pure. */
import { isBuiltIn } from '../options.ts';
import type { Result } from '../result.ts';

/** Options of a result's record, and the harness's options for them. */
const FLAGS = [
  ['only', '--only'],
  ['rounds', '--rounds'],
  ['seconds', '--seconds'],
  ['tcpWmem', '--tcp-wmem'],
  ['line', '--wan'],
] as const;
const DEFAULT_MTUS = '65520,1500';

/**
 * The arguments that repeat a run. Other builds than those on PATH are NAME=FILE there: a result does not
 * have their paths.
 */
export function repeatArguments({ mode, options, peers, soak }: Result): string[] {
  const scaling = mode === 'scaling';
  const words: string[] =
    soak !== null ? ['--soak', `${soak.minutes}`] : mode === 'only' ? [] : [`--${mode}`];
  for (const [field, flag] of FLAGS) {
    const value = options[field];
    if (value !== null && value !== undefined) words.push(flag, `${value}`.replaceAll(' ', ','));
  }
  const { mtus, idleSeconds } = options;
  if (typeof mtus === 'string' && mtus !== DEFAULT_MTUS && !(scaling && mtus === '65520'))
    words.push('--mtu', mtus);
  if (typeof idleSeconds === 'number' && idleSeconds > 0) words.push('--idle', `${idleSeconds}`);
  const names = peers.map(({ name }) => (isBuiltIn(name) ? name : `${name}=FILE`)).join();
  if (!scaling && names !== 'direct,bucatini,pasta,slirp4netns') words.push('--peers', names);
  return words;
}

export function repeatCommands(result: Result): string[] {
  const words = [...repeatArguments(result), '--json', 'result.json', '--html', 'report.html'].join(' ');
  return [`scripts/iperf-harness.sh ${words}`, `bucatini bench ${words}`];
}
