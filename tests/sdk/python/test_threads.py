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
        # It ends with its session, and not by itself.
        self.refused(anthropic.BadRequestError, threads.archive, primary.id, session_id=session.id)

    def test_131_a_thread_has_a_stream_of_its_own(self):
        session = self.session({"text": "one"})
        primary = list(self.beta.sessions.threads.list(session.id))[0]
        with self.beta.sessions.threads.events.stream(primary.id, session_id=session.id) as stream:
            self.beta.sessions.events.send(session.id, events=[text("go")])
            for event in stream:
                if event.type == "session.thread_status_idle":
                    break

    def test_the_async_client_does_the_same(self):
        session = self.session({"text": "one"})

        async def work():
            async with self.server.async_client() as client:
                threads = client.beta.sessions.threads
                (primary,) = [thread async for thread in threads.list(session.id)]
                of = {"session_id": session.id}
                self.assertEqual((await threads.retrieve(primary.id, **of)).id, primary.id)
                with self.assertRaises(anthropic.BadRequestError):
                    await threads.archive(primary.id, **of)
                async with await threads.events.stream(primary.id, **of) as stream:
                    await client.beta.sessions.events.send(session.id, events=[text("go")])
                    async for event in stream:
                        if event.type == "session.thread_status_idle":
                            break
                return [event.type async for event in threads.events.list(primary.id, limit=2, **of)]

        self.assertIn("agent.message", within(work()))
