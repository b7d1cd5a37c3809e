/**
 * Substitute source ports. Two published ports may be forwarded to the same port of the guest, and a peer may
 * use both from one source port: its two flows would then have the same addresses and ports on the TAP. The
 * second flow appears to the guest with another source port.
 *
 * The candidate ports follow from the flow's own hash, so that a flow is found again without a table: dynamic
 * ports (RFC 6335 section 6) whose flow hash selects this shard.
 */
import { ADDR_WORDS } from '../flow/flow-table.ts';
import { type FlowTuple, flowTupleHash, newFlowTuple } from '../flow/flow-tuple.ts';
import type { ShardContext } from './context.ts';

const DYNAMIC_FIRST = 49152;
const DYNAMIC_MASK = 16383;
/** Candidates per shard: about as many flows with equal addresses and ports are possible. */
const TRIES = 32;

/** The candidates of one shard; see above. */
export class OtherPorts {
  readonly #ctx: ShardContext;
  /** Number of candidates: at() takes k from 0 to tries - 1. */
  readonly tries: number;
  /** The candidate that at() set last. */
  readonly tuple = newFlowTuple(0);

  constructor(ctx: ShardContext) {
    this.#ctx = ctx;
    this.tries = TRIES * ctx.owners.shards;
  }

  /**
   * Set `tuple` to candidate `k`.
   * @param of  the flow with the peer's own source port
   * @returns whether the candidate can be used: it differs from `of`, and its frames come to this shard
   */
  at(k: number, of: FlowTuple): boolean {
    const { tuple } = this;
    for (let i = 0; i < ADDR_WORDS; i++) tuple.addr[i] = of.addr[i]!;
    tuple.proto = of.proto;
    const port = DYNAMIC_FIRST + ((of.hash + k) & DYNAMIC_MASK);
    tuple.ports = ((of.ports & 0xffff0000) | port) >>> 0;
    flowTupleHash(this.#ctx.plan.hashKey, tuple);
    const { owners, shard } = this.#ctx;
    return tuple.ports !== of.ports && owners.isOf(shard, tuple.hash, tuple.proto, tuple.ports);
  }
}
