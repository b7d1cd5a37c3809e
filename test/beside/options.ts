/**
 * Runs command lines of pasta.txt or slirp4netns.txt with the original program and with ours, in the same
 * namespaces, and compares exit status, standard output and standard error. A person reviews the differences;
 * docs/decisions/080 lists the intended ones. In a line PROG is the program, $DIR an empty directory; `bare`
 * is an interface without addresses.
 *
 * usage: sh scripts/node.sh test/beside/options.ts pasta|slirp4netns ORIGINAL [TEXT...]     lines that contain one of the texts; default: all
 */
import { readFileSync } from 'node:fs';
import { makeBed, succeedIn } from '../support/bed.ts';
import { repoRoot } from '../support/engines.ts';

const TOOLS = ['pasta', 'slirp4netns'];
/** With some lines slirp4netns starts to serve. */
const LINE_SECONDS = 10;
const SHOWN_LINES = 6;

interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Remove text that differs each time, the usage text, which is our own, and repeated lines: both processes of
 * slirp4netns write its buffered output.
 */
function comparable(text: string, program: string): string {
  return [...new Set(text.split('\n'))]
    .join('\n')
    .replaceAll(program, 'PROG')
    .replace(/^Usage: [\s\S]*/m, 'Usage: …\n')
    .replace(/link\/ether [0-9a-f:]{17}/g, 'link/ether MAC')
    .replace(/fe80::[0-9a-f:]+\/64/g, 'fe80::…/64')
    .replace(/valid_lft.*/g, '')
    .replace(/qlen \d+/g, 'qlen …')
    .trimEnd();
}

const [tool = '', original, ...texts] = process.argv.slice(2);
if (!TOOLS.includes(tool) || original === undefined) {
  console.error('options.ts: write pasta or slirp4netns, and the path of an original');
  process.exit(2);
}
const lines = readFileSync(`${repoRoot}/test/beside/${tool}.txt`, 'utf8')
  .split('\n')
  .filter((line) => line !== '' && (texts.length === 0 || texts.some((text) => line.includes(text))));

const bed = await makeBed();
try {
  const dir = `${bed.ramDir}/lines`;
  await succeedIn(bed, 'host', ['ip', 'link', 'add', 'bare', 'type', 'veth']);
  const outcome = async (program: string, line: string): Promise<Outcome> => {
    const script = `rm -rf ${dir}; mkdir ${dir}; DIR=${dir}; ${line.replaceAll('PROG', program)}`;
    const argv = ['timeout', String(LINE_SECONDS), 'sh', '-c', script];
    const { status, stdout, stderr } = await bed.run('host', argv);
    return { status, stdout: comparable(stdout, program), stderr: comparable(stderr, program) };
  };
  let differing = 0;
  for (const line of lines) {
    const theirs = await outcome(original, line);
    const ours = await outcome(`${repoRoot}/bin/${tool}`, line);
    if (JSON.stringify(theirs) === JSON.stringify(ours)) continue;
    differing++;
    console.log(line);
    for (const [name, one, other] of [
      ['original', theirs, ours],
      ['ours', ours, theirs],
    ] as const) {
      console.log(`  ${name}: status ${one.status}`);
      for (const stream of ['stdout', 'stderr'] as const) {
        if (one[stream] === other[stream]) continue;
        const printed = one[stream].split('\n').filter((text) => text.trim() !== '');
        for (const text of printed.slice(0, SHOWN_LINES)) console.log(`    ${stream}: ${text}`);
      }
    }
  }
  console.log(`${lines.length} lines, ${differing} differ`);
} finally {
  await bed.close();
}
process.exit(0);
