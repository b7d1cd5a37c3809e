// @vitest: beside
import { describe, expect, it } from 'vitest';
import { SHOWN_OPTIONS } from '../../../src/main/pasta/options.ts';
import { manPage, usageText } from '../../../src/main/pasta/texts.ts';

describe('texts of pasta', () => {
  it('help and manual list every accepted option, in lines that fit', () => {
    const help = usageText();
    const page = manPage().replaceAll('\\-', '-');
    for (const { name } of SHOWN_OPTIONS) {
      expect(help).toContain(`--${name}`);
      expect(page).toContain(`\\fB--${name}\\fR`);
    }
    for (const line of help.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });
});
