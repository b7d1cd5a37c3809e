/**
 * host-io -> splice, for what came to a published port from the host's loopback. Both stages run on one
 * thread, so host-io calls splice directly.
 */
import type { ListenerPlan } from '../engine-plan.ts';

/**
 * A datagram that a published port received from the host's loopback. Borrowed: the receiver refills one
 * object.
 */
export interface LoopbackDatagram {
  listenerFd: number;
  /** Listener that received it; host-io calls forgetListener() before it closes the listener. */
  listenerId: number;
  listenerV6: boolean;
  /** Address of the peer at words[0..3], destination address of the datagram at words[4..7]. */
  readonly words: Uint32Array;
  peerPort: number;
  /** Destination port in the namespace. */
  targetPort: number;
  /** The payload in one or two pieces: native addresses and lengths. With one piece bytesB is 0. */
  addressA: number;
  bytesA: number;
  addressB: number;
  bytesB: number;
}

/** The splice stage: it carries what comes from the host's loopback past the TAP. */
export interface LoopbackPath {
  /**
   * Connect an accepted connection to a port in the namespace.
   * @param fd  the accepted socket; the splice stage owns it from now on
   * @param words  address of the peer at words[0..3]
   * @param port  in the namespace
   */
  takeStream(fd: number, words: Uint32Array, port: number): void;
  /**
   * Send a datagram to a port in the namespace, at flushDatagrams() at the latest: until then the caller must
   * not change the payload.
   */
  takeDatagram(datagram: LoopbackDatagram): void;
  flushDatagrams(): void;
  /** End the flows of a listener that is about to be closed. */
  forgetListener(listenerId: number): void;
  /** Listen on a port in the namespace (ListenerPlan.from is 'guest'). @returns 0 or -errno */
  openListener(id: number, plan: ListenerPlan, port: number): number;
  closeListener(id: number): void;
}
