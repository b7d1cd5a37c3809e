/**
 * The new /sys of COMMAND: programs see the interfaces of their own network namespace in /sys/class/net, and
 * not the host's. A sysfs shows the namespace of the process that mounted it.
 */
import { readFileSync } from 'node:fs';
import { close } from '../../sys/io.ts';
import { cloneMount } from '../../sys/mount.ts';
import type { SysMount } from '../../sys/spawn.ts';

/** The mount at /sys, as /proc/PID/mountinfo shows it (man 5 proc_pid_mountinfo). */
export interface SysLayout {
  readonly isReadOnly: boolean;
  /** Mount points directly below it: control groups, tracing, security modules. */
  readonly below: readonly string[];
}

/**
 * Find the mount at /sys in the text of mountinfo.
 * @returns undefined: there is no sysfs
 */
export function sysLayout(mountinfo: string): SysLayout | undefined {
  const mounts = mountinfo
    .split('\n')
    .map((line) => line.split(' '))
    .filter((fields) => fields.length > 6)
    .map((fields) => ({
      id: fields[0]!,
      parent: fields[1]!,
      path: fields[4]!,
      isReadOnly: fields[5]!.split(',').includes('ro'),
      type: fields[fields.indexOf('-') + 1],
    }));
  // Of several at one path the last one covers the others.
  const sys = mounts.findLast(({ path }) => path === '/sys');
  if (sys?.type !== 'sysfs') return undefined;
  const below = mounts.filter(({ parent, path }) => parent === sys.id && path.startsWith('/sys/'));
  return { isReadOnly: sys.isReadOnly, below: below.map(({ path }) => unescaped(path)) };
}

/** Space, tab, newline and backslash appear as octal numbers. */
const unescaped = (path: string): string =>
  path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/**
 * Copy what is mounted below /sys, for a new one.
 * @returns undefined: COMMAND keeps our /sys, because there is no sysfs or a mount cannot be copied
 */
export function newSysMount(): SysMount | undefined {
  const layout = sysLayout(readFileSync('/proc/self/mountinfo', 'latin1'));
  if (layout === undefined) return undefined;
  const below: { path: string; fd: number }[] = [];
  for (const path of layout.below) {
    const fd = cloneMount(path);
    if (fd < 0) {
      for (const each of below) close(each.fd);
      return undefined;
    }
    below.push({ path, fd });
  }
  return { isReadOnly: layout.isReadOnly, below };
}
