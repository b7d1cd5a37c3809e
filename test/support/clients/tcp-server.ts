/**
 * A script server (tcp-script.ts): `tcp-server.ts PORT`; prints "ready", then one line {id, outcome} for each
 * conversation.
 */
import { scriptServer } from '../tcp-script.ts';

const server = scriptServer((id, outcome) => console.log(JSON.stringify({ id, outcome })));
server.listen({ port: Number(process.argv[2]), host: '::' }, () => console.log('ready'));
