// @vitest: beside
/** The message by which an OCI runtime hands a listener over. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mayBeComplete, parseProcessState } from '../../src/switch/oci-state.ts';

const ID = 'c0ffee'.repeat(11).slice(0, 64);
const message = (changes: object = {}, state: object = {}): string =>
  JSON.stringify({
    ociVersion: '1.2.0',
    fds: ['seccompFd'],
    pid: 4422,
    metadata: '{"ignore":["127.0.0.0/8"]}',
    state: {
      ociVersion: '1.2.0',
      id: ID,
      status: 'creating',
      pid: 4423,
      bundle: '/b',
      annotations: {},
      ...state,
    },
    ...changes,
  });

describe('messages of OCI runtimes', () => {
  it("crun's and runc's: index of the listener, name as Podman shows it, the container's process", () => {
    expect(parseProcessState(message(), 1)).toEqual({ fdIndex: 0, name: ID.slice(0, 12), processId: 4423 });
    expect(parseProcessState(message({ fds: ['pidFd', 'seccompFd'] }, { id: 'web' }), 2)).toEqual({
      fdIndex: 1,
      name: 'web',
      processId: 4423,
    });
    expect(parseProcessState(message({}, { pid: 0 }), 1)).toMatchObject({ processId: 4422 });
    // crun 1.28, exec.
    expect(parseProcessState(message({ pid: 0 }, { pid: 0 }), 1)).toMatchObject({ processId: 0 });
    for (const pid of [-1, '7', 1.5, 2 ** 40, null])
      expect(parseProcessState(message({ pid }, { pid }), 1)).toMatchObject({ processId: 0 });
  });

  it.each([
    ['', 'is not JSON'],
    ['{', 'is not JSON'],
    ['['.repeat(200_000), 'is not JSON'],
    [`${'{"a":'.repeat(40_000)}1${'}'.repeat(40_000)}`, 'has no list "fds"'],
    ['null', 'is not a JSON object'],
    ['[]', 'is not a JSON object'],
    ['{}', 'has no list "fds"'],
    [message({ fds: 'seccompFd' }), 'has no list "fds"'],
    [message({ fds: [1] }), 'has no list "fds"'],
    [message({ fds: ['other'] }), 'has no seccompFd'],
    [message({ fds: ['seccompFd', 'x'] }), 'names 2 descriptors, but 1 came with it'],
    [message({ state: null }), 'has no "state"'],
  ])('not valid, %#: refused', (text, why) => {
    // Where the stack does not suffice for a deep message, it is no JSON.
    const said = parseProcessState(text, 1);
    expect([why, 'is not JSON'].some((one) => String(said).startsWith(one))).toBe(true);
  });

  it('any name: short, printable, without a colon', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary', maxLength: 300 }), fc.json()), (id) => {
        const state = parseProcessState(message({}, { id }), 1);
        expect(state).toMatchObject({ name: expect.stringMatching(/^[!-9;-~]{1,64}$/) });
      }),
    );
  });

  it('any bytes: refused or understood, never an exception', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string({ unit: 'binary' })), fc.nat(3), (text, count) => {
        const state = parseProcessState(text, count);
        expect(typeof state === 'string' || state.fdIndex < count).toBe(true);
      }),
    );
  });

  it('a piece that ends in the middle is not taken for a whole message', () => {
    const bytes = new TextEncoder().encode(message());
    const whole = Array.from(bytes, (_, i) => i + 1).filter((length) =>
      mayBeComplete(bytes.subarray(0, length)),
    );
    expect(whole.at(-1)).toBe(bytes.length);
    for (const length of whole.slice(0, -1))
      expect(parseProcessState(new TextDecoder().decode(bytes.subarray(0, length)), 1)).toBe('is not JSON');
  });
});
