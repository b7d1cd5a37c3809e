/**
 * The value of --multicast: `all`, or groups, each with a port or without one, separated by commas.
 *
 *   all                           every group and broadcast address
 *   224.0.0.251,ff02::fb          these groups, on any port
 *   239.1.2.3:5001,[ff05::1]:5001 these groups on this port; an IPv6 group with a port stands in brackets
 *   all,239.1.2.3:5001            every group; of this one, port 5001 is received too
 *   broadcast:21027               255.255.255.255 and the broadcast address of the subnet, on this port
 */
import { addressParse, isMulticast } from '../../proto/address.ts';
import type { MulticastPlan } from '../../workers/engine-plan.ts';
import { addressOf, parseCount, UsageError } from './values.ts';

/** The text of an option's help. */
export const MULTICAST_HELP =
  "Multicast and broadcast between inside and the host's network: all groups, or only those given. A GROUP is a multicast address or the word broadcast; a port says where datagrams to it are received. This lets programs inside find devices and services of the network (mDNS, SSDP), and be found.";

const LIMITED_BROADCAST = '255.255.255.255';

/** MulticastPlan without what the host decides. */
export type MulticastChoice = Pick<MulticastPlan, 'all' | 'groups'>;

/**
 * Parse the value of --multicast.
 * @throws UsageError
 */
export function parseMulticast(text: string): MulticastChoice {
  const words = text.split(',');
  const groups = words.filter((word) => word !== 'all').map(parseGroup);
  return { all: groups.length < words.length, groups };
}

/**
 * The groups of several options --multicast together.
 * @param before  undefined: there is none yet
 */
export function addMulticast(before: MulticastChoice | undefined, choice: MulticastChoice): MulticastChoice {
  if (before === undefined) return choice;
  return { all: before.all || choice.all, groups: [...before.groups, ...choice.groups] };
}

function parseGroup(text: string): MulticastChoice['groups'][number] {
  if (text === '') throw new UsageError('an empty group; write all or for example 224.0.0.251,ff02::fb');
  const { address, port } = split(text);
  const group = address === 'broadcast' ? LIMITED_BROADCAST : addressOf(address);
  if (group === undefined)
    throw new UsageError(
      `${JSON.stringify(address)} is not a group; write all, broadcast or for example 239.1.2.3:5001, [ff05::1]:5001`,
    );
  if (!isGroup(group))
    throw new UsageError(
      `${group} is not a multicast address (224.0.0.0 to 239.255.255.255, ff02:: to ff0e::); write all or a group`,
    );
  return port === undefined ? { address: group } : { address: group, port: parsePort(port) };
}

/** An IPv6 address without brackets has no port. */
function split(text: string): { readonly address: string; readonly port?: string } {
  const [, v6, rest] = /^\[([^\]]*)\](?::(.*))?$/.exec(text) ?? [];
  if (v6 !== undefined) return rest === undefined ? { address: v6 } : { address: v6, port: rest };
  const parts = text.split(':');
  return parts.length === 2 ? { address: parts[0]!, port: parts[1]! } : { address: text };
}

function isGroup(text: string): boolean {
  const words = new Uint32Array(4);
  addressParse(text, words, 0);
  if (text === LIMITED_BROADCAST) return true;
  // Scope 1 does not leave an interface; 0 and 15 are reserved (RFC 4291 section 2.7).
  const scope = (words[0]! >>> 16) & 0xf;
  return isMulticast(words, 0) && (words[0] === 0 || (scope >= 2 && scope <= 14));
}

function parsePort(text: string): number {
  try {
    return parseCount(text, 1, 65535, '5353');
  } catch (error) {
    throw new UsageError(`port ${JSON.stringify(text)} is ${(error as Error).message}`);
  }
}
