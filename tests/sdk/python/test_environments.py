"""Environments: checklist 43 to 50."""

import anthropic

from harness import Case, within


class Environments(Case):
    def setUp(self):
        super().setUp()
        self.environments = self.beta.environments

    def make(self, **config):
        return self.environments.create(name="e", config={"type": "cloud", **config})

    def code(self, error_code, call, *arguments, **named):
        with self.assertRaises(anthropic.BadRequestError) as caught:
            call(*arguments, **named)
        self.assertEqual(caught.exception.body["error"]["details"]["error_code"], error_code)

    def test_43_defaults(self):
        for environment in (self.make(), self.environments.create(name="e")):
            self.assertEqual((environment.type, environment.config.networking.type), ("environment", "unrestricted"))
            packages = environment.config.packages
            for manager in ("apt", "cargo", "gem", "go", "npm", "pip"):
                self.assertEqual(getattr(packages, manager), [], manager)

    def test_44_packages_need_their_registries(self):
        packages = {"pip": ["requests"]}
        limited = {"type": "limited", "allowed_hosts": ["example.com"]}
        message = self.refused(anthropic.BadRequestError, self.make, networking=limited, packages=packages)
        self.assertIn("allow_package_managers", message)
        environment = self.make(networking={**limited, "allow_package_managers": True}, packages=packages)
        self.assertEqual(environment.config.packages.pip, ["requests"])
        self.assertFalse(environment.config.networking.allow_mcp_servers)
        for host in ("https://example.com", "example.com:80", "example.com/x", ""):
            wrong = {"type": "limited", "allowed_hosts": [host]}
            self.refused(anthropic.BadRequestError, self.make, networking=wrong)

    def test_45_46_updates_merge(self):
        limited = {"type": "limited", "allowed_hosts": ["example.com"]}
        environment = self.make(networking=limited)
        update = self.environments.update
        environment = update(environment.id, config={"type": "cloud", "packages": {"npm": []}}, name="f")
        self.assertEqual((environment.name, environment.config.networking.allowed_hosts), ("f", ["example.com"]))
        self.code("invalid_config_type_change", update, environment.id, config={"type": "self_hosted"})

    def test_47_archived_environments_stay_as_they_are(self):
        environment = self.make()
        self.assertIsNotNone(self.environments.archive(environment.id).archived_at)
        self.code("environment_archived", self.environments.update, environment.id, name="f")
        self.assertNotIn(environment.id, [e.id for e in self.environments.list()])
        self.assertIn(environment.id, [e.id for e in self.environments.list(include_archived=True)])
        self.assertEqual(self.environments.delete(environment.id).type, "environment_deleted")

    def test_48_metadata_has_two_ways_to_delete(self):
        environment = self.environments.create(name="e", metadata={"a": "1", "b": "2", "c": "3"})
        environment = self.environments.update(environment.id, metadata={"a": None, "b": ""})
        self.assertEqual(environment.metadata, {"c": "3"})
        many = {f"k{n}": "v" for n in range(17)}
        self.code("invalid_metadata", self.environments.update, environment.id, metadata=many)

    def test_49_50_what_sessions_use_cannot_be_deleted(self):
        agent, environment = self.agent(), self.make()
        session = self.beta.sessions.create(agent=agent.id, environment_id=environment.id)
        with self.assertRaises(anthropic.APIStatusError) as caught:
            self.environments.delete(environment.id)
        self.assertIn(caught.exception.status_code, (400, 409))
        self.environments.archive(environment.id)
        create = self.beta.sessions.create
        self.code("environment_archived", create, agent=agent.id, environment_id=environment.id)
        self.assertEqual(self.beta.sessions.retrieve(session.id).environment_id, environment.id)
        self.beta.sessions.delete(session.id)
        self.assertEqual(self.environments.delete(environment.id).id, environment.id)
        with self.assertRaises(anthropic.NotFoundError) as caught:
            self.environments.retrieve(environment.id)
        self.assertEqual(caught.exception.body["error"]["details"]["error_code"], "environment_not_found")

    def test_the_async_client_does_the_same(self):
        async def work():
            async with self.server.async_client() as client:
                environments = client.beta.environments
                made = await environments.create(name="e")
                self.assertEqual((await environments.update(made.id, name="f")).name, "f")
                self.assertEqual((await environments.retrieve(made.id)).name, "f")
                self.assertIn(made.id, [e.id async for e in environments.list()])
                await environments.archive(made.id)
                await environments.delete(made.id)

        within(work())
