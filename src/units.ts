/**
 * Branded numbers: plain numbers at run time, kept apart by the type checker. Any file may import this one.
 */
declare const brand: unique symbol;
export type Branded<Name extends string> = number & { readonly [brand]: Name };

/** A pool slot: small slots first, then large ones; `NO_SLOT` where there is none. */
export type SlotIndex = Branded<'SlotIndex'>;
/** Byte offset into the engine's shared Uint8Array. */
export type ByteOffset = Branded<'ByteOffset'>;
/** A flow of one shard; also names its host socket at the host-io stage together with the shard. */
export type FlowId = Branded<'FlowId'>;
/** A native (virtual memory) address as an exact integer below 2^53. */
export type NativeAddress = Branded<'NativeAddress'>;
