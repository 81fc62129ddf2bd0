"""A live server for the tests, and clients of it. Everything is gone when the process ends."""

import asyncio
import atexit
import http.client
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import anthropic

BINARY = os.environ["CASEMATE"]
# Nothing here takes a tenth of it, also on a busy machine.
DEADLINE = 60


class Server:
    """`casemate serve` with a data directory of its own."""

    def __init__(self, *arguments, config=""):
        self.dir = Path(tempfile.mkdtemp(prefix="casemate-sdk-"))
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.dir)}
        self.env["CASEMATE_DATA_DIR"] = str(self.dir / "data")
        (self.dir / "config.toml").write_text(config)
        self.arguments = ["--config", self.dir / "config.toml", *arguments]
        self.scripts = 0
        self.key = self.run("key").strip()
        self.start()
        atexit.register(self.close)

    def run(self, *arguments):
        done = subprocess.run(
            [BINARY, *arguments], env=self.env, cwd=self.dir, check=True, capture_output=True, timeout=DEADLINE
        )
        return done.stdout.decode()

    def start(self):
        command = [BINARY, "serve", "--listen", "127.0.0.1:0", *self.arguments]
        self.log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen(
            command, env=self.env, cwd=self.dir, stdout=subprocess.PIPE, stderr=self.log
        )
        self.url = self.process.stdout.readline().decode().strip()

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE)
        self.process.stdout.close()
        self.log.close()

    def close(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def ask(self, method, path, body=None, headers=None):
        """What a client without any SDK is answered: status, headers by lower-case name, body."""
        host = self.url.removeprefix("http://").split("/")[0]
        connection = http.client.HTTPConnection(host, timeout=DEADLINE)
        kept = {name: value for name, value in (headers or {}).items() if name.lower() != "host"}
        kept = {"x-api-key": self.key, "connection": "close", **kept}
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in kept.items():
            if name.lower() != "content-length":
                connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        try:
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, [(name.lower(), value) for name, value in answer.getheaders()], answer.read()
        finally:
            connection.close()

    def client(self, **options):
        return anthropic.Anthropic(base_url=self.url, api_key=self.key, **options)

    def async_client(self, **options):
        return anthropic.AsyncAnthropic(base_url=self.url, api_key=self.key, **options)

    def model(self, *turns):
        """The id of a model that answers with these turns, one for each request."""
        self.scripts += 1
        path = self.dir / f"script-{self.scripts}.yaml"
        path.write_text(json.dumps({"turns": list(turns)}))
        return f"scripted:{path}"

    def logged(self):
        return (self.dir / "log").read_text()


_SERVER = None


def server():
    """The server that most tests share."""
    global _SERVER
    if _SERVER is None:
        _SERVER = Server()
    return _SERVER


class Case(unittest.TestCase):
    """A test with a client. What it makes is its own: tests run in any order."""

    maxDiff = None

    def setUp(self):
        self.server = server()
        self.client = self.server.client()
        self.addCleanup(self.client.close)
        self.beta = self.client.beta

    def refused(self, kind, call, *arguments, **named):
        """The error of a call that must be refused with that SDK exception."""
        with self.assertRaises(kind) as caught:
            call(*arguments, **named)
        error = caught.exception
        self.assertIs(type(error), kind, error)
        self.assertEqual(error.body["type"], "error")
        self.assertEqual(error.request_id, error.body["request_id"])
        self.assertTrue(error.request_id.startswith("req_"))
        return error.body["error"]["message"]

    def environment(self, **config):
        config = {"type": "cloud", **config} if config else None
        named = {"config": config} if config else {}
        return self.beta.environments.create(name="test", **named)

    def agent(self, *turns, **fields):
        model = self.server.model(*(turns or [{"text": "done"}]))
        fields = {"name": "tester", "model": model, **fields}
        return self.beta.agents.create(**fields)

    def session(self, *turns, message=None, **fields):
        """A session of an agent that answers with these turns; with a message it begins at once."""
        agent_fields = fields.pop("agent_fields", {})
        agent = self.agent(*turns, **agent_fields)
        if message is not None:
            fields["initial_events"] = [text(message)]
        return self.beta.sessions.create(agent=agent.id, environment_id=self.environment().id, **fields)

    def settled(self, session, status="idle"):
        """The session once it has come to rest."""
        end = time.monotonic() + DEADLINE
        while True:
            now = self.beta.sessions.retrieve(session.id)
            if now.status == status:
                return now
            self.assertLess(time.monotonic(), end, f"still {now.status}")
            time.sleep(0.02)

    def events(self, session, **filters):
        return list(self.beta.sessions.events.list(session.id, **filters))

    def idles(self, session, count):
        """The events once the session came to rest that many times: between two turns it is idle too."""
        return self.once(session, lambda events: len(only(events, "session.status_idle")) == count)

    def once(self, session, holds):
        """The events once that holds of them."""
        end = time.monotonic() + DEADLINE
        while True:
            events = self.events(session)
            if holds(events):
                return events
            self.assertLess(time.monotonic(), end, kinds(events))
            time.sleep(0.02)

    def finished(self, *turns, message="go", **fields):
        """A session after its first turn, and its events."""
        session = self.settled(self.session(*turns, message=message, **fields))
        return session, self.events(session)


class Between:
    """A server between a client and the real one: it counts what is asked, and can fail on the way."""

    def __init__(self, server, *failures):
        self.asked = []
        self.failures = list(failures)
        between = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                between.asked.append((self.command, self.path))
                if between.failures:
                    status, headers, answer = between.failures.pop(0), [], b""
                else:
                    status, headers, answer = server.ask(self.command, self.path, body, dict(self.headers))
                self.send_response(status)
                for name, value in headers:
                    if name not in ("content-length", "transfer-encoding", "connection", "date"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_DELETE = forward

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join(DEADLINE)


def text(words):
    return {"type": "user.message", "content": [{"type": "text", "text": words}]}


def call(name, **inputs):
    """A turn of a scripted model that calls one tool."""
    return {"tool_calls": [{"name": name, "input": inputs}]}


def kinds(events):
    return [event.type for event in events]


def only(events, kind):
    return [event for event in events if event.type == kind]


def within(awaitable):
    return asyncio.run(asyncio.wait_for(awaitable, DEADLINE))


TOOLSET = {"type": "agent_toolset_20260401"}


def toolset(policy, *names):
    """The built-in tools, these under another policy."""
    configs = [{"name": name, "permission_policy": {"type": policy}} for name in names]
    return [{**TOOLSET, "configs": configs}]


CUSTOM = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks a word up.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
}
