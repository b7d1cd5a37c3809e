// bundle: rare
/**
 * Figures for people: three significant digits and a unit. Bytes count in powers of 1024 (KiB), bits per
 * second in powers of 1000 (kbit/s), as usual for each.
 */

const digits = (value: number): string =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

/**
 * Choose the largest unit of which there is at least one after rounding.
 * @param units  each of `base` times the one before
 * @returns the value in that unit, and the unit's index
 */
export function inUnit(
  value: number,
  base: number,
  units: readonly string[],
): { readonly rest: number; readonly i: number } {
  let i = 0;
  let rest = value;
  // 999.5 would be printed as 1000.
  while (rest >= base - 0.5 && i < units.length - 1) {
    rest /= base;
    i++;
  }
  return { rest, i };
}

function scaled(value: number, base: number, units: readonly string[]): string {
  const { rest, i } = inUnit(value, base, units);
  return `${i === 0 ? Math.round(rest) : digits(rest)} ${units[i]}`;
}

/** "517 B", "47.1 KiB" */
export const bytesText = (bytes: number): string =>
  scaled(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);

/** "0 bit/s", "16.9 Gbit/s". @param bytesPerSecond  below zero counts as zero */
export const rateText = (bytesPerSecond: number): string =>
  scaled(Math.max(0, bytesPerSecond * 8), 1000, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s']);

/** A round-trip time: "85 us", "12.3 ms", "2.10 s" */
export const microsecondsText = (us: number): string => scaled(us, 1000, ['us', 'ms', 's']);

/** A time span: "517 ms", "8.1 s", "2:03" (minutes), "1:02:03", "3d 4h" */
export function durationText(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const two = (n: number): string => String(n).padStart(2, '0');
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}:${two(seconds % 60)}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}:${two(minutes % 60)}:${two(seconds % 60)}`;
  return `${Math.floor(hours / 24)}d ${hours % 24}h`;
}

/** "4,267,512,341" */
export const figureText = (value: number): string => value.toLocaleString('en-US');
