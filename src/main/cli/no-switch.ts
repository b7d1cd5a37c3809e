/** The option --no-switch: destinations for which no socket of the host is used. */
import { addressParse, isV4Mapped } from '../../proto/address.ts';
import { quoted, UsageError } from './values.ts';

const EXAMPLE = 'write for example 10.0.0.0/8, fd00::/8 or 192.0.2.15';

/** Value and help, in all programs. */
export const NO_SWITCH_OPTION = {
  name: 'no-switch',
  value: 'CIDR,…',
  help: 'Connections to these addresses are not switched to sockets of the host: 10.0.0.0/8, 2001:db8::/32, or one address (docs/switching.md).',
} as const;

/**
 * Parse the value of --no-switch.
 * @returns ADDRESS/LENGTH for each range
 * @throws UsageError without option and value
 */
export function parseNoSwitch(text: string): readonly string[] {
  const words = text.split(',');
  return words.map((word) => parseRange(word, words.length > 1 ? `${quoted(word)}: ` : ''));
}

/** @param place  in front of errors */
function parseRange(text: string, place: string): string {
  const words = new Uint32Array(4);
  const [address = '', length, more] = text.split('/');
  if (more !== undefined || !addressParse(address, words, 0))
    throw new UsageError(`${place}not an address range; ${EXAMPLE}`);
  const isV6 = address.includes(':');
  if (isV6 && isV4Mapped(words, 0))
    throw new UsageError(`${place}is an IPv4 address mapped into IPv6; write the IPv4 address`);
  const whole = isV6 ? 128 : 32;
  if (length !== undefined && (!/^[0-9]{1,3}$/.test(length) || Number(length) > whole))
    throw new UsageError(`${place}the prefix length is not 0 to ${whole}`);
  const bits = 128 - whole + Number(length ?? whole);
  for (let i = 0; i < 4; i++) {
    const kept = Math.min(Math.max(bits - 32 * i, 0), 32);
    if (kept < 32 && (words[i]! & (0xffff_ffff >>> kept)) !== 0)
      throw new UsageError(
        `${place}has bits set behind the prefix; write the first address of the range, or /${whole}`,
      );
  }
  return `${address}/${length ?? whole}`;
}
