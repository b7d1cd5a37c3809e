/** Memory of the JavaScript engine, on Bun. */
const { Bun } = globalThis as unknown as { readonly Bun: { gc(synchronous: boolean): number } };

/** Collect the garbage of the calling thread's heap, and give free memory back to the kernel. */
export const collectGarbage = (): void => void Bun.gc(true);
