// Every method of every resource, once: what comes back, what is listed page by page, what is refused and how.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import Anthropic, { toFile } from '@anthropic-ai/sdk';

import { CUSTOM, between, client, collect, events, idles, kinds, model, only, session, text } from './harness.mjs';

const { agents, environments, files, sessions } = client.beta;
const ids = (list) => list.map((entry) => entry.id);
const reversed = (list) => [...list].reverse();

/** The message of a call that must be refused with exactly that class. */
async function refused(kind, promise) {
  const error = await Promise.resolve(promise).then(() => assert.fail('it is not refused'), (error) => error);
  assert.equal(error.constructor, kind, `${error}`);
  assert.match(error.requestID, /^req_/);
  assert.equal(error.error.request_id, error.requestID);
  return error.error.error.message;
}

test('files: upload, metadata, list, download, delete', async () => {
  const upload = async (words, name, more = {}) => files.upload({ file: await toFile(Buffer.from(words), name), ...more });
  const made = await upload('hello', 'a/notes.txt');
  assert.deepEqual([made.type, made.filename, made.size_bytes, made.mime_type], ['file', 'notes.txt', 5, 'text/plain']);
  assert.equal((await files.retrieveMetadata(made.id)).id, made.id);
  assert.equal(await (await files.download(made.id)).text(), 'hello');
  const more = [made.id];
  for (const n of [1, 2, 3]) more.push((await upload(`${n}`, `${n}.txt`)).id);
  assert.deepEqual(ids(await collect(files.list({ limit: 2 }))), reversed(more));
  assert.deepEqual(ids(await collect(client.files.list({ limit: 3 }))), reversed(more));
  const found = ids(await collect(files.list({ ids: [more[0], 'file_unknown', more[2]] })));
  assert.deepEqual(new Set(found), new Set([more[0], more[2]]));
  const expiring = await upload('x', 'x', { expires_in_seconds: 3600 });
  assert.equal(Date.parse(expiring.expires_at) - Date.parse(expiring.created_at), 3_600_000);
  assert.match(await refused(Anthropic.BadRequestError, upload('x', 'x', { expires_in_seconds: 1 })), /^expires_in_seconds: /);
  assert.deepEqual({ ...(await files.delete(made.id)) }, { id: made.id, type: 'file_deleted' });
  await refused(Anthropic.NotFoundError, files.retrieveMetadata(made.id));
  await refused(Anthropic.NotFoundError, files.download(made.id));
});

test('skills: create, retrieve, list, versions, an agent that has the latest, delete', async () => {
  const { skills } = client.beta;
  const skillMd = (description) => Buffer.from(`---\nname: typed\ndescription: ${description}\n---\n\nDo it the typed way.\n`);
  const tree = async (description) => [
    await toFile(skillMd(description), 'typed/SKILL.md'),
    await toFile(Buffer.from('print(1)\n'), 'typed/scripts/run.py'),
  ];
  const made = await skills.create({ files: await tree('Does it.'), display_name: 'Typed' });
  assert.deepEqual([made.type, made.display_name, made.source.type], ['skill', 'Typed', 'custom']);
  assert.deepEqual((await skills.retrieve(made.id)).latest_version_id, made.latest_version_id);
  assert.deepEqual(ids(await collect(skills.list({ source: 'custom', limit: 1 }))), [made.id]);
  const wrong = skills.create({ files: [await toFile(Buffer.from('no head'), 'wrong/SKILL.md')] });
  assert.match(await refused(Anthropic.BadRequestError, wrong), /SKILL\.md/);
  const second = await skills.versions.create(made.id, { files: await tree('Does more.') });
  assert.equal((await skills.versions.retrieve('latest', { skill_id: made.id })).id, second.id);
  assert.deepEqual(ids(await collect(skills.versions.list(made.id, { limit: 1 }))), [second.id, made.latest_version_id]);
  const zip = Buffer.from(await (await skills.versions.download(second.id, { skill_id: made.id })).arrayBuffer());
  assert.equal(zip.subarray(0, 2).toString(), 'PK');

  const tools = [{ type: 'agent_toolset_20260401' }];
  const agent = { tools, skills: [{ type: 'custom', skill_id: made.id, version: 'latest' }] };
  const read = { tool_calls: [{ name: 'read', input: { file_path: '/mnt/session/skills/typed/SKILL.md' } }] };
  const run = await session([read, { text: 'Done.' }], { agent, initial_events: [text('go')] });
  assert.deepEqual(run.agent.skills.map((skill) => [skill.skill_id, skill.version]), [[made.id, second.id]]);
  const [result] = only(await idles(run, 1), 'agent.tool_result');
  assert.match(result.content[0].text, /Does more\.[^]*Do it the typed way\./);

  const gone = await skills.versions.delete(second.id, { skill_id: made.id });
  assert.deepEqual([gone.id, gone.type], [second.id, 'skill_version_deleted']);
  assert.equal((await skills.retrieve(made.id)).latest_version_id, made.latest_version_id);
  assert.deepEqual([(await skills.delete(made.id)).type], ['skill_deleted']);
  await refused(Anthropic.NotFoundError, skills.retrieve(made.id));
});

