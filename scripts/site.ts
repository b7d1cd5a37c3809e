/**
 * `npm run site`: the documentation as a small site, dist/site, made of docs/*.md by Eleventy. It needs no network, and the pages
 * need none either: no script, one style sheet. Fails if a link leads nowhere, or if a page is not in docs/site/pages.json.
 *
 *   npm run site [-- DIRECTORY]
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join, posix, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import Eleventy from '@11ty/eleventy';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DOCS = join(ROOT, 'docs');
/** Pages of the repository's root that belong to the site. */
const ROOT_PAGES = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md'].filter((name) =>
  existsSync(join(ROOT, name)),
);

/** Section -> page -> title in the navigation. */
type Pages = Readonly<Record<string, Readonly<Record<string, string>>>>;

/** The parts of Eleventy and markdown-it that are used. */
interface EleventyConfig {
  setQuietMode(quiet: boolean): void;
  setUseGitIgnore(use: boolean): void;
  addTemplate(path: string, text: string, data?: object): void;
  addGlobalData(name: string, value: unknown): void;
  addTransform(name: string, transform: (this: { page: Page }, text: string) => string): void;
  amendLibrary(name: string, amend: (library: MarkdownIt) => void): void;
}
interface Page {
  readonly inputPath: string;
  readonly outputPath: string;
}
interface Token {
  readonly type: string;
  readonly content: string;
  readonly children: Token[] | null;
  attrGet(name: string): string | null;
  attrSet(name: string, value: string): void;
}
interface MarkdownIt {
  enable(rule: string): void;
  readonly core: {
    readonly ruler: {
      push(name: string, rule: (state: { tokens: Token[]; env: { page: Page } }) => void): void;
    };
  };
}

/** The anchor that Git hosts give a heading: lower case, punctuation gone, hyphens for spaces. */
export const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replace(/\s/g, '-');

/** Path of a page in the site. @param source  relative to docs/, or the name of a page of the root */
const outputOf = (source: string): string =>
  source.replace(/README\.md$/, 'index.md').replace(/\.md$/, '.html');

/**
 * Where a link of a page leads in the site.
 * @param page    the page's source, relative to docs/
 * @param target  as written in it
 * @returns undefined if it leads to a file that the site does not have
 */
export function siteLink(page: string, target: string): string | undefined {
  if (/^[a-z]+:/.test(target) || target.startsWith('#')) return target;
  const [path = '', anchor] = target.split('#');
  const from = ROOT_PAGES.includes(page) ? page : posix.join('docs', page);
  const file = posix.join(posix.dirname(from), path);
  const inSite = file.startsWith('docs/') ? file.slice('docs/'.length) : file;
  const isPage = ROOT_PAGES.includes(file) || /^docs\/.*\.(?:md|svg|png|json)$/.test(file);
  if (!isPage) return undefined;
  return relativeLink(page, outputOf(inSite), anchor);
}

const relativeLink = (page: string, to: string, anchor: string | undefined): string =>
  (posix.relative(posix.dirname(outputOf(page)), to) || posix.basename(to)) +
  (anchor === undefined ? '' : `#${anchor}`);

/** Give headings anchors, and lead links to pages of the site. */
function amendMarkdown(markdown: MarkdownIt, sourceOf: (page: Page) => string): void {
  markdown.enable('code'); // blocks of indented lines, which Eleventy takes out
  markdown.core.ruler.push('site', ({ tokens, env }) => {
    const seen = new Map<string, number>();
    tokens.forEach((token, at) => {
      if (token.type === 'heading_open') {
        const text = (tokens[at + 1]?.children ?? [])
          .filter(({ type }) => type === 'text' || type === 'code_inline')
          .map(({ content }) => content)
          .join('');
        const anchor = anchorOf(text);
        const times = seen.get(anchor) ?? 0;
        seen.set(anchor, times + 1);
        token.attrSet('id', times === 0 ? anchor : `${anchor}-${times}`);
      }
      for (const child of token.children ?? []) {
        const name = child.type === 'link_open' ? 'href' : child.type === 'image' ? 'src' : undefined;
        const target = name && child.attrGet(name);
        if (name === undefined || !target) continue;
        const link = siteLink(sourceOf(env.page), target);
        // Files of the source tree are named, not linked: a site that is read elsewhere has no tree.
        child.attrSet(name, link ?? '');
      }
    });
  });
}

