/** Time limits: no wait for a thread or a child process is unlimited. Cold. */

/**
 * Await a promise, but not longer than `ms`.
 * @param what  the event that is missing: "the packet thread is not ready"
 * @throws Error with `what` and the limit
 */
export async function within<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${what} after ${ms / 1000} s`)), ms);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
