// bundle: rare
/** `--metrics` of a front end: the server, and the engine whose figures it serves. */
import { EngineReporter } from '../api/engine-report.ts';
import type { ListenAddress } from '../cli/listen-address.ts';
import type { Log } from '../host/log.ts';
import type { MetricsEndpoint } from '../host/start.ts';
import { familiesOf } from './families.ts';
import { MetricsServer } from './http-server.ts';

/** As in the exported `bucatini_build_info`. */
export interface Exporter {
  readonly program: string;
  readonly version: string;
}

/**
 * Listen, in the network namespace of the host: call it before the main thread moves (host/netns.ts).
 * Requests wait until there is an engine.
 * @throws UsageError
 */
export async function openMetrics(to: ListenAddress, about: Exporter, log: Log): Promise<MetricsEndpoint> {
  const reporter = Promise.withResolvers<EngineReporter>();
  const server = new MetricsServer({
    families: async () => familiesOf(await (await reporter.promise).report()),
    onError: (error) => log('warning', `--metrics: ${error.message}`),
  });
  await server.listen(to, '--metrics');
  return {
    serve: (engine, switched) => reporter.resolve(new EngineReporter(engine, { ...about, switched })),
    directories: server.directories,
    close: () => server.close(),
  };
}
