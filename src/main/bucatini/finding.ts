// bundle: rare
/** Results of the checks of `bucatini doctor`. */

/** The result of one check. */
export interface Finding {
  readonly grade: 'ok' | 'note' | 'FAIL';
  readonly subject: string;
  readonly text: string;
}

export const ok = (subject: string, text: string): Finding => ({ grade: 'ok', subject, text });
export const note = (subject: string, text: string): Finding => ({ grade: 'note', subject, text });
export const fail = (subject: string, text: string): Finding => ({ grade: 'FAIL', subject, text });
