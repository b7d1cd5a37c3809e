/**
 * DNS messages, RFC 1035 section 4.1: the header and the question, which is all that a forwarder reads.
 *
 *  +0 id u16   +2 |QR| opcode, 4 |AA|TC|RD| |RA|Z|AD|CD| rcode, 4 |
 *  +4 qdCount u16   +6 anCount u16   +8 nsCount u16   +10 arCount u16
 *  +12 question: labels (length u8, bytes) ending in 0, type u16, class u16; then records, not read
 *
 * Over TCP each message has a u16 length in front; `at` is the offset behind that length.
 *
 * Invariant: once dnsCheck() === 0, header and question may be read unchecked.
 */
import { readU16, writeU16, writeU32 } from './be.ts';
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
