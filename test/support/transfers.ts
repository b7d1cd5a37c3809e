/** Transfers by curl with checksums, and conversations between two scripted ends of a TCP connection. */
import { type Bed, type Inside, succeed, succeedIn, supportProgram, type Where } from './bed.ts';
import { PEER4, PORT } from './ports.ts';
import type { Outcome, Step } from './tcp-script.ts';

export interface Transferred {
  readonly bytes: number;
  readonly sha256: string;
  /** The longest time without a byte at the receiver. */
  readonly maxGapMs: number;
  readonly ms: number;
}

export const gbits = (t: Transferred): string => `${((t.bytes * 8) / t.ms / 1e6).toFixed(2)} Gbit/s`;

/** Download in the guest; the guest computes the hash. */
export async function curlDownload(guest: Inside, url: string, timeoutMs: number): Promise<Transferred> {
  const hasher = supportProgram('clients/sha-stdin.ts').join(' ');
  const script = `curl -sSf --noproxy '*' '${url}' | ${hasher}`;
  return JSON.parse(await succeed(guest, ['sh', '-c', script], { timeoutMs })) as Transferred;
}

/** Upload a file from the guest; the peer computes the hash. */
export async function curlUpload(
  guest: Inside,
  file: string,
  url: string,
  timeoutMs: number,
): Promise<Transferred> {
  // No "Expect: 100-continue", which would add a pause of a second.
  const argv = ['curl', '-sSf', '--noproxy', '*', '-H', 'Expect:', '-T', file, url];
  return JSON.parse(await succeed(guest, argv, { timeoutMs })) as Transferred;
}

let serial = 0;

export interface Conversation {
  readonly client: Outcome;
  readonly server: Outcome;
}

/** Run steps in a client in the guest and in the peer's script server. @returns both outcomes */
export async function converse(
  bed: Bed,
  guest: Inside,
  address: string,
  clientSteps: readonly Step[],
  serverSteps: readonly Step[],
  timeoutMs = 30_000,
): Promise<Conversation> {
  const id = `conversation${++serial}`;
  const request = JSON.stringify({ id, steps: serverSteps });
  const argv = supportProgram(
    'clients/tcp-client.ts',
    address,
    PORT.script,
    JSON.stringify(clientSteps),
    request,
  );
  const client = JSON.parse(await succeed(guest, argv, { timeoutMs })) as Outcome;
  const url = `http://${PEER4}:${PORT.http}/result/${id}`;
  const server = JSON.parse(
    await succeedIn(bed, 'host', ['curl', '-sSf', '--noproxy', '*', url], { timeoutMs }),
  ) as Outcome;
  return { client, server };
}

/** Connect from the guest (or the bed) to a port and run steps; the other end gets no steps. */
export async function playClient(
  run: Inside | { bed: Bed; where: Where },
  address: string,
  port: number,
  steps: readonly Step[],
  timeoutMs = 30_000,
): Promise<Outcome> {
  const argv = supportProgram('clients/tcp-client.ts', address, port, JSON.stringify(steps));
  const out =
    'bed' in run
      ? await succeedIn(run.bed, run.where, argv, { timeoutMs })
      : await succeed(run, argv, { timeoutMs });
  return JSON.parse(out) as Outcome;
}
