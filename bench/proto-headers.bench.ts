/**
 * Cost of the header codecs per packet: reading all headers of a frame as a shard does, and writing those of
 * a packet to the guest. One operation is one packet.
 */
import Benchmark from 'benchmark';
import { addressRead, addressSetIpv4, addressWrite } from '../src/proto/address.ts';
import { writeU16 } from '../src/proto/be.ts';
import { foldSum, pseudoSum4, pseudoSum6At } from '../src/proto/checksum.ts';
import { ETH_BYTES, EtherType, etherType, etherWrite } from '../src/proto/ethernet.ts';
import {
  IPV4_MIN_BYTES,
  IpProtocol,
  Ipv4Flag,
  ipv4Dst,
  ipv4HeaderBytes,
  ipv4IsFragment,
  ipv4Protocol,
  ipv4Src,
  ipv4TotalLen,
  ipv4Write,
} from '../src/proto/ipv4.ts';
import {
  IPV6_BYTES,
  IPV6_DST,
  IPV6_OUT_WORDS,
  IPV6_SRC,
  Ipv6Out,
  ipv6HeaderBytes,
  ipv6PayloadLen,
  ipv6Upper,
  ipv6Write,
} from '../src/proto/ipv6.ts';
import {
  newTcpOptions,
  TCP_CHECKSUM,
  TcpFlag,
  tcpAck,
  tcpDstPort,
  tcpFlags,
  tcpHeaderBytes,
  tcpOptions,
  tcpSeq,
  tcpSrcPort,
  tcpSynOptionsWrite,
  tcpWindow,
  tcpWrite,
} from '../src/proto/tcp.ts';
import { UDP_BYTES, udpHeaderBytes, udpLength, udpWrite } from '../src/proto/udp.ts';
import { VNET_BYTES, VnetFlag, VnetGso, vnetCheck, vnetGsoType, vnetWrite } from '../src/proto/vnethdr.ts';
import { ops, sink } from './ops.ts';

const SLOT_BYTES = 2048;
const SLOTS = 512;
const GUEST = 0x0a000264;
const PEER = 0xc0000201;
const PAYLOAD = 1448;