test('models: list, retrieve', async () => {
  const listed = await collect(client.models.list());
  assert.ok(ids(listed).includes('local-model'), `${ids(listed)}`);
  assert.deepEqual(ids(await collect(client.beta.models.list({ limit: 1 }))), ids(listed));
  assert.equal((await client.models.retrieve('local-model')).type, 'model');
  assert.equal((await client.beta.models.retrieve('local-model')).id, 'local-model');
  await refused(Anthropic.NotFoundError, client.models.retrieve('no-such-model'));
});

test('agents: create, retrieve, update, list, archive, versions', async () => {
  const agent = await agents.create({ name: 'a', model: { id: 'm', effort: 'low' }, tools: [CUSTOM] });
  assert.deepEqual([agent.version, agent.model.effort.type, agent.tools[0].name], [1, 'low', 'lookup']);
  const changed = await agents.update(agent.id, { name: 'b', version: 1 });
  assert.deepEqual([changed.version, changed.name], [2, 'b']);
  assert.equal((await agents.update(agent.id, { name: 'b', version: 2 })).updated_at, changed.updated_at);
  assert.deepEqual((await agents.update(agent.id, { tools: null, description: null })).tools, []);
  assert.equal((await agents.retrieve(agent.id, { version: 1 })).name, 'a');
  assert.equal((await agents.retrieve(agent.id)).version, 3);
  const versions = await collect(agents.versions.list(agent.id, { limit: 1 }));
  assert.deepEqual(versions.map((version) => version.version), [3, 2, 1]);
  assert.ok(ids(await collect(agents.list({ limit: 1 }))).includes(agent.id));
  assert.ok((await agents.archive(agent.id)).archived_at);
  assert.ok(!ids(await collect(agents.list())).includes(agent.id));
  assert.ok(ids(await collect(agents.list({ include_archived: true }))).includes(agent.id));
  await refused(Anthropic.BadRequestError, agents.update(agent.id, { name: 'c' }));
  await refused(Anthropic.NotFoundError, agents.retrieve('agent_unknown'));
  assert.match(await refused(Anthropic.BadRequestError, agents.create({ name: '', model: 'm' })), /^name: /);
});

test('environments: create, retrieve, update, list, archive, delete', async () => {
  const made = await environments.create({ name: 'e', config: { type: 'cloud', networking: { type: 'unrestricted' } } });
  assert.deepEqual([made.config.networking.type, made.config.packages.pip], ['unrestricted', []]);
  assert.equal((await environments.update(made.id, { name: 'f', metadata: { a: 'b' } })).metadata.a, 'b');
  assert.equal((await environments.retrieve(made.id)).name, 'f');
  assert.ok(ids(await collect(environments.list({ limit: 1 }))).includes(made.id));
  assert.ok((await environments.archive(made.id)).archived_at);
  assert.ok(!ids(await collect(environments.list())).includes(made.id));
  assert.deepEqual({ ...(await environments.delete(made.id)) }, { id: made.id, type: 'environment_deleted' });
  const error = await environments.retrieve(made.id).catch((error) => error);
  assert.ok(error instanceof Anthropic.NotFoundError);
  assert.equal(error.error.error.details.error_code, 'environment_not_found');
});

