// bundle: rare
/** What the keys of `bucatini top` do to its view. Pure. */
import { SORT_KEYS } from '../options.ts';
import type { TopView } from './screen.ts';

/** A key as node:readline names it; `text` is what was typed. */
export interface TopKey {
  readonly name?: string | undefined;
  readonly ctrl?: boolean | undefined;
  readonly shift?: boolean | undefined;
  readonly text: string;
}

export interface KeyContext {
  /** Paths of the instances, in their order. */
  readonly paths: readonly string[];
  /** Rows of flows on a screen, and the largest useful TopView.scroll. */
  readonly pageRows: number;
  readonly maxScroll: number;
}

/** Longest filter. */
const MAX_FILTER = 200;

/** @returns the new view, or what the program has to do */
export function onKey(view: TopView, key: TopKey, context: KeyContext): TopView | 'quit' | 'suspend' {
  if (key.ctrl && key.name === 'c') return 'quit';
  if (key.ctrl && key.name === 'z') return 'suspend';
  if (view.typed !== undefined) return onFilterKey(view, view.typed, key);
  const scrollTo = (scroll: number): TopView => ({
    ...view,
    scroll: Math.max(0, Math.min(context.maxScroll, scroll)),
  });
  switch (key.name) {
    case 'up':
      return scrollTo(view.scroll - 1);
    case 'down':
      return scrollTo(view.scroll + 1);
    case 'pageup':
      return scrollTo(view.scroll - context.pageRows);
    case 'pagedown':
      return scrollTo(view.scroll + context.pageRows);
    case 'home':
      return scrollTo(0);
    case 'end':
      return scrollTo(context.maxScroll);
    case 'escape':
      return { ...view, help: false, filter: '' };
    case 'tab':
      return chooseNext(view, context.paths, key.shift ? -1 : 1);
    default:
  }
  switch (key.text) {
    case 'q':
      return 'quit';
    case 's':
    case 'S': {
      const at = SORT_KEYS.indexOf(view.sort) + (key.text === 's' ? 1 : SORT_KEYS.length - 1);
      return { ...view, sort: SORT_KEYS[at % SORT_KEYS.length]!, scroll: 0 };
    }
    case 'r':
      return { ...view, reversed: !view.reversed };
    case '/':
      return { ...view, typed: view.filter, help: false };
    case 'p':
    case ' ':
      return { ...view, paused: !view.paused };
    case 'n':
      return chooseNext(view, context.paths, 1);
    case 'N':
      return chooseNext(view, context.paths, -1);
    case 'h':
    case '?':
      return { ...view, help: !view.help };
    default:
      return view;
  }
}

function onFilterKey(view: TopView, typed: string, key: TopKey): TopView {
  const { typed: _, ...rest } = view;
  switch (key.name) {
    case 'return':
    case 'enter':
      return { ...rest, filter: typed, scroll: 0 };
    case 'escape':
      return { ...rest, filter: '', scroll: 0 };
    case 'backspace':
      return { ...view, typed: typed.slice(0, -1), scroll: 0 };
    default:
  }
  if (key.ctrl && key.name === 'u') return { ...view, typed: '', scroll: 0 };
  if (key.ctrl || !/^[\x20-\x7e]+$/.test(key.text)) return view;
  return { ...view, typed: (typed + key.text).slice(0, MAX_FILTER), scroll: 0 };
}

/** All instances, then each one alone, then all again. */
function chooseNext(view: TopView, paths: readonly string[], step: number): TopView {
  const { chosen, ...rest } = view;
  const count = paths.length + 1;
  const at = chosen === undefined ? 0 : paths.indexOf(chosen) + 1;
  const path = paths[((at + step + count) % count) - 1];
  return { ...rest, scroll: 0, ...(path !== undefined && { chosen: path }) };
}
