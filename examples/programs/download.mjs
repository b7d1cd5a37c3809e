// The client of the examples: downloads a URL and prints how many bytes came, and how long it took.
const [url] = process.argv.slice(2);
const startedAt = performance.now();
const response = await fetch(url);
const body = await response.arrayBuffer();
console.log(JSON.stringify({ bytes: body.byteLength, ms: Math.round(performance.now() - startedAt) }));
