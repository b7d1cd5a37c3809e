/**
 * Messages between vitest's main process, on Node, and a test process on Bun. The runtimes' own formats for
 * such messages differ, so each message travels as JSON text:
 *
 *   [table]   entry 0 is the message; objects and lists hold the indices of their parts, so cycles are kept
 *
 * Functions become undefined, instances of unknown classes plain objects.
 */

/** An entry: its kind and its content. */
type Entry =
  | readonly ['value', string | number | boolean | null]
  | readonly ['undefined']
  | readonly ['number' | 'bigint' | 'date' | 'bytes', string]
  | readonly ['pattern', string, string]
  | readonly ['list' | 'set', number[]]
  | readonly ['map', [number, number][]]
  | readonly ['object' | 'error', [string, number][]];

/** @returns the message as text */
export function encode(message: unknown): string {
  const table: Entry[] = [];
  const known = new Map<unknown, number>();
  const add = (value: unknown): number => {
    const before = known.get(value);
    if (before !== undefined) return before;
    const index = table.length;
    table.push(['undefined']);
    if (typeof value === 'object' && value !== null) known.set(value, index);
    table[index] = entryOf(value, add);
    return index;
  };
  add(message);
  return JSON.stringify(table);
}

function entryOf(value: unknown, add: (part: unknown) => number): Entry {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return ['value', value];
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0)
        ? ['value', value]
        : ['number', numberText(value)];
    case 'bigint':
      return ['bigint', String(value)];
    case 'object':
      return value === null ? ['value', null] : objectEntry(value, add);
    default:
      return ['undefined'];
  }
}

const numberText = (value: number): string => (Object.is(value, -0) ? '-0' : String(value));

function objectEntry(value: object, add: (part: unknown) => number): Entry {
  if (Array.isArray(value)) return ['list', value.map(add)];
  if (value instanceof Set) return ['set', [...value].map(add)];
  if (value instanceof Map)
    return ['map', [...value].map(([key, part]): [number, number] => [add(key), add(part)])];
  if (value instanceof Date) return ['date', String(value.getTime())];
  if (value instanceof RegExp) return ['pattern', value.source, value.flags];
  if (ArrayBuffer.isView(value)) {
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    return ['bytes', bytes.toString('base64')];
  }
  const parts = (names: readonly string[]): [string, number][] =>
    names.map((name) => [name, add((value as Record<string, unknown>)[name])]);
  if (value instanceof Error)
    return ['error', parts([...new Set(['name', 'message', 'stack', 'cause', ...Object.keys(value)])])];
  return ['object', parts(Object.keys(value))];
}

/** @param text  from encode() */
export function decode(text: string): unknown {
  const table = JSON.parse(text) as Entry[];
  const made = new Map<number, unknown>();
  const get = (index: number): unknown => {
    if (!made.has(index)) fill(index);
    return made.get(index);
  };
  const fill = (index: number): void => {
    const entry = table[index]!;
    const make = <T>(value: T): T => {
      made.set(index, value); // before its parts, which may contain it
      return value;
    };
    switch (entry[0]) {
      case 'value':
        make(entry[1]);
        break;
      case 'undefined':
        make(undefined);
        break;
      case 'number':
        make(Number(entry[1]));
        break;
      case 'bigint':
        make(BigInt(entry[1]));
        break;
      case 'date':
        make(new Date(Number(entry[1])));
        break;
      case 'pattern':
        make(new RegExp(entry[1], entry[2]));
        break;
      case 'bytes':
        make(new Uint8Array(Buffer.from(entry[1], 'base64')));
        break;
      case 'list': {
        const list = make<unknown[]>([]);
        for (const part of entry[1]) list.push(get(part));
        break;
      }
      case 'set': {
        const set = make(new Set<unknown>());
        for (const part of entry[1]) set.add(get(part));
        break;
      }
      case 'map': {
        const map = make(new Map<unknown, unknown>());
        for (const [key, part] of entry[1]) map.set(get(key), get(part));
        break;
      }
      case 'object':
      case 'error': {
        const object = make<object>(entry[0] === 'error' ? new Error() : {});
        for (const [name, part] of entry[1])
          Object.defineProperty(object, name, {
            value: get(part),
            configurable: true,
            enumerable: true,
            writable: true,
          });
      }
    }
  };
  return get(0);
}
