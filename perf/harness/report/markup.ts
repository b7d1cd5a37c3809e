/** Texts in HTML and SVG. Pure. */
const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/** For XML and HTML, in texts and in quoted attributes. */
export const escapeXml = (text: string): string => text.replace(/[&<>"]/g, (c) => ENTITIES[c] ?? c);

/** Texts are Markdown, of which only `code` occurs. */
export const inlineHtml = (text: string): string => escapeXml(text).replace(/`([^`]*)`/g, '<code>$1</code>');
