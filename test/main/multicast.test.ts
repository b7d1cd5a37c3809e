// @vitest: beside
/** The value of --multicast. */
import { describe, expect, it } from 'vitest';
import { parseMulticast } from '../../src/main/cli/multicast.ts';

describe('parseMulticast', () => {
  it.each([
    ['all', { all: true, groups: [] }],
    ['224.0.0.251', { all: false, groups: [{ address: '224.0.0.251' }] }],
    [
      '239.1.2.3:5001,ff02::fb,[FF05::1:2]:5001',
      {
        all: false,
        groups: [
          { address: '239.1.2.3', port: 5001 },
          { address: 'ff02::fb' },
          { address: 'ff05::1:2', port: 5001 },
        ],
      },
    ],
    ['all,broadcast:21027', { all: true, groups: [{ address: '255.255.255.255', port: 21027 }] }],
    ['[ff02::c]', { all: false, groups: [{ address: 'ff02::c' }] }],
  ])('%s', (text, expected) => expect(parseMulticast(text)).toEqual(expected));

  it.each([
    ['', /empty group/],
    ['all,', /empty group/],
    ['none', /"none" is not a group/],
    ['192.0.2.1', /192\.0\.2\.1 is not a multicast address/],
    ['2001:db8::1', /not a multicast address/],
    ['ff01::1', /not a multicast address/],
    ['224.0.0.251:0', /port "0" is smaller than 1/],
    ['224.0.0.251:70000', /port "70000" is larger than 65535/],
    ['224.0.0.251:', /port "" is not a whole number/],
    ['[ff02::fb]5353', /not a group/],
    ['224.0.0.251%eth0', /not a group/],
  ])('%s: refused', (text, message) => expect(() => parseMulticast(text)).toThrow(message));
});
