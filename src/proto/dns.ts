// bundle: rare
/**
 * DNS messages, RFC 1035 section 4.1: the header and the question, which is all that a forwarder reads; and
 * the addresses of an answer, for the egress policy.
 *
 *  +0 id u16   +2 |QR| opcode, 4 |AA|TC|RD| |RA|Z|AD|CD| rcode, 4 |
 *  +4 qdCount u16   +6 anCount u16   +8 nsCount u16   +10 arCount u16
 *  +12 question: labels (length u8, bytes) ending in 0, type u16, class u16; then records
 *
 * Over TCP each message has a u16 length in front; `at` is the offset behind that length.
 *
 * Invariant: once dnsCheck() === 0, header and question may be read unchecked.
 */
import { addressRead, addressSetIpv4 } from './address.ts';
import { readU16, readU32, writeU16, writeU32 } from './be.ts';
import { Drop } from './drop.ts';

export const DNS_PORT = 53;
export const DNS_HEADER_BYTES = 12;
/** RFC 1035 section 2.3.4; includes the terminating zero. */
const NAME_MAX_BYTES = 255;

export const DnsRcode = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5 } as const;

const QR = 0x8000;
const OPCODE_RD = 0x7900; // the bits that an answer copies from its query
const RA = 0x0080;

/**
 * Length of the question section of a message with one question. A compressed name is refused: nothing
 * precedes the first question that a pointer could refer to.
 * @param bytes  message length; nothing past it is read
 * @returns bytes from the start of the name to the end of the class, or Drop.dnsQuestion
 */
export function dnsQuestionBytes(pool: Uint8Array, at: number, bytes: number): number {
  let i = DNS_HEADER_BYTES;
  while (i < bytes) {
    const labelBytes = pool[at + i]!;
    i++;
    if (labelBytes === 0) {
      i += 4;
      return i <= bytes ? i - DNS_HEADER_BYTES : Drop.dnsQuestion;
    }
    if (labelBytes > 63) return Drop.dnsQuestion;
    i += labelBytes;
    if (i - DNS_HEADER_BYTES >= NAME_MAX_BYTES) return Drop.dnsQuestion;
  }
  return Drop.dnsQuestion;
}

/**
 * Length of the question's name without the root's zero, from `at + DNS_HEADER_BYTES` on.
 * @returns -1 when the message has no well-formed question
 */
export function dnsNameBytes(pool: Uint8Array, at: number, bytes: number): number {
  return dnsCheck(pool, at, bytes) < 0 ? -1 : dnsQuestionBytes(pool, at, bytes) - 5;
}

/**
 * Check that a message, query or answer, has a header and exactly one well-formed question.
 * @param bytes  message length
 * @returns 0, or Drop.short | dnsQuestion
 */
export function dnsCheck(pool: Uint8Array, at: number, bytes: number): number {
  if (bytes < DNS_HEADER_BYTES) return Drop.short;
  if (readU16(pool, at + 4) !== 1) return Drop.dnsQuestion;
  const questionBytes = dnsQuestionBytes(pool, at, bytes);
  return Math.min(questionBytes, 0);
}

/** Message id: an answer has the id of its query. */
export function dnsId(pool: Uint8Array, at: number): number {
  return readU16(pool, at);
}

/** Whether the QR bit says "query"; false for an answer. */
export function dnsIsQuery(pool: Uint8Array, at: number): boolean {
  return (pool[at + 2]! & 0x80) === 0;
}

/** Response code: a DnsRcode value, or another number up to 15. */
export function dnsRcode(pool: Uint8Array, at: number): number {
  return pool[at + 3]! & 15;
}

/**
 * Whether the next server should be asked instead of passing this answer on. SERVFAIL, REFUSED and NOTIMP are
 * about the server, not about the name.
 */
export function dnsShouldFailOver(pool: Uint8Array, at: number): boolean {
  const rcode = dnsRcode(pool, at);
  return rcode === DnsRcode.servFail || rcode === DnsRcode.refused || rcode === DnsRcode.notImp;
}

/**
 * Whether two messages have the same question, ignoring the letter case of names. Rejects answers to another
 * question. Both messages have passed dnsCheck; ids are not compared.
 */
export function dnsSameQuestion(
  pool: Uint8Array,
  at: number,
  bytes: number,
  otherAt: number,
  otherBytes: number,
): boolean {
  const questionBytes = dnsQuestionBytes(pool, at, bytes);
  if (questionBytes < 0 || questionBytes !== dnsQuestionBytes(pool, otherAt, otherBytes)) return false;
  const nameEnd = DNS_HEADER_BYTES + questionBytes - 4;
  for (let i = DNS_HEADER_BYTES; i < DNS_HEADER_BYTES + questionBytes; i++) {
    const a = pool[at + i]!;
    const b = pool[otherAt + i]!;
    if (a === b) continue;
    // Length bytes are below 64, so they cannot be mistaken for letters when the case is folded.
    const lower = a | 0x20;
    if (i >= nameEnd || lower !== (b | 0x20) || lower < 0x61 || lower > 0x7a) return false;
  }
  return true;
}

