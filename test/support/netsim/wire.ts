/**
 * Codec for frames of the guest's kernel: Ethernet, IPv4 or IPv6, TCP, with the vnet header of a TAP with
 * offloads. It is independent of src/proto, with DataView and plain objects, so that an error in one does not
 * hide the same error in the other.
 */
export const Fin = 1;
export const Syn = 2;
export const Rst = 4;
export const Psh = 8;
export const Ack = 16;
export const Urg = 32;

export const seqAdd = (a: number, n: number): number => (a + n) >>> 0;
/** Signed distance from b to a. */
export const seqDist = (a: number, b: number): number => (a - b) | 0;

export interface TcpOptionsModel {
  mss?: number;
  wscale?: number;
  sackPermitted?: boolean;
  /** [left, right) edges. */
  sack?: (readonly [number, number])[];
  timestamps?: readonly [number, number];
  /** Raw option bytes, added before padding. */
  raw?: Uint8Array;
}

export interface Segment {
  srcPort: number;
  dstPort: number;
  seq: number;
  ack: number;
  flags: number;
  window: number;
  urgent: number;
  options: TcpOptionsModel;
  payload: Uint8Array;
}

/** Addresses of one connection, as bytes: 4 for IPv4, 16 for IPv6. */
export interface Endpoints {
  readonly family: 4 | 6;
  readonly guest: Uint8Array;
  readonly remote: Uint8Array;
}

export interface FrameOptions {
  readonly vnet: boolean;
  /** Leave the checksum partial (needs vnet). */
  readonly partial?: boolean;
  /** GSO segment size; 0: an ordinary frame. */
  readonly gsoSize?: number;
  /** Ethernet padding to 60 bytes. */
  readonly pad?: boolean;
}

export const GUEST_MAC = [0x02, 0, 0, 0, 0, 0x67] as const;
export const OUR_MAC = [0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55] as const;
export const VNET = 12;
export const ETH = 14;

