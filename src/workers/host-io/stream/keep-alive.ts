/**
 * Keep-alives to the peers of stream sockets. Every socket has SO_KEEPALIVE (setStreamOptions()), with the
 * idle time, interval and count of the host's sysctls. If the guest sends keep-alives more often than that on
 * a connection, so does its socket. The interval after an unanswered one is the idle time too, unless the
 * host's is shorter; the count stays the host's.
 */
import { SOL_TCP, TCP_KEEPIDLE, TCP_KEEPINTVL } from '../../../sys/constants.ts';
import { getsockoptInt, setsockoptInt } from '../../../sys/socket.ts';

export class HostKeepAlive {
  /** The host's own idle time and interval in seconds; 0: not read yet. */
  #idle = 0;
  #interval = 0;

  /** @param seconds  after which the guest sends a keep-alive */
  set(fd: number, seconds: number): void {
    if (this.#idle === 0) {
      this.#idle = getsockoptInt(fd, SOL_TCP, TCP_KEEPIDLE);
      this.#interval = getsockoptInt(fd, SOL_TCP, TCP_KEEPINTVL);
    }
    setsockoptInt(fd, SOL_TCP, TCP_KEEPINTVL, Math.min(seconds, this.#interval));
    setsockoptInt(fd, SOL_TCP, TCP_KEEPIDLE, Math.min(seconds, this.#idle));
  }
}
