/** The part of Eleventy that scripts/site.ts uses; the package has no types of its own. */
declare module '@11ty/eleventy' {
  export default class Eleventy {
    constructor(
      input: string,
      output: string,
      options: { quietMode?: boolean; config?(config: never): object },
    );
    write(): Promise<unknown>;
  }
}
