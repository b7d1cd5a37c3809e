// bundle: process bucatini/doctor-probe
/**
 * Runs as root of a new user and network namespace: makes a TAP as `run` does, and prints the result as JSON.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { openTap } from '../../sys/tap.ts';

/** What the probe prints as JSON: the abilities of the TAP, and errors. */
export interface ProbeReport {
  readonly error?: string;
  readonly vnetHeader: boolean;
  readonly tso: boolean;
  readonly uso: boolean;
  /** Why sysctls of the new namespace cannot be set. */
  readonly sysctl?: string;
}

function probe(): ProbeReport {
  let error: string | undefined;
  let sysctl: string | undefined;
  let tap = { vnetHdrBytes: 0, tso: false, uso: false };
  try {
    tap = openTap({ name: 'tap0' });
  } catch (cause) {
    error = (cause as Error).message;
  }
  try {
    const path = '/proc/sys/net/ipv4/ping_group_range';
    writeFileSync(path, readFileSync(path, 'utf8').trim() === '0\t0' ? '1 0' : '0 0');
  } catch (cause) {
    sysctl = (cause as Error).message;
  }
  return {
    vnetHeader: tap.vnetHdrBytes > 0,
    tso: tap.tso,
    uso: tap.uso,
    ...(error !== undefined && { error }),
    ...(sysctl !== undefined && { sysctl }),
  };
}

process.stdout.write(JSON.stringify(probe()));
