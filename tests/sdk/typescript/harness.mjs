// A live server for the tests of one file, and a client of it. Everything is gone when the process ends.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';

const binary = process.env.CASEMATE;
const dir = mkdtempSync(join(tmpdir(), 'casemate-sdk-'));
const env = { PATH: process.env.PATH, HOME: dir, CASEMATE_DATA_DIR: join(dir, 'data') };
// Nothing here takes a tenth of it, also on a busy machine.
const DEADLINE = 60_000;
let scripts = 0;

const apiKey = execFileSync(binary, ['key'], { env }).toString().trim();
const serve = ['serve', '--listen', '127.0.0.1:0', '--quiet', '--route', 'local-model=ollama'];
const server = spawn(binary, serve, { env, cwd: dir, stdio: ['ignore', 'pipe', 'inherit'] });
const baseURL = await new Promise((resolve, reject) => {
  createInterface(server.stdout).once('line', resolve);
  server.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
});
export const client = new Anthropic({ baseURL, apiKey });

after(async () => {
  const ended = new Promise((resolve) => server.once('exit', resolve));
  server.kill();
  await ended;
  rmSync(dir, { recursive: true, force: true });
});

/** The id of a model that answers with these turns, one for each request. */
export function model(...turns) {
  const path = join(dir, `script-${++scripts}.yaml`);
  writeFileSync(path, JSON.stringify({ turns }));
  return `scripted:${path}`;
}

export const text = (words) => ({ type: 'user.message', content: [{ type: 'text', text: words }] });
export const call = (name, input) => ({ tool_calls: [{ name, input }] });
export const kinds = (events) => events.map((event) => event.type);
export const only = (events, kind) => events.filter((event) => event.type === kind);

export const CUSTOM = {
  type: 'custom',
  name: 'lookup',
  description: 'Looks a word up.',
  input_schema: { type: 'object', properties: { word: { type: 'string' } }, required: ['word'] },
};

/** A session of an agent that answers with these turns. */
export async function session(turns, { agent = {}, ...fields } = {}) {
  const made = await client.beta.agents.create({ name: 'tester', model: model(...turns), ...agent });
  const environment = await client.beta.environments.create({ name: 'test' });
  return client.beta.sessions.create({ agent: made.id, environment_id: environment.id, ...fields });
}

/** All that an iterator of pages yields. */
export async function collect(pages) {
  const all = [];
  for await (const entry of pages) all.push(entry);
  return all;
}

export const events = (made, query = {}) => collect(client.beta.sessions.events.list(made.id, query));

/** What `look` finds, as soon as it finds something. */
export async function until(what, look) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`no ${what} in time`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The events once the session came to rest that many times. */
export const idles = (made, count) =>
  until(`${count} rests`, async () => {
    const listed = await events(made);
    return only(listed, 'session.status_idle').length === count && listed;
  });

/** A client whose requests are counted, and fail on the way with these statuses first. */
export async function between(...failures) {
  const asked = [];
  const http = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    asked.push(`${request.method} ${request.url}`);
    const failure = failures.shift();
    if (failure !== undefined) return response.writeHead(failure, { 'content-length': 0 }).end();
    const { host, connection, 'content-length': _, 'transfer-encoding': __, ...headers } = request.headers;
    const body = chunks.length > 0 ? Buffer.concat(chunks) : undefined;
    const answer = await fetch(baseURL + request.url, { method: request.method, headers, body });
    const kept = [...answer.headers].filter(([name]) => !['content-length', 'connection'].includes(name));
    return response.writeHead(answer.status, Object.fromEntries(kept)).end(Buffer.from(await answer.arrayBuffer()));
  });
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  const through = new Anthropic({ baseURL: `http://127.0.0.1:${http.address().port}`, apiKey });
  const close = async () => {
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  };
  return { client: through, asked, close };
}
