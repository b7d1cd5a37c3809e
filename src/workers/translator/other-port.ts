/**
 * Two published ports may lead to one port inside, and a peer may use both from one source port: its flows
 * then have the same addresses and ports on the TAP. The second one shows the guest another source port.
 *
 * The ports to try follow from the flow's own hash, so that a flow is found again without a table: from
 * DYNAMIC_FIRST on (RFC 6335 section 6), those that lead to this shard.
 */
import { shardOf } from '../flow/flow-hash.ts';
import { ADDR_WORDS } from '../flow/flow-table.ts';
import { type FlowTuple, flowTupleHash, newFlowTuple } from '../flow/flow-tuple.ts';
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
  /** The last candidate. */
  readonly tuple = newFlowTuple(0);

  constructor(ctx: ShardContext) {
    const { threads } = ctx.plan;
    this.#ctx = ctx;
    this.#shards = threads.kind === 'fused' ? 1 : threads.shards;
    this.tries = TRIES * this.#shards;
  }

  /**
   * The candidate with number `k`: sets `tuple`.
   * @param of  the flow with the port that the peer has
   * @returns whether its frames come to this shard
   */
  at(k: number, of: FlowTuple): boolean {
    const { tuple } = this;
    for (let i = 0; i < ADDR_WORDS; i++) tuple.addr[i] = of.addr[i]!;
    tuple.proto = of.proto;
    const port = DYNAMIC_FIRST + ((of.hash + k) & DYNAMIC_MASK);
    tuple.ports = ((of.ports & 0xffff0000) | port) >>> 0;
    flowTupleHash(this.#ctx.plan.hashKey, tuple);
    return tuple.ports !== of.ports && shardOf(tuple.hash, this.#shards) === this.#ctx.shard;
  }
}
