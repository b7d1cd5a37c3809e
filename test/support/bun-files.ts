/**
 * Which test files run once more in a process on Bun (support/bun-pool/): those whose code makes system
 * calls, starts threads or uses modules of the runtime. Other code is the same JavaScript on both, and
 * end-to-end tests of the programs run the launchers instead.
 */
const FOLDERS = /^test\/(runtime|sys|ring|workers)\//;
const MAIN =
  /^test\/main\/(metrics\/http|api|api-socket|child|file-watch|namespace-watch|netns|output|resolv-conf|sandbox)\.test\.ts$/;
const PASTA = /^test\/main\/pasta\/(control-socket|follow|log|port-scan)\.test\.ts$/;

/** @param file  relative to the directory of package.json */
export const runsOnBun = (file: string): boolean => [FOLDERS, MAIN, PASTA].some((set) => set.test(file));
