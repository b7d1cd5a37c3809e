/**
 * The socket to which OCI runtimes (crun, runc) send the listeners of their containers' seccomp filters. Each
 * connection brings one message (oci-state.ts) with its descriptors, and gets no answer. Cold.
 *
 * A client is served only if it runs as our user. The number of clients at one time, the size of a message, the
 * number of its descriptors and the time that it may take are limited. Further clients wait in the kernel.
 */
import { EPOLLHUP, EPOLLIN, EPOLLRDHUP, Errno, SOCK_CLOEXEC, SOCK_NONBLOCK } from '../sys/constants.ts';
import { closeAll, peerUser, receiveDescriptors } from '../sys/descriptor-messages.ts';
import { close } from '../sys/io.ts';
import { errnoText } from '../sys/libc.ts';
import { NativeBuffer } from '../sys/memory.ts';
import { isListener } from '../sys/seccomp-notify.ts';
import { accept4 } from '../sys/socket.ts';
import type { Loop } from './loop.ts';
import { mayBeComplete, type ProcessState, parseProcessState } from './oci-state.ts';

/** Clients at one time. */
export const MAX_CLIENTS = 16;
/** Longest message: Podman's have about 1 KiB, most of it annotations. */
export const MAX_MESSAGE_BYTES = 256 * 1024;
/** From a client's connection to the end of its message. */
export const CLIENT_LIMIT_MS = 5000;
/** Before the next try when the process has no descriptor left. */
const ACCEPT_AGAIN_MS = 1000;
/** A message names one descriptor; other runtimes may send more. */
const MAX_DESCRIPTORS = 8;
const PIECE_BYTES = 16 * 1024;
/** Of messages that only look complete; then the end of the connection is waited for. */
const MAX_TRIES = 8;

const piece = new NativeBuffer(PIECE_BYTES);

export interface OciSocketOptions {
  /** A client must run as this user. */
  readonly user: number;
  /** Gets the descriptor, to close it in the end. */
  readonly take: (listener: number, state: ProcessState) => void;
  /** Why a client was not served. */
  readonly refuse: (why: string) => void;
  /** Tests set another one. */
  readonly limitMs?: number;
}

interface Client {
  readonly fd: number;
  readonly descriptors: number[];
  /** What has come of its message: the first `bytes` bytes. */
  message: Uint8Array;
  bytes: number;
  /** How often its message looked complete and was not. */
  tries: number;
  cancelLimit: () => void;
}

export class OciSocket {
  readonly #loop: Loop;
  readonly #listening: number;
  readonly #options: OciSocketOptions;
  readonly #clients = new Set<Client>();
  #accepts = false;

  /** @param listening  a listening UNIX stream socket, non-blocking; it stays the caller's */
  constructor(loop: Loop, listening: number, options: OciSocketOptions) {
    this.#loop = loop;
    this.#listening = listening;
    this.#options = options;
    this.#acceptAgain();
  }

  /** Clients whose message is not complete. */
  get clients(): number {
    return this.#clients.size;
  }

  /** Serve no more clients. */
  close(): void {
    if (this.#accepts) this.#loop.unwatch(this.#listening);
    this.#accepts = false;
    for (const client of [...this.#clients]) this.#end(client, undefined, false);
  }

  #acceptAgain(): void {
    if (this.#accepts) return;
    this.#loop.watch(this.#listening, EPOLLIN, () => this.#accept());
    this.#accepts = true;
  }

  #acceptLater(): void {
    this.#loop.unwatch(this.#listening);
    this.#accepts = false;
  }

  #accept(): void {
    const fd = accept4(this.#listening, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd === -Errno.EMFILE || fd === -Errno.ENFILE || fd === -Errno.ENOMEM || fd === -Errno.ENOBUFS) {
      this.#options.refuse(`a container's listener has to wait: ${errnoText(-fd)}`);
      this.#acceptLater();
      this.#loop.at(performance.now() + ACCEPT_AGAIN_MS, () => this.#acceptAgain());
      return;
    }
    if (fd < 0) return; // the client has gone again
    const user = peerUser(fd);
    if (user !== this.#options.user) {
      this.#options.refuse(`refused a message of user ${user}`);
      close(fd);
      return;
    }
    const client: Client = {
      fd,
      descriptors: [],
      message: new Uint8Array(PIECE_BYTES),
      bytes: 0,
      tries: 0,
      cancelLimit: () => {},
    };
    const limitMs = this.#options.limitMs ?? CLIENT_LIMIT_MS;
    client.cancelLimit = this.#loop.at(performance.now() + limitMs, () =>
      this.#end(client, `its message was not complete after ${limitMs / 1000} seconds`),
    );
    this.#clients.add(client);
    this.#loop.watch(fd, EPOLLIN | EPOLLRDHUP | EPOLLHUP, () => this.#read(client));
    if (this.#clients.size >= MAX_CLIENTS) this.#acceptLater();
  }

  #read(client: Client): void {
    const received = receiveDescriptors(client.fd, piece, client.descriptors);
    if (received === -Errno.EAGAIN || received === -Errno.EINTR) return;
    if (received === -Errno.EMSGSIZE || client.descriptors.length > MAX_DESCRIPTORS)
      return this.#end(client, `it sent more than ${MAX_DESCRIPTORS} descriptors`);
    if (received < 0) return this.#end(client, errnoText(-received));
    if (received === 0) return this.#complete(client, true);
    const bytes = client.bytes + received;
    if (bytes > MAX_MESSAGE_BYTES)
      return this.#end(client, `its message is longer than ${MAX_MESSAGE_BYTES / 1024} KiB`);
    if (bytes > client.message.length) {
      const before = client.message;
      client.message = new Uint8Array(before.length * 2); // a piece is not longer than what there is at the least
      client.message.set(before);
    }
    client.message.set(piece.u8.subarray(0, received), client.bytes);
    client.bytes = bytes;
    if (mayBeComplete(client.message.subarray(0, bytes)) && client.tries++ < MAX_TRIES)
      this.#complete(client, false);
  }

  /** @param ended  nothing more comes */
  #complete(client: Client, ended: boolean): void {
    const text = new TextDecoder().decode(client.message.subarray(0, client.bytes));
    const state = parseProcessState(text, client.descriptors.length);
    if (typeof state === 'string') {
      // Who only looks whether somebody listens sends nothing.
      if (ended) this.#end(client, client.bytes === 0 ? undefined : `its message ${state}`);
      return;
    }
    const listener = client.descriptors[state.fdIndex]!;
    if (!isListener(listener)) return this.#end(client, 'its descriptor is not a seccomp listener');
    client.descriptors.splice(state.fdIndex, 1);
    this.#end(client, undefined);
    this.#options.take(listener, state);
  }

  /** @param why  undefined: its message was good */
  #end(client: Client, why: string | undefined, goesOn = true): void {
    if (!this.#clients.delete(client)) return;
    client.cancelLimit();
    this.#loop.unwatch(client.fd);
    close(client.fd);
    closeAll(client.descriptors);
    if (why !== undefined) this.#options.refuse(`refused the message of an OCI runtime: ${why}`);
    if (goesOn) this.#acceptAgain();
  }
}
