// bundle: rare
/** Results of the checks of `bucatini doctor`. Their texts quote other programs: each is made one clean line. */
import { oneLine } from '../api/client.ts';

/** The result of one check. */
export interface Finding {
  readonly grade: 'ok' | 'note' | 'FAIL';
  readonly subject: string;
  readonly text: string;
}

const finding = (grade: Finding['grade'], subject: string, text: string): Finding => ({
  grade,
  subject: oneLine(subject),
  text: oneLine(text),
});

export const ok = (subject: string, text: string): Finding => finding('ok', subject, text);
export const note = (subject: string, text: string): Finding => finding('note', subject, text);
export const fail = (subject: string, text: string): Finding => finding('FAIL', subject, text);
