"""Threads: checklist 120, 131."""

import anthropic

from harness import Case, kinds, only, text, within


class Threads(Case):
    def test_120_the_primary_thread_is_listed(self):
        session, events = self.finished({"text": "one"})
        threads = self.beta.sessions.threads
        listed = list(threads.list(session.id))
        self.assertEqual(len(listed), 1)
        primary = listed[0]
        self.assertEqual((primary.type, primary.parent_thread_id, primary.session_id), ("session_thread", None, session.id))
        self.assertEqual(primary.id, only(events, "session.thread_status_running")[0].session_thread_id)
        self.assertEqual(primary.agent.name, session.agent.name)
        again = threads.retrieve(primary.id, session_id=session.id)
        # Its clock goes on.
        self.assertGreaterEqual(again.stats.duration_seconds, primary.stats.duration_seconds)
        self.assertEqual(again.to_dict(exclude_unset=False) | {"stats": None}, primary.to_dict(exclude_unset=False) | {"stats": None})
        own = list(threads.events.list(primary.id, session_id=session.id))
        self.assertIn("agent.message", kinds(own))
        self.assertEqual([t.id for t in threads.list(session.id, statuses=["idle"])], [primary.id])
        self.assertEqual(list(threads.list(session.id, statuses=["running"])), [])
        self.refused(anthropic.NotFoundError, threads.retrieve, "sthr_unknown", session_id=session.id)

    def test_131_a_thread_has_a_stream_of_its_own(self):
        session = self.session({"text": "one"})
        primary = list(self.beta.sessions.threads.list(session.id))[0]
        with self.beta.sessions.threads.events.stream(primary.id, session_id=session.id) as stream:
            self.beta.sessions.events.send(session.id, events=[text("go")])
            for event in stream:
                if event.type == "session.thread_status_idle":
                    break

    def test_the_async_client_does_the_same(self):
        session = self.session()

        async def work():
            async with self.server.async_client() as client:
                return [t.session_id async for t in client.beta.sessions.threads.list(session.id)]

        self.assertEqual(within(work()), [session.id])