/**
 * Write an answer without records: the query's id and question, and a response code.
 * @param at  may be queryAt, to write the answer over the query
 * @param queryBytes  at least 12; a malformed question is left out
 * @param rcode  DnsRcode
 * @returns message bytes
 */
export function dnsErrorWrite(
  pool: Uint8Array,
  at: number,
  queryAt: number,
  queryBytes: number,
  rcode: number,
): number {
  const queryFlags = readU16(pool, queryAt + 2);
  const questionBytes = dnsQuestionBytes(pool, queryAt, queryBytes);
  const bytes = DNS_HEADER_BYTES + Math.max(questionBytes, 0);
  pool.copyWithin(at, queryAt, queryAt + bytes);
  writeU16(pool, at + 2, QR | RA | (queryFlags & OPCODE_RD) | rcode);
  writeU32(pool, at + 4, questionBytes < 0 ? 0 : 0x00010000); // one question, no answer
  writeU32(pool, at + 8, 0);
  return bytes;
}

const TYPE_A = 1;
const TYPE_CNAME = 5;
const TYPE_AAAA = 28;
const CLASS_IN = 1;
/** Fixed part of a record, behind its name: type, class, TTL, length of the data. */
const RECORD_BYTES = 10;

/**
 * The addresses in a message's answer section, one after the other (RFC 1035 section 4.1.3, RFC 3596). Those
 * of all A and AAAA records count, whatever their owner's name is: a resolver puts only the records there to
 * which the question's name leads. An object is used for many messages.
 *
 *     for (found.begin(u8, at, bytes); found.next(); ) use(found.words, found.ttlS);
 */
export class DnsAddresses {
  /** The address, IPv4 as v4-mapped. */
  readonly words = new Uint32Array(4);
  /** The least TTL of the record and of the CNAME records in front of it, in seconds. */
  ttlS = 0;
  #pool: Uint8Array = new Uint8Array(0);
  #at = 0;
  #end = 0;
  #left = 0;
  #chainTtlS = 0;

  /** Begin with a message that has passed dnsCheck(). @param bytes  nothing past them is read */
  begin(pool: Uint8Array, at: number, bytes: number): void {
    this.#pool = pool;
    this.#at = at + DNS_HEADER_BYTES + dnsQuestionBytes(pool, at, bytes);
    this.#end = at + bytes;
    this.#left = readU16(pool, at + 6);
    this.#chainTtlS = 0x7fffffff;
  }

  /** Find the next address. @returns false: there is none, or the rest is malformed or missing */
  next(): boolean {
    const pool = this.#pool;
    while (this.#left > 0) {
      this.#left--;
      const at = this.#skipName(this.#at);
      if (at < 0 || at + RECORD_BYTES > this.#end) break;
      const dataBytes = readU16(pool, at + 8);
      const dataAt = at + RECORD_BYTES;
      if (dataAt + dataBytes > this.#end) break;
      this.#at = dataAt + dataBytes;
      const type = readU16(pool, at);
      // RFC 2181 section 8: a TTL with the top bit set is 0.
      const ttl = readU32(pool, at + 4);
      const ttlS = ttl > 0x7fffffff ? 0 : ttl;
      if (readU16(pool, at + 2) !== CLASS_IN) continue;
      if (type === TYPE_CNAME) this.#chainTtlS = Math.min(this.#chainTtlS, ttlS);
      else if (type === TYPE_A && dataBytes === 4) addressSetIpv4(this.words, 0, readU32(pool, dataAt));
      else if (type === TYPE_AAAA && dataBytes === 16) addressRead(pool, dataAt, this.words, 0);
      if ((type !== TYPE_A || dataBytes !== 4) && (type !== TYPE_AAAA || dataBytes !== 16)) continue;
      this.ttlS = Math.min(this.#chainTtlS, ttlS);
      return true;
    }
    this.#left = 0;
    return false;
  }

  /** @returns offset behind the name at `at`, which may end in a pointer; -1: malformed */
  #skipName(at: number): number {
    const pool = this.#pool;
    for (let i = at; i < this.#end; ) {
      const length = pool[i]!;
      if (length === 0) return i + 1;
      if (length >= 0xc0) return i + 2;
      if (length > 63) return -1;
      i += length + 1;
    }
    return -1;
  }
}
