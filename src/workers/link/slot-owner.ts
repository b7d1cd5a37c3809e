/**
 * Owners of slots, for the ownership check (ring/pool.ts). A slot that was passed to another stage counts as
 * in flight until it comes back.
 */
export const Owner = { reader: 1, hostIo: 2, inFlight: 3, shard: 4 } as const;
