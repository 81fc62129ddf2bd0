"""MCP servers through the protocol: the events of their tools, the default policy, what is refused, what fails."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic

from harness import Case, call, only, text

ALLOW = {"permission_policy": {"type": "always_allow"}}


class Handler(BaseHTTPRequestHandler):
    """A server with one tool, in the older lifecycle of its protocol."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(405)

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/closed":
            return self.answer(401, headers={"www-authenticate": "Bearer"})
        if "id" not in asked:
            return self.answer(202)
        schema = {"type": "object", "properties": {"text": {"type": "string"}}}
        tools = [{"name": name, "description": "Echoes.", "inputSchema": schema} for name in self.server.tools]
        known = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {"listChanged": True}},
                "serverInfo": {"name": "t", "version": "1"},
            },
            "tools/list": {"tools": tools},
            "tools/call": {"content": [{"type": "text", "text": "echoed"}]},
        }
        body = {"jsonrpc": "2.0", "id": asked["id"]}
        if asked["method"] in known:
            body["result"] = known[asked["method"]]
        else:
            body["error"] = {"code": -32601, "message": "unknown"}
        if asked["method"] == "tools/call" and asked["params"]["name"] == "change":
            self.server.tools.append("new")
            changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
            events = "".join(f"data: {json.dumps(event)}\n\n" for event in (changed, body))
            return self.answer(200, events.encode(), {"content-type": "text/event-stream"})
        self.answer(200, json.dumps(body).encode(), {"content-type": "application/json"})

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in {**(headers or {}), "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Servers(Case):
    def setUp(self):
        super().setUp()
        listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        listener.tools = ["echo", "change"]
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        self.addCleanup(listener.server_close)
        self.addCleanup(listener.shutdown)
        self.url = f"http://127.0.0.1:{listener.server_address[1]}/mcp"

    def fields(self, url, **config):
        toolset = {"type": "mcp_toolset", "mcp_server_name": "srv", **config}
        return {"tools": [toolset], "mcp_servers": [{"type": "url", "name": "srv", "url": url}]}

    def run_once(self, url, **config):
        turns = [call("mcp__srv__echo", text="hi"), {"text": "done"}]
        return self.finished(*turns, agent_fields=self.fields(url, **config))

    def test_35_calls_of_servers_ask_unless_the_toolset_says_otherwise(self):
        session, events = self.run_once(self.url)
        use = only(events, "agent.mcp_tool_use")[0]
        self.assertEqual((use.mcp_server_name, use.name, use.input), ("srv", "echo", {"text": "hi"}))
        self.assertEqual((use.evaluated_permission, use.evaluation.type), ("ask", "always_ask"))
        self.assertEqual(only(events, "session.status_idle")[-1].stop_reason.event_ids, [use.id])
        answer = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "allow"}
        self.beta.sessions.events.send(session.id, events=[answer])
        self.settled(session)
        result = only(self.events(session), "agent.mcp_tool_result")[0]
        self.assertEqual((result.mcp_tool_use_id, result.is_error), (use.id, False))
        self.assertEqual(result.content[0].text, "echoed")
        _, events = self.run_once(self.url, default_config=ALLOW)
        self.assertEqual(only(events, "agent.mcp_tool_use")[0].evaluation.type, "always_allow")
        self.assertEqual(len(only(events, "agent.mcp_tool_result")), 1)

    def test_a_server_that_fails_is_an_error_and_the_turn_goes_on(self):
        for url, kind in [
            (self.url.replace("/mcp", "/closed"), "mcp_authentication_failed_error"),
            ("http://127.0.0.1:9/mcp", "mcp_connection_failed_error"),
        ]:
            _, events = self.run_once(url)
            error = only(events, "session.error")[0].error
            self.assertEqual((error.type, error.mcp_server_name), (kind, "srv"))
            self.assertEqual(error.retry_status.type, "retrying")
            self.assertEqual(only(events, "session.status_idle")[-1].stop_reason.type, "end_turn")

    def test_tools_that_change_are_others_in_the_next_turn(self):
        turns = [call("mcp__srv__change"), call("mcp__srv__new"), {"text": "one"}, call("mcp__srv__new"), {"text": "two"}]
        session, events = self.finished(*turns, agent_fields=self.fields(self.url, default_config=ALLOW))
        self.assertIn("There is no tool", only(events, "agent.tool_result")[0].content[0].text)
        self.beta.sessions.events.send(session.id, events=[text("again")])
        self.idles(session, 2)
        used = only(self.events(session), "agent.mcp_tool_use")
        self.assertEqual([use.name for use in used], ["change", "new"])

    def test_a_network_that_does_not_name_a_server_refuses_the_session(self):
        agent = self.agent(**self.fields("https://mcp.example/mcp"))
        closed = {"type": "limited", "allowed_hosts": []}
        environment = self.environment(networking=closed)
        create = self.beta.sessions.create
        named = {"agent": agent.id, "environment_id": environment.id}
        message = self.refused(anthropic.BadRequestError, create, **named)
        self.assertIn("mcp_egress_blocked_error", message)
        for rules in ({"allow_mcp_servers": True}, {"allowed_hosts": ["mcp.example"]}):
            open_to_it = self.environment(networking={**closed, **rules})
            create(agent=agent.id, environment_id=open_to_it.id)
