"""Budgets: checklist 135 to 139."""

import anthropic

from harness import CUSTOM, Case, Server, call, kinds, only, text

# A dollar for a million tokens that come in.
PRICES = "[[prices]]\nmatch = 'scripted:*'\ninput = '1'\noutput = '4'\ncache_read = '0.1'\n"
DOLLAR = {"usage": {"input_tokens": 1_000_000}}
_PRICED = None


def priced():
    """A server that knows what its scripted models cost."""
    global _PRICED
    if _PRICED is None:
        _PRICED = Server(config=PRICES)
    return _PRICED


def limit(amount, currency="USD"):
    return {"type": "limit", "max_list_cost": {"amount": amount, "currency": currency}}


class Budgets(Case):
    def setUp(self):
        super().setUp()
        self.server = priced()
        self.client = self.server.client()
        self.addCleanup(self.client.close)
        self.beta = self.client.beta

    def costly(self, *turns, budget):
        fields = {"agent_fields": {"tools": [CUSTOM]}, "budget": budget}
        return self.session(*turns, message="go", **fields)

    def answer(self, session, use):
        result = {"type": "user.custom_tool_result", "custom_tool_use_id": use.id}
        self.beta.sessions.events.send(session.id, events=[result])

    def code(self, error_code, **update):
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.beta.sessions.update(**update)
        self.assertEqual(caught.exception.body["error"]["details"]["error_code"], error_code)

    def test_135_136_139_a_budget_that_is_reached_pauses(self):
        asks = {**call("lookup", word="x"), **DOLLAR}
        session = self.costly(asks, {"text": "done"}, budget=limit("100"))
        events = self.idles(session, 1)
        # Over the budget, and yet it asks: that comes first.
        self.assertEqual(events[-1].stop_reason.type, "requires_action")
        self.assertEqual(events[-2].usage.list_cost.amount, "100")
        self.assertEqual(events[-2].budget.max_list_cost.amount, "100")
        self.answer(session, only(events, "agent.custom_tool_use")[0])
        events = self.idles(session, 2)
        end = ["session.thread_status_idle", "session.usage", "session.status_idle"]
        self.assertEqual(kinds(events)[-3:], end)
        for event in (events[-3], events[-1]):
            self.assertEqual(event.stop_reason.type, "budget_reached")
        self.assertEqual(kinds(events).count("span.model_request_start"), 1)
        send = self.beta.sessions.events.send
        message = self.refused(anthropic.BadRequestError, send, session.id, events=[text("more")])
        for settles in ("user.tool_confirmation", "user.custom_tool_result", "user.tool_result", "user.interrupt"):
            self.assertIn(settles, message)
        self.assertEqual(send(session.id, events=[{"type": "user.interrupt"}]).data[0].type, "user.interrupt")
        self.assertEqual(kinds(self.events(session)), kinds(events))

    def test_137_a_budget_that_is_raised_goes_on(self):
        asks = {**call("lookup", word="x"), **DOLLAR}
        session = self.costly(asks, {"text": "done"}, {"text": "free"}, budget=limit("50"))
        self.answer(session, only(self.idles(session, 1), "agent.custom_tool_use")[0])
        self.idles(session, 2)
        for amount in ("60", "100"):
            self.code("budget_not_raised", session_id=session.id, budget=limit(amount))
        raised = self.beta.sessions.update(session.id, budget=limit("101"))
        self.assertEqual(raised.budget.max_list_cost.amount, "101")
        events = self.idles(session, 3)
        self.assertEqual(events[-1].stop_reason.type, "end_turn")
        self.assertEqual(only(events, "session.updated")[0].budget.max_list_cost.amount, "101")
        self.assertEqual(only(events, "agent.message")[0].content[0].text, "done")
        self.assertIsNone(self.beta.sessions.update(session.id, budget=None).budget)
        self.code("budget_create_only", session_id=session.id, budget=limit("9999"))
        self.beta.sessions.events.send(session.id, events=[text("more")])
        self.assertEqual(self.idles(session, 4)[-1].stop_reason.type, "end_turn")

    def test_138_amounts_are_whole_cents(self):
        before = [session.id for session in self.beta.sessions.list(limit=5).data]
        for wrong in (limit("25.00"), limit("0"), limit("-1"), limit("007"), limit(25), limit("25", "EUR")):
            self.refused(anthropic.BadRequestError, self.costly, {"text": "x"}, budget=wrong)
        self.assertEqual([session.id for session in self.beta.sessions.list(limit=5).data], before)
