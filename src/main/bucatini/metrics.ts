// bundle: rare
/** `bucatini metrics`: metrics of running instances, printed or served. */
import { listenAddressText } from '../cli/listen-address.ts';
import { UsageError } from '../cli/values.ts';
import { say } from '../host/log.ts';
import { exposition } from '../metrics/exposition.ts';
import { MetricsServer } from '../metrics/http-server.ts';
import { collect } from '../metrics/instances.ts';
import { print } from '../process/output.ts';
import type { Settings } from './options.ts';

/**
 * @param operands  process ids and paths of API sockets
 * @returns the exit status: 1 if an instance has not answered
 * @throws UsageError, ApiError or Error with one line for the user
 */
export async function metrics(settings: Settings, operands: readonly string[]): Promise<number> {
  if (settings.all && operands.length > 0)
    throw new UsageError('--all: already means all instances; leave out the operands or --all');
  if (settings.listen !== undefined) return serve(settings.listen, operands);
  const { families, problems } = await collect(operands);
  print(await exposition(families, 'text'));
  for (const problem of problems) say(`metrics: ${problem}`);
  return problems.length === 0 ? 0 : 1;
}

/** Serve until a signal ends it. */
async function serve(to: NonNullable<Settings['listen']>, operands: readonly string[]): Promise<number> {
  const ended = Promise.withResolvers<number>();
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => ended.resolve(0));
  /** Problems of the last request: each is reported once. */
  let known: readonly string[] = [];
  const report = (problems: readonly string[]): void => {
    for (const problem of problems) if (!known.includes(problem)) say(`metrics: ${problem}`);
    known = problems;
  };
  const server = new MetricsServer({
    families: async () => {
      const { families, problems } = await collect(operands);
      report(problems);
      return families;
    },
    onError: (error) => say(`metrics: ${error.message}`),
  });
  await server.listen(to, '--listen');
  const where = to.kind === 'tcp' ? `http://${listenAddressText(to)}/metrics` : listenAddressText(to);
  say(`metrics: serving at ${where}`);
  const status = await ended.promise;
  server.close();
  return status;
}
