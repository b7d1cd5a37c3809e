// bundle: boot
/**
 * Our own command line and environment without loss: the runtimes replace bytes that are not valid UTF-8, and
 * COMMAND has to get them as they are. Loaded before all other modules.
 */
import { readFileSync } from 'node:fs';
import { bytesOfText, REPLACEMENT, textsOfBytes } from '../../sys/byte-text.ts';

/** The texts of a file in /proc/self; none without /proc. */
function textsOf(file: string): readonly string[] {
  try {
    const bytes = readFileSync(`/proc/self/${file}`);
    const texts = textsOfBytes(bytes);
    bytes.fill(0); // an environment has secrets of its owner
    return texts;
  } catch {
    return [];
  }
}

/** The words after the program's name. Invalid bytes in them are as in sys/byte-text.ts. */
export function ownArguments(): readonly string[] {
  const words = process.argv.slice(2);
  if (!words.some((word) => word.includes(REPLACEMENT))) return words;
  const all = textsOf('cmdline');
  return all.length > words.length ? all.slice(-words.length) : words;
}

/** Our environment, a copy. Invalid bytes in it are as in sys/byte-text.ts. */
export function ownEnvironment(): NodeJS.ProcessEnv {
  const env = { ...process.env };
  if (!Object.entries(env).some(([name, value]) => `${name}${value}`.includes(REPLACEMENT))) return env;
  // Only what was replaced: variables may have been changed or deleted since our start.
  const replaced = { ...env };
  for (const entry of textsOf('environ')) {
    if (entry.isWellFormed()) continue;
    const nameEnd = entry.indexOf('=');
    if (nameEnd <= 0) continue;
    const [name, value] = [entry.slice(0, nameEnd), entry.slice(nameEnd + 1)];
    const shown = bytesOfText(name).toString(); // as the runtime decoded it
    if (replaced[shown] === undefined) continue;
    if (shown !== name) delete env[shown];
    env[name] = value;
  }
  return env;
}
