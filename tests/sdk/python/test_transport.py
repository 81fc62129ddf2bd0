"""Keys, retries, errors: checklist 1 to 15."""

import http.server
import threading

import anthropic
import httpx

from harness import Case


class Transport(Case):
    def raw(self, method, path, **options):
        headers = {"x-api-key": self.server.key, **options.pop("headers", {})}
        return httpx.request(method, self.server.url + path, headers=headers, timeout=60, **options)

    def test_1_a_wrong_key_is_an_authentication_error(self):
        with anthropic.Anthropic(base_url=self.server.url, api_key="wrong") as client:
            message = self.refused(anthropic.AuthenticationError, client.beta.files.list)
        self.assertIn("casemate key", message)

    def test_2_3_7_other_headers_and_queries_are_accepted(self):
        for version in ({}, {"anthropic-version": "2023-06-01"}, {"anthropic-version": "x"}):
            self.assertEqual(self.raw("GET", "/v1/files?beta=true", headers=version).status_code, 200)

    def test_5_6_posts_without_a_body(self):
        agent = self.agent()
        path = f"/v1/agents/{agent.id}/archive"
        for headers in ({"content-type": "application/json"}, {}):
            self.assertEqual(self.raw("POST", path, headers=headers).status_code, 200)

    def test_8_every_answer_has_an_id(self):
        for path in ("/v1/files", "/v1/files/file_none", "/v1/nothing"):
            answer = self.raw("GET", path)
            self.assertTrue(answer.headers["request-id"].startswith("req_"), path)
            if answer.status_code != 200:
                self.assertEqual(answer.json()["request_id"], answer.headers["request-id"])
        self.assertTrue(self.beta.files.list()._request_id.startswith("req_"))

    def test_9_10_unknown_paths_and_broken_json(self):
        self.assertEqual(self.raw("GET", "/v1/nothing").json()["error"]["type"], "not_found_error")
        answer = self.raw("POST", "/v1/agents", content=b'{"name": ')
        self.assertEqual((answer.status_code, answer.json()["error"]["type"]), (400, "invalid_request_error"))

    def test_11_a_conflict_is_asked_once(self):
        agent = self.agent()
        agent = self.beta.agents.update(agent.id, version=agent.version, name="other")
        asked = []
        hooks = {"request": [lambda request: asked.append(request.url)]}
        with self.server.client(http_client=httpx.Client(event_hooks=hooks)) as client:
            with self.assertRaises(anthropic.ConflictError):
                client.beta.agents.update(agent.id, version=1, name="third")
        self.assertEqual(len(asked), 1)

    def test_12_a_failure_on_the_way_is_asked_again(self):
        url, key = self.server.url, self.server.key
        failures = [503, 429]

        class Flaky(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if failures:
                    self.send_response(failures.pop())
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                answer = httpx.get(url + self.path, headers={"x-api-key": key})
                self.send_response(answer.status_code)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_):
                pass

        between = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
        threading.Thread(target=between.serve_forever, daemon=True).start()
        with anthropic.Anthropic(base_url=f"http://127.0.0.1:{between.server_port}", api_key=key) as client:
            client.beta.files.list()
        between.shutdown()
        between.server_close()
        self.assertEqual(failures, [])

    def test_13_lists_in_a_query_come_in_three_spellings(self):
        session = self.session()
        found = []
        for query in ("statuses[]=idle&statuses[]=running", "statuses%5B%5D=idle&statuses%5B%5D=running", "statuses=idle&statuses=running"):
            page = self.raw("GET", f"/v1/sessions?{query}").json()
            found.append([entry["id"] for entry in page["data"]])
        self.assertEqual(found[0], found[1])
        self.assertEqual(found[0], found[2])
        self.assertIn(session.id, found[0])

    def test_14_times_in_a_query(self):
        for time in ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00", "2020-01-01T02:00:00%2B02:00"):
            answer = self.raw("GET", f"/v1/sessions?created_at%5Bgte%5D={time}")
            self.assertEqual(answer.status_code, 200, time)
        self.assertEqual(self.raw("GET", "/v1/sessions?created_at[gte]=soon").status_code, 400)

    def test_15_a_wrong_cursor(self):
        self.refused(anthropic.BadRequestError, self.beta.files.list, page="page_nonsense")
        self.refused(anthropic.BadRequestError, self.beta.sessions.list, page="page_nonsense")

    def test_a_body_of_33_megabytes_is_refused(self):
        answer = self.raw("POST", "/v1/agents", content=b'{"name": "' + b"x" * 33 * 1024 * 1024 + b'"}')
        self.assertEqual((answer.status_code, answer.json()["error"]["type"]), (413, "request_too_large"))
