/** No wait for a thread or a child is without an end. Cold. */

/**
 * @param ms    after which it is given up
 * @param what  did not come: "the packet thread is not ready"
 * @throws Error that says so
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
