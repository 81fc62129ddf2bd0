// Events: sent, listed, streamed, accumulated, answered by hand and by the SDK's own runner of tools.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema';
import { accumulateManagedAgentsEvent } from '@anthropic-ai/sdk/lib/sessions/accumulate';

import { CUSTOM, call, client, collect, events, idles, kinds, only, session, text, until } from './harness.mjs';

const { sessions } = client.beta;
const TOOLSET = { type: 'agent_toolset_20260401' };
const send = (made, ...sent) => sessions.events.send(made.id, { events: sent });

test('79, 89, 110, 113, 114, 118, 119: a turn on two streams, and in the list', async () => {
  const made = await session([{ thinking: 'hm', text: 'one two three four', chunks: 4 }]);
  const plain = await sessions.events.stream(made.id);
  const previews = { event_deltas: ['agent.message', 'agent.thinking'] };
  const stream = await sessions.events.stream(made.id, previews);
  const sent = await send(made, text('go'));
  assert.equal(sent.data[0].type, 'user.message');
  const seen = [];
  let message;
  const pieces = [];
  for await (const event of stream) {
    seen.push(event);
    if (event.type === 'event_delta') pieces.push(event.delta.content.text);
    message = accumulateManagedAgentsEvent(message, event);
    if (event.type === 'session.status_idle') break;
  }
  assert.equal(message.content[0].text, 'one two three four');
  assert.ok(pieces.length > 0 && message.content[0].text.startsWith(pieces.join('')));
  const listed = await events(made);
  const durable = seen.filter((event) => !['event_start', 'event_delta'].includes(event.type));
  assert.deepEqual(durable, listed);
  const unasked = [];
  for await (const event of plain) {
    unasked.push(event);
    if (event.type === 'session.status_idle') break;
  }
  assert.deepEqual(unasked, listed);
  assert.deepEqual(kinds(listed), [
    'session.status_running',
    'session.thread_status_running',
    'user.message',
    'span.model_request_start',
    'agent.thinking',
    'agent.message',
    'span.model_request_end',
    'session.thread_status_idle',
    'session.usage',
    'session.status_idle',
  ]);
});

test('107, 108: lists choose, turn and page', async () => {
  const made = await session([{ text: 'done' }], { initial_events: [text('go')] });
  const all = (await idles(made, 1)).map((event) => event.id);
  for (const limit of [1, 2, 3, 1000]) {
    assert.deepEqual((await events(made, { limit })).map((event) => event.id), all);
    assert.deepEqual((await events(made, { limit, order: 'desc' })).map((event) => event.id), [...all].reverse());
  }
  assert.deepEqual(kinds(await events(made, { types: ['agent.message', 'user.message'] })), ['user.message', 'agent.message']);
  await assert.rejects(events(made, { types: ['nonsense'] }), Anthropic.BadRequestError);
});

test('93, 95: calls that ask are confirmed', async () => {
  const ask = { ...TOOLSET, configs: [{ name: 'bash', permission_policy: { type: 'always_ask' } }] };
  const turns = [call('bash', { command: 'echo hi' }), { text: 'done' }];
  const made = await session(turns, { agent: { tools: [ask] }, initial_events: [text('go')] });
  const [use] = only(await idles(made, 1), 'agent.tool_use');
  assert.deepEqual((await sessions.retrieve(made.id)).status, 'idle');
  await send(made, { type: 'user.tool_confirmation', tool_use_id: use.id, result: 'allow' });
  const listed = await idles(made, 2);
  assert.match(only(listed, 'agent.tool_result')[0].content[0].text, /hi/);
  assert.equal(listed.at(-1).stop_reason.type, 'end_turn');
});

test('99: an interrupt ends the turn', async () => {
  const made = await session([{ text: 'never', delay_ms: 3_600_000 }], { initial_events: [text('go')] });
  await until('the request', async () => only(await events(made), 'span.model_request_start').length === 1);
  await send(made, { type: 'user.interrupt' });
  assert.equal((await idles(made, 1)).at(-1).stop_reason.type, 'end_turn');
});

test('67: a stream ends with its session', async () => {
  const made = await session([{ text: 'done' }]);
  const stream = await sessions.events.stream(made.id);
  await sessions.delete(made.id);
  assert.deepEqual(kinds(await collect(stream)), ['session.deleted']);
});

test('96: the runner of tools answers custom tools', async () => {
  const lookup = betaTool({
    name: CUSTOM.name,
    description: CUSTOM.description,
    inputSchema: CUSTOM.input_schema,
    run: ({ word }) => {
      if (word === 'y') throw new Error('no such word');
      return `${word} is a word`;
    },
  });
  const both = { tool_calls: ['x', 'y'].map((word) => ({ name: 'lookup', input: { word } })) };
  const made = await session([both, { text: 'done' }], { agent: { tools: [CUSTOM] }, initial_events: [text('go')] });
  const calls = await collect(sessions.events.toolRunner(made.id, { tools: [lookup], maxIdleMs: 200 }));
  const told = calls.map((one) => [one.name, one.event.input.word, one.posted, one.isError]).sort();
  assert.deepEqual(told, [['lookup', 'x', true, false], ['lookup', 'y', true, true]]);
  const listed = await events(made);
  const results = only(listed, 'user.custom_tool_result').map((event) => event.content[0].text);
  assert.ok(results.includes('x is a word') && results.some((words) => words.includes('no such word')), `${results}`);
  assert.equal(listed.at(-1).stop_reason.type, 'end_turn');
});
