/** The key of a flow, in the form that flow tables take. */
import { flowHash, type HashKey } from './flow-hash.ts';

/**
 * Addresses, ports and protocol of a flow, and their hash. Packet extends it; other tuples are made once and
 * refilled for each look-up (borrowed).
 */
export interface FlowTuple {
  /** Guest address in words 0..3 and remote address in words 4..7, IPv4 as v4-mapped. */
  readonly addr: Uint32Array;
  /** (guestPort << 16 | remotePort) >>> 0; for echo flows identifier << 16. */
  ports: number;
  proto: number;
  /** flowHash() of the other fields. */
  hash: number;
}

/**
 * A tuple whose addresses are 0.0.0.0, ports and hash 0.
 * @param proto  IP protocol number
 */
export const newFlowTuple = (proto: number): FlowTuple => ({
  addr: Uint32Array.of(0, 0, 0xffff, 0, 0, 0, 0xffff, 0),
  ports: 0,
  proto,
  hash: 0,
});

/** Set a tuple's hash from its other fields. */
export function flowTupleHash(key: HashKey, tuple: FlowTuple): void {
  const { addr } = tuple;
  tuple.hash = flowHash(key, addr, 0, addr, 4, tuple.ports, tuple.proto);
}
