/**
 * Two published ports may lead to one port inside, and a peer may use both from one source port: its flows then have the same addresses and
 * ports on the TAP. The second one shows the guest another source port.
 *
 * The ports to try follow from the flow's own hash, so that a flow is found again without a table: from DYNAMIC_FIRST on (RFC 6335
 * section 6), those that lead to this shard.
 */
import { flowHash, shardOf } from '../flow-hash.ts';
import type { ShardContext } from './context.ts';

const DYNAMIC_FIRST = 49152;
const DYNAMIC_MASK = 16383;
/** For each shard; so many flows of a peer may be alike. */
const TRIES = 32;

export class OtherPorts {
  readonly #ctx: ShardContext;
  readonly #shards: number;
  /** How many candidates there are. */
  readonly tries: number;
  /** Of the last candidate: flow hash, and guest port << 16 | remote port. */
  hash = 0;
  ports = 0;

  constructor(ctx: ShardContext) {
    const { threads } = ctx.plan;
    this.#ctx = ctx;
    this.#shards = threads.kind === 'fused' ? 1 : threads.shards;
    this.tries = TRIES * this.#shards;
  }

  /**
   * The candidate with number `k`: sets `hash` and `ports`.
   * @param hash  of the flow with the port that the peer has
   * @param ports  (guestPort << 16 | remotePort) >>> 0 of it
   * @returns whether its frames come to this shard
   */
  at(
    k: number,
    hash: number,
    guest: Uint32Array,
    gAt: number,
    remote: Uint32Array,
    rAt: number,
    ports: number,
    proto: number,
  ): boolean {
    const [k0, k1] = this.#ctx.plan.hashKey;
    const port = DYNAMIC_FIRST + ((hash + k) & DYNAMIC_MASK);
    this.ports = ((ports & 0xffff0000) | port) >>> 0;
    this.hash = flowHash(k0, k1, guest, gAt, remote, rAt, this.ports, proto);
    return this.ports !== ports && shardOf(this.hash, this.#shards) === this.#ctx.shard;
  }
}
