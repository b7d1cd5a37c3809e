/**
 * Requirements of tests on the machine. A missing one skips its tests, with the reason in their title. With
 * CI=true these tests fail instead, so that no test is skipped unnoticed.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, closeSync, constants, openSync } from 'node:fs';
import { describe, it } from 'vitest';

/** undefined: available; else what is missing and how to install it. */
export type Need = () => string | undefined;

const SBIN = ['/usr/sbin', '/sbin', '/usr/local/sbin'];

export function findTool(name: string): string | undefined {
  for (const dir of [...(process.env.PATH ?? '').split(':'), ...SBIN]) {
    try {
      accessSync(`${dir}/${name}`, constants.X_OK);
      return `${dir}/${name}`;
    } catch {
      // not in this directory
    }
  }
  return undefined;
}

/** A program on PATH or in an sbin directory. @param from  its source, e.g. "apt package iperf3" */
export const requireTool =
  (name: string, from: string): Need =>
  () =>
    findTool(name) === undefined ? `${name} is missing: ${from}` : undefined;

/** /dev/net/tun, which this process can open. */
export const requireTun: Need = () => {
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
    return undefined;
  } catch (e) {
    return `/dev/net/tun cannot be opened (${(e as NodeJS.ErrnoException).code}): modprobe tun; chmod 666 /dev/net/tun`;
  }
};

/** User, network, mount and PID namespaces without privileges, with a /proc of their own. */
export const requireNamespaces: Need = () => {
  const argv = ['--user', '--map-root-user', '--net', '--mount', '--pid', '--fork', '--mount-proc', 'true'];
  const tried = spawnSync('unshare', argv, { encoding: 'utf8' });
  return tried.status === 0 ? undefined : `namespaces are not allowed here: ${tried.stderr.trim()}`;
};

export const requireGcc: Need = requireTool('gcc', 'apt packages gcc, libc6-dev and linux-libc-dev');

export const namespaceNeeds: readonly Need[] = [
  requireTool('unshare', 'apt package util-linux'),
  requireNamespaces,
];
export const tapNeeds: readonly Need[] = [...namespaceNeeds, requireTun];
const bedNeeds: readonly Need[] = [
  ...tapNeeds,
  requireTool('nsenter', 'apt package util-linux'),
  requireTool('ip', 'apt package iproute2'),
];

/** A `describe` that requires `needs`. */
export function describeNeeding(title: string, needs: readonly Need[], body: () => void): void {
  const missing = needs.map((need) => need()).filter((reason) => reason !== undefined);
  if (missing.length === 0) {
    describe(title, body);
  } else if (process.env.CI === 'true') {
    it(title, () => {
      throw new Error(missing.join('\n'));
    });
  } else {
    describe.skip(`${title} (${missing.join('; ')})`, body);
  }
}

/** A `describe` that requires the test bed and `needs`. */
export const describeE2e = (title: string, needs: readonly Need[], body: () => void): void =>
  describeNeeding(title, [...bedNeeds, ...needs], body);
