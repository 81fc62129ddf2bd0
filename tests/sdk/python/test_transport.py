"""Keys, retries, errors: checklist 1 to 15."""

import json

import anthropic

from harness import Between, Case, Server


class Transport(Case):
    def ask(self, method, path, body=None, **headers):
        """Status, headers and body as JSON, of a client that is no SDK."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answered, content = self.server.ask(method, path, body, named)
        return status, dict(answered), json.loads(content)

    def test_1_a_wrong_key_is_an_authentication_error(self):
        with anthropic.Anthropic(base_url=self.server.url, api_key="wrong") as client:
            message = self.refused(anthropic.AuthenticationError, client.beta.files.list)
        self.assertIn("casemate key", message)

    def test_2_3_7_other_headers_and_queries_are_accepted(self):
        for headers in ({}, {"anthropic_version": "2023-06-01"}, {"anthropic_version": "x"}):
            self.assertEqual(self.ask("GET", "/v1/files?beta=true", **headers)[0], 200)

    def test_4_a_path_may_come_before_ours(self):
        served = Server("--prefix", "/some/where")
        self.addCleanup(served.close)
        self.assertTrue(served.url.endswith("/some/where"), served.url)
        with served.client() as client:
            made = client.beta.environments.create(name="e")
            self.assertEqual([e.id for e in client.beta.environments.list()], [made.id])

    def test_5_6_posts_without_a_body(self):
        path = f"/v1/agents/{self.agent().id}/archive"
        for headers in ({"content_type": "application/json"}, {}):
            for body in (None, b""):
                self.assertEqual(self.ask("POST", path, body, **headers)[0], 200)

    def test_8_every_answer_has_an_id(self):
        for path in ("/v1/files", "/v1/files/file_none", "/v1/nothing"):
            status, headers, body = self.ask("GET", path)
            self.assertTrue(headers["request-id"].startswith("req_"), path)
            if status != 200:
                self.assertEqual(body["request_id"], headers["request-id"])
        self.assertTrue(self.beta.files.list()._request_id.startswith("req_"))
        with self.beta.sessions.events.with_streaming_response.stream(self.session().id) as answer:
            self.assertTrue(answer.headers["request-id"].startswith("req_"))

    def test_9_10_unknown_paths_and_broken_json(self):
        self.assertEqual(self.ask("GET", "/v1/nothing")[2]["error"]["type"], "not_found_error")
        status, _, body = self.ask("POST", "/v1/agents", b'{"name": ', content_type="application/json")
        self.assertEqual((status, body["error"]["type"]), (400, "invalid_request_error"))

    def test_11_a_conflict_is_asked_once(self):
        agent = self.agent()
        self.beta.agents.update(agent.id, version=agent.version, name="other")
        with Between(self.server) as between:
            with anthropic.Anthropic(base_url=between.url, api_key=self.server.key) as client:
                self.refused(anthropic.ConflictError, client.beta.agents.update, agent.id, version=1, name="third")
        self.assertEqual(between.asked, [("POST", f"/v1/agents/{agent.id}")])

    def test_12_a_failure_on_the_way_is_asked_again(self):
        for failure in (429, 503, 529):
            with Between(self.server, failure) as between:
                with anthropic.Anthropic(base_url=between.url, api_key=self.server.key) as client:
                    made = client.beta.agents.create(name="again", model="m")
            self.assertEqual(between.asked, [("POST", "/v1/agents")] * 2)
            self.assertEqual(self.beta.agents.retrieve(made.id).name, "again")

    def test_13_lists_in_a_query_come_in_three_spellings(self):
        session = self.session()
        of_agent = f"/v1/sessions?agent_id={session.agent.id}"
        for query in (
            "statuses[]=idle&statuses[]=running",
            "statuses%5B%5D=idle&statuses%5B%5D=running",
            "statuses=idle&statuses=running",
        ):
            page = self.ask("GET", f"{of_agent}&{query}")[2]
            self.assertEqual([entry["id"] for entry in page["data"]], [session.id], query)
            page = self.ask("GET", f"{of_agent}&{query}".replace("=idle", "=terminated"))[2]
            self.assertEqual(page["data"], [], query)

    def test_14_times_in_a_query(self):
        for time in ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00", "2020-01-01T02:00:00%2B02:00"):
            for bound in ("gt", "gte", "lt", "lte"):
                self.assertEqual(self.ask("GET", f"/v1/sessions?created_at%5B{bound}%5D={time}")[0], 200, time)
        self.assertEqual(self.ask("GET", "/v1/sessions?created_at[gte]=soon")[0], 400)

    def test_15_a_wrong_cursor(self):
        lists = (self.beta.files, self.beta.sessions, self.beta.agents, self.beta.environments)
        for resource in lists:
            self.refused(anthropic.BadRequestError, resource.list, page="page_nonsense")

    def test_a_body_of_33_megabytes_is_refused(self):
        body = b'{"name": "' + b"x" * 33 * 1024 * 1024 + b'"}'
        status, _, answer = self.ask("POST", "/v1/agents", body, content_type="application/json")
        self.assertEqual((status, answer["error"]["type"]), (413, "request_too_large"))
