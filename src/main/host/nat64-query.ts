// bundle: rare
/**
 * Queries for the AAAA records of ipv4only.arpa to the host's resolvers (RFC 7050 section 3): only a resolver
 * that makes AAAA records for NAT64 (DNS64) answers with some.
 */
import { addressEqual, addressParse, isLinkLocal, isLoopback, isV4Mapped } from '../../proto/address.ts';
import { writeU16 } from '../../proto/be.ts';
import {
  DNS_HEADER_BYTES,
  DNS_PORT,
  DnsAddresses,
  DnsRcode,
  dnsCheck,
  dnsId,
  dnsIsQuery,
  dnsRcode,
  dnsSameQuestion,
} from '../../proto/dns.ts';
import { domainLabels, domainWrite } from '../../proto/domain-name.ts';
import { Errno, IFNAMSIZ, SO_BINDTODEVICE, SOL_SOCKET } from '../../sys/constants.ts';
import { NativeBuffer } from '../../sys/memory.ts';
import {
  iovecWrite,
  MSGHDR_BYTES,
  msghdrWrite,
  NAME_BYTES,
  recvmsg,
  SOCKADDR_BYTES,
  sendto,
  setsockoptBytes,
  sockaddrRead,
  sockaddrWrite,
} from '../../sys/socket.ts';

const NAME = 'ipv4only.arpa';
const TYPE_AAAA = 28;
const CLASS_IN = 1;
/** RD: the resolver is to ask others. CD, which would hinder DNS64, is not set. */
const FLAG_RD = 0x0100;
/** Without EDNS an answer has at most 512 bytes; some servers do not keep to that. */
const ANSWER_BYTES = 4096;
const WORDS = 4;
/** Datagrams that are read at a time: anyone may send to the socket. */
const MAX_DATAGRAMS = 64;

/** An answer of a resolver. */
export interface Nat64Answer {
  /** Index of the resolver in the list that was asked. */
  readonly resolver: number;
  /** It says which addresses there are. False: an error of the server's. */
  readonly isDefinite: boolean;
  /** IPv6 addresses, four words each. */
  readonly addresses: Uint32Array;
  /** The least TTL of the records. */
  readonly ttlS: number;
}

/** Asks resolvers. A new query makes answers to those before it invalid. */
export class Nat64Query {
  readonly fd: number;
  readonly #port: number;
  readonly #device: NativeBuffer | undefined;
  readonly #query = new NativeBuffer(64);
  readonly #queryBytes: number;
  readonly #answer = new NativeBuffer(ANSWER_BYTES);
  /** A sockaddr, a struct msghdr and a struct iovec. */
  readonly #message = new NativeBuffer(NAME_BYTES + MSGHDR_BYTES + 16);
  readonly #records = new DnsAddresses();
  #resolvers = new Uint32Array(0);

  /**
   * @param fd  of openQuerySocket()
   * @param bound  interface that the guest's connections are bound to
   * @param port  of the resolvers
   */
  constructor(fd: number, bound: string | undefined, port = DNS_PORT) {
    this.fd = fd;
    this.#port = port;
    if (bound !== undefined) {
      this.#device = new NativeBuffer(IFNAMSIZ);
      this.#device.u8.set(new TextEncoder().encode(bound));
    }
    const query = this.#query.u8;
    writeU16(query, 2, FLAG_RD);
    writeU16(query, 4, 1);
    const end = DNS_HEADER_BYTES + domainWrite(query, DNS_HEADER_BYTES, domainLabels(NAME)!);
    writeU16(query, end, TYPE_AAAA);
    writeU16(query, end + 2, CLASS_IN);
    this.#queryBytes = end + 4;
  }

