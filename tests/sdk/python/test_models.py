"""Models: what the server can be asked for."""

import anthropic

from harness import Case


class Models(Case):
    def test_models_are_listed(self):
        for model in self.client.models.list():
            self.assertEqual((model.type, self.client.models.retrieve(model.id).id), ("model", model.id))
        self.refused(anthropic.NotFoundError, self.client.models.retrieve, "no-such-model")
