"""Models: what the server can be asked for."""

import anthropic

from harness import Case, Server, within

NAMED = ["local-a", "local-b", "local-c"]


class Models(Case):
    def setUp(self):
        super().setUp()
        routes = [part for name in NAMED for part in ("--route", f"{name}=ollama")]
        self.server = Server(*routes)
        self.addCleanup(self.server.close)
        self.client = self.server.client()
        self.addCleanup(self.client.close)

    def test_models_are_listed_and_found(self):
        for models in (self.client.models, self.client.beta.models):
            listed = [model.id for model in models.list(limit=1)]
            self.assertEqual([name for name in listed if name in NAMED], NAMED)
            self.assertEqual(listed, [model.id for model in models.list()])
            found = models.retrieve("local-a")
            self.assertEqual((found.type, found.id), ("model", "local-a"))
            self.refused(anthropic.NotFoundError, models.retrieve, "no-such-model")

    def test_the_async_client_does_the_same(self):
        async def work():
            async with self.server.async_client() as client:
                self.assertEqual((await client.models.retrieve("local-b")).id, "local-b")
                return [model.id async for model in client.beta.models.list(limit=2)]

        self.assertLessEqual(set(NAMED), set(within(work())))
