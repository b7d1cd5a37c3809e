// bundle: process bucatini/container-probe
/**
 * Runs in the network namespace of a container: asks the resolvers that are its arguments, and prints what
 * they did as JSON.
 */
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { DNS_HEADER_BYTES, DNS_PORT, dnsRcode } from '../../proto/dns.ts';

/** What the probe prints. */
export interface ContainerReport {
  /** By resolver: how it answered, in words, or why not. */
  readonly resolvers: readonly { readonly address: string; readonly answer: string | undefined }[];
  /** net.ipv4.ping_group_range inside. */
  readonly pingGroups: string;
}

const WAIT_MS = 3000;
/** The query for the name servers of the root: every resolver knows the answer (RFC 8109 section 3). */
const ID = 0x6275;
const QUERY = Buffer.from([
  ...[ID >> 8, ID & 0xff, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0], // header: recursion desired, one question
  ...[0, 0, 2, 0, 1], // the root, type NS, class IN
]);

/** Names of the usual errors (RFC 1035 section 4.1.1), as other tools print them. */
const RCODES: Readonly<Record<number, string>> = {
  1: 'FORMERR',
  2: 'SERVFAIL',
  3: 'NXDOMAIN',
  4: 'NOTIMP',
  5: 'REFUSED',
};

/** @returns "answered", or with which error; undefined if there was no answer */
function ask(address: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    const end = (answer: string | undefined): void => {
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => end(undefined), WAIT_MS);
    socket.once('error', (error) =>
      end(`cannot be reached (${(error as NodeJS.ErrnoException).code ?? error.message})`),
    );
    socket.on('message', (message) => {
      if (message.length < DNS_HEADER_BYTES || message.readUInt16BE(0) !== ID) return;
      const rcode = dnsRcode(message, 0);
      end(rcode === 0 ? 'answered' : `answered with error ${RCODES[rcode] ?? rcode}`);
    });
    // ICMP errors are reported to a connected socket.
    socket.connect(DNS_PORT, address, (error?: Error) => {
      if (error === undefined || error === null) socket.send(QUERY);
      else socket.emit('error', error);
    });
  });
}

const report: ContainerReport = {
  resolvers: await Promise.all(
    process.argv.slice(2).map(async (address) => ({ address, answer: await ask(address) })),
  ),
  pingGroups: readFileSync('/proc/sys/net/ipv4/ping_group_range', 'utf8').trim().replace(/\s+/, ' '),
};
process.stdout.write(JSON.stringify(report));
