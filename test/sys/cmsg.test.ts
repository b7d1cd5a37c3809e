// @vitest: beside
import { describe, expect, it } from 'vitest';
import * as c from '../../src/sys/cmsg.ts';
import * as k from '../../src/sys/constants.ts';

describe('control message codec', () => {
  it('writes headers; walks them and stops at the end', () => {
    const u32 = new Uint32Array(16);
    let word = 0;
    word += c.cmsgWrite(u32, word, k.SOL_UDP, k.UDP_SEGMENT, 2) >> 2;
    word += c.cmsgWrite(u32, word, k.SOL_IP, k.IP_TTL, 4) >> 2;
    expect(word).toBe(12);
    expect(c.cmsgDataBytes(u32, 0, 12)).toBe(2);
    const second = c.cmsgNext(0, 2);
    expect(second).toBe(6);
    expect(u32[second + c.CMSG_LEVEL_WORD]).toBe(k.SOL_IP);
    expect(u32[second + c.CMSG_TYPE_WORD]).toBe(k.IP_TTL);
    expect(c.cmsgDataBytes(u32, second, 12)).toBe(4);
    expect(c.cmsgDataBytes(u32, c.cmsgNext(second, 4), 12)).toBe(-k.Errno.EBADMSG);
  });

  it('lengths that do not fit: refused', () => {
    const u32 = new Uint32Array(8);
    for (const [lo, hi] of [
      [15, 0],
      [0, 0],
      [33, 0],
      [20, 1],
      [0xffff_ffff, 0],
    ]) {
      u32[0] = lo!;
      u32[1] = hi!;
      expect(c.cmsgDataBytes(u32, 0, 8)).toBe(-k.Errno.EBADMSG);
    }
    u32[0] = 32;
    u32[1] = 0;
    expect(c.cmsgDataBytes(u32, 0, 8)).toBe(16);
    expect(c.cmsgDataBytes(u32, 5, 8)).toBe(-k.Errno.EBADMSG);
  });
});
