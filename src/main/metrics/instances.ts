// bundle: rare
/** Metrics of the instances of this user, asked by their API sockets, with labels that tell them apart. */

import { ApiError, askApi } from '../api/client.ts';
import { type EngineReport, readReport } from '../api/engine-report.ts';
import { INFO_LIMIT_MS, type Instance, namedInstances } from '../api/instances.ts';
import { findContainers } from './containers.ts';
import { type Family, familiesOfInstances, type Labels, type Reported, shortProgram } from './families.ts';

export interface Collected {
  readonly families: readonly Family[];
  /** One line for each instance that has not answered. */
  readonly problems: readonly string[];
}

interface Answer {
  readonly instance: Instance;
  readonly report?: EngineReport;
  readonly problem?: string;
}

/**
 * Ask the instances, all at the same time.
 * @param operands  as for namedInstances()
 * @throws ApiError for a process id that no instance has
 */
export async function collect(operands: readonly string[]): Promise<Collected> {
  const found = await namedInstances(operands);
  // A socket that is named twice, or by its path and its process id.
  const byPath = new Map(found.map((instance) => [instance.path, instance]));
  const answers = await Promise.all(Array.from(byPath.values(), ask));
  const containers = findContainers();
  const labelled = answers.map(({ instance, report }): Reported => {
    const container = report?.namespace === undefined ? undefined : containers.get(report.namespace);
    return {
      labels: labelsOf(instance, report, container?.name),
      ...(report && { report }),
      ...(container && { containerId: container.id }),
    };
  });
  return {
    families: familiesOfInstances(distinct(labelled, answers)),
    problems: answers.flatMap(({ instance, problem }) =>
      problem === undefined ? [] : `${instance.path}: ${problem}`,
    ),
  };
}

async function ask(instance: Instance): Promise<Answer> {
  if (instance.problem !== undefined) return { instance, problem: instance.problem };
  try {
    const report = readReport(
      await askApi(instance.path, 'metrics', undefined, { timeoutMs: INFO_LIMIT_MS }),
    );
    return report === undefined
      ? { instance, problem: 'its answer is not understood' }
      : { instance, report };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { instance, problem: error.message };
  }
}

function labelsOf(
  instance: Instance,
  report: EngineReport | undefined,
  container: string | undefined,
): Labels {
  const program = report === undefined ? instance.program : shortProgram(report.program);
  return {
    pid: String(report?.pid ?? instance.pid),
    program,
    ...(container !== undefined && { container }),
  };
}

/**
 * Two instances may have one process id, in different PID namespaces: then they get a label for their socket.
 */
function distinct(labelled: readonly Reported[], answers: readonly Answer[]): readonly Reported[] {
  const key = ({ labels }: Reported): string => JSON.stringify(labels);
  const counts = Map.groupBy(labelled, key);
  return labelled.map((one, i) =>
    counts.get(key(one))!.length === 1
      ? one
      : { ...one, labels: { ...one.labels, api_socket: answers[i]!.instance.path } },
  );
}
