/**
 * The attacks of the arena: their programs (attacker.ts) and where these run, the number of peers, and their
 * target.
 */
import { HOST4, PEER4 } from '../../support/ports.ts';

/** Ports that arena.ts publishes. */
const HOST_PORT = 8080;
const GUEST_PORT = 80;
const PEER_PORT = 7001;
/** An unused address of the peer's network: a SYN to it is not answered. */
const NOBODY4 = '10.77.0.77';

export interface Program {
  readonly side: 'guest' | 'peer';
  /** Arguments of attacker.ts. */
  readonly argv: readonly (string | number)[];
}

export interface Attack {
  readonly about: string;
  /** Peers of a quick run. */
  readonly quick: number;
  /** Its programs in the order in which they start. */
  programs(size: number, resolver: string): readonly Program[];
}

const attacks = {
  'idle-readers': {
    about: 'clients of a published port that ask for much and never read',
    quick: 100,
    programs: (size) => [
      { side: 'guest', argv: ['firehose', GUEST_PORT] },
      { side: 'peer', argv: ['idle-readers', HOST4, HOST_PORT, size] },
    ],
  },
  uploads: {
    about: 'uploads from inside to a server that never reads',
    quick: 100,
    programs: (size) => [
      { side: 'peer', argv: ['sink', PEER_PORT] },
      { side: 'guest', argv: ['uploads', PEER4, PEER_PORT, size] },
    ],
  },
  'idle-readers-inside': {
    about: 'clients inside that ask the world for much and never read',
    quick: 100,
    programs: (size) => [
      { side: 'peer', argv: ['firehose', PEER_PORT] },
      { side: 'guest', argv: ['idle-readers', PEER4, PEER_PORT, size] },
    ],
  },
  'uploads-inwards': {
    about: 'uploads through a published port to a server inside that never reads',
    quick: 100,
    programs: (size) => [
      { side: 'guest', argv: ['sink', GUEST_PORT] },
      { side: 'peer', argv: ['uploads', HOST4, HOST_PORT, size] },
    ],
  },
  resets: {
    about: 'connections to a published port that are reset at once',
    quick: 20,
    programs: (size) => [
      { side: 'guest', argv: ['sink', GUEST_PORT] },
      { side: 'peer', argv: ['resets', HOST4, HOST_PORT, size] },
    ],
  },
  'resets-inside': {
    about: 'connections from inside that are reset at once',
    quick: 20,
    programs: (size) => [
      { side: 'peer', argv: ['sink', PEER_PORT] },
      { side: 'guest', argv: ['resets', PEER4, PEER_PORT, size] },
    ],
  },
  'half-open': {
    about: 'SYNs from inside to an address that does not answer',
    quick: 10_000,
    programs: (size) => [{ side: 'guest', argv: ['half-open', NOBODY4, size] }],
  },
  'udp-peers': {
    about: 'one UDP socket inside that speaks to more peers than the table has flows',
    quick: 40_000,
    programs: (size) => [{ side: 'guest', argv: ['udp-peers', PEER4, size] }],
  },
  'udp-sources': {
    about: 'datagrams to a published UDP port from more sources than the table has flows',
    quick: 40_000,
    programs: (size) => [{ side: 'peer', argv: ['udp-sources', HOST4, HOST_PORT, size] }],
  },
  dns: {
    about: 'questions that no resolver answers',
    quick: 1000,
    programs: (size, resolver) => [{ side: 'guest', argv: ['dns', resolver, size] }],
  },
} as const satisfies Readonly<Record<string, Attack>>;

export type AttackName = keyof typeof attacks;
export const ATTACKS: Readonly<Record<AttackName, Attack>> = attacks;
export const ATTACK_NAMES = Object.keys(attacks) as AttackName[];
