"""The built-in tools as a client sees them: sections c.1 and c.2 of the protocol's description."""

import http.server
import json
import threading

from harness import TOOLSET, Case, Server, call, only

WORK = "/workspace"


class Tools(Case):
    def results(self, *calls, **fields):
        """What the calls of one answer each return: whether it is an error, and the text."""
        turns = [*calls, {"text": "done"}]
        fields = {"agent_fields": {"tools": [TOOLSET]}, **fields}
        _, events = self.finished(*turns, **fields)
        uses, results = only(events, "agent.tool_use"), only(events, "agent.tool_result")
        self.assertEqual([use.id for use in uses], [result.tool_use_id for result in results])
        said = lambda result: "".join(block.text for block in result.content if block.type == "text")
        return [(bool(result.is_error), said(result)) for result in results]

    def test_c2_files_are_written_read_and_edited(self):
        path = f"{WORK}/notes/a.txt"
        written, read, part, edited, twice, missing = self.results(
            call("write", file_path=path, content="one\ntwo\ntwo\n"),
            call("read", file_path=path),
            call("read", file_path=path, view_range=[2, -1]),
            call("edit", file_path=path, old_string="one", new_string="1"),
            call("edit", file_path=path, old_string="two", new_string="2"),
            call("read", file_path=f"{WORK}/absent"),
        )
        self.assertFalse(written[0])
        self.assertIn("one", read[1])
        self.assertNotIn("one", part[1])
        self.assertIn("two", part[1])
        self.assertFalse(edited[0])
        # Not unique, so nothing was changed.
        self.assertTrue(twice[0])
        self.assertIn("2", twice[1])
        self.assertTrue(missing[0])

    def test_c2_a_command_may_fail_and_its_shell_lasts(self):
        failed, kept, begun, forgotten = self.results(
            call("bash", command="word=kept; echo said; exit_with() { return 3; }; exit_with"),
            call("bash", command="echo $word"),
            call("bash", restart=True),
            call("bash", command="echo [$word]"),
        )
        self.assertTrue(failed[0])
        self.assertIn("said", failed[1])
        self.assertIn("kept", kept[1])
        self.assertFalse(begun[0])
        self.assertIn("[]", forgotten[1])

    def test_c2_files_are_found_by_name_and_by_what_they_say(self):
        _, names, lines, none, outside = self.results(
            call("bash", command="mkdir -p a/b && echo needle > a/b/x.py && echo hay > a/y.txt"),
            call("glob", pattern="**/*.py"),
            call("grep", pattern="nee.le"),
            call("grep", pattern="absent"),
            call("glob", pattern="../*"),
        )
        self.assertIn("a/b/x.py", names[1])
        self.assertNotIn("y.txt", names[1])
        self.assertIn("needle", lines[1])
        self.assertEqual(none, (False, "no matches"))
        self.assertTrue(outside[0])

    def test_c1_domains_hold_when_a_page_is_fetched(self):
        config = {"name": "web_fetch", "allowed_domains": ["example.com"]}
        fields = {"agent_fields": {"tools": [{**TOOLSET, "configs": [config]}]}, "message": "http://other.example/"}
        [(is_error, said)] = self.results(call("web_fetch", url="http://other.example/"), **fields)
        self.assertTrue(is_error)
        self.assertIn("url_not_allowed", said)

    def test_c2_a_search_is_answered_and_counted(self):
        found = {"results": [{"url": "https://example.com/a", "title": "A", "content": "about a"}]}
        with Answers(found) as address:
            own = Server(config=f"[web.search]\nprovider = 'searxng'\nurl = '{address}'\n")
            self.addCleanup(own.close)
            self.server, self.beta = own, own.client().beta
            fields = {"agent_fields": {"tools": [TOOLSET]}}
            session, events = self.finished(call("web_search", query="a"), {"text": "done"}, **fields)
        result = only(events, "agent.tool_result")[0]
        self.assertIn("https://example.com/a", "".join(block.text or "" for block in result.content))
        used = self.beta.sessions.retrieve(session.id).usage.server_tool_use
        self.assertEqual(used.web_search_requests, 1)


class Answers:
    """A server that answers every request with the same JSON."""

    def __init__(self, answer):
        body = json.dumps(answer).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
