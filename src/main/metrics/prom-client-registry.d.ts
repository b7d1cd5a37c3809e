/** The registry alone: `prom-client` itself loads an HTTP client, clusters and metrics of Node, too. */
declare module 'prom-client/lib/registry.js' {
  export { Registry as default } from 'prom-client';
}
