// bundle: front-end pesto
/**
 * Entry of the `pesto` front end, a client of the control socket of `pasta` (-c), ours or passt's. The exit
 * status is 0 when the server has put all in force, 1 for every error, with its reason on standard error. Only
 * our pasta reports ports that it could not open (control-codec.ts).
 */
import { enterProgram, ownVersion } from '../../process/entry.ts';
import { print, put } from '../../process/output.ts';
import { ownArguments } from '../../process/own-texts.ts';
import { parsePesto } from './options.ts';

/** @returns the exit status. @throws Error with the message for the user */
async function main(argv: readonly string[]): Promise<number> {
  const parsed = parsePesto(argv);
  if (parsed.kind === 'go') return (await import('./client.ts')).configure(parsed);
  const { usageText, versionText } = await import('./texts.ts');
  if (parsed.kind === 'usage') {
    put(2, `pesto: ${parsed.error}\n${usageText()}`);
    return 1;
  }
  print(parsed.kind === 'help' ? usageText() : versionText(ownVersion()));
  return 0;
}

enterProgram('pesto', false);
main(ownArguments()).then(
  (status) => process.exit(status),
  (error: Error) => {
    put(2, `${error.message}\n`);
    process.exit(1);
  },
);
