// The server of the examples: counts requests on port 8000, and prints a line once it listens.
import { createServer } from 'node:http';

let count = 0;
createServer((_request, response) => response.end(String(++count))).listen(8000, () => console.log('ready'));
