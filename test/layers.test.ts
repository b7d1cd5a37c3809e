// @vitest: beside
/**
 * Layers: a file imports only from its own layer or from layers left of it.
 *
 *   proto, ring, runtime < sys < workers, switch < main < library
 *
 * The library runs in other people's processes: of main it imports only the client of the API socket.
 * proto and ring do not import one another, and sys does not import ring. proto imports no package and no
 * Node module. What differs between Node and Bun is in src/runtime: only it imports koffi, piscina, bun:ffi
 * and node:worker_threads, and all others import it as #runtime/NAME. Only the codec of the links knows the
 * layout of a descriptor: no file outside of workers/link/ imports its words.ts.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';

const ROOT = path.resolve(import.meta.dirname, '..');
const SRC = path.join(ROOT, 'src');

/** Packages and modules for which the runtimes have different ones. */
const OF_A_RUNTIME = /^(koffi|piscina|bun|node:worker_threads)(\/|:|$)/;

const LINK_WORDS = 'workers/link/words.ts';

/** What each layer may import besides itself. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  proto: [],
  ring: [],
  runtime: [],
  sys: ['proto', 'runtime'],
  workers: ['proto', 'ring', 'sys', 'runtime'],
  switch: ['proto', 'sys', 'runtime'],
  main: ['proto', 'ring', 'sys', 'workers', 'switch', 'runtime'],
  library: ['main'],
};

const OF_LIBRARY = /^main\/api\/(client|socket-directory)\.ts$/;

/**
 * Folders of a layer that may import only these of its other folders (a layer's own files: '.'). Stages meet
 * at links, so they do not import one another: the reader, translator (the shards), host-io and splice. `tap`
 * has the reader, and the writer to the TAP, which shards use. Front ends do not import one another; no other
 * folder imports them.
 */
const FOLDERS: Record<string, readonly string[]> = {
  'workers/thread': ['workers/.'],
  'workers/flow': ['workers/.'],
  'workers/link': ['workers/.', 'workers/flow'],
  'workers/listen': ['workers/.', 'workers/flow'],
  'workers/capture': ['workers/.', 'workers/link'],
  'workers/shaping': ['workers/.', 'workers/thread'],
  'workers/tap': [
    ...['workers/.', 'workers/thread', 'workers/flow', 'workers/link', 'workers/shaping', 'workers/capture'],
  ],
  'workers/translator': [
    ...['workers/.', 'workers/thread', 'workers/flow', 'workers/link', 'workers/tap', 'workers/shaping'],
    'workers/capture',
  ],
  'workers/host-io': ['workers/.', 'workers/thread', 'workers/flow', 'workers/link', 'workers/listen'],
  'workers/splice': ['workers/.', 'workers/thread', 'workers/flow', 'workers/link', 'workers/listen'],
  'main/process': [],
  'main/cli': ['main/process'],
  'main/switching': ['main/process', 'main/cli', 'main/host'],
  'main/host': ['main/process', 'main/cli', 'main/api', 'main/switching'],
  'main/api': ['main/process', 'main/cli', 'main/host', 'main/switching'],
  'main/metrics': ['main/process', 'main/cli', 'main/host', 'main/api'],
  'main/bucatini': ['main/process', 'main/cli', 'main/host', 'main/api', 'main/metrics', 'main/switching'],
  'main/pasta': ['main/process', 'main/cli', 'main/host', 'main/api', 'main/metrics', 'main/switching'],
  'main/slirp4netns': ['main/process', 'main/cli', 'main/host', 'main/api', 'main/metrics'],
};
const EXCEPTIONS: readonly string[] = [
  // A report on a running instance parses its command line.
  'main/bucatini/bug-report.ts > main/pasta/options.ts',
  'main/bucatini/bug-report.ts > main/slirp4netns/options.ts',
];
/** 'workers/tap' of 'workers/tap/pcap.ts', 'workers/.' of 'workers/engine.ts'. */
const folderOf = (file: string): string => {
  const [layer, folder, inside] = file.split('/');
  return inside === undefined ? `${layer}/.` : `${layer}/${folder}`;
};
/** The files of the reader stage in `tap`; shards may use the others. */
const READER = /^workers\/tap\/(tap-reader|reassembly)\.ts$/;
/** Files directly in workers that assemble stages; stages do not import them. */
const ASSEMBLERS = /^workers\/(assembly|engine|packet-thread|packet-worker)\.ts$/;