/** Checksum of RFC 1071, in the form of the RFC. */
export function sum16(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let sum = start;
  for (let i = from; i < to; i += 2) sum += (bytes[i]! << 8) + (i + 1 < to ? bytes[i + 1]! : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return sum;
}

function pseudo(family: 4 | 6, src: Uint8Array, dst: Uint8Array, proto: number, bytes: number): number {
  const size = family === 4 ? 14 : 40;
  const p = new Uint8Array(size);
  p.set(src, 0);
  p.set(dst, src.length);
  if (family === 4) {
    p[9] = proto;
    // The length's lower half, then the upper: 0 but for GSO frames beyond 64 KiB, of which Linux takes the
    // sum over 32 bits.
    p[10] = bytes >> 8;
    p[11] = bytes;
    p[12] = bytes >> 24;
    p[13] = bytes >> 16;
  } else {
    new DataView(p.buffer).setUint32(32, bytes);
    p[39] = proto;
  }
  return sum16(p, 0, size);
}

export function optionBytes(o: TcpOptionsModel): Uint8Array {
  const out: number[] = [];
  const u16 = (v: number): void => void out.push((v >> 8) & 255, v & 255);
  const u32 = (v: number): void => void out.push(v >>> 24, (v >>> 16) & 255, (v >>> 8) & 255, v & 255);
  if (o.mss !== undefined) {
    out.push(2, 4);
    u16(o.mss);
  }
  if (o.sackPermitted) out.push(4, 2);
  if (o.timestamps) {
    out.push(8, 10);
    u32(o.timestamps[0]);
    u32(o.timestamps[1]);
  }
  if (o.wscale !== undefined) out.push(1, 3, 3, o.wscale);
  if (o.sack && o.sack.length > 0) {
    out.push(1, 1, 5, 2 + 8 * o.sack.length);
    for (const [left, right] of o.sack) {
      u32(left);
      u32(right);
    }
  }
  if (o.raw) out.push(...o.raw);
  while (out.length % 4) out.push(1);
  return Uint8Array.from(out);
}

/** A frame from the guest (vnet header first when asked for). */
export function encodeFrame(e: Endpoints, s: Segment, o: FrameOptions): Uint8Array {
  const options = optionBytes(s.options);
  const headerBytes = 20 + options.length;
  const ipBytes = e.family === 4 ? 20 : 40;
  const tcpBytes = headerBytes + s.payload.length;
  const start = o.vnet ? VNET : 0;
  let total = start + ETH + ipBytes + tcpBytes;
  if (o.pad && total - start < 60) total = start + 60;
  const f = new Uint8Array(total);
  const v = new DataView(f.buffer);
  f.set(OUR_MAC, start);
  f.set(GUEST_MAC, start + 6);
  v.setUint16(start + 12, e.family === 4 ? 0x0800 : 0x86dd);
  const ip = start + ETH;
  if (e.family === 4) {
    f[ip] = 0x45;
    v.setUint16(ip + 2, 20 + tcpBytes);
    v.setUint16(ip + 6, 0x4000);
    f[ip + 8] = 64;
    f[ip + 9] = 6;
    f.set(e.guest, ip + 12);
    f.set(e.remote, ip + 16);
    v.setUint16(ip + 10, ~sum16(f, ip, ip + 20) & 0xffff);
  } else {
    f[ip] = 0x60;
    v.setUint16(ip + 4, tcpBytes);
    f[ip + 6] = 6;
    f[ip + 7] = 64;
    f.set(e.guest, ip + 8);
    f.set(e.remote, ip + 24);
  }
  const t = ip + ipBytes;
  v.setUint16(t, s.srcPort);
  v.setUint16(t + 2, s.dstPort);
  v.setUint32(t + 4, s.seq);
  v.setUint32(t + 8, s.ack);
  f[t + 12] = (headerBytes / 4) << 4;
  f[t + 13] = s.flags;
  v.setUint16(t + 14, s.window);
  v.setUint16(t + 18, s.urgent);
  f.set(options, t + 20);
  f.set(s.payload, t + headerBytes);
  const pseudoSum = pseudo(e.family, e.guest, e.remote, 6, tcpBytes);
  if (o.partial) {
    v.setUint16(t + 16, pseudoSum);
    f[0] = 1;
    v.setUint16(6, ETH + ipBytes, true);
    v.setUint16(8, 16, true);
  } else v.setUint16(t + 16, ~sum16(f, t, t + tcpBytes, pseudoSum) & 0xffff);
  if (o.gsoSize) {
    f[1] = e.family === 4 ? 1 : 4;
    v.setUint16(2, ETH + ipBytes + headerBytes, true);
    v.setUint16(4, o.gsoSize, true);
  }
  return f;
}

export interface DecodedFrame {
  readonly family: 4 | 6;
  readonly src: Uint8Array;
  readonly dst: Uint8Array;
  readonly proto: number;
  /** Bytes of the frame without vnet header. */
  readonly frameBytes: number;
  readonly gsoSize: number;
  /** Of TCP. */
  readonly tcp: Segment | null;
  /** Of everything else: what follows the IP header. */
  readonly body: Uint8Array;
}

function fail(text: string, frame: Uint8Array): never {
  const head = [...frame.subarray(0, 96)].map((b) => b.toString(16).padStart(2, '0')).join(' ');
  throw new Error(`frame to the guest: ${text}\n${head}`);
}

/**
 * Decode a frame to the guest, and check it at least as strictly as a kernel does: every length, both
 * checksums (or the partial one if needsCsum is set), every GSO field.
 * @throws Error with the field that is wrong
 */
export function decodeFrame(frame: Uint8Array, vnet: boolean): DecodedFrame {
  const v = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const start = vnet ? VNET : 0;
  if (frame.length < start + ETH + 20) fail('too short', frame);
  const type = v.getUint16(start + 12);
  const ip = start + ETH;
  let family: 4 | 6;
  let ipBytes: number;
  let total: number;
  let proto: number;
  if (type === 0x0800) {
    family = 4;
    if (frame[ip] !== 0x45) fail('IPv4 version or options', frame);
    ipBytes = 20;
    total = v.getUint16(ip + 2);
    // Linux: 0 in a GSO frame stands for a length beyond the field.
    if (total === 0 && vnet && frame[1] === 1 && frame.length - ip > 65535) total = frame.length - ip;
    proto = frame[ip + 9]!;
    if (sum16(frame, ip, ip + 20) !== 0xffff) fail('IPv4 header checksum', frame);
  } else if (type === 0x86dd) {
    family = 6;
    if (frame[ip]! >> 4 !== 6) fail('IPv6 version', frame);
    ipBytes = 40;
    total = 40 + v.getUint16(ip + 4);
    proto = frame[ip + 6]!;
    if (proto === 0 && total === 40 && frame.length >= ip + 48) {
      // RFC 2675: hop-by-hop options header with a Jumbo Payload option.
      if (v.getUint32(ip + 40) % 0x1000000 !== 0x00c204) fail('hop-by-hop options', frame);
      if (v.getUint32(ip + 44) <= 65535) fail('jumbo payload length', frame);
      total = 40 + v.getUint32(ip + 44);
      proto = frame[ip + 40]!;
      ipBytes = 48;
    }
  } else fail('EtherType', frame);
  if (ip + total !== frame.length) fail(`IP length ${total}, frame has ${frame.length - ip}`, frame);
  const src = frame.slice(ip + (family === 4 ? 12 : 8), ip + (family === 4 ? 16 : 24));
  const dst = frame.slice(ip + (family === 4 ? 16 : 24), ip + (family === 4 ? 20 : 40));
  const t = ip + ipBytes;
  const upper = total - ipBytes;
  const flags = vnet ? frame[0]! : 0;
  const gsoType = vnet ? frame[1]! : 0;
  const gsoSize = gsoType === 0 ? 0 : v.getUint16(4, true);
  const base = { family, src, dst, proto, frameBytes: frame.length - start, gsoSize };
  if (proto !== 6) return { ...base, tcp: null, body: frame.slice(t) };
  if (upper < 20) fail('TCP header cut', frame);
  const headerBytes = (frame[t + 12]! >> 4) * 4;
  if (headerBytes < 20 || headerBytes > upper) fail('TCP data offset', frame);
  const pseudoSum = pseudo(family, src, dst, 6, upper);
  if (flags & 1) {
    if (v.getUint16(6, true) !== ETH + ipBytes || v.getUint16(8, true) !== 16)
      fail('csumStart or csumOffset', frame);
    if (v.getUint16(t + 16) !== pseudoSum) fail('partial checksum', frame);
  } else if (sum16(frame, t, t + upper, pseudoSum) !== 0xffff) fail('TCP checksum', frame);
  const payloadBytes = upper - headerBytes;
  if (gsoType !== 0) {
    if (gsoType !== (family === 4 ? 1 : 4)) fail(`GSO type ${gsoType}`, frame);
    if (!(flags & 1)) fail('GSO without partial checksum', frame);
    if (v.getUint16(2, true) !== ETH + ipBytes + headerBytes) fail('GSO hdrLen', frame);
    if (gsoSize === 0 || payloadBytes <= gsoSize)
      fail(`GSO size ${gsoSize} for ${payloadBytes} bytes`, frame);
    if (frame[t + 13]! & (Syn | Rst | Urg)) fail('GSO with SYN, RST or URG', frame);
  }
  const options: TcpOptionsModel = {};
  for (let i = t + 20; i < t + headerBytes; ) {
    const kind = frame[i]!;
    if (kind === 0) break;
    if (kind === 1) {
      i++;
      continue;
    }
    const size = frame[i + 1]!;
    if (size < 2 || i + size > t + headerBytes) fail('TCP option length', frame);
    if (kind === 2) options.mss = v.getUint16(i + 2);
    else if (kind === 3) options.wscale = frame[i + 2]!;
    else if (kind === 4) options.sackPermitted = true;
    else if (kind === 8) options.timestamps = [v.getUint32(i + 2), v.getUint32(i + 6)];
    else if (kind === 5) {
      options.sack = [];
      for (let b = i + 2; b < i + size; b += 8) options.sack.push([v.getUint32(b), v.getUint32(b + 4)]);
    } else fail(`TCP option ${kind}`, frame);
    i += size;
  }
  const tcp: Segment = {
    srcPort: v.getUint16(t),
    dstPort: v.getUint16(t + 2),
    seq: v.getUint32(t + 4),
    ack: v.getUint32(t + 8),
    flags: frame[t + 13]!,
    window: v.getUint16(t + 14),
    urgent: v.getUint16(t + 18),
    options,
    payload: frame.slice(t + headerBytes),
  };
  return { ...base, tcp, body: new Uint8Array(0) };
}

export const segment = (fields: Partial<Segment> & { flags: number }): Segment => ({
  srcPort: 40000,
  dstPort: 80,
  seq: 0,
  ack: 0,
  window: 65535,
  urgent: 0,
  options: {},
  payload: new Uint8Array(0),
  ...fields,
});

const NAMES: readonly [number, string][] = [
  [Syn, 'SYN'],
  [Fin, 'FIN'],
  [Rst, 'RST'],
  [Psh, 'PSH'],
  [Ack, 'ACK'],
  [Urg, 'URG'],
];
export const flagNames = (flags: number): string =>
  NAMES.filter(([bit]) => flags & bit)
    .map(([, name]) => name)
    .join(',');
