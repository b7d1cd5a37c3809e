/**
 * Domain names in wire format, uncompressed (RFC 1035 section 3.1): labels (length u8, bytes), then a zero
 * byte. Cold path.
 */

/**
 * Split a domain name into labels for domainWrite.
 * @returns the labels, or null when the name is not valid: a label has 1..63 bytes, the name at most 255 in
 *   wire
 *   format (RFC 1035 section 3.1)
 */
export function domainLabels(name: string): string[] | null {
  const labels = name.replace(/\.$/, '').split('.');
  // Any printable ASCII character except the dot is accepted: search lists contain underscores too.
  const wellFormed = labels.every((label) => /^[\x21-\x7e]{1,63}$/.test(label));
  return wellFormed && labels.reduce((bytes, label) => bytes + 1 + label.length, 1) <= 255 ? labels : null;
}

/** Write a domain name uncompressed. @returns bytes written, at most 255 */
export function domainWrite(pool: Uint8Array, at: number, labels: readonly string[]): number {
  let i = at;
  for (const label of labels) {
    pool[i++] = label.length;
    for (let c = 0; c < label.length; c++) pool[i++] = label.charCodeAt(c);
  }
  pool[i++] = 0;
  return i - at;
}
