"""Events: checklist 79 to 119."""

import threading

import anthropic
from anthropic.lib.sessions import accumulate_managed_agents_event

from harness import CUSTOM, DEADLINE, TOOLSET, Case, call, kinds, only, text, toolset, within

ASKS = {"agent_fields": {"tools": toolset("always_ask", "bash")}}
WORKS = {"agent_fields": {"tools": [TOOLSET]}}
KNOWS = {"agent_fields": {"tools": [CUSTOM]}}


class Sending(Case):
    def send(self, session, *events):
        return self.beta.sessions.events.send(session.id, events=list(events)).data

    def refuse(self, session, expected, *events):
        before = kinds(self.events(session))
        message = self.refused(anthropic.BadRequestError, self.send, session, *events)
        self.assertIn(expected, message)
        self.assertEqual(kinds(self.events(session)), before)

    def test_79_80_81_82_85_batches_are_whole(self):
        session = self.session({"text": "one"})
        system = {"type": "system.message", "content": [{"type": "text", "text": "be brief"}]}
        self.refuse(session, "events[1]", text("a"), {"type": "user.nonsense"})
        self.refuse(session, "events[0].content[0]", {"type": "user.message", "content": [{"type": "redacted"}]})
        self.refuse(session, "events[0]", {"type": "user.tool_result", "tool_use_id": "sevt_x"})
        self.refuse(session, "events[0]", system, text("a"))
        self.refuse(session, "events[1]", text("a"), system, system)
        self.refuse(session, "events", *[])
        self.refuse(session, "events[0].bogus", {**text("a"), "bogus": 1})
        sent = self.send(session, text("a"), system)
        self.assertEqual([event.type for event in sent], ["user.message", "system.message"])
        self.assertEqual(len({event.id for event in sent}), 2)
        self.settled(session)
        listed = [event.id for event in self.events(session)]
        self.assertTrue({event.id for event in sent} <= set(listed))

    def test_83_84_confirmations_answer_what_asks(self):
        session, events = self.finished(call("bash", command="true"), {"text": "done"}, **ASKS)
        use = only(events, "agent.tool_use")[0]
        answer = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "allow"}
        self.refuse(session, "deny_message", {**answer, "deny_message": "no"})
        self.refuse(session, "tool_use_id", {**answer, "tool_use_id": "sevt_unknown"})
        self.refuse(session, "result", {**answer, "result": "maybe"})
        self.send(session, answer)
        self.settled(session)
        self.refuse(session, "tool_use_id", answer)

    def test_87_messages_queue_while_the_session_runs(self):
        session = self.session({"text": "one", "delay_ms": 1500}, {"text": "two"}, message="go")
        self.once(session, lambda events: only(events, "span.model_request_start"))
        queued = self.send(session, text("next"))[0]
        self.assertIsNone(queued.processed_at)
        self.settled(session)
        events = self.events(session)
        taken = [event for event in events if event.id == queued.id][0]
        self.assertIsNotNone(taken.processed_at)
        self.assertEqual([m.content[0].text for m in only(events, "agent.message")], ["one", "two"])

    def test_88_messages_wait_for_answers(self):
        session, _ = self.finished(call("bash", command="true"), {"text": "done"}, **ASKS)
        self.refuse(session, "events[0]", text("hello?"))


