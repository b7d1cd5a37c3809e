/** The parts of Bun's own modules that this program uses (https://bun.com/docs/runtime/ffi). */
declare module 'bun:ffi' {
  interface Signature {
    readonly args: readonly string[];
    readonly returns: string;
  }
  export function dlopen(
    library: string,
    symbols: Record<string, Signature>,
    // biome-ignore lint/suspicious/noExplicitAny: the signature decides
  ): { readonly symbols: Record<string, (...args: any[]) => any> };
  export const CFunction: new (
    signature: Signature & { readonly ptr: number },
  ) => (...args: (number | null)[]) => number;
  /** A copy of the NUL-terminated text at an address. */
  export const CString: new (address: number) => { toString(): string };
  export function ptr(view: ArrayBufferView): number;
  export function toArrayBuffer(address: number, offset: number, bytes: number): ArrayBuffer;
}
