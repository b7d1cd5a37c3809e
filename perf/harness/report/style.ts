/** Style and script of the HTML pages. Without the script a page is whole; it sorts tables and fits scales. */
import { type Colour, LINE_COLOURS } from './palette.ts';

const STYLE = `
:root { color-scheme: light dark; --text: #1d1d1f; --back: #fff; --panel: #f6f7f8; --line: #d9dbde; --dim: #5c6066; --yes: #00704d; --no: #b33a00; --link: #0062a8; }
* { box-sizing: border-box; }
html { scroll-padding-top: 4rem; -webkit-text-size-adjust: 100%; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem; color: var(--text); background: var(--back); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
h4 { font-size: .85rem; font-weight: 600; margin: 0 0 .15rem; }
p { margin: .5rem 0; max-width: 50rem; }
a { color: var(--link); }
code, pre { font: .9em/1.5 ui-monospace, monospace; }
pre { background: var(--panel); padding: .6rem .8rem; border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; }
.dim, figcaption span { color: var(--dim); }
.yes { color: var(--yes); font-weight: 600; }
.no { color: var(--no); font-weight: 600; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; list-style: none; padding: 0; margin: .75rem 0; }
.peers { position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: 1rem 0; padding: .5rem 0; border: 0; border-bottom: 1px solid var(--line); background: var(--back); font-size: .9rem; min-width: 0; }
.peers label { display: inline-flex; align-items: center; gap: .35rem; min-height: 1.6rem; }
.swatch { width: 1.1em; height: .75em; border-radius: 2px; background: var(--c); }
figure { margin: 1rem 0; }
figcaption { font-weight: 600; margin-bottom: .6rem; }
figcaption span { font-weight: 400; font-size: .875rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 0 1.75rem; }
.many { grid-column: 1 / -1; }
.groups { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem 1.75rem; }
.two { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.bar { display: grid; grid-template-columns: var(--names) minmax(0, 1fr); gap: .5rem; align-items: center; font-size: .8125rem; line-height: 1.45; }
.bar .name { text-align: right; color: var(--dim); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.track { display: flex; align-items: center; gap: .4rem; min-width: 0; }
.reach { position: relative; flex: none; height: .8rem; min-width: 2px; width: calc((100% - var(--figs)) * var(--high) / var(--max)); }
.fill { position: absolute; inset: 0 auto 0 0; min-width: 2px; background: var(--c); border-radius: 0 2px 2px 0; }
.spread { position: absolute; right: 0; top: 50%; height: 0; border-top: 2px solid var(--text); opacity: .75; }
.fig { white-space: nowrap; font-variant-numeric: tabular-nums; }
.fig.word { color: var(--no); font-weight: 600; overflow: hidden; text-overflow: ellipsis; }
.fig.word span { font-weight: 400; color: var(--dim); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem 2rem; }
.plot { height: 15rem; margin: 2rem 1.2rem 2.6rem 3.6rem; }
.plot svg { overflow: visible; display: block; }
.plot text { fill: var(--text); font-size: 12px; }
.plot text.axis { fill: var(--dim); }
.grid { stroke: var(--line); }
.line { fill: none; stroke: var(--c); stroke-width: 2; }
.dot { fill: var(--c); stroke: transparent; stroke-width: 12; }
.dot:hover { r: 5; }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; padding: 0; margin: 0 0 0 3.6rem; font-size: .8125rem; }
.key svg { width: 30px; height: .8em; margin-right: .35rem; overflow: visible; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .8125rem; line-height: 1.4; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; }
th { border-bottom-width: 2px; vertical-align: bottom; }
td:first-child { min-width: 10rem; }
td:last-child, th:last-child { padding-right: .25rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:nth-child(2) { white-space: nowrap; }
.targets td:nth-child(2), .summary td:nth-child(2) { white-space: normal; }
th button { all: unset; cursor: pointer; }
th button:hover, th button:focus-visible { text-decoration: underline; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
.summary td { padding-right: 1.25rem; } .summary small { display: block; font-size: .75rem; color: var(--dim); }
summary { cursor: pointer; font-weight: 600; margin-top: 1.25rem; font-size: .95rem; }
.ratio { display: grid; grid-template-columns: minmax(9rem, 20rem) minmax(0, 1fr) 5.5rem; gap: .6rem; align-items: center; font-size: .8125rem; line-height: 1.35; padding: .2rem 0; border-bottom: 1px solid var(--line); }
.ratio .where { position: relative; height: 1rem; }
.ratio .one { position: absolute; left: 50%; top: -.35rem; bottom: -.35rem; border-left: 1px dashed var(--dim); }
.ratio .span { position: absolute; top: 50%; margin-top: -1px; border-top: 2px solid var(--c); min-width: 1px; }
.ratio .at { position: absolute; top: 50%; width: .6rem; height: .6rem; margin: -.3rem 0 0 -.3rem; border-radius: 50%; background: var(--c); }
.ratio .n { white-space: nowrap; }
.better { --c: var(--yes); } .worse { --c: var(--no); } .same, .unknown { --c: var(--dim); }
@media (max-width: 40rem) {
  .peers { position: static; }
  h1 { font-size: 1.35rem; }
  .plot { margin-right: .8rem; margin-left: 3rem; }
  .key { margin-left: 0; } th, td { padding-right: .55rem; } td:first-child { min-width: 7rem; }
  .summary { font-size: .75rem; } .summary td, .summary th { padding-right: .45rem; white-space: normal; } .summary td:first-child { min-width: 6rem; }
  .summary .extra { display: none; }
  .ratio { grid-template-columns: minmax(0, 1fr) 5rem; } .ratio .where { grid-column: 1 / -1; grid-row: 2; }
}
@media print {
  body { font-size: 10pt; max-width: none; padding: 0; }
  .peers { position: static; } .peers input { display: none; }
  details::details-content { content-visibility: visible; block-size: auto; display: block; }
  .group, .plots > *, tr, h4 { break-inside: avoid; } h2, h3, figcaption, summary { break-after: avoid; }
  .fill, .swatch, .at { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .groups { grid-template-columns: repeat(3, 1fr); gap: .6rem 1.2rem; } .two { grid-template-columns: repeat(2, 1fr); }
  .plots { grid-template-columns: repeat(2, 1fr); } h2 { margin-top: 1.2rem; }
  .wide { overflow: visible; } table { font-size: 7pt; } th, td { padding: .1rem .5rem .1rem 0; }
  td:first-child { min-width: 0; } th.n { white-space: normal; } .summary { font-size: 9pt; } .summary small { font-size: 7.5pt; }
  a { color: inherit; text-decoration: none; }
}
`;

