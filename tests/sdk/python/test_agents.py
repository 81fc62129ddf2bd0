"""Agents: checklist 16 to 42."""

import anthropic

from harness import CUSTOM, TOOLSET, Case, within


class Agents(Case):
    def setUp(self):
        super().setUp()
        self.agents = self.beta.agents

    def make(self, **fields):
        return self.agents.create(**{"name": "a", "model": "claude-test", **fields})

    def wrong(self, expected, **fields):
        message = self.refused(anthropic.BadRequestError, self.make, **fields)
        self.assertIn(expected, message)

    def test_16_17_18_a_model_is_an_object_with_an_effort(self):
        agent = self.make()
        self.assertEqual((agent.type, agent.version, agent.model.id), ("agent", 1, "claude-test"))
        self.assertIsNotNone(agent.model.effort)
        self.assertEqual(agent.execution_identity.type, "service_account")
        for effort in ("low", {"type": "low"}):
            agent = self.make(model={"id": "claude-test", "effort": effort})
            self.assertEqual(agent.model.effort.type, "low")

    def test_19_20_21_versions_follow_changes(self):
        agent = self.make()
        same = self.agents.update(agent.id, version=1, name="a")
        self.assertEqual((same.version, same.updated_at), (1, agent.updated_at))
        changed = self.agents.update(agent.id, version=1, name="b")
        self.assertEqual((changed.version, changed.name), (2, "b"))
        self.refused(anthropic.ConflictError, self.agents.update, agent.id, version=1, name="b")
        self.assertEqual(self.agents.update(agent.id, name="c").version, 3)

    def test_22_23_24_what_is_cleared_and_what_cannot_be(self):
        agent = self.make(system="s", description="d", tools=[TOOLSET])
        kept = self.agents.update(agent.id, name="b")
        self.assertEqual((kept.system, kept.description, len(kept.tools)), ("s", "d", 1))
        cleared = self.agents.update(agent.id, system=None, description=None, tools=None)
        self.assertEqual((cleared.system, cleared.description, cleared.tools), (None, None, []))
        replaced = self.agents.update(agent.id, tools=[CUSTOM])
        self.assertEqual([tool.type for tool in replaced.tools], ["custom"])
        self.assertEqual(self.agents.update(agent.id, tools=[]).tools, [])
        for field in ("name", "model"):
            self.refused(anthropic.BadRequestError, self.agents.update, agent.id, **{field: None})

    def test_25_26_a_model_is_replaced_whole_but_for_its_effort(self):
        agent = self.make(model={"id": "m", "effort": "low", "inference_geo": "us"})
        same = self.agents.update(agent.id, model="m")
        self.assertEqual((same.model.effort.type, same.model.inference_geo), ("low", None))
        other = self.agents.update(agent.id, model="n")
        self.assertEqual(other.model.effort, self.make(model="n").model.effort)

    def test_27_metadata_is_patched(self):
        agent = self.make(metadata={"a": "1", "b": "2"})
        agent = self.agents.update(agent.id, metadata={"a": None, "c": "3"})
        self.assertEqual(agent.metadata, {"b": "2", "c": "3"})
        many = {f"k{n}": "v" for n in range(17)}
        self.wrong("metadata", metadata=many)
        self.wrong("metadata", metadata={"k": "v" * 513})

    def test_28_29_history_can_be_read(self):
        agent = self.make()
        for name in ("b", "c"):
            self.agents.update(agent.id, name=name)
        self.assertEqual(self.agents.retrieve(agent.id, version=1).name, "a")
        self.assertEqual(self.agents.retrieve(agent.id).name, "c")
        self.refused(anthropic.NotFoundError, self.agents.retrieve, agent.id, version=9)
        versions = list(self.agents.versions.list(agent.id, limit=2))
        self.assertEqual([(v.version, v.name) for v in versions], [(3, "c"), (2, "b"), (1, "a")])

    def test_30_31_archived_agents_stay_readable(self):
        agent = self.make()
        archived = self.agents.archive(agent.id)
        self.assertIsNotNone(archived.archived_at)
        self.assertEqual(self.agents.archive(agent.id).archived_at, archived.archived_at)
        self.assertEqual(archived.version, 1)
        self.refused(anthropic.BadRequestError, self.agents.update, agent.id, name="b")
        create = self.beta.sessions.create
        self.refused(anthropic.BadRequestError, create, agent=agent.id, environment_id=self.environment().id)
        self.assertNotIn(agent.id, [a.id for a in self.agents.list()])
        self.assertIn(agent.id, [a.id for a in self.agents.list(include_archived=True)])

    def test_32_servers_and_toolsets_belong_together(self):
        server = {"type": "url", "name": "s", "url": "https://example.com/mcp"}
        toolset = {"type": "mcp_toolset", "mcp_server_name": "s"}
        agent = self.make(mcp_servers=[server], tools=[toolset])
        self.assertEqual(agent.mcp_servers[0].name, "s")
        self.wrong("mcp_servers", mcp_servers=[server])
        self.wrong("tools[0]", tools=[toolset])
        self.wrong("mcp_servers[1].name", mcp_servers=[server, server], tools=[toolset])
        many = [{**server, "name": f"s{n}"} for n in range(21)]
        self.wrong("mcp_servers", mcp_servers=many)

    def test_33_names_of_custom_tools(self):
        for name in ("bash", "mcp__x", "x" * 129, "with space"):
            self.wrong("tools[0].name", tools=[{**CUSTOM, "name": name}])
        self.wrong("tools[1].name", tools=[CUSTOM, CUSTOM])
        self.wrong("input_schema", tools=[{**CUSTOM, "input_schema": {"type": "array"}}])

    def test_34_35_toolsets_are_echoed_resolved(self):
        ask = {"type": "always_ask"}
        configs = [{"name": "bash", "permission_policy": ask}, {"name": "grep", "enabled": False}]
        agent = self.make(tools=[{**TOOLSET, "configs": configs}])
        tools = agent.tools[0]
        self.assertEqual((tools.default_config.enabled, tools.default_config.permission_policy.type), (True, "always_allow"))
        shown = [(c.name, c.type, c.enabled, c.permission_policy.type) for c in tools.configs]
        self.assertEqual(shown, [("bash", "bash", True, "always_ask"), ("grep", "grep", False, "always_allow")])
        server = {"type": "url", "name": "s", "url": "https://example.com/mcp"}
        agent = self.make(mcp_servers=[server], tools=[{"type": "mcp_toolset", "mcp_server_name": "s"}])
        self.assertEqual(agent.tools[0].default_config.permission_policy.type, "always_ask")
        agent = self.make(tools=[{**TOOLSET, "default_config": {"permission_policy": {"type": "auto"}}}])
        self.assertEqual(agent.tools[0].default_config.permission_policy.type, "auto")
        self.wrong("tools[0].configs[0].bogus", tools=[{**TOOLSET, "configs": [{"name": "bash", "bogus": 1}]}])
        self.wrong("tools[0].configs[0].name", tools=[{**TOOLSET, "configs": [{"name": "shell"}]}])

    def test_36_domain_lists(self):
        def fetch(**config):
            return [{**TOOLSET, "configs": [{"name": "web_fetch", **config}]}]

        agent = self.make(tools=fetch(allowed_domains=["example.com"]))
        self.assertEqual(agent.tools[0].configs[0].allowed_domains, ["example.com"])
        both = fetch(allowed_domains=["example.com"], blocked_domains=["example.org"])
        self.wrong("Only one of allowed_domains or blocked_domains", tools=both)
        self.wrong("Empty list", tools=fetch(allowed_domains=[]))
        for domain in ("127.0.0.1", "https://example.com", "localhost", "com", "*.example.com", "example.com/path"):
            self.wrong("allowed_domains", tools=fetch(allowed_domains=[domain]))
        self.wrong("allowed_domains", tools=fetch(allowed_domains=[f"d{n}.example.com" for n in range(65)]))

    def test_37_url_sources_are_echoed_as_objects(self):
        def fetch(**sources):
            return [{**TOOLSET, "configs": [{"name": "web_fetch", "url_sources": sources}]}]

        agent = self.make(tools=fetch(user_input="all", client_tool_results="none"))
        shown = agent.tools[0].configs[0].url_sources
        self.assertEqual((shown.user_input.type, shown.client_tool_results.type), ("all", "none"))
        self.wrong("url_sources", tools=fetch(user_input="none", client_tool_results="none", server_tool_results="none"))

    def test_38_skills_need_the_tool_that_reads(self):
        skills = [{"type": "custom", "skill_id": "skill_x"}]
        self.wrong("read", skills=skills)
        self.wrong("read", skills=skills, tools=[{**TOOLSET, "configs": [{"name": "read", "enabled": False}]}])

    def test_39_40_41_rosters_are_pinned(self):
        child = self.make(name="child")
        roster = {"type": "coordinator", "agents": [{"type": "advisor", "model": "m"}, child.id, {"type": "self"}]}
        agent = self.make(multiagent=roster)
        kinds = [entry.type for entry in agent.multiagent.agents]
        self.assertEqual(kinds, ["agent", "agent", "advisor"])
        self.assertEqual((agent.multiagent.agents[0].id, agent.multiagent.agents[0].version), (child.id, 1))
        self.assertEqual(agent.multiagent.agents[1].id, agent.id)
        self.agents.update(child.id, name="renamed")
        self.assertEqual(self.agents.retrieve(agent.id).multiagent.agents[0].version, 1)
        for wrong in (
            [child.id, child.id],
            [agent.id],
            [{"type": "advisor", "model": "m"}, {"type": "advisor", "model": "n"}],
            ["agent_unknown"],
            [],
        ):
            self.wrong("multiagent", multiagent={"type": "coordinator", "agents": wrong})

    def test_42_the_newer_roster_is_merged(self):
        agent = self.make(multiagent={"type": "multiagent_20261001"})
        multiagent = agent.multiagent
        self.assertEqual((multiagent.subagents.type, multiagent.workflows.type, multiagent.advisor.type), ("enabled", "enabled", "disabled"))
        patch = {"type": "multiagent_20261001", "workflows": {"type": "disabled"}}
        agent = self.agents.update(agent.id, multiagent=patch)
        self.assertEqual((agent.multiagent.subagents.type, agent.multiagent.workflows.type), ("enabled", "disabled"))
        agent = self.agents.update(agent.id, multiagent={"type": "multiagent_20261001", "workflows": None})
        self.assertEqual(agent.multiagent.workflows.type, "enabled")
        off = {"type": "enabled", "inline_agents": {"type": "disabled"}}
        self.wrong("multiagent", multiagent={"type": "multiagent_20261001", "subagents": off})

    def test_unknown_ids_and_fields(self):
        self.refused(anthropic.NotFoundError, self.agents.retrieve, "agent_unknown")
        self.refused(anthropic.NotFoundError, self.agents.archive, "agent_unknown")
        self.wrong("bogus", extra_body={"bogus": 1})
        self.wrong("name", name="")
        self.wrong("system", system="x" * 100_001)

    def test_the_async_client_does_the_same(self):
        async def work():
            async with self.server.async_client() as client:
                agent = await client.beta.agents.create(name="a", model="m")
                agent = await client.beta.agents.update(agent.id, name="b")
                self.assertEqual((await client.beta.agents.retrieve(agent.id)).version, 2)
                versions = [v.version async for v in client.beta.agents.versions.list(agent.id)]
                self.assertEqual(versions, [2, 1])
                self.assertIn(agent.id, [a.id async for a in client.beta.agents.list()])
                await client.beta.agents.archive(agent.id)

        within(work())