class Order(Case):
    def send(self, session, *events):
        return self.beta.sessions.events.send(session.id, events=list(events)).data

    def test_89_90_91_92_a_turn_from_start_to_end(self):
        session, events = self.finished(call("bash", command="echo hi"), {"text": "done"}, **WORKS)
        self.assertEqual(
            kinds(events),
            [
                "session.status_running",
                "session.thread_status_running",
                "user.message",
                "span.model_request_start",
                "agent.tool_use",
                "span.model_request_end",
                "agent.tool_result",
                "span.model_request_start",
                "agent.message",
                "span.model_request_end",
                "session.thread_status_idle",
                "session.usage",
                "session.status_idle",
            ],
        )
        use, result = only(events, "agent.tool_use")[0], only(events, "agent.tool_result")[0]
        self.assertEqual((result.tool_use_id, result.is_error), (use.id, False))
        self.assertEqual((use.name, use.input, use.evaluated_permission), ("bash", {"command": "echo hi"}, "allow"))
        self.assertEqual(use.evaluation.type, "always_allow")
        self.assertIn("hi", result.content[0].text)
        starts = [event.id for event in only(events, "span.model_request_start")]
        self.assertEqual([event.model_request_start_id for event in only(events, "span.model_request_end")], starts)
        self.assertEqual(events[-1].stop_reason.type, "end_turn")
        for event in events:
            self.assertTrue(event.id.startswith("sevt_"), event)
            self.assertIsNotNone(event.processed_at, event)

    def test_93_94_95_asks_pause_and_answers_resume(self):
        both = {"tool_calls": [{"name": "bash", "input": {"command": f"echo {n}"}} for n in "ab"]}
        session, events = self.finished(both, {"text": "done"}, **ASKS)
        uses = [event.id for event in only(events, "agent.tool_use")]
        self.assertEqual(events[-1].stop_reason.type, "requires_action")
        self.assertEqual(events[-1].stop_reason.event_ids, uses)
        answer = {"type": "user.tool_confirmation", "tool_use_id": uses[0]}
        self.send(session, {**answer, "result": "deny", "deny_message": "not that one"})
        events = self.idles(session, 2)
        self.assertEqual(events[-1].stop_reason.event_ids, uses[1:])
        self.assertEqual(kinds(events).count("session.status_running"), 1)
        self.send(session, {**answer, "tool_use_id": uses[1], "result": "allow"})
        # It works from the answer on: nobody sees it at rest before.
        self.settled(session)
        events = self.events(session)
        results = {event.tool_use_id: event for event in only(events, "agent.tool_result")}
        self.assertTrue(results[uses[0]].is_error)
        self.assertIn("not that one", results[uses[0]].content[0].text)
        self.assertIn("b", results[uses[1]].content[0].text)
        self.assertEqual(events[-1].stop_reason.type, "end_turn")

    def test_96_custom_tools_are_answered_by_the_client(self):
        session, events = self.finished(call("lookup", word="x"), {"text": "done"}, **KNOWS)
        use = only(events, "agent.custom_tool_use")[0]
        self.assertEqual((use.name, use.input), ("lookup", {"word": "x"}))
        self.assertEqual(events[-1].stop_reason.event_ids, [use.id])
        result = {"type": "user.custom_tool_result", "custom_tool_use_id": use.id}
        sent = self.send(session, {**result, "content": [{"type": "text", "text": "a letter"}]})[0]
        self.assertIsNotNone(sent.processed_at)
        self.settled(session)
        self.assertEqual(self.events(session)[-1].stop_reason.type, "end_turn")
        with self.assertRaises(anthropic.BadRequestError):
            self.send(session, result)

    def test_97_98_auto_asks_and_unknown_tools_are_denied(self):
        auto = {"agent_fields": {"tools": toolset("auto", "bash")}}
        session, events = self.finished(call("bash", command="true"), {"text": "x"}, **auto)
        use = only(events, "agent.tool_use")[0]
        self.assertEqual((use.evaluated_permission, use.evaluation.type), ("ask", "auto"))
        self.assertEqual(use.evaluation.evaluated_permission.reason_code, "indeterminate")
        off = {"agent_fields": {"tools": [{**TOOLSET, "configs": [{"name": "bash", "enabled": False}]}]}}
        session, events = self.finished(call("bash", command="true"), {"text": "x"}, **off)
        use = only(events, "agent.tool_use")[0]
        self.assertEqual((use.evaluated_permission, use.evaluation), ("deny", None))
        self.assertTrue(only(events, "agent.tool_result")[0].is_error)

    def test_99_100_101_interrupts(self):
        session = self.session(call("bash", command="sleep 60"), {"text": "after"}, message="go", **WORKS)
        self.waited(session, "agent.tool_use")
        self.send(session, {"type": "user.interrupt"}, text("again"))
        events = self.idles(session, 2)
        self.assertEqual([e.stop_reason.type for e in only(events, "session.status_idle")], ["end_turn", "end_turn"])
        results = only(events, "agent.tool_result")
        self.assertEqual([result.is_error for result in results], [True])
        order = kinds(events)
        self.assertLess(order.index("agent.tool_result"), order.index("user.interrupt"))
        self.assertLess(order.index("user.interrupt"), order.index("session.status_idle"))
        self.assertEqual(only(events, "agent.message")[-1].content[0].text, "after")
        self.send(session, {"type": "user.interrupt"})
        self.assertEqual(kinds(self.events(session)), order)

    def waited(self, session, kind):
        with self.beta.sessions.events.stream(session.id) as stream:
            if kind in kinds(self.events(session)):
                return
            for event in stream:
                if event.type == kind:
                    return

    def test_102_trouble_with_the_model_is_retried(self):
        session, events = self.finished({"text": "done", "errors": [529]})
        order = kinds(events)
        at = order.index("session.error")
        self.assertEqual(events[at].error.retry_status.type, "retrying")
        self.assertEqual(order[at + 1 :].count("session.status_running"), 1)
        self.assertIn("session.status_rescheduled", order[at:])
        self.assertEqual(events[-1].stop_reason.type, "end_turn")

    def test_103_trouble_that_stays_ends_the_turn_alone(self):
        session, events = self.finished({"text": "never", "errors": [401]}, {"text": "done"})
        self.assertEqual(only(events, "session.error")[-1].error.retry_status.type, "exhausted")
        self.assertEqual(events[-1].stop_reason.type, "retries_exhausted")
        self.send(session, text("again"))
        self.assertEqual(self.idles(session, 2)[-1].stop_reason.type, "end_turn")

    def test_104_what_no_message_can_mend_ends_the_session(self):
        session = self.session({"text": "never", "errors": ["context", "context"]}, message="go")
        self.settled(session, "terminated")
        events = self.events(session)
        self.assertEqual(only(events, "session.error")[-1].error.retry_status.type, "terminal")
        self.assertEqual(events[-1].type, "session.status_terminated")
        self.refused(anthropic.BadRequestError, self.send, session, text("more"))

    def test_106_a_full_context_is_compacted_and_the_work_goes_on(self):
        # What is shorter than a summary is not compacted.
        _, events = self.finished({"text": "done", "errors": ["context"]}, message="go on and on " * 100)
        self.assertIn("agent.thread_context_compacted", kinds(events))
        self.assertEqual(events[-1].stop_reason.type, "end_turn")

    def test_105_refusals_are_named(self):
        _, events = self.finished({"text": "no", "stop": "refusal"})
        for idle in (events[-3], events[-1]):
            self.assertEqual(idle.stop_reason.type, "refusal")
            self.assertIn("stop_details", idle.to_dict())


