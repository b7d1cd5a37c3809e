/**
 * Helpers for wire vectors: annotated hex to bytes, and frames surrounded by bytes that must not affect the
 * result.
 */
import fc from 'fast-check';

/** Hex bytes, white space anywhere, "// ..." to the end of a line is a comment. */
export function wire(text: string): Uint8Array {
  const hex = text.replace(/\/\/.*$/gm, '').replace(/\s+/g, '');
  if (!/^([0-9a-f]{2})*$/i.test(hex)) throw new Error(`wire vector is no hex: ${hex}`);
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

/** An odd offset: codecs must not rely on alignment. */
export const FRAME_AT = 37;
const AROUND = 1024;

/** A shared pool with `frame` at FRAME_AT and `filler` everywhere else. */
export function poolWith(frame: Uint8Array, filler = 0xa5): Uint8Array {
  const pool = new Uint8Array(new SharedArrayBuffer(FRAME_AT + frame.length + AROUND));
  pool.fill(filler);
  pool.set(frame, FRAME_AT);
  return pool;
}

/** Frame bytes of a pool. */
export function slice(pool: Uint8Array, at: number, bytes: number): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => pool[at + i]!);
}

/**
 * Any frame: random bytes, or one of `seeds` with bytes changed and cut or extended.
 * Mutated frames pass the first checks, which random bytes rarely do.
 */
export function anyFrame(seeds: readonly Uint8Array[], maxBytes = 200): fc.Arbitrary<Uint8Array> {
  const mutated = fc
    .record({
      seed: fc.constantFrom(...seeds),
      // Small values give nearly valid lengths and types.
      changes: fc.array(fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.nat(24))), { maxLength: 4 }),
      cut: fc.option(fc.nat(), { freq: 3 }),
      extra: fc.uint8Array({ maxLength: 8 }),
    })
    .map(({ seed, changes, cut, extra }) => {
      const frame = Uint8Array.from([...seed, ...extra]);
      for (const [index, value] of changes) if (frame.length > 0) frame[index % frame.length] = value;
      return cut === null ? frame : frame.subarray(0, cut % (frame.length + 1));
    });
  return fc.oneof(
    { weight: 3, arbitrary: mutated },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: maxBytes }) },
  );
}

/**
 * The same pool, but an indexed read outside the frame throws. Reads through a DataView do not throw:
 * different fillers detect those.
 */
function guarded(pool: Uint8Array, bytes: number): Uint8Array {
  return new Proxy(pool, {
    get(target, key) {
      if (typeof key === 'string' && /^-?[0-9]+$/.test(key)) {
        const offset = Number(key) - FRAME_AT;
        if (offset < 0 || offset >= bytes) throw new Error(`read at ${offset} of a frame of ${bytes} bytes`);
      }
      return Reflect.get(target, key, target);
    },
  });
}

/**
 * Check that a codec reads only its frame: no index outside the frame, and the same result whatever bytes
 * surround it.
 * @param read  calls the codec; @returns all its results for the frame as a comparable value
 */
export function readsOnlyItsFrame(
  seeds: readonly Uint8Array[],
  read: (pool: Uint8Array, at: number, bytes: number) => unknown,
  runs = 600,
): void {
  fc.assert(
    fc.property(anyFrame(seeds), (frame) => {
      const answers = [0x00, 0xff, 0x06].map((filler) =>
        JSON.stringify(read(poolWith(frame, filler), FRAME_AT, frame.length)),
      );
      const strict = JSON.stringify(read(guarded(poolWith(frame), frame.length), FRAME_AT, frame.length));
      return answers.every((answer) => answer === strict);
    }),
    { numRuns: runs },
  );
}

export const u8 = fc.nat(0xff);
export const u16 = fc.nat(0xffff);
export const u32 = fc.nat(0xffffffff);
export const mac = fc.uint8Array({ minLength: 6, maxLength: 6 });
export const words4 = fc.tuple(u32, u32, u32, u32).map((words) => Uint32Array.from(words));