const escaped = (text: string): string =>
  text.replace(/[&<>"]/g, (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[char]!);

/** Pages with more chapters than this begin with a list of them. */
const FEW_CHAPTERS = 5;

/** Links to the chapters of a long page, folded until somebody asks for them; empty for a short one. */
function chapterList(contents: string): string {
  const items = [...contents.matchAll(/<h2 id="([^"]+)">(.*?)<\/h2>/gs)].map(
    ([, id, heading]) => `<li><a href="#${id}">${heading!.replace(/<\/?a\b[^>]*>/g, '')}</a></li>`,
  );
  if (items.length <= FEW_CHAPTERS) return '';
  return `<details class="chapters"><summary>On this page</summary><ul>${items.join('')}</ul></details>`;
}

/** A whole page around its contents. */
function pageHtml(pages: Pages, source: string, contents: string): string {
  const title = /<h1[^>]*>(.*?)<\/h1>/s.exec(contents)?.[1]?.replace(/<[^>]+>/g, '') ?? 'bucatini';
  const to = (path: string): string => relativeLink(source, path, undefined);
  const navigation = Object.entries(pages).map(([section, list]) => {
    const items = Object.entries(list).map(([page, name]) => {
      const current = page === source ? ' aria-current="page"' : '';
      return `<li><a href="${to(outputOf(page))}"${current}>${escaped(name)}</a></li>`;
    });
    return `<h2>${escaped(section)}</h2><ul>${items.join('')}</ul>`;
  });
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title === 'bucatini' ? title : `${title} · bucatini`}</title>
<link rel="stylesheet" href="${to('style.css')}">
</head>
<body>
<nav><details><summary>Contents</summary>${navigation.join('\n')}</details></nav>
<main>
${contents
  .replace('</h1>', () => `</h1>${chapterList(contents)}`)
  .replace(/<a href="">(.*?)<\/a>/gs, '$1')
  .replace(/<table>(.*?)<\/table>/gs, '<div class="table"><table>$1</table></div>')}
</main>
</body>
</html>
`;
}

/** Files below a directory, relative to it. */
const filesBelow = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(directory, join(entry.parentPath, entry.name)));

/**
 * Links of the site that lead nowhere.
 * @param site  its directory
 * @returns "PAGE: LINK" of each
 */
export function brokenLinks(site: string): string[] {
  const files = new Set(filesBelow(site));
  const text = new Map(
    [...files]
      .filter((file) => file.endsWith('.html'))
      .map((file) => [file, readFileSync(join(site, file), 'utf8')]),
  );
  const broken: string[] = [];
  for (const [file, html] of text) {
    for (const [, link = ''] of html.matchAll(/\b(?:href|src)="([^"]*)"/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? file : posix.join(posix.dirname(file), path);
      const found =
        files.has(target) &&
        (anchor === undefined ||
          anchor === '' ||
          text.get(target)?.includes(`id="${decodeURIComponent(anchor)}"`) === true);
      if (!found) broken.push(`${file}: ${link}`);
    }
  }
  return broken;
}

/**
 * Make the site.
 * @param output  an empty or new directory
 * @returns its files
 * @throws Error that names a page that is missing in pages.json, or each link that leads nowhere
 */
export async function makeSite(output: string): Promise<string[]> {
  const pages = JSON.parse(readFileSync(join(DOCS, 'site/pages.json'), 'utf8')) as Pages;
  const listed = Object.values(pages).flatMap((list) => Object.keys(list));
  const written = filesBelow(DOCS).filter((file) => file.endsWith('.md'));
  const forgotten = written.filter(
    (file) => !listed.includes(file) && !/^(?:decisions|library)\//.test(file),
  );
  if (forgotten.length > 0)
    throw new Error(`docs/${forgotten[0]}: not in docs/site/pages.json, so no page leads there`);
  const missing = listed.find((page) => !written.includes(page) && !ROOT_PAGES.includes(page));
  if (missing !== undefined) throw new Error(`docs/site/pages.json: ${missing}: there is no such page`);

  const sourceOf = ({ inputPath }: Page): string => {
    const name = relative(DOCS, resolve(ROOT, inputPath));
    return name.startsWith('root-') ? name.slice('root-'.length) : name;
  };
  const site = new Eleventy(DOCS, output, {
    quietMode: true,
    config(config: EleventyConfig) {
      config.setQuietMode(true);
      config.setUseGitIgnore(false);
      config.addGlobalData('templateEngineOverride', 'md'); // `{{…}}` is text of ours
      config.addGlobalData('eleventyComputed', {
        permalink: ({ page }: { page: Page }) => outputOf(sourceOf(page)),
      });
      for (const name of ROOT_PAGES)
        config.addTemplate(`root-${name}`, readFileSync(join(ROOT, name), 'utf8'));
      config.amendLibrary('md', (markdown) => amendMarkdown(markdown, sourceOf));
      config.addTransform('page', function (text) {
        return pageHtml(pages, sourceOf(this.page), text);
      });
      return { templateFormats: ['md'] };
    },
  });
  await site.write();
  const others = filesBelow(DOCS).filter(
    (file) => /\.(?:svg|png|json|css)$/.test(file) && file !== 'site/pages.json',
  );
  for (const file of others) {
    const to = join(output, file === 'site/style.css' ? 'style.css' : file);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(join(DOCS, file), to);
  }
  const broken = brokenLinks(output);
  if (broken.length > 0) throw new Error(`links that lead nowhere:\n  ${broken.join('\n  ')}`);
  return filesBelow(output);
}

if (import.meta.main) {
  const output = resolve(process.argv[2] ?? join(ROOT, 'dist/site'));
  if (process.argv[2] === undefined) rmSync(output, { recursive: true, force: true });
  try {
    const files = await makeSite(output);
    const count = files.filter((file) => file.endsWith('.html')).length;
    process.stdout.write(
      `${count} pages in ${relative(process.cwd(), output)}: open ${join(relative(process.cwd(), output), 'index.html')}\n`,
    );
  } catch (error) {
    process.stderr.write(`site: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
