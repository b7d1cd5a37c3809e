// bundle: rare
/**
 * The terminal of `bucatini top`: another screen buffer, raw input, and both given back however the program
 * ends or stops. Only ANSI sequences that every terminal of the last decades has (ECMA-48, and DEC private
 * modes 25 and 1049).
 *
 *   end                             given back by
 *   q, an exception                 close()
 *   process.exit                    the handler of 'exit'
 *   SIGINT, SIGTERM, SIGHUP ...     handlers that end the process with 128 + N
 *   ^Z, SIGTSTP                     before the process stops itself; SIGCONT takes the terminal again
 *   output that fails (EPIPE)       'exit': nothing is left to write to
 *   SIGKILL                         nobody: `reset` does
 */
import { writeSync } from 'node:fs';
import { constants as os } from 'node:os';
import { emitKeypressEvents, type Key } from 'node:readline';
import type { LineStyle, ScreenLine, ScreenSize } from './screen.ts';

const CLEAR = '\x1b[H\x1b[2J';
const ENTER = `\x1b[?1049h\x1b[?25l${CLEAR}`;
const LEAVE = '\x1b[0m\x1b[?25h\x1b[?1049l';
const END_OF_LINE = '\x1b[K';

/** SGR sequences, with colour and without. */
const SGR: Readonly<Record<LineStyle, readonly [colour: string, plain: string]>> = {
  title: ['\x1b[1m', ''],
  head: ['\x1b[7m', ''],
  alert: ['\x1b[31m', ''],
  plain: ['', ''],
  foot: ['\x1b[2m', ''],
};

const ENDING_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
const DEFAULT_SIZE: ScreenSize = { columns: 80, rows: 24 };

export interface TerminalEvents {
  onKey(key: Key & { readonly text: string }): void;
  /** The size has changed, or the terminal was taken again: draw everything. */
  onRedraw(): void;
}

export class Screen {
  readonly #colour: boolean;
  readonly #events: TerminalEvents;
  /** The lines that the terminal shows, with their sequences, and its size when they were drawn. */
  #shown: string[] = [];
  #drawn: ScreenSize = DEFAULT_SIZE;
  #taken = false;

  /** @param colour  whether any attribute may be used */
  constructor(colour: boolean, events: TerminalEvents) {
    this.#colour = colour;
    this.#events = events;
  }

  get size(): ScreenSize {
    const [columns, rows] = process.stdout.getWindowSize?.() ?? [];
    // A serial line reports 0.
    return { columns: columns || DEFAULT_SIZE.columns, rows: rows || DEFAULT_SIZE.rows };
  }

  /** Take the terminal, and listen to keys and signals. */
  open(): void {
    process.on('exit', () => this.close());
    for (const name of ENDING_SIGNALS) process.on(name, () => process.exit(128 + os.signals[name]));
    process.on('SIGTSTP', () => this.suspend());
    process.on('SIGCONT', () => this.#take());
    process.stdout.on('resize', () => this.#events.onRedraw());
    // The reader of the output is gone. Nothing can be said to it.
    process.stdout.on('error', () => process.exit(0));
    const { stdin } = process;
    stdin.on('error', () => {});
    stdin.on('end', () => process.exit(0)); // the terminal is gone
    emitKeypressEvents(stdin);
    stdin.on('keypress', (text: string | undefined, key: Key) => {
      this.#events.onKey({ ...key, text: text ?? '' });
    });
    this.#take();
    stdin.resume();
  }

  /** Stop this process as ^Z does for others. */
  suspend(): void {
    this.close();
    process.kill(process.pid, 'SIGSTOP');
  }

  /** Show these lines; only lines that differ from those shown are written. */
  draw(lines: readonly ScreenLine[]): void {
    // A slow connection has not taken the last screen yet: leave this one out.
    if (!this.#taken || process.stdout.writableNeedDrain) return;
    const texts = lines.map(({ text, style }) => {
      const sgr = SGR[style][this.#colour ? 0 : 1];
      return sgr === '' ? text : `${sgr}${text}\x1b[0m`;
    });
    const size = this.size;
    let output = '';
    if (size.columns !== this.#drawn.columns || size.rows !== this.#drawn.rows) {
      // What the terminal makes of the lines at another size is not known.
      output = CLEAR;
      this.#shown = [];
      this.#drawn = size;
    }
    texts.forEach((text, i) => {
      if (text !== this.#shown[i]) output += `\x1b[${i + 1};1H${text}${END_OF_LINE}`;
    });
    for (let i = texts.length; i < this.#shown.length; i++) output += `\x1b[${i + 1};1H${END_OF_LINE}`;
    this.#shown = texts;
    if (output !== '') process.stdout.write(output);
  }

  #take(): void {
    // A shell may have changed the mode while we were stopped: libuv sets it only if it believes it is
    // another.
    this.#raw(false);
    this.#raw(true);
    this.#taken = true;
    this.#shown = [];
    // The size may have changed while we were stopped, or were not the terminal's foreground job, which alone
    // gets SIGWINCH: the runtime asks for the size at that event.
    process.emit('SIGWINCH', 'SIGWINCH');
    process.stdout.write(ENTER);
    this.#events.onRedraw();
  }

  /** Give the terminal back. */
  close(): void {
    if (!this.#taken) return;
    this.#taken = false;
    this.#raw(false);
    try {
      writeSync(1, LEAVE);
    } catch {
      // The terminal is gone.
    }
  }

  #raw(on: boolean): void {
    try {
      process.stdin.setRawMode?.(on);
    } catch {
      // The terminal is gone: 'end' of standard input follows.
    }
  }
}