/**
 * Module names in `import ... from`, `export ... from`, `import '...'`, `import('...')`, `require('...')`,
 * and modules that a worker is started from: `new URL('./x.ts', ...)`.
 */
function importsOf(source: string): string[] {
  const code = source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '');
  const imports = /(?:\bfrom\s*|\bimport\s*\(\s*|\bimport\s+|\brequire\s*\(\s*)(['"])([^'"\n]+)\1/g;
  const urls = /\bnew\s+URL\s*\(\s*(['"])([^'"\n]+\.[cm]?[jt]s)\1/g;
  return [...code.matchAll(imports), ...code.matchAll(urls)].map((match) => match[2]!);
}

/** Why `file` (relative to src) may not import `name`, or null when it may. */
function breach(file: string, name: string): string | null {
  const layer = file.split('/')[0]!;
  const allowed = MAY_IMPORT[layer];
  if (allowed === undefined) return `src/${file} is in no layer: put it under one of the layers of this test`;
  if (!name.startsWith('.')) {
    if (OF_A_RUNTIME.test(name) && layer !== 'runtime')
      return `src/${file} imports ${name}: only src/runtime may`;
    if (name.startsWith('#runtime/') && !allowed.includes('runtime'))
      return `src/${file} imports ${name}: ${layer} makes no calls`;
    if (layer === 'proto' && !name.startsWith('node:assert')) {
      return `src/${file} imports ${name}: codecs are pure and import only themselves`;
    }
    return null;
  }
  const target = path.posix.normalize(path.posix.join(path.posix.dirname(file), name));
  if (target.startsWith('..')) {
    // package.json holds the version; src imports no other file outside src.
    return target === '../package.json' ? null : `src/${file} imports ${name}: outside src`;
  }
  if (target === LINK_WORDS && path.posix.dirname(file) !== path.posix.dirname(LINK_WORDS)) {
    return `src/${file} imports ${name}: use the writers and accessors of workers/link/`;
  }
  const targetLayer = target.split('/')[0]!;
  if (targetLayer === 'runtime' && layer !== 'runtime')
    return `src/${file} imports ${name}: write #runtime/NAME`;
  if (layer === 'library' && targetLayer === 'main' && !OF_LIBRARY.test(target))
    return `src/${file} imports ${name}: the library is a client of the API socket`;
  if (targetLayer === layer) return breachInside(file, target);
  if (allowed.includes(targetLayer)) return null;
  return `src/${file} imports ${name}: ${layer} may import ${['itself', ...allowed].join(', ')}`;
}

/** The same for folders of one layer. */
function breachInside(file: string, target: string): string | null {
  const folder = folderOf(file);
  const allowed = FOLDERS[folder];
  if (folder === 'workers/translator' && READER.test(target))
    return `src/${file} imports ${target}: a stage imports no stage`;
  if (folder.startsWith('workers/') && folder !== 'workers/.' && ASSEMBLERS.test(target))
    return `src/${file} imports ${target}: stages do not know who assembles them`;
  if (allowed === undefined || folderOf(target) === folder || allowed.includes(folderOf(target))) return null;
  if (EXCEPTIONS.includes(`${file} > ${target}`)) return null;
  return `src/${file} imports ${target}: ${folder} may import ${['itself', ...allowed].join(', ')}`;
}

const files = (readdirSync(SRC, { recursive: true, encoding: 'utf8' }) as string[])
  .filter((file) => /\.[cm]?[jt]s$/.test(file))
  .sort();

describe('layers', () => {
  it('every layer has files to check', () => {
    for (const layer of Object.keys(MAY_IMPORT))
      expect(files.some((file) => file.startsWith(`${layer}/`))).toBe(true);
    expect(files.length).toBeGreaterThan(10);
  });

  it.each(files)('src/%s imports only from layers below', (file) => {
    const breaches = importsOf(readFileSync(path.join(SRC, file), 'utf8'))
      .map((name) => breach(file, name))
      .filter((reason) => reason !== null);
    expect(breaches).toEqual([]);
  });

  it('every file of main is in a folder', () => {
    expect(files.filter((file) => file.startsWith('main/') && FOLDERS[folderOf(file)] === undefined)).toEqual(
      [],
    );
  });

  it('the checker finds forbidden imports between folders', () => {
    expect(breach('workers/splice/splice.ts', '../host-io/context.ts')).toMatch('workers/splice may import');
    expect(breach('workers/translator/shard.ts', '../tap/tap-reader.ts')).toMatch('a stage imports no stage');
    expect(breach('workers/translator/shard.ts', '../tap/guest-link.ts')).toBeNull();
    expect(breach('workers/host-io/host-io.ts', '../assembly.ts')).toMatch('who assembles');
    expect(breach('main/pasta/serve.ts', '../slirp4netns/serve.ts')).toMatch('main/pasta may import');
    expect(breach('main/host/start.ts', '../bucatini/run.ts')).not.toBeNull();
    expect(breach('main/process/signals.ts', '../host/log.ts')).not.toBeNull();
    expect(breach('main/pasta/serve.ts', '../host/start.ts')).toBeNull();
    expect(breach('main/bucatini/selftest/ping.ts', '../run.ts')).toBeNull();
  });

  it('the checker finds forbidden imports between layers', () => {
    expect(breach('proto/ipv4.ts', '../ring/pool.ts')).toMatch('proto may import itself');
    expect(breach('ring/spsc.ts', '../workers/stage.ts')).not.toBeNull();
    expect(breach('ring/spsc.ts', '../proto/be.ts')).not.toBeNull();
    expect(breach('ring/doorbell.ts', '../sys/clock.ts')).not.toBeNull();
    expect(breach('sys/tap.ts', '../ring/pool.ts')).not.toBeNull();
    expect(breach('sys/netlink.ts', '../proto/address.ts')).toBeNull();
    expect(breach('proto/be.ts', '../sys/memory.ts')).not.toBeNull();
    expect(breach('workers/placement.ts', '../main/config.ts')).not.toBeNull();
    expect(breach('workers/translator/tcp.ts', '../../proto/tcp.ts')).toBeNull();
    expect(breach('sys/libc.ts', 'koffi')).toMatch('only src/runtime may');
    expect(breach('workers/engine.ts', 'node:worker_threads')).toMatch('only src/runtime may');
    expect(breach('runtime/node/ffi.ts', 'koffi')).toBeNull();
    expect(breach('sys/libc.ts', '#runtime/ffi')).toBeNull();
    expect(breach('sys/libc.ts', '../runtime/node/ffi.ts')).toMatch('write #runtime/NAME');
    expect(breach('proto/be.ts', '#runtime/ffi')).not.toBeNull();
    expect(breach('proto/be.ts', 'node:fs')).not.toBeNull();
    expect(breach('library/engine.ts', '../main/api/client.ts')).toBeNull();
    expect(breach('library/engine.ts', '../main/api/api.ts')).toMatch('is a client');
    expect(breach('library/engine.ts', '#runtime/ffi')).not.toBeNull();
    expect(breach('main/host/start.ts', '../../library/index.ts')).not.toBeNull();
    expect(breach('stray.ts', './proto/be.ts')).toMatch('no layer');
    expect(breach('main/cli.ts', '../../test/x.ts')).toMatch('outside src');
    expect(breach('workers/tap/tap-reader.ts', '../link/words.ts')).toMatch('use the writers and accessors');
    expect(breach('workers/link/to-host.ts', './words.ts')).toBeNull();
    expect(
      importsOf(`import a from "x";\nimport type { B } from './b.ts';\nexport * from './c.ts';\nimport './d.ts';
const e = await import('./e.ts'); const f = require('./f.ts'); new Worker(new URL('./g.ts', import.meta.url));
// import z from 'z'\n/* from './y.ts' */`),
    ).toEqual(['x', './b.ts', './c.ts', './d.ts', './e.ts', './f.ts', './g.ts']);
  });
});
