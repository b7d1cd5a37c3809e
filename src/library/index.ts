/**
 * The library: `import { createNetwork } from 'bucatini'`. What this file exports is the package's public
 * surface, under semantic versioning; everything else may change at any time.
 *
 * The library is a client. It starts `bucatini run` of its own package and talks to its API socket
 * (engine.ts), so this process needs no privileges and no native code, and a fault of the engine cannot touch
 * it. It runs on Node from version 20 on, and on Bun; so it may use only what both have (no
 * Promise.withResolvers).
 */
export type { Capture, CaptureOptions } from './capture.ts';
export { BucatiniError, type ErrorCode } from './error.ts';
export {
  type AddressInfo,
  type Counters,
  createNetwork,
  type Flow,
  type ImpairmentState,
  type Network,
  type NetworkInfo,
  type PublishedPort,
  type PublishOptions,
  type Stats,
} from './network.ts';
export type { Impairment, LineSection, LineSettings, NetworkOptions, OneOrMore } from './options.ts';
export type { Exit, NetworkProcess, RunOptions, RunResult, SpawnOptions } from './process.ts';
