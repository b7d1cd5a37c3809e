/**
 * host-io to splice, by call, as both run on one thread: what came to a published port from the host's
 * loopback.
 */
import type { ListenerPlan } from '../engine-plan.ts';

/**
 * A datagram of a published port that came from the host's loopback; its receiver refills one object
 * (borrowed).
 */
export interface LoopbackDatagram {
  listenerFd: number;
  /** Of the listener that received it; forgetListener() is told before it is closed. */
  listenerId: number;
  listenerV6: boolean;
  /** Peer at words[0..3], the address that it wrote to at words[4..7]. */
  readonly words: Uint32Array;
  peerPort: number;
  /** The port inside. */
  targetPort: number;
  /** Its bytes, in up to two pieces: addresses and lengths; bytesB 0: one piece. */
  addressA: number;
  bytesA: number;
  addressB: number;
  bytesB: number;
}

/** The way past the TAP for what comes from the host's loopback (the splice stage). */
export interface LoopbackPath {
  /**
   * Lead an accepted connection to `port` inside; the descriptor is the path's from now on.
   * @param words peer at words[0..3]
   */
  takeStream(fd: number, words: Uint32Array, port: number): void;
  /**
   * Lead a datagram of a published port to a port inside. Its bytes stay where they are until
   * flushDatagrams().
   */
  takeDatagram(datagram: LoopbackDatagram): void;
  flushDatagrams(): void;
  forgetListener(listenerId: number): void;
  /** Listen on a port inside, for a listener from the guest. @returns 0 or -errno */
  openListener(id: number, plan: ListenerPlan, port: number): number;
  closeListener(id: number): void;
}
