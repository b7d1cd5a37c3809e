/**
 * Colours of the charts, for light and dark pages: those of Okabe and Ito, which colour-blind readers can
 * distinguish, and brighter ones on dark ground. Kinds of tools keep their colours in all reports. Pure.
 */
import type { PeerInfo, PeerKind } from '../result.ts';

export interface Colour {
  readonly light: string;
  readonly dark: string;
  /** Pattern of a line, as stroke-dasharray has it; '': solid. */
  readonly dashes: string;
}

const ORANGE_RED = { light: '#D55E00', dark: '#FF8A3D' };
const BLUE = { light: '#0072B2', dark: '#4BA3E3' };
const GREEN = { light: '#009E73', dark: '#2FC797' };
const PURPLE = { light: '#B0528A', dark: '#E29AC6' };
const SKY = { light: '#3A93C4', dark: '#9FDBFA' };
const AMBER = { light: '#B97A00', dark: '#F3C04B' };
const GREY = { light: '#8C8C8C', dark: '#9A9A9A' };
const BROWN = { light: '#7A3B10', dark: '#D9B08C' };

const OF_KIND: Readonly<Record<PeerKind, readonly { readonly light: string; readonly dark: string }[]>> = {
  direct: [GREY],
  bucatini: [ORANGE_RED, AMBER, BROWN, PURPLE],
  pasta: [BLUE, SKY],
  slirp4netns: [GREEN, PURPLE],
  bypass4netns: [PURPLE],
};
/** Of the first, second ... peer of a kind: lines can be told apart without colours. */
const DASHES: Readonly<Record<PeerKind, readonly string[]>> = {
  direct: ['2 3'],
  bucatini: ['', '12 3'],
  pasta: ['7 3', '4 2'],
  slirp4netns: ['9 3 2 3', '9 3 2 3 2 3'],
  bypass4netns: ['1 2'],
};

/** A colour for each peer, in their order. */
export function peerColours(peers: readonly Pick<PeerInfo, 'kind'>[]): Colour[] {
  return peers.map(({ kind }, i) => {
    const before = peers.slice(0, i).filter((peer) => peer.kind === kind).length;
    const colours = OF_KIND[kind];
    const dashes = DASHES[kind];
    return { ...(colours[before % colours.length] ?? GREY), dashes: dashes[before % dashes.length] ?? '' };
  });
}

/** Colours of lines that are not peers. */
export const LINE_COLOURS: readonly Colour[] = [ORANGE_RED, BLUE, GREEN, PURPLE, AMBER, SKY].map(
  (colour) => ({ ...colour, dashes: '' }),
);
