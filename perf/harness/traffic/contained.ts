/**
 * Programs in a container from outside it. A seccomp filter comes by inheritance: a program that enters the
 * container's namespaces with nsenter(1) has none. So a process of the container starts the programs.
 *
 * usage: contained.ts serve SOCKET           starts programs for others, prints "listening"
 *        contained.ts run SOCKET ARGV...     has ARGV started: its output, its status; signals are passed on,
 *                                            and the program is killed when this process ends
 *        contained.ts filtered AGENT ARGV... executes ARGV under a filter for bypass4netns, which listens at AGENT
 *
 * One connection for each program, lines of JSON: a list of words to the server, then {signal}; back {out} and
 * {err} with text, and {status}.
 */
import { spawn } from 'node:child_process';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { executeFiltered } from './filtered.ts';

/** The signals that the harness sends to its programs. */
const PASSED_ON = ['SIGTERM', 'SIGINT', 'SIGUSR2'] as const;

const NOT_STARTED = 127;

interface Reply {
  readonly out?: string;
  readonly err?: string;
  readonly status?: number;
}

function serveOne(client: Socket): void {
  const answer = (reply: Reply): boolean => client.write(`${JSON.stringify(reply)}\n`);
  const lines = createInterface({ input: client });
  client.on('error', () => {});
  lines.once('line', (first) => {
    const [program = '', ...args] = JSON.parse(first) as string[];
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.setEncoding('utf8').on('data', (out: string) => answer({ out }));
    child.stderr.setEncoding('utf8').on('data', (err: string) => answer({ err }));
    child.on('error', ({ message }) => answer({ err: `${message}\n` }));
    child.on('close', (status) => {
      // null: a signal ended it; negative: it could not be started.
      answer({ status: status === null ? 1 : status < 0 ? NOT_STARTED : status });
      client.end();
    });
    lines.on('line', (line) => child.kill((JSON.parse(line) as { signal: NodeJS.Signals }).signal));
    client.on('close', () => child.kill('SIGKILL'));
  });
}

function serve(path: string): void {
  createServer(serveOne).listen(path, () => process.stdout.write('listening\n'));
}

function run(path: string, argv: readonly string[]): void {
  const server = connect(path, () => server.write(`${JSON.stringify(argv)}\n`));
  server.on('error', ({ message }) => {
    process.stderr.write(`the container is gone: ${message}\n`);
    process.exitCode = 1;
  });
  process.exitCode = 1; // unless the program's status comes
  createInterface({ input: server }).on('line', (line) => {
    const { out, err, status } = JSON.parse(line) as Reply;
    if (out !== undefined) process.stdout.write(out);
    if (err !== undefined) process.stderr.write(err);
    if (status !== undefined) process.exitCode = status;
  });
  for (const signal of PASSED_ON) process.on(signal, () => server.write(`${JSON.stringify({ signal })}\n`));
}

const [mode, path = '', ...argv] = process.argv.slice(2);
if (mode === 'serve') serve(path);
else if (mode === 'run') run(path, argv);
else if (mode === 'filtered') executeFiltered(path, argv);
else throw new Error('usage: contained.ts serve|run|filtered SOCKET [ARGV...]');
