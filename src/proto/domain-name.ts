/**
 * Domain names on the wire, RFC 1035 section 3.1, uncompressed: labels (length u8, bytes), ending in 0. Cold
 * path.
 */

/**
 * Labels of a domain name, ready to be written, or null (RFC 1035 section 3.1: 1..63 bytes each, 255 in all).
 */
export function domainLabels(name: string): string[] | null {
  const labels = name.replace(/\.$/, '').split('.');
  // Any printable ASCII but the dot: search lists hold underscores too.
  const wellFormed = labels.every((label) => /^[\x21-\x7e]{1,63}$/.test(label));
  return wellFormed && labels.reduce((bytes, label) => bytes + 1 + label.length, 1) <= 255 ? labels : null;
}

/** Write a domain name uncompressed; returns its bytes. */
export function domainWrite(pool: Uint8Array, at: number, labels: readonly string[]): number {
  let i = at;
  for (const label of labels) {
    pool[i++] = label.length;
    for (let c = 0; c < label.length; c++) pool[i++] = label.charCodeAt(c);
  }
  pool[i++] = 0;
  return i - at;
}
