// @vitest: beside
/** The mount at /sys and those below it, found in the text of mountinfo. */
import { expect, it } from 'vitest';
import { sysLayout } from '../../src/main/process/sys-mount.ts';

const ROOT = '21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw';
const SYS = '22 21 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw';

it('mounts directly below it, not those below these nor those of a mount that is covered', () => {
  const text = [
    ROOT,
    '19 21 0:21 / /sys rw - sysfs sysfs rw',
    '20 19 0:9 / /sys/old rw - tmpfs none rw',
    SYS,
    '30 22 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate',
    '31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu',
    '32 22 0:12 / /sys/kernel/a\\040b\\134 rw - tracefs none rw',
    '33 21 0:22 / /system rw - tmpfs none rw',
    '',
  ].join('\n');
  expect(sysLayout(text)).toEqual({ isReadOnly: false, below: ['/sys/fs/cgroup', '/sys/kernel/a b\\'] });
});

it('read-only, without optional fields', () => {
  expect(sysLayout(`${ROOT}\n22 21 0:21 / /sys ro,relatime - sysfs sysfs rw\n`)).toEqual({
    isReadOnly: true,
    below: [],
  });
});

it.each([
  ['none', ROOT],
  ['a tmpfs in its place', `${ROOT}\n${SYS}\n40 22 0:50 / /sys rw - tmpfs none rw`],
  ['no text', ''],
])('%s: undefined', (_, text) => expect(sysLayout(text)).toBeUndefined());
