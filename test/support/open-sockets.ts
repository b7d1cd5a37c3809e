/** The descriptors of this process that are sockets. */
import { readdirSync, readlinkSync } from 'node:fs';

export const openSockets = (): number[] =>
  readdirSync('/proc/self/fd')
    .filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
      } catch {
        return false; // the descriptor of the directory itself
      }
    })
    .map(Number);
