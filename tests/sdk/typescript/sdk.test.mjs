// The TypeScript SDK against a live server: the same promises as the Python tests, one path through each resource.
import assert from 'node:assert/strict';
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';

import Anthropic, { toFile } from '@anthropic-ai/sdk';

const binary = process.env.CASEMATE;
const dir = mkdtempSync(join(tmpdir(), 'casemate-sdk-'));
const env = { PATH: process.env.PATH, HOME: dir, CASEMATE_DATA_DIR: join(dir, 'data') };
let server;
let client;
let scripts = 0;

before(async () => {
  const apiKey = execFileSync(binary, ['key'], { env }).toString().trim();
  server = spawn(binary, ['serve', '--listen', '127.0.0.1:0', '--quiet'], { env, cwd: dir });
  const [url] = await new Promise((resolve) => createInterface(server.stdout).once('line', (line) => resolve([line])));
  client = new Anthropic({ baseURL: url, apiKey });
});

after(async () => {
  server.kill();
  await new Promise((resolve) => server.once('exit', resolve));
  rmSync(dir, { recursive: true, force: true });
});

function model(...turns) {
  const path = join(dir, `script-${++scripts}.yaml`);
  writeFileSync(path, JSON.stringify({ turns }));
  return `scripted:${path}`;
}

const text = (words) => ({ type: 'user.message', content: [{ type: 'text', text: words }] });

async function session(turns, fields = {}) {
  const agent = await client.beta.agents.create({ name: 'tester', model: model(...turns), ...fields });
  const environment = await client.beta.environments.create({ name: 'test' });
  return client.beta.sessions.create({ agent: agent.id, environment_id: environment.id });
}

async function collect(list) {
  const all = [];
  for await (const entry of list) all.push(entry);
  return all;
}

test('files', async () => {
  const made = await client.beta.files.upload({ file: await toFile(Buffer.from('hello'), 'notes.txt') });
  assert.deepEqual([made.type, made.filename, made.size_bytes, made.mime_type], ['file', 'notes.txt', 5, 'text/plain']);
  assert.equal(await (await client.beta.files.download(made.id)).text(), 'hello');
  assert.ok((await collect(client.beta.files.list())).some((file) => file.id === made.id));
  assert.equal((await client.beta.files.delete(made.id)).type, 'file_deleted');
  await assert.rejects(client.beta.files.retrieveMetadata(made.id), Anthropic.NotFoundError);
});

test('agents', async () => {
  const agent = await client.beta.agents.create({ name: 'a', model: 'm' });
  const changed = await client.beta.agents.update(agent.id, { name: 'b', version: agent.version });
  assert.deepEqual([changed.version, changed.name], [2, 'b']);
  await assert.rejects(client.beta.agents.update(agent.id, { name: 'c', version: 1 }), Anthropic.ConflictError);
  const versions = await collect(client.beta.agents.versions.list(agent.id));
  assert.deepEqual(versions.map((version) => version.version), [2, 1]);
  assert.ok((await client.beta.agents.archive(agent.id)).archived_at);
});

test('environments', async () => {
  const environment = await client.beta.environments.create({ name: 'e' });
  assert.equal(environment.config.networking.type, 'unrestricted');
  await client.beta.environments.update(environment.id, { name: 'f' });
  await client.beta.environments.archive(environment.id);
  assert.equal((await client.beta.environments.delete(environment.id)).type, 'environment_deleted');
});

test('a session from its message to its end, streamed', async () => {
  const made = await session([{ text: 'one two', chunks: 2 }]);
  const stream = await client.beta.sessions.events.stream(made.id, { event_deltas: ['agent.message'] });
  await client.beta.sessions.events.send(made.id, { events: [text('go')] });
  const seen = [];
  let preview = '';
  for await (const event of stream) {
    seen.push(event.type);
    if (event.type === 'event_delta') preview += event.delta.content.text;
    if (event.type === 'session.status_idle') break;
  }
  assert.ok(seen.includes('agent.message'));
  assert.ok('one two'.startsWith(preview) && preview);
  const listed = await collect(client.beta.sessions.events.list(made.id));
  assert.equal(listed.at(-1).type, 'session.status_idle');
  assert.equal((await client.beta.sessions.retrieve(made.id)).status, 'idle');
  await client.beta.sessions.update(made.id, { title: 'new' });
  assert.equal((await collect(client.beta.sessions.threads.list(made.id))).length, 1);
  assert.equal((await client.beta.sessions.archive(made.id)).status, 'terminated');
  assert.equal((await client.beta.sessions.delete(made.id)).type, 'session_deleted');
});

test('errors are the classes of the SDK', async () => {
  const stranger = new Anthropic({ baseURL: client.baseURL, apiKey: 'wrong', maxRetries: 0 });
  await assert.rejects(stranger.beta.files.list(), Anthropic.AuthenticationError);
  await assert.rejects(client.beta.agents.create({ name: '', model: 'm' }), Anthropic.BadRequestError);
  await assert.rejects(client.beta.sessions.retrieve('sesn_unknown'), (error) => {
    assert.ok(error instanceof Anthropic.NotFoundError);
    assert.match(error.requestID, /^req_/);
    return true;
  });
});