/** The suite. One long function: the members share the state that is set up in front of the list. */
export function build(): Benchmark.Suite {
  const pool = new Uint8Array(new SharedArrayBuffer(SLOTS * SLOT_BYTES));
  const guestMac = Uint8Array.of(2, 0, 0x5e, 0x10, 0, 1);
  const ourMac = Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55);
  const words = new Uint32Array(8);
  const out = new Int32Array(IPV6_OUT_WORDS);
  const options = newTcpOptions();
  const addresses6 = Uint32Array.of(0xfd000000, 0, 0, 0x64, 0x20010db8, 0, 0, 1);

  const writeTcp4 = (at: number, seq: number, optionBytes: number, flags: number): void => {
    const tcpBytes = 20 + optionBytes;
    const ipAt = at + VNET_BYTES + ETH_BYTES;
    const tcpAt = ipAt + IPV4_MIN_BYTES;
    const csumStart = ETH_BYTES + IPV4_MIN_BYTES;
    vnetWrite(
      pool,
      at,
      VnetFlag.needsCsum,
      VnetGso.tcpv4,
      csumStart + tcpBytes,
      PAYLOAD,
      csumStart,
      TCP_CHECKSUM,
    );
    etherWrite(pool, at + VNET_BYTES, guestMac, ourMac, EtherType.ipv4);
    const totalBytes = IPV4_MIN_BYTES + tcpBytes + PAYLOAD;
    ipv4Write(pool, ipAt, totalBytes, IpProtocol.tcp, PEER, GUEST, 64, 0, Ipv4Flag.dontFragment);
    tcpWrite(pool, tcpAt, 80, 50000, seq, 77, tcpBytes, flags, 65535);
    writeU16(pool, tcpAt + TCP_CHECKSUM, foldSum(pseudoSum4(PEER, GUEST, IpProtocol.tcp, totalBytes - 20)));
  };

  const writeTcp6 = (at: number, seq: number): void => {
    const ipAt = at + VNET_BYTES + ETH_BYTES;
    const tcpAt = ipAt + IPV6_BYTES;
    const csumStart = ETH_BYTES + IPV6_BYTES;
    vnetWrite(pool, at, VnetFlag.needsCsum, VnetGso.tcpv6, csumStart + 20, PAYLOAD, csumStart, TCP_CHECKSUM);
    etherWrite(pool, at + VNET_BYTES, guestMac, ourMac, EtherType.ipv6);
    ipv6Write(pool, ipAt, 20 + PAYLOAD, IpProtocol.tcp, 64, 0);
    addressWrite(pool, ipAt + IPV6_SRC, addresses6, 0);
    addressWrite(pool, ipAt + IPV6_DST, addresses6, 4);
    tcpWrite(pool, tcpAt, 80, 50000, seq, 77, 20, TcpFlag.ack, 65535);
    const pseudo = pseudoSum6At(pool, ipAt + IPV6_SRC, ipAt + IPV6_DST, IpProtocol.tcp, 20 + PAYLOAD);
    writeU16(pool, tcpAt + TCP_CHECKSUM, foldSum(pseudo));
  };

  const writeUdp4 = (at: number, ident: number): void => {
    const ipAt = at + VNET_BYTES + ETH_BYTES;
    const udpAt = ipAt + IPV4_MIN_BYTES;
    vnetWrite(pool, at, VnetFlag.needsCsum, VnetGso.none, 0, 0, ETH_BYTES + IPV4_MIN_BYTES, 6);
    etherWrite(pool, at + VNET_BYTES, guestMac, ourMac, EtherType.ipv4);
    ipv4Write(pool, ipAt, 28 + PAYLOAD, IpProtocol.udp, PEER, GUEST, 64, ident, 0);
    udpWrite(pool, udpAt, 53, 40000, UDP_BYTES + PAYLOAD);
    writeU16(pool, udpAt + 6, foldSum(pseudoSum4(PEER, GUEST, IpProtocol.udp, UDP_BYTES + PAYLOAD)));
  };

  /**
   * Check a frame and read every field that a shard reads.
   * @returns a digest of the fields, negative on errors
   */
  const read = (at: number, frameBytes: number): number => {
    if (vnetCheck(pool, at, frameBytes) < 0) return -1;
    const ipAt = at + VNET_BYTES + ETH_BYTES;
    const ipAvail = frameBytes - ETH_BYTES;
    let upperAt: number;
    let upperBytes: number;
    let protocol: number;
    if (etherType(pool, at + VNET_BYTES) === EtherType.ipv4) {
      const headerBytes = ipv4HeaderBytes(pool, ipAt, ipAvail);
      if (headerBytes < 0 || ipv4IsFragment(pool, ipAt)) return -2;
      addressSetIpv4(words, 0, ipv4Src(pool, ipAt));
      addressSetIpv4(words, 4, ipv4Dst(pool, ipAt));
      upperAt = ipAt + headerBytes;
      upperBytes = ipv4TotalLen(pool, ipAt) - headerBytes;
      protocol = ipv4Protocol(pool, ipAt);
    } else {
      if (ipv6HeaderBytes(pool, ipAt, ipAvail) < 0 || ipv6Upper(pool, ipAt, ipAvail, out) < 0) return -3;
      addressRead(pool, ipAt + IPV6_SRC, words, 0);
      addressRead(pool, ipAt + IPV6_DST, words, 4);
      upperAt = ipAt + out[Ipv6Out.upperAt]!;
      upperBytes = IPV6_BYTES + ipv6PayloadLen(pool, ipAt) - out[Ipv6Out.upperAt]!;
      protocol = out[Ipv6Out.protocol]!;
    }
    if (protocol === IpProtocol.udp) {
      if (udpHeaderBytes(pool, upperAt, upperBytes) < 0) return -4;
      return (udpLength(pool, upperAt) ^ tcpSrcPort(pool, upperAt) ^ tcpDstPort(pool, upperAt)) & 0xffff;
    }
    const tcpBytes = tcpHeaderBytes(pool, upperAt, upperBytes);
    if (tcpBytes < 0) return -5;
    if (tcpBytes > 20) tcpOptions(pool, upperAt, tcpBytes, options);
    const digest =
      tcpSeq(pool, upperAt) ^
      tcpAck(pool, upperAt) ^
      tcpFlags(pool, upperAt) ^
      tcpWindow(pool, upperAt) ^
      ((tcpSrcPort(pool, upperAt) << 16) | tcpDstPort(pool, upperAt)) ^
      vnetGsoType(pool, at) ^
      words[3]!;
    return digest & 0x7fffffff;
  };

  const suite = new Benchmark.Suite('proto-headers');
  const kinds: Record<string, { fill: (at: number, i: number) => void; frameBytes: number }> = {
    'TCP over IPv4': { fill: (at, i) => writeTcp4(at, i, 0, TcpFlag.ack), frameBytes: 54 + PAYLOAD },
    'SYN with options over IPv4': {
      fill: (at, i) => {
        const optionBytes = tcpSynOptionsWrite(pool, at + VNET_BYTES + 54, 1460, 7, true);
        writeTcp4(at, i, optionBytes, TcpFlag.syn);
      },
      frameBytes: 66 + PAYLOAD,
    },
    'TCP over IPv6': { fill: writeTcp6, frameBytes: 74 + PAYLOAD },
    'UDP over IPv4': { fill: writeUdp4, frameBytes: 42 + PAYLOAD },
  };
  const fillAll = (fill: (at: number, i: number) => void): void => {
    for (let i = 0; i < SLOTS; i++) fill(i * SLOT_BYTES, i);
  };
  for (const [name, { fill, frameBytes }] of Object.entries(kinds)) {
    suite.add(`write ${name}`, () => fillAll(fill), ops(SLOTS));
    suite.add(
      `read ${name}`,
      () => {
        let x = 0;
        for (let i = 0; i < SLOTS; i++) x ^= read(i * SLOT_BYTES, frameBytes);
        sink.value ^= x;
      },
      {
        ...ops(SLOTS),
        onStart: () => {
          fillAll(fill);
          const result = read(0, frameBytes);
          if (result < 0) throw new Error(`${name}: the written frame is refused: ${result}`);
        },
      },
    );
  }
  return suite;
}
