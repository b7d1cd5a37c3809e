/**
 * Who may own a slot, for the ownership check (ring/pool.ts). A slot that passed to another stage is in
 * flight until it comes back.
 */
export const Owner = { reader: 1, hostIo: 2, inFlight: 3, shard: 4 } as const;