const DARK =
  '--text: #e6e7e9; --back: #17181a; --panel: #222428; --line: #3a3d42; --dim: #a2a7ae; --yes: #3fd0a0; --no: #ff9a66; --link: #7cc0f5;';

/** @param peers  colours of `.p0`, `.p1` ... */
export function styleSheet(peers: readonly Colour[]): string {
  const classes = [
    ...peers.map((colour, i) => ({ name: `p${i}`, ...colour })),
    ...LINE_COLOURS.map((colour, i) => ({ name: `s${i}`, ...colour })),
  ];
  const rules = (scheme: 'light' | 'dark'): string =>
    classes.map((colour) => `.${colour.name} { --c: ${colour[scheme]}; }`).join(' ');
  // A peer that is not ticked is hidden: without a script too.
  const hidden = peers.map((_, i) => `body:has(#peer${i}:not(:checked)) .p${i}:not(label)`).join(', ');
  return [
    STYLE,
    rules('light'),
    hidden === '' ? '' : `${hidden} { display: none; }`,
    `@media screen and (prefers-color-scheme: dark) { :root { ${DARK} } ${rules('dark')} }`,
  ].join('\n');
}

/**
 * A click on a table's head sorts it; a hidden peer does not count for the scale of its chart. Both are
 * extras.
 */
export const SCRIPT = `
for (const table of document.querySelectorAll('table.sorts')) {
  const body = table.tBodies[0];
  [...body.rows].forEach((row, i) => { row.dataset.i = i; });
  [...table.tHead.rows[0].cells].forEach((head, c) => {
    const button = document.createElement('button');
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const now = head.ariaSort;
      for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
      const next = now === 'ascending' ? 'descending' : now === 'descending' ? null : 'ascending';
      head.ariaSort = next;
      const key = (row) => row.cells[c].textContent.trim();
      const number = (text) => { const n = parseFloat(text.replaceAll(',', '')); return Number.isNaN(n) ? null : n; };
      const compare = (a, b) => {
        if (next === null) return a.dataset.i - b.dataset.i;
        const [x, y] = [key(a), key(b)];
        const [m, n] = [number(x), number(y)];
        if (head.className === 'n' && (m === null) !== (n === null)) return m === null ? 1 : -1;
        const order = m !== null && n !== null && head.className === 'n' ? m - n : x.localeCompare(y, 'en', { numeric: true });
        return (next === 'ascending' ? order : -order) || a.dataset.i - b.dataset.i;
      };
      body.append(...[...body.rows].sort(compare));
    };
  });
}
const fit = () => {
  for (const groups of document.querySelectorAll('.groups')) {
    const seen = [...groups.querySelectorAll('.bar')].filter((bar) => bar.offsetParent !== null);
    const highest = Math.max(0, ...seen.map((bar) => Number(bar.dataset.high)));
    if (highest > 0) groups.style.setProperty('--max', highest);
  }
};
// Printed, the tables are whole, in browsers too that cannot do it by their style.
let closed = [];
addEventListener('beforeprint', () => {
  closed = [...document.querySelectorAll('details:not([open])')];
  for (const one of closed) one.open = true;
});
addEventListener('afterprint', () => { for (const one of closed) one.open = false; });
for (const box of document.querySelectorAll('.peers input')) box.onchange = fit;
`;
