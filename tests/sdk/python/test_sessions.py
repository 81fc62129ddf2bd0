"""Sessions: checklist 50 to 69."""

import anthropic
from anthropic.types.beta.beta_environment_not_found_error import BetaEnvironmentNotFoundError

from harness import CUSTOM, TOOLSET, Case, call, kinds, only, text, within


class Sessions(Case):
    def setUp(self):
        super().setUp()
        self.sessions = self.beta.sessions

    def wrong(self, expected, kind=anthropic.BadRequestError, **fields):
        before = [session.id for session in self.sessions.list(limit=5).data]
        fields = {"agent": self.agent().id, "environment_id": self.environment().id, **fields}
        message = self.refused(kind, self.sessions.create, **fields)
        self.assertIn(expected, message)
        self.assertEqual([session.id for session in self.sessions.list(limit=5).data], before)

    def test_51_versions_are_pinned(self):
        agent = self.agent(system="one")
        environment = self.environment().id
        self.beta.agents.update(agent.id, system="two")
        latest = self.sessions.create(agent=agent.id, environment_id=environment)
        self.assertEqual((latest.agent.version, latest.agent.system), (2, "two"))
        reference = {"type": "agent", "id": agent.id, "version": 1}
        first = self.sessions.create(agent=reference, environment_id=environment)
        self.assertEqual((first.agent.version, first.agent.system), (1, "one"))
        self.beta.agents.update(agent.id, system="three")
        self.assertEqual(self.sessions.retrieve(latest.id).agent.system, "two")
        ninth = {"type": "agent", "id": agent.id, "version": 9}
        self.wrong("has no version 9", anthropic.NotFoundError, agent=ninth)

    def test_52_53_a_session_begins_with_its_first_events(self):
        idle = self.session()
        self.assertEqual((idle.type, idle.status, idle.metadata, idle.resources), ("session", "idle", {}, []))
        running = self.session(message="go")
        self.assertEqual(running.status, "running")
        events = self.events(self.settled(running))
        said = only(events, "user.message")
        self.assertEqual([event.content[0].text for event in said], ["go"])
        self.assertEqual(only(events, "agent.message")[0].content[0].text, "done")

    def test_54_55_wrong_first_events_make_no_session(self):
        good = text("go")
        for events in (
            [good, {"type": "user.message", "content": []}],
            [good, {"type": "user.interrupt"}],
            [good, {"type": "system.message", "content": [{"type": "text", "text": "x"}]}],
            [good] * 51,
            [{"type": "user.message", "content": [{"type": "redacted"}]}],
        ):
            self.wrong("initial_events", initial_events=events)

    def test_56_57_overrides_are_the_sessions_alone(self):
        agent = self.agent(system="base", tools=[TOOLSET])
        other = self.server.model({"text": "other"})
        override = {"type": "agent_with_overrides", "id": agent.id, "model": other, "system": None, "tools": [CUSTOM]}
        session = self.sessions.create(agent=override, environment_id=self.environment().id)
        shown = session.agent
        self.assertEqual((shown.id, shown.version, shown.system, shown.model.id), (agent.id, 1, None, other))
        self.assertEqual([tool.type for tool in shown.tools], ["custom"])
        self.assertEqual(self.beta.agents.retrieve(agent.id).system, "base")
        self.wrong("model", agent={"type": "agent_with_overrides", "id": agent.id, "model": None})

    def test_59_updates_are_events(self):
        session = self.session()
        changed = self.sessions.update(session.id, title="new")
        self.assertEqual(changed.title, "new")
        self.sessions.update(session.id, title="new")
        self.sessions.update(session.id, metadata={"a": "1"})
        self.sessions.update(session.id, metadata={"b": "2"})
        updates = [event.to_dict() for event in only(self.events(session), "session.updated")]
        self.assertEqual(len(updates), 3)
        self.assertEqual(updates[0]["title"], "new")
        self.assertNotIn("metadata", updates[0])
        self.assertNotIn("agent", updates[0])
        self.assertEqual(updates[2]["metadata"], {"a": "1", "b": "2"})

    def test_60_tools_change_while_idle(self):
        session, _ = self.finished({"text": "one"}, call("bash", command="true"), {"text": "two"})
        changed = self.sessions.update(session.id, agent={"tools": [TOOLSET]})
        self.assertEqual(len(changed.agent.tools), 1)
        self.sessions.events.send(session.id, events=[text("more")])
        self.settled(session)
        results = only(self.events(session), "agent.tool_result")
        self.assertEqual([result.is_error for result in results], [False])
        slow = self.session({"text": "slow", "delay_ms": 30000}, message="go")
        self.refused(anthropic.BadRequestError, self.sessions.update, slow.id, agent={"tools": []})
        self.sessions.events.send(slow.id, events=[{"type": "user.interrupt"}])
        self.settled(slow)

    def test_61_vaults_cannot_be_changed(self):
        session = self.session()
        self.refused(anthropic.BadRequestError, self.sessions.update, session.id, vault_ids=["vlt_x"])

    def test_62_63_lists_go_both_ways(self):
        agent = self.agent()
        environment = self.environment().id
        made = [self.sessions.create(agent=agent.id, environment_id=environment).id for _ in range(5)]
        first = self.sessions.list(agent_id=agent.id, limit=2)
        self.assertEqual([s.id for s in first.data], made[:2:-1])
        self.assertIsNone(first.prev_page)
        second = self.sessions.list(agent_id=agent.id, limit=2, page=first.next_page)
        self.assertEqual([s.id for s in second.data], [made[2], made[1]])
        back = self.sessions.list(agent_id=agent.id, limit=2, page=second.prev_page)
        self.assertEqual([s.id for s in back.data], [s.id for s in first.data])
        self.assertEqual([s.id for s in self.sessions.list(agent_id=agent.id, limit=2)], made[::-1])
        self.assertEqual([s.id for s in self.sessions.list(agent_id=agent.id, order="asc")], made)
        self.refused(anthropic.BadRequestError, self.sessions.list, order="asc", page=first.next_page)

    def test_64_filters_combine(self):
        agent = self.agent()
        environment = self.environment().id
        one = self.sessions.create(agent=agent.id, environment_id=environment)
        self.beta.agents.update(agent.id, name="second")
        two = self.sessions.create(agent=agent.id, environment_id=environment)
        found = lambda **filters: {s.id for s in self.sessions.list(agent_id=agent.id, **filters)}
        self.assertEqual(found(), {one.id, two.id})
        self.assertEqual(found(agent_version=1), {one.id})
        self.assertEqual(found(statuses=["idle"]), {one.id, two.id})
        self.assertEqual(found(statuses=["running"]), set())
        self.assertEqual(found(created_at_gte=two.created_at), {two.id} | ({one.id} if one.created_at == two.created_at else set()))
        self.assertEqual(found(deployment_id="depl_x"), set())
        self.assertEqual(found(memory_store_id="memstore_x"), set())
        self.refused(anthropic.BadRequestError, self.sessions.list, agent_version=1)

    def test_65_66_archived_sessions_are_over(self):
        session, events = self.finished({"text": "one"})
        archived = self.sessions.archive(session.id)
        self.assertEqual(archived.status, "terminated")
        self.assertIsNotNone(archived.archived_at)
        after = self.events(session)
        end = ["session.thread_status_terminated", "session.status_terminated"]
        self.assertEqual(kinds(after[len(events) :]), end)
        self.refused(anthropic.BadRequestError, self.sessions.events.send, session.id, events=[text("more")])
        self.assertNotIn(session.id, [s.id for s in self.sessions.list(agent_id=session.agent.id)])
        self.assertIn(session.id, [s.id for s in self.sessions.list(agent_id=session.agent.id, include_archived=True)])

    def test_65_67_running_sessions_are_neither_archived_nor_deleted(self):
        slow = self.session({"text": "slow", "delay_ms": 30000}, message="go")
        for act in (self.sessions.archive, self.sessions.delete):
            self.refused(anthropic.BadRequestError, act, slow.id)
        self.sessions.events.send(slow.id, events=[{"type": "user.interrupt"}])
        self.settled(slow)
        self.sessions.archive(slow.id)

    def test_67_deletion_ends_open_streams(self):
        session, _ = self.finished({"text": "one"})
        with self.sessions.events.stream(session.id) as stream:
            deleted = self.sessions.delete(session.id)
            self.assertEqual((deleted.id, deleted.type), (session.id, "session_deleted"))
            self.assertEqual(kinds(stream), ["session.deleted"])
        self.refused(anthropic.NotFoundError, self.sessions.retrieve, session.id)
        self.refused(anthropic.NotFoundError, self.sessions.events.list, session.id)

    def test_69_usage_and_stats_add_up(self):
        turn = {"text": "x", "usage": {"input_tokens": 10, "output_tokens": 5}}
        session, _ = self.finished(turn, turn)
        self.assertEqual((session.usage.input_tokens, session.usage.output_tokens), (10, 5))
        self.sessions.events.send(session.id, events=[text("more")])
        session = self.settled(session)
        self.assertEqual((session.usage.input_tokens, session.usage.output_tokens), (20, 10))
        self.assertGreaterEqual(session.stats.duration_seconds, session.stats.active_seconds)
        self.sessions.archive(session.id)
        durations = {self.sessions.retrieve(session.id).stats.duration_seconds for _ in range(3)}
        self.assertEqual(len(durations), 1)

    def test_unknown_ids_and_fields(self):
        self.refused(anthropic.NotFoundError, self.sessions.retrieve, "sesn_unknown")
        self.wrong("`env_unknown`", BetaEnvironmentNotFoundError, environment_id="env_unknown")
        self.wrong("`agent_unknown`", anthropic.NotFoundError, agent="agent_unknown")
        self.wrong("bogus", extra_body={"bogus": 1})

    def test_the_async_client_does_the_same(self):
        agent, environment = self.agent(), self.environment()

        async def work():
            async with self.server.async_client() as client:
                sessions = client.beta.sessions
                session = await sessions.create(agent=agent.id, environment_id=environment.id)
                self.assertEqual((await sessions.retrieve(session.id)).status, "idle")
                self.assertEqual((await sessions.update(session.id, title="t")).title, "t")
                self.assertEqual([s.id async for s in sessions.list(limit=1, agent_id=agent.id)], [session.id])
                self.assertEqual((await sessions.archive(session.id)).status, "terminated")
                self.assertEqual((await sessions.delete(session.id)).id, session.id)
                with self.assertRaises(anthropic.NotFoundError):
                    await sessions.retrieve(session.id)

        within(work())
