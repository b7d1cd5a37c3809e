/** The runtime of this test process. */
export const ON_BUN = process.versions.bun !== undefined;
