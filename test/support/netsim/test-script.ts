/** A Script for one test: closed by itself when that test has ended, passed or failed. */
import { onTestFinished } from 'vitest';
import { Script, type ScriptOptions } from './script.ts';

/** Open a Script; to be called within a test. */
export function script(options: ScriptOptions = {}): Script {
  const t = new Script(options);
  onTestFinished(() => t.close());
  return t;
}
