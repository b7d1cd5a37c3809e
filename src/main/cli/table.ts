// bundle: rare
/** Tables of text with aligned columns. */

/** The alignment of a column: left ('l') or right ('r'). */
export type Alignment = 'l' | 'r';

/**
 * Aligned columns, two blanks apart, without blanks at the end of a line.
 * @param rows   the first is the head
 * @param align  one letter for each column; the last one stands for all further ones
 * @returns lines, each with a line end
 */
export function tableText(rows: readonly (readonly string[])[], align: string): string {
  return tableLines(rows, align)
    .map((line) => `${line}\n`)
    .join('');
}

/** The same as lines. */
export function tableLines(rows: readonly (readonly string[])[], align: string): string[] {
  const columns = rows[0]?.length ?? 0;
  const widths = Array.from({ length: columns }, (_, c) => {
    let width = 0;
    for (const row of rows) width = Math.max(width, row[c]?.length ?? 0);
    return width;
  });
  return rows.map((row) =>
    row
      .map((cell, c) =>
        (align[c] ?? align.at(-1)) === 'l' ? cell.padEnd(widths[c]!) : cell.padStart(widths[c]!),
      )
      .join('  ')
      .trimEnd(),
  );
}
