/** What the cases have in common: how a case looks, what they serve and ask for, and how they judge. */
import { ip4 } from '../support/packets.ts';
import { PORT } from '../support/ports.ts';
import { eventually } from '../support/process.ts';
import type { Podman } from './podman.ts';

export interface Case {
  readonly name: string;
  /** One of the few that run with every test. */
  readonly smoke?: true;
  run(podman: Podman): Promise<void>;
}

const QUIT_MS = 5000; // what Podman's own tests allow

export function same(actual: string, expected: string): void {
  if (actual.trim() !== expected)
    throw new Error(`${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`);
}
export function has(text: string, wanted: RegExp): void {
  if (!wanted.test(text)) throw new Error(`no ${wanted} in ${JSON.stringify(text)}`);
}

/** Serves one word over HTTP. */
export const web = (word: string): string =>
  `mkdir -p /w; echo ${word} >/w/index.html; exec httpd -f -p [::]:80 -h /w`;
/** Tells each TCP client its address. */
export const who = (port: number): string =>
  `exec socat TCP6-LISTEN:${port},fork SYSTEM:'echo $SOCAT_PEERADDR'`;
/** An IPv4 address as the last two groups of a v4-mapped one. */
export const hex = (address: string): string =>
  Buffer.from(ip4(address)).toString('hex').replace(/^.{4}/, '$&:');
export const udpEcho = (port: number): string => `exec socat UDP6-RECVFROM:${port},fork EXEC:cat`;
export const download = (host: string, bytes: number): string =>
  `wget -q -T 5 -O - http://${host}:${PORT.http}/bytes/${bytes} | wc -c`;
export const nothingLeft = async (podman: Podman): Promise<void> => {
  await eventually(`nothing is left: ${podman.engines()}`, QUIT_MS, () => podman.engines().length === 0);
};
