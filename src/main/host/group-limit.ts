/**
 * Of how many multicast groups a program of this host may be a member at a time: the engine's sockets have
 * one each, so the kernel would not keep a guest to it.
 */
import { readFileSync } from 'node:fs';
import type { MulticastPlan } from '../../workers/engine-plan.ts';
import type { MulticastChoice } from '../cli/multicast.ts';

const FILE = '/proc/sys/net/ipv4/igmp_max_memberships';
/** IP_MAX_MEMBERSHIPS, the kernel's default. */
const DEFAULT_MEMBERSHIPS = 20;
/** More than the engine has sockets for is of no use. */
const MOST = 100;

/** @param choice  the option's value; undefined: no multicast. Read before the thread enters the namespace */
export function multicastPlan(choice: MulticastChoice | undefined): MulticastPlan | undefined {
  if (choice === undefined) return undefined;
  let limit = DEFAULT_MEMBERSHIPS;
  try {
    limit = Number(readFileSync(FILE, 'utf8')) || limit;
  } catch {
    // No IPv4 in this kernel, or no /proc: the default will do.
  }
  return { ...choice, maxGroups: Math.min(MOST, limit) };
}
