/**
 * How `slirp4netns` sets up the interface of a namespace. The main thread does it all: the one packet
 * thread that starts with the engine has been started before (../host/netns.ts).
 *
 *   setns             only the main thread moves
 *   in the target     TAP made, or attached to if it exists; with --configure: loopback and TAP up, MTU, MAC,
 *                     address, route
 *
 *   --target-type=bess    no namespace: the process that connects to our socket sends and receives frames
 *   --netns-type=tapfd    no namespace: the TAP is the caller's descriptor
 *
 * Without --configure nothing is configured: the caller (RootlessKit) has made the TAP and configures it.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { Errno } from '../../sys/constants.ts';
import { SysError } from '../../sys/error.ts';
import { acceptFrames, listenForFrames } from '../../sys/frame-socket.ts';
import { strerror } from '../../sys/libc.ts';
import { RouteSocket } from '../../sys/netlink.ts';
import { attachTap } from '../../sys/tap.ts';
import type { TapPlan } from '../../workers/engine-plan.ts';
import { IPV4_MIN_MTU, SOCKET_PATH_BYTES, UsageError } from '../cli/values.ts';
import type { NetnsStep, SocketsInside } from '../host/netns.ts';
import { enterNamespace, TX_QUEUE_FRAMES } from '../host/netns-steps.ts';
import { makeTap, type TapWithQueues, tapPlan, withoutQdiscs } from '../host/tap-queues.ts';
import type { TapQueues } from '../host/threads.ts';
import { put } from '../process/output.ts';
import { Message } from './messages.ts';
import { networkAddresses } from './network.ts';
import type { SlirpConf } from './options.ts';

/** What the set-up gets. */
export interface SlirpJob extends SocketsInside {
  readonly conf: SlirpConf;
  readonly tapQueues: TapQueues;
}

/** What the set-up gives to the main thread, at the step "tap". */
export interface SlirpTap {
  readonly tap: TapPlan;
  readonly name: string;
  /** Absent with tapfd and bess, where it cannot be read: the engine learns it from the guest's frames. */
  readonly guestMac?: string;
}

/**
 * Set up the namespace, step by step: the caller does other work at each `yield`.
 * @throws SysError or UsageError; a TAP that was made ends with its descriptor
 */
export function* setUpSlirp({ conf, tapQueues }: SlirpJob): Generator<NetnsStep<SlirpTap>, void, void> {
  const { target } = conf;
  if (target.kind === 'tapfd') {
    const tap = attachTap(target.fd);
    yield { kind: 'tap', made: { tap: planOf({ tap }), name: tap.name } };
    yield { kind: 'configured', notes: [] };
    return;
  }
  if (target.kind === 'bess') {
    yield { kind: 'tap', made: { tap: acceptFrameSocket(target.path), name: 'bess' } };
    yield { kind: 'configured', notes: [] };
    return;
  }
  enter(target.path);
  const route = new RouteSocket();
  try {
    const withQueues = makeQueues(route, target.tapName, tapQueues);
    const { tap, moreQueues } = withQueues;
    let link = route.linkByName(tap.name);
    if (link === undefined) throw new SysError('RTM_GETLINK', tap.name, Errno.ENODEV);
    if (conf.mac !== undefined) {
      const { mac } = conf;
      withMessage('MAC address', () => route.setLink(link!.index, { mac }));
      link = { ...link, mac };
    }
    yield { kind: 'tap', made: { tap: planOf(withQueues), name: tap.name, guestMac: link.mac } };
    if (moreQueues !== undefined) withoutQdiscs(route, link.index);
    if (conf.configure) configure(route, link.index, conf);
  } finally {
    route.close();
  }
  yield { kind: 'configured', notes: [] };
}

function planOf(made: TapWithQueues): TapPlan {
  const { bigTcp: _, ...plan } = tapPlan(made);
  return plan;
}

/**
 * Listen at a path and wait until a process connects. Its frames have no virtio header: they carry at most
 * the MTU, with complete checksums.
 * @throws UsageError
 */
function acceptFrameSocket(path: string): TapPlan {
  if (path === '') throw new UsageError(Message.bessFailed('bind', strerror(Errno.EINVAL)));
  if (Buffer.byteLength(path) >= SOCKET_PATH_BYTES) throw new UsageError(Message.bessPathTooLong);
  try {
    if (lstatSync(path).isSocket()) unlinkSync(path);
  } catch {
    // There is no file, or bind() fails with the reason.
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

/** Move this thread into a network namespace. @throws UsageError with the original's message */
function enter(path: string): void {
  try {
    enterNamespace({ kind: 'path', path });
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    const why = strerror(error.errno);
    throw new UsageError(error.call === 'setns' ? Message.setns(why) : Message.noNetns(path, why));
  }
}

function makeQueues(route: RouteSocket, name: string, queues: TapQueues): TapWithQueues {
  try {
    return makeTap(route, name, queues, false);
  } catch (error) {
    if (!(error instanceof SysError) || error.call !== 'ioctl') throw error;
    throw new UsageError(Message.tunsetiff(strerror(error.errno)));
  }
}

/** Configure loopback and the TAP. @throws UsageError with the original's message */
function configure(route: RouteSocket, index: number, conf: SlirpConf): void {
  const { guest, gateway, broadcast } = networkAddresses(conf.network);
  const loopback = route.linkByName('lo');
  if (loopback !== undefined && !loopback.up) route.setLink(loopback.index, { up: true });
  withMessage('MTU', () => {
    // IPv4 needs 68 bytes (RFC 791). The error is the same whether or not the kernel accepts a lower MTU.
    if (conf.mtu < IPV4_MIN_MTU) throw new SysError('RTM_NEWLINK', `mtu ${conf.mtu}`, Errno.EINVAL);
    route.setLink(index, { mtu: conf.mtu, txQueueLen: TX_QUEUE_FRAMES, up: true });
  });
  withMessage('IPv4 address', () =>
    unlessExists(() => route.addAddress(index, 4, guest, conf.network.prefixLen, { broadcast })),
  );
  withMessage('route', () =>
    route.addRoute({ family: 4, dst: '0.0.0.0', prefixLen: 0, gateway, oif: index }),
  );
}

/** Run a step. EEXIST is no error: the address is there from an earlier run. */
function unlessExists(step: () => void): void {
  try {
    step();
  } catch (error) {
    if (!(error instanceof SysError) || error.code !== 'EEXIST') throw error;
  }
}

/** Run a step. @throws UsageError with the original's message where a system call fails */
function withMessage(what: Parameters<typeof Message.cannotSet>[0], step: () => void): void {
  try {
    step();
  } catch (error) {
    if (error instanceof SysError) throw new UsageError(Message.cannotSet(what, strerror(error.errno)));
    throw error;
  }
}
