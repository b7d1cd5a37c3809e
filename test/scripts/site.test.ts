/** scripts/site.ts: the site of the documentation, made once, with all links looked up. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { anchorOf, brokenLinks, makeSite, siteLink } from '../../scripts/site.ts';

describe('links between pages', () => {
  it.each([
    ['podman.md', 'multicast.md', 'multicast.html'],
    ['podman.md', '../README.md#what-a-container-costs', 'index.html#what-a-container-costs'],
    ['README.md', 'docs/podman.md#a-b', 'podman.html#a-b'],
    ['CONTRIBUTING.md', 'CHANGELOG.md', 'CHANGELOG.html'],
    ['decisions/001-own-tap-and-rings.md', '../api.md', '../api.html'],
    ['decisions/001-own-tap-and-rings.md', 'README.md', 'index.html'],
    ['api.md', 'decisions/README.md', 'decisions/index.html'],
    ['api.md', '#requests', '#requests'],
    ['api.md', 'https://example.org/a.md', 'https://example.org/a.md'],
    ['api.md', '../src/main/api/api.ts', undefined],
  ])('%s: %s', (page, target, expected) => {
    expect(siteLink(page, target)).toBe(expected);
  });

  it.each([
    ['What a container costs', 'what-a-container-costs'],
    ['`bucatini run [OPTIONS] [--] [COMMAND [ARG...]]`', 'bucatini-run-options----command-arg'],
    ['UDP: one port, e.g. 53', 'udp-one-port-eg-53'],
  ])('anchor of %s', (heading, anchor) => {
    expect(anchorOf(heading)).toBe(anchor);
  });
});

describe('the site', () => {
  const directory = mkdtempSync(join(tmpdir(), 'bucatini-site-'));
  let files: string[];
  beforeAll(async () => {
    files = await makeSite(directory);
  }, 60_000);
  afterAll(() => rmSync(directory, { recursive: true }));

  it('has the front page, a style sheet, and each page of the navigation', () => {
    expect(files).toEqual(
      expect.arrayContaining(['index.html', 'style.css', 'cli.html', 'decisions/index.html']),
    );
    expect(readFileSync(join(directory, 'index.html'), 'utf8')).toContain('<title>bucatini</title>');
  });

  it('indented lines are blocks of code, and braces in them stay', () => {
    const podman = readFileSync(join(directory, 'podman.html'), 'utf8');
    expect(podman).toMatch(/<pre><code>podman info -f '\{\{\.Host\.Pasta\.Executable\}\}'/);
  });

  it('needs no network and no script', () => {
    for (const file of files.filter((name) => name.endsWith('.html')))
      expect(readFileSync(join(directory, file), 'utf8')).not.toMatch(
        /<script|<link[^>]+href="https?:|<img[^>]+src="https?:/,
      );
  });

  it('a link that leads nowhere is found', () => {
    expect(brokenLinks(directory)).toEqual([]);
    writeFileSync(
      join(directory, 'planted.html'),
      '<a href="nowhere.html">x</a><a href="cli.html#nothing">y</a>',
    );
    expect(brokenLinks(directory)).toEqual(['planted.html: nowhere.html', 'planted.html: cli.html#nothing']);
  });
});