test('sessions: create, retrieve, update, list both ways, archive, delete', async () => {
  const first = await session([{ text: 'done' }], { title: 'one', metadata: { a: 'b' }, initial_events: [text('go')] });
  assert.deepEqual([first.status, first.title, first.metadata], ['running', 'one', { a: 'b' }]);
  await idles(first, 1);
  const { id: agent } = first.agent;
  const made = [first.id];
  for (const _ of [1, 2, 3, 4]) {
    made.unshift((await sessions.create({ agent, environment_id: first.environment_id })).id);
  }
  assert.deepEqual(ids(await collect(sessions.list({ agent_id: agent, limit: 2 }))), made);
  assert.deepEqual(ids(await collect(sessions.list({ agent_id: agent, limit: 2, order: 'asc' }))), reversed(made));
  const page = await sessions.list({ agent_id: agent, limit: 2 });
  const second = await page.getNextPage();
  assert.deepEqual([page.prev_page, ids(second.data)], [null, made.slice(2, 4)]);
  assert.deepEqual(ids((await sessions.list({ agent_id: agent, limit: 2, page: second.prev_page })).data), made.slice(0, 2));
  assert.deepEqual(ids(await collect(sessions.list({ agent_id: agent, statuses: ['running', 'terminated'] }))), []);
  assert.deepEqual(ids(await collect(sessions.list({ agent_id: agent, 'created_at[lt]': '2020-01-01T00:00:00Z' }))), []);
  assert.equal((await sessions.update(first.id, { title: null, metadata: { a: null } })).title, null);
  const told = only(await events(first), 'session.updated')[0];
  assert.deepEqual([told.title, told.metadata], [null, {}]);
  const override = { type: 'agent_with_overrides', id: agent, model: model({ text: 'other' }), system: 'brief' };
  const other = await sessions.create({ agent: override, environment_id: first.environment_id });
  assert.deepEqual([other.agent.version, other.agent.system, other.agent.model.id], [1, 'brief', override.model]);
  const archived = await sessions.archive(first.id);
  assert.deepEqual([archived.status, archived.archived_at !== null], ['terminated', true]);
  await refused(Anthropic.BadRequestError, sessions.events.send(first.id, { events: [text('more')] }));
  assert.deepEqual({ ...(await sessions.delete(first.id)) }, { id: first.id, type: 'session_deleted' });
  await refused(Anthropic.NotFoundError, sessions.retrieve(first.id));
});

test('threads: list, retrieve, their events and their stream', async () => {
  const made = await session([{ text: 'done' }]);
  const [primary, ...others] = await collect(sessions.threads.list(made.id, { limit: 1 }));
  assert.deepEqual([primary.parent_thread_id, others], [null, []]);
  const of = { session_id: made.id };
  const stream = await sessions.threads.events.stream(primary.id, of);
  await sessions.events.send(made.id, { events: [text('go')] });
  const seen = [];
  for await (const event of stream) {
    seen.push(event.type);
    if (event.type === 'session.thread_status_idle') break;
  }
  await idles(made, 1);
  const own = kinds(await collect(sessions.threads.events.list(primary.id, { ...of, limit: 2 })));
  assert.deepEqual(own.slice(0, seen.length), seen);
  assert.ok(own.includes('agent.message'));
  assert.equal((await sessions.threads.retrieve(primary.id, of)).status, 'idle');
  assert.deepEqual(ids(await collect(sessions.threads.list(made.id, { statuses: ['running'] }))), []);
  await refused(Anthropic.BadRequestError, sessions.threads.archive(primary.id, of));
  await refused(Anthropic.NotFoundError, sessions.threads.retrieve('sthr_unknown', of));
});

test('11, 12: a conflict is asked once, a failure on the way again', async () => {
  const agent = await agents.create({ name: 'a', model: 'm' });
  await agents.update(agent.id, { name: 'b' });
  const plain = await between();
  await refused(Anthropic.ConflictError, plain.client.beta.agents.update(agent.id, { name: 'c', version: 1 }));
  assert.deepEqual(plain.asked, [`POST /v1/agents/${agent.id}`]);
  await plain.close();
  for (const failure of [429, 503, 529]) {
    const flaky = await between(failure);
    assert.equal((await flaky.client.beta.agents.retrieve(agent.id)).name, 'b');
    assert.deepEqual(flaky.asked, Array(2).fill(`GET /v1/agents/${agent.id}`));
    await flaky.close();
  }
});

test('1, 8: errors are the classes of the SDK, and every answer has an id', async () => {
  const stranger = new Anthropic({ baseURL: client.baseURL, apiKey: 'wrong', maxRetries: 0 });
  await refused(Anthropic.AuthenticationError, stranger.beta.files.list());
  assert.match((await files.list().withResponse()).request_id, /^req_/);
  await refused(Anthropic.BadRequestError, sessions.list({ page: 'page_nonsense' }));
  const nobody = new Anthropic({ baseURL: 'http://127.0.0.1:9', apiKey: 'x', maxRetries: 0 });
  await assert.rejects(nobody.beta.files.list(), Anthropic.APIConnectionError);
});
