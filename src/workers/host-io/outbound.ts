/**
 * Source address and interface of outgoing sockets, by family, from the plan. A socket to the host's own
 * loopback is bound to no interface: services there, for example a resolver on 127.0.0.53, are reachable
 * through lo only. Such a socket has a source address only if the policy says so (outboundToLoopback).
 */
import {
  addressCopy,
  addressParse,
  addressSetAny,
  familyAt,
  familyOf,
  isLinkLocal,
  isLoopback,
  isV4Mapped,
} from '../../proto/address.ts';
import {
  Errno,
  IFNAMSIZ,
  IP_BIND_ADDRESS_NO_PORT,
  SO_BINDTODEVICE,
  SOL_IP,
  SOL_SOCKET,
} from '../../sys/constants.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import { bind, NAME_BYTES, setsockoptBytes, setsockoptInt, sockaddrWrite } from '../../sys/socket.ts';
import type { EnginePlan, HostChange } from '../engine-plan.ts';
import { setFreebind } from '../listen/bind-address.ts';

export class Outbound {
  /** Source addresses, IPv4 in words 0..3, IPv6 in words 4..7; zero: the plan has none. */
  readonly #source = new Uint32Array(8);
  readonly #hasSource4: boolean;
  readonly #hasSource6: boolean;
  readonly #device4: NativeBuffer | null;
  readonly #device6: NativeBuffer | null;
  #scope: number;
  readonly #freebind: boolean;
  readonly #toLoopback: boolean;
  readonly #name = new NativeBuffer(NAME_BYTES);
  readonly #words = new Uint32Array(4);

  /** @throws Error for an invalid address or interface name in the plan */
  constructor(plan: EnginePlan) {
    const { policy } = plan;
    this.#hasSource4 = this.#parse(policy.outboundAddress4, 4);
    this.#hasSource6 = this.#parse(policy.outboundAddress6, 6);
    this.#device4 = deviceName(policy.outboundInterface4);
    this.#device6 = deviceName(policy.outboundInterface6);
    this.#scope = plan.addresses.ipv6?.linkLocalScope ?? 0;
    this.#freebind = policy.freebind;
    this.#toLoopback = policy.outboundToLoopback;
  }

  /** @returns whether the plan has a source address of this family */
  #parse(text: string | undefined, family: 4 | 6): boolean {
    if (text === undefined) return false;
    const at = familyAt(family);
    const ok = addressParse(text, this.#source, at) && familyOf(this.#source, at) === family;
    if (!ok) throw new Error(`service policy: outbound address ${text} is no IPv${family} address`);
    return true;
  }

  /** Index of the plan's interface for link-local destinations, as of the last hostChanged(); 0: none. */
  get scope(): number {
    return this.#scope;
  }

  /** The host's network has changed. */
  hostChanged(change: HostChange): void {
    this.#scope = change.linkLocalScope ?? 0;
  }

  /** Whether the plan, not the kernel, gives sockets to this destination their source address. */
  hasSource(remote: Uint32Array, w: number): boolean {
    const has = isV4Mapped(remote, w) ? this.#hasSource4 : this.#hasSource6;
    return has && (this.#toLoopback || !isLoopback(remote, w));
  }

  /**
   * sin6_scope_id of a destination. A link-local destination is on the interface `zone`, else on the plan's.
   * @param zone  interface index that came with the destination; 0: none
   * @returns interface index; 0: not link-local, or no interface
   */
  scopeOf(remote: Uint32Array, w: number, zone = 0): number {
    const scope = zone || this.#scope;
    return scope !== 0 && !isV4Mapped(remote, w) && isLinkLocal(remote, w) ? scope : 0;
  }

  /**
   * Destinations with the same result can share a socket, because the socket has the same settings for them.
   * @returns 1: the host's loopback, if its sockets lack the plan's interface or source address; else 0
   */
  wayOf(remote: Uint32Array, w: number): number {
    if (!isLoopback(remote, w)) return 0;
    const isV4 = isV4Mapped(remote, w);
    const hasDevice = (isV4 ? this.#device4 : this.#device6) !== null;
    const hasSource = (isV4 ? this.#hasSource4 : this.#hasSource6) && !this.#toLoopback;
    return hasDevice || hasSource ? 1 : 0;
  }

  /** Set SO_BINDTODEVICE if the destination needs it. @returns 0 or -errno */
  bindDevice(fd: number, remote: Uint32Array, w: number): number {
    const device = isV4Mapped(remote, w) ? this.#device4 : this.#device6;
    if (device === null || isLoopback(remote, w)) return 0;
    return setsockoptBytes(fd, SOL_SOCKET, SO_BINDTODEVICE, device.address, IFNAMSIZ);
  }

  /**
   * Bind a datagram socket to the plan's source address and a port.
   * @param port  0: the kernel chooses; without a source address nothing is done then
   * @returns 0, or -errno: port or address are not available
   */
  bindPort(fd: number, remote: Uint32Array, w: number, port: number): number {
    const isV4 = isV4Mapped(remote, w);
    const useSource = this.hasSource(remote, w);
    if (port === 0 && !useSource) return 0;
    if (this.#freebind) {
      const r = setFreebind(fd, isV4);
      if (r < 0) return r;
    }
    return this.#bind(fd, isV4 ? 4 : 6, useSource, port);
  }

  /** Bind a TCP socket to its source address; connect() chooses the port. @returns 0 or -errno */
  bindStream(fd: number, remote: Uint32Array, w: number): number {
    if (!this.hasSource(remote, w)) return 0;
    // A port that bind() chooses is taken for all destinations, which limits the host to some 28,000
    // connections. The option is of level SOL_IP for both families.
    const r = setsockoptInt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (r < 0 && r !== -Errno.ENOPROTOOPT) return r;
    return this.#bind(fd, familyOf(remote, w), true, 0);
  }

  #bind(fd: number, family: 4 | 6, useSource: boolean, port: number): number {
    const words = this.#words;
    if (useSource) addressCopy(this.#source, familyAt(family), words, 0);
    else addressSetAny(words, 0, family);
    const scope = useSource ? this.scopeOf(words, 0) : 0;
    const nameBytes = sockaddrWrite(this.#name.u8, 0, words, 0, port, scope);
    return bind(fd, this.#name.address, nameBytes);
  }
}

function deviceName(name: string | undefined): NativeBuffer | null {
  if (name === undefined) return null;
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length >= IFNAMSIZ) {
    throw new Error(`service policy: outbound interface ${name} is no interface name`);
  }
  const buffer = new NativeBuffer(IFNAMSIZ);
  buffer.u8.set(bytes);
  return buffer;
}
