/**
 * DNS messages, RFC 1035 section 4.1, as far as a forwarder looks into them: header and question.
 *
 *  +0 id u16   +2 |QR| opcode, 4 |AA|TC|RD| |RA|Z|AD|CD| rcode, 4 |   +4 qdCount u16   +6 anCount   +8 nsCount
 *  +10 arCount   +12 question: labels (length u8, bytes) ending in 0, type u16, class u16   then records, not read
 *
 * Invariant: once dnsCheck() === 0, header and question may be read unchecked. Over TCP each message has a
 * u16 length in front; `at` is past it.
 */
import { readU16, writeU16, writeU32 } from './be.ts';
import { Drop } from './drop.ts';

export const DNS_PORT = 53;
export const DNS_HEADER_BYTES = 12;
/** RFC 1035 section 2.3.4, terminating zero included. */
const NAME_MAX_BYTES = 255;

export const DnsRcode = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5 } as const;

const QR = 0x8000;
const OPCODE_RD = 0x7900; // the bits that an answer copies from its query
const RA = 0x0080;

/**
 * Length of the question section of a message with one question.
 * @param bytes  message length; nothing past it is read
 * @returns bytes from the name to the class, or Drop.dnsQuestion. A compressed name has nothing to point to
 *   here: refused.
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
 * Check for a header and exactly one well-formed question; queries and answers alike.
 * @returns 0, or Drop.short | dnsQuestion
 */
export function dnsCheck(pool: Uint8Array, at: number, bytes: number): number {
  if (bytes < DNS_HEADER_BYTES) return Drop.short;
  if (readU16(pool, at + 4) !== 1) return Drop.dnsQuestion;
  const questionBytes = dnsQuestionBytes(pool, at, bytes);
  return Math.min(questionBytes, 0);
}

/** The id, by which an answer finds its query. */
export function dnsId(pool: Uint8Array, at: number): number {
  return readU16(pool, at);
}

/** QR bit: false for an answer. */
export function dnsIsQuery(pool: Uint8Array, at: number): boolean {
  return (pool[at + 2]! & 0x80) === 0;
}

/** DnsRcode value. */
export function dnsRcode(pool: Uint8Array, at: number): number {
  return pool[at + 3]! & 15;
}

/**
 * Whether an answer is worth passing on, or the next server should be asked: SERVFAIL, REFUSED and NOTIMP
 * tell of the server, not of the name.
 */
export function dnsShouldFailOver(pool: Uint8Array, at: number): boolean {
  const rcode = dnsRcode(pool, at);
  return rcode === DnsRcode.servFail || rcode === DnsRcode.refused || rcode === DnsRcode.notImp;
}

/**
 * Same question, letter case of names aside. Guards against answers to something else.
 * Both messages have passed dnsCheck; ids are not compared.
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
    // Length bytes are below 64, so folding case cannot confuse them with letters.
    const lower = a | 0x20;
    if (i >= nameEnd || lower !== (b | 0x20) || lower < 0x61 || lower > 0x7a) return false;
  }
  return true;
}

/**
 * An answer that is only a result code: the query's id and question, nothing else.
 * @param at  may be queryAt, to answer where the query lies
 * @param queryBytes  at least 12; a question that is malformed is left out
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
