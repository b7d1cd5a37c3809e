/** Common parts of the cases: their type, servers, requests and checks. */
import { ip4 } from '../support/packets.ts';
import { HOST4, HOST6, PEER4, PORT, urlHost } from '../support/ports.ts';
import { eventually, killTree } from '../support/process.ts';
import { asked, fetched, type Podman } from './podman.ts';

export interface Case {
  readonly name: string;
  /** One of the few cases that run with all tests. */
  readonly smoke?: true;
  run(podman: Podman): Promise<void>;
}

const CURL_REFUSED = 7;
const QUIT_MS = 5000; // as in Podman's own tests

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
/** Sends each TCP client its address. */
export const who = (port: number): string =>
  `exec socat TCP6-LISTEN:${port},fork SYSTEM:'echo $SOCAT_PEERADDR'`;
/** An IPv4 address as the last two groups of a v4-mapped one. */
export const hex = (address: string): string =>
  Buffer.from(ip4(address)).toString('hex').replace(/^.{4}/, '$&:');
/** The same for UDP: the datagram's line and the client's address. */
export const udpWho = (port: number): string =>
  `exec socat UDP6-RECVFROM:${port},fork SYSTEM:'read x; echo $x $SOCAT_PEERADDR'`;
/** The answers of those two to the peer of the test bed. */
export const PEER4_SEEN = new RegExp(`ffff:${hex(PEER4)}`);
export const PEER6_SEEN = /\[fd77:[0:]*0002\]/;
export const udpEcho = (port: number): string => `exec socat UDP6-RECVFROM:${port},fork EXEC:cat`;
export const download = (host: string, bytes: number): string =>
  `wget -q -T 5 -O - http://${host}:${PORT.http}/bytes/${bytes} | wc -c`;
export const nothingLeft = async (podman: Podman): Promise<void> => {
  await eventually(`nothing is left: ${podman.engines()}`, QUIT_MS, () => podman.engines().length === 0);
};

/** Where a published port is requested from, and at which address of the host. */
export type Way = readonly ['host' | 'peer', string];
export const WAYS4: readonly Way[] = [
  ['host', '127.0.0.1'],
  ['host', HOST4],
  ['peer', HOST4],
];
export const WAYS6: readonly Way[] = [
  ['host', '::1'],
  ['host', HOST6],
  ['peer', HOST6],
];

/**
 * Check that the published port leads to the server with this word, from each place; from outside by IPv4
 * unless given.
 */
export async function serves(
  podman: Podman,
  port: number,
  word: string,
  ways: readonly Way[] = [['peer', HOST4]],
): Promise<void> {
  for (const [where, address] of ways) {
    const said = await fetched(podman.bed, where, `http://${urlHost(address)}:${port}/`);
    if (said.trim() !== word)
      throw new Error(`${where} at ${address}, port ${port}: ${said} and not ${word}`);
  }
}

/** Check that a datagram to the published port is echoed, from each place. */
export async function echoes(podman: Podman, port: number, ways: readonly Way[]): Promise<void> {
  for (const [where, address] of ways) has(await asked(podman.bed, where, address, port), /hello/);
}

/** Check that a connection to the port is refused. */
export async function refused(
  podman: Podman,
  port: number,
  [where, address]: Way = ['peer', HOST4],
): Promise<void> {
  const url = `http://${urlHost(address)}:${port}/`;
  const { status, stdout } = await podman.bed.run(where, ['curl', '-sS', '-m', '3', url]);
  if (status !== CURL_REFUSED)
    throw new Error(`${where}, ${url}: curl's status ${status}, not refused: ${stdout}`);
}

/** Listening sockets of the host, TCP and UDP, whose port the expression matches. */
export async function listeners(podman: Podman, port: RegExp): Promise<string[]> {
  const { stdout } = await podman.bed.run('host', ['ss', '-tulnH']);
  return stdout.split('\n').filter((line) => port.test(/:(\d+)\s+\S+\s*$/.exec(line)?.[1] ?? ''));
}

/** Check that no such socket exists, with some time for an asynchronous end. */
export async function noListener(podman: Podman, port: RegExp): Promise<void> {
  await eventually(
    `no listener at ${port}`,
    1000,
    async () => (await listeners(podman, port)).length === 0,
  ).catch(async (e: Error) => {
    throw new Error(`${e.message}: ${(await listeners(podman, port)).slice(0, 5).join('\n')}`);
  });
}

/** A server on all of the host's addresses that has `/word`, while `work` runs. */
export async function withHostServer(podman: Podman, port: number, work: () => Promise<void>): Promise<void> {
  const { ramDir } = podman.bed;
  podman.bed.write(`${ramDir}/word`, 'from the host\n');
  const server = podman.bed.start('host', ['busybox', 'httpd', '-f', '-p', `[::]:${port}`, '-h', ramDir]);
  try {
    await fetched(podman.bed, 'host', `http://127.0.0.1:${port}/word`);
    await work();
  } finally {
    killTree(server.pid); // the server itself is a child of what enters the bed
    await server.exited;
  }
}

/** Check that Podman's command fails with a matching message. */
export async function fails(podman: Podman, argv: readonly string[], words: RegExp): Promise<void> {
  const { status, stderr } = await podman.run(...argv);
  if (status === 0) throw new Error(`podman ${argv.join(' ')}: it worked`);
  has(stderr, words);
}