  /**
   * Ask all resolvers.
   * @param list  addresses; a zone is the index of an interface: "fe80::1%2"
   * @returns indexes of those that were asked; the host has no route to the others
   */
  ask(list: readonly string[]): readonly number[] {
    const query = this.#query.u8;
    // Predictable only for one who sees such numbers, and they are in nothing but these queries.
    writeU16(query, 0, Math.floor(Math.random() * 0x10000));
    this.#resolvers = new Uint32Array(WORDS * list.length);
    const asked: number[] = [];
    list.forEach((text, i) => {
      const [address = '', zone] = text.split('%', 2);
      const words = this.#resolvers;
      const w = WORDS * i;
      if (!addressParse(address, words, w)) return;
      if (this.#device !== undefined) {
        // As for the guest's sockets (workers/host-io/outbound.ts).
        const name = isLoopback(words, w) ? 0 : IFNAMSIZ;
        setsockoptBytes(this.fd, SOL_SOCKET, SO_BINDTODEVICE, this.#device.address, name);
      }
      const scope = isLinkLocal(words, w) && !isV4Mapped(words, w) ? Number(zone ?? 0) : 0;
      const to = this.#message;
      const toBytes = sockaddrWrite(to.u8, 0, words, w, this.#port, scope, true);
      if (sendto(this.fd, this.#query.address, this.#queryBytes, 0, to.address, toBytes) >= 0) asked.push(i);
    });
    return asked;
  }

  /** The next valid answer to the last ask(); undefined: none has come yet. */
  receive(): Nat64Answer | undefined {
    const message = this.#message;
    const answer = this.#answer;
    const iovAt = NAME_BYTES + MSGHDR_BYTES;
    const from = new Uint32Array(WORDS);
    for (let datagrams = 0; datagrams < MAX_DATAGRAMS; datagrams++) {
      iovecWrite(message.u32, iovAt >> 2, answer.address, ANSWER_BYTES);
      const iov = message.address + iovAt;
      msghdrWrite(message.u32, NAME_BYTES >> 2, message.address, SOCKADDR_BYTES, iov, 1);
      const bytes = recvmsg(this.fd, message.address + NAME_BYTES, 0);
      if (bytes === -Errno.EAGAIN) return undefined;
      if (bytes < 0) continue;
      if (sockaddrRead(message.u8, 0, from, 0) !== this.#port) continue;
      const resolver = this.#resolverOf(from);
      if (resolver >= 0 && this.#isAnswer(bytes)) return this.#parse(resolver, bytes);
    }
    return undefined;
  }

  #resolverOf(from: Uint32Array): number {
    for (let w = 0; w < this.#resolvers.length; w += WORDS)
      if (addressEqual(this.#resolvers, w, from, 0)) return w / WORDS;
    return -1;
  }

  #isAnswer(bytes: number): boolean {
    const u8 = this.#answer.u8;
    if (dnsCheck(u8, 0, bytes) !== 0 || dnsIsQuery(u8, 0) || dnsId(u8, 0) !== dnsId(this.#query.u8, 0))
      return false;
    const both = new Uint8Array(ANSWER_BYTES + this.#queryBytes);
    both.set(u8);
    both.set(this.#query.u8.subarray(0, this.#queryBytes), ANSWER_BYTES);
    return dnsSameQuestion(both, 0, bytes, ANSWER_BYTES, this.#queryBytes);
  }

  #parse(resolver: number, bytes: number): Nat64Answer {
    const u8 = this.#answer.u8;
    const rcode = dnsRcode(u8, 0);
    const isDefinite = rcode === DnsRcode.noError || rcode === DnsRcode.nxDomain;
    const words: number[] = [];
    let ttlS = Number.POSITIVE_INFINITY;
    this.#records.begin(u8, 0, bytes);
    while (isDefinite && this.#records.next()) {
      if (isV4Mapped(this.#records.words, 0)) continue;
      words.push(...this.#records.words);
      ttlS = Math.min(ttlS, this.#records.ttlS);
    }
    return { resolver, isDefinite, addresses: Uint32Array.from(words), ttlS };
  }
}