class Reading(Case):
    def test_107_lists_choose_and_turn(self):
        session, events = self.finished(call("bash", command="true"), {"text": "done"}, **WORKS)
        backwards = self.events(session, order="desc")
        self.assertEqual([e.id for e in backwards], [e.id for e in events][::-1])
        chosen = self.events(session, types=["agent.tool_use", "agent.tool_result"])
        self.assertEqual(kinds(chosen), ["agent.tool_use", "agent.tool_result"])
        self.refused(anthropic.BadRequestError, self.beta.sessions.events.list, session.id, types=["nonsense"])
        later = self.events(session, created_at_gt=events[-1].processed_at)
        self.assertEqual(later, [])

    def test_108_pages_have_no_gaps(self):
        session, events = self.finished({"text": "one"})
        for limit in (1, 2, 3, 1000):
            self.assertEqual([e.id for e in self.events(session, limit=limit)], [e.id for e in events])
        self.refused(anthropic.BadRequestError, self.beta.sessions.events.list, session.id, limit=0)

    def test_109_119_list_and_stream_lose_nothing(self):
        turns = 10
        session = self.session({"text": "more", "repeat": turns})
        seen = [[], []]

        def watch(into):
            with self.server.client() as client, client.beta.sessions.events.stream(session.id) as stream:
                ready.release()
                for event in stream:
                    into.append(event.id)
                    if event.type == "session.updated":
                        return

        ready = threading.Semaphore(0)
        watchers = [threading.Thread(target=watch, args=(into,)) for into in seen]
        for watcher in watchers:
            watcher.start()
        for _ in watchers:
            ready.acquire()
        for _ in range(turns):
            self.beta.sessions.events.send(session.id, events=[text("go")])
            self.settled(session)
        self.beta.sessions.update(session.id, title="the end")
        for watcher in watchers:
            watcher.join(DEADLINE)
            self.assertFalse(watcher.is_alive())
        listed = [event.id for event in self.events(session)]
        self.assertEqual(len(only(self.events(session), "agent.message")), turns)
        self.assertEqual(seen, [listed, listed])

    def test_113_114_115_116_118_previews(self):
        turn = {"thinking": "hm", "text": "one two three four five six", "chunks": 6}
        session = self.session(turn)
        message, pieces, order = None, [], []
        stream = self.beta.sessions.events.stream(session.id, event_deltas=["agent.message", "agent.thinking"])
        with stream as stream:
            self.beta.sessions.events.send(session.id, events=[text("go")])
            for event in stream:
                order.append(event.type)
                message = accumulate_managed_agents_event(message, event)
                if event.type == "event_delta":
                    pieces.append(event.delta.content.text)
                if event.type == "session.status_idle":
                    break
        self.assertEqual(message.content[0].text, turn["text"])
        self.assertTrue(turn["text"].startswith("".join(pieces)))
        self.assertTrue(pieces)
        self.assertEqual(order.count("agent.message"), 1)
        self.assertLessEqual(order.count("event_start"), 2)
        listed = self.events(session)
        self.assertIn(message.id, [event.id for event in listed])
        self.assertFalse({"event_start", "event_delta"} & set(kinds(listed)))

    def test_113_previews_are_off_unless_asked_for(self):
        session = self.session({"text": "one two", "chunks": 2})
        with self.beta.sessions.events.stream(session.id) as stream:
            self.beta.sessions.events.send(session.id, events=[text("go")])
            for event in stream:
                self.assertNotIn(event.type, ("event_start", "event_delta"))
                if event.type == "session.status_idle":
                    break

    def test_117_wrong_previews(self):
        session = self.session()
        stream = self.beta.sessions.events.stream
        self.refused(anthropic.BadRequestError, stream, session.id, event_deltas=["foo"])
        self.refused(anthropic.BadRequestError, stream, session.id, event_deltas=["agent.message"] * 101)

    def test_112_a_client_that_leaves_stops_nothing(self):
        session = self.session({"text": "slow", "delay_ms": 500})
        with self.beta.sessions.events.stream(session.id):
            self.beta.sessions.events.send(session.id, events=[text("go")])
        self.settled(session)
        self.assertEqual(self.events(session)[-1].stop_reason.type, "end_turn")


class Helpers(Case):
    def test_the_tool_runner_answers_custom_tools(self):
        from anthropic import beta_async_tool

        @beta_async_tool
        async def lookup(word: str) -> str:
            """Looks a word up.

            Args:
                word: The word.
            """
            return f"{word} is a word"

        session = self.session(call("lookup", word="x"), {"text": "done"}, message="go", **KNOWS)

        async def work():
            async with self.server.async_client() as client:
                runner = client.beta.sessions.events.tool_runner(session.id, tools=[lookup], max_idle=0.5)
                return [call.name async for call in runner]

        self.assertEqual(within(work()), ["lookup"])
        events = self.events(self.settled(session))
        self.assertEqual(events[-1].stop_reason.type, "end_turn")

    def test_the_async_client_streams(self):
        session = self.session({"text": "done"})

        async def work():
            async with self.server.async_client() as client:
                events = client.beta.sessions.events
                async with await events.stream(session.id) as stream:
                    await events.send(session.id, events=[text("go")])
                    seen = []
                    async for event in stream:
                        seen.append(event.type)
                        if event.type == "session.status_idle":
                            break
                return seen, [event.type async for event in events.list(session.id, limit=3)]

        seen, listed = within(work())
        self.assertEqual(seen, listed)
