/**
 * What one thread does to give a namespace its interface as `slirp4netns` does; on the main thread or in
 * netns-worker.ts:
 *
 *   setns             only this thread moves
 *   with a socket     no namespace: whoever connects hands over frames
 *   in the target     TAP made, or attached to where it exists; with --configure: loopback and TAP up, MTU, MAC, address, route
 *
 * Without --configure nothing is touched: the caller (RootlessKit) has made the TAP and configures it.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { Errno } from '../../sys/constants.ts';
import { SysError } from '../../sys/error.ts';
import { acceptFrames, listenForFrames } from '../../sys/frame-socket.ts';
import { strerror } from '../../sys/libc.ts';
import { RouteSocket } from '../../sys/netlink.ts';
import { attachTap, openTap, type Tap } from '../../sys/tap.ts';
import type { TapPlan } from '../../workers/engine-plan.ts';
import { IPV4_MIN_MTU, SOCKET_PATH_BYTES, UsageError } from '../cli/values.ts';
import type { NetnsStep, SocketsInside } from '../host/netns.ts';
import { enterNamespace, TX_QUEUE_FRAMES } from '../host/netns-steps.ts';
import { put } from '../process/output.ts';
import { Message } from './messages.ts';
import { networkAddresses } from './network.ts';
import type { SlirpConf } from './options.ts';

export interface SlirpJob extends SocketsInside {
  readonly conf: SlirpConf;
}

export interface SlirpTap {
  readonly tap: TapPlan;
  readonly name: string;
  /** Absent where nobody can say: it is learnt from the guest's frames. */
  readonly guestMac?: string;
}

/** @throws SysError or UsageError; a TAP that was made goes away with its descriptor */
export function* setUpSlirp({ conf }: SlirpJob): Generator<NetnsStep<SlirpTap>, void, void> {
  const { target } = conf;
  if (target.kind === 'tapfd') {
    const tap = attachTap(target.fd);
    yield { kind: 'tap', made: { tap: planOf(tap), name: tap.name } };
    yield { kind: 'configured', notes: [] };
    return;
  }
  if (target.kind === 'bess') {
    yield { kind: 'tap', made: { tap: frameSocket(target.path), name: 'bess' } };
    yield { kind: 'configured', notes: [] };
    return;
  }
  enter(target.path);
  const tap = makeTap(target.tapName);
  const route = new RouteSocket();
  try {
    let link = route.linkByName(tap.name);
    if (link === undefined) throw new SysError('RTM_GETLINK', tap.name, Errno.ENODEV);
    if (conf.mac !== undefined) {
      const { mac } = conf;
      explained('MAC address', () => route.setLink(link!.index, { mac }));
      link = { ...link, mac };
    }
    yield { kind: 'tap', made: { tap: planOf(tap), name: tap.name, guestMac: link.mac } };
    if (conf.configure) configure(route, link.index, conf);
  } finally {
    route.close();
  }
  yield { kind: 'configured', notes: [] };
}

const planOf = (tap: Tap): TapPlan => ({ fd: tap.fd, vnetHdrBytes: tap.vnetHdrBytes, uso: tap.uso });

/**
 * Frames of at most the MTU, checksums complete: there is no header to say otherwise. Waits until somebody
 * connects.
 */
function frameSocket(path: string): TapPlan {
  if (path === '') throw new UsageError(Message.bessFailed('bind', strerror(Errno.EINVAL)));
  if (Buffer.byteLength(path) >= SOCKET_PATH_BYTES) throw new UsageError(Message.bessPathTooLong);
  try {
    if (lstatSync(path).isSocket()) unlinkSync(path);
  } catch {
    // Nothing there, or bind() says why not.
  }
  try {
    const listener = listenForFrames(path);
    put(1, `${Message.bessWaiting(path)}\n`);
    const fd = acceptFrames(listener);
    put(2, `${Message.sentBess(fd, path)}\n`);
    return { fd, vnetHdrBytes: 0, uso: false, socket: 'seqpacket' };
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    throw new UsageError(Message.bessFailed(error.call, strerror(error.errno)));
  }
}

function enter(path: string): void {
  try {
    enterNamespace({ kind: 'path', path });
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    const why = strerror(error.errno);
    throw new UsageError(error.call === 'setns' ? Message.setns(why) : Message.noNetns(path, why));
  }
}

function makeTap(name: string): Tap {
  try {
    return openTap({ name });
  } catch (error) {
    if (!(error instanceof SysError) || error.call !== 'ioctl') throw error;
    throw new UsageError(Message.tunsetiff(strerror(error.errno)));
  }
}

function configure(route: RouteSocket, index: number, conf: SlirpConf): void {
  const { guest, gateway, broadcast } = networkAddresses(conf.network);
  const loopback = route.linkByName('lo');
  if (loopback !== undefined && !loopback.up) route.setLink(loopback.index, { up: true });
  explained('MTU', () => {
    // The kernel takes less, but no IPv4 goes through such an interface.
    if (conf.mtu < IPV4_MIN_MTU) throw new SysError('RTM_NEWLINK', `mtu ${conf.mtu}`, Errno.EINVAL);
    route.setLink(index, { mtu: conf.mtu, txQueueLen: TX_QUEUE_FRAMES, up: true });
  });
  explained('IPv4 address', () =>
    tolerant(() => route.addAddress(index, 4, guest, conf.network.prefixLen, { broadcast })),
  );
  explained('route', () => route.addRoute({ family: 4, dst: '0.0.0.0', prefixLen: 0, gateway, oif: index }));
}

/** There already, from a run before: as it should be. */
function tolerant(step: () => void): void {
  try {
    step();
  } catch (error) {
    if (!(error instanceof SysError) || error.code !== 'EEXIST') throw error;
  }
}

function explained(what: Parameters<typeof Message.cannotSet>[0], step: () => void): void {
  try {
    step();
  } catch (error) {
    if (error instanceof SysError) throw new UsageError(Message.cannotSet(what, strerror(error.errno)));
    throw error;
  }
}
