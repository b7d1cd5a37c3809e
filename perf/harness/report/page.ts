/** Tables and the frame of the HTML pages. Pure. */
import { escapeXml, inlineHtml } from './markup.ts';
import { SCRIPT } from './style.ts';
import type { Table } from './tables.ts';

export function cellHtml(tag: 'th' | 'td', text: string, isWord: boolean): string {
  const plain = text.replaceAll('**', '');
  const isGood = plain === 'yes' || /^better$|× better$/.test(plain);
  const isBad = plain === 'no' || /^worse$|× worse$/.test(plain);
  const verdict = isGood ? 'yes' : isBad ? 'no' : '';
  const classes = [isWord ? '' : 'n', verdict].filter(Boolean);
  return `<${tag}${classes.length === 0 ? '' : ` class="${classes.join(' ')}"`}>${inlineHtml(plain)}</${tag}>`;
}

/** @param classes  `sorts`: a click on the head sorts it */
export function tableHtml(table: Table, classes = 'sorts', peers: readonly string[] = []): string {
  const row = (tag: 'th' | 'td', fields: readonly string[]) => {
    // A row about one tool is hidden with it.
    const peer = peers.indexOf(fields[1] ?? '');
    return `<tr${peer < 0 ? '' : ` class="p${peer}"`}>${fields.map((field, c) => cellHtml(tag, field, c < table.words)).join('')}</tr>`;
  };
  return (
    `<div class="wide"><table class="${classes}">\n<thead>${row('th', table.head)}</thead>\n` +
    `<tbody>${table.rows.map((fields) => row('td', fields)).join('\n')}</tbody>\n</table></div>`
  );
}

export interface Part {
  readonly id: string;
  readonly title: string;
  readonly body: string;
}

/** The frame of a page. @param head  what stands above the table of contents */
export function pageHtml(
  title: string,
  style: string,
  head: string,
  parts: readonly Part[],
  controls = '',
): string {
  const contents = parts.map(({ id, title: text }) => `<li><a href="#${id}">${escapeXml(text)}</a></li>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>${escapeXml(title)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escapeXml(title)}</h1>
${head}
<nav aria-label="Contents"><ul>${contents.join('')}</ul></nav>
${controls}
${parts.map(({ id, title: text, body }) => `<section><h2 id="${id}">${escapeXml(text)}</h2>\n${body}</section>`).join('\n')}
<script>${SCRIPT}</script>
</body>
</html>
`;
}
