// bundle: rare
/** Figures of at most six characters for the columns of a terminal; units.ts has the longer ones. */
import { inUnit } from './units.ts';

function scaled(value: number, base: number, units: readonly string[]): string {
  const { rest, i } = inUnit(value, base, units);
  const digits = i === 0 || rest >= 99.95 ? Math.round(rest).toString() : rest.toFixed(rest >= 9.995 ? 1 : 2);
  return `${digits}${units[i]}`;
}

/** Bits per second in powers of 1000: "0", "16.9G". */
export const shortRate = (bytesPerSecond: number): string =>
  scaled(Math.max(0, bytesPerSecond * 8), 1000, ['', 'k', 'M', 'G', 'T']);

/** Bytes in powers of 1024: "517", "47.1K". */
export const shortBytes = (bytes: number): string => scaled(bytes, 1024, ['', 'K', 'M', 'G', 'T', 'P']);

/** Microseconds: "85us", "12.3ms", "2.10s". */
export const shortMicroseconds = (us: number): string => scaled(us, 1000, ['us', 'ms', 's']);

/** Milliseconds: "8s", "2:03", "3h12", "4d3h", "210d". */
export function shortAge(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const two = (n: number): string => String(n).padStart(2, '0');
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}:${two(seconds % 60)}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h${two(minutes % 60)}`;
  const days = Math.floor(hours / 24);
  return days < 100 ? `${days}d${hours % 24}h` : `${days}d`;
}
