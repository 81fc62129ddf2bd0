"""Repositories of sessions: checklist 74, and what the protocol's resources and errors say of them."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import anthropic

from harness import TOOLSET, Case, call, only, text

FORGE = Path(__file__).parents[2] / "it" / "repositories" / "git.py"
TOKEN = "ghp_NobodyMayReadThis0123456789"


class Repositories(Case):
    @classmethod
    def setUpClass(cls):
        # An address of its own: the port is the web's, and others test here too.
        pid = os.getpid()
        cls.host = f"127.{100 + pid % 100}.{pid // 100 % 250}.1"
        cls.dir = tempfile.TemporaryDirectory(prefix="casemate-git-")
        cls.addClassCleanup(cls.dir.cleanup)
        Path(cls.dir.name, "tokens").write_text(TOKEN)
        cls.forge = subprocess.Popen(
            [sys.executable, FORGE, cls.host], cwd=cls.dir.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        cls.addClassCleanup(cls.end)
        if cls.forge.stdout.readline() != b"up\n":
            if os.environ.get("CASEMATE_TEST_REQUIRE") == "all":
                raise AssertionError("not tested: no git server on port 80")
            raise unittest.SkipTest("NOT TESTED: no git server on port 80 of a loopback address; root can have one")

    @classmethod
    def end(cls):
        cls.forge.kill()
        cls.forge.wait()
        cls.forge.stdin.close()
        cls.forge.stdout.close()

    def cloned(self, *commands, **resource):
        """A session with a repository, whose agent runs these commands, one for each message."""
        networking = {"type": "limited", "allowed_hosts": [self.host]}
        environment = self.beta.environments.create(name="git", config={"type": "cloud", "networking": networking})
        turns = [turn for command in commands for turn in (call("bash", command=command), {"text": "done"})]
        resource = {"type": "github_repository", "url": f"http://{self.host}/private/hello", **resource}
        return self.beta.sessions.create(
            agent=self.agent(*turns, tools=[TOOLSET]).id, environment_id=environment.id, resources=[resource]
        )

    def said(self, session):
        """What the next command says."""
        self.beta.sessions.events.send(session.id, events=[text("go")])
        self.settled(session)
        return only(self.events(session), "agent.tool_result")[-1].content[0].text.strip()

    def test_a_branch_a_commit_and_the_default(self):
        look = "cd /workspace/hello && cat README && git rev-parse HEAD"
        session = self.cloned(look, authorization_token=TOKEN)
        (resource,) = session.resources
        shown = (resource.type, resource.url, resource.mount_path, resource.checkout)
        self.assertEqual(shown, ("github_repository", f"http://{self.host}/private/hello", "/workspace/hello", None))
        self.assertFalse(hasattr(resource, "authorization_token"))
        words, head = self.said(session).split()
        self.assertEqual(words, "three")
        listed = list(self.beta.sessions.resources.list(session.id))
        self.assertEqual(listed, [resource])
        self.assertEqual(self.beta.sessions.resources.retrieve(resource.id, session_id=session.id), resource)

        dev = self.cloned(look, authorization_token=TOKEN, checkout={"type": "branch", "name": "dev"})
        self.assertEqual(dev.resources[0].checkout.name, "dev")
        self.assertEqual(self.said(dev).split()[0], "dev")
        pinned = self.cloned(look, authorization_token=TOKEN, checkout={"type": "commit", "sha": head})
        self.assertEqual(pinned.resources[0].checkout.sha, head)
        self.assertEqual(self.said(pinned).split(), ["three", head])

    def test_74_a_token_is_replaced(self):
        look = "cat /workspace/hello/README 2>&1"
        session = self.cloned(look, look, authorization_token="wrong")
        (resource,) = session.resources
        self.assertIn("No such file", self.said(session))
        (event,) = only(self.events(session), "session.error")
        self.assertEqual(event.error.type, "repository_authentication_error")
        self.assertEqual(event.error.retry_status.type, "retrying")
        self.assertEqual(event.error.repository_url, resource.url)
        update = self.beta.sessions.resources.update
        named = {"session_id": session.id}
        message = self.refused(
            anthropic.BadRequestError, update, resource.id, authorization_token="wrong-too", **named
        )
        self.assertTrue(message.startswith("authorization_token: "), message)
        updated = update(resource.id, authorization_token=TOKEN, **named)
        self.assertEqual((updated.id, updated.created_at), (resource.id, resource.created_at))
        self.assertGreater(updated.updated_at, resource.updated_at)
        self.assertEqual(self.said(session), "three")
        self.refused(anthropic.BadRequestError, self.beta.sessions.resources.delete, resource.id, **named)
        self.assertNotIn(TOKEN, self.server.logged())

    def test_what_is_no_repository_is_refused(self):
        for resource, beginning in [
            ({"url": "git@github.com:a/b"}, "resources[0].url: must begin with https://"),
            ({"url": "https://elsewhere.example/x"}, "resources[0].url: elsewhere.example:443 was not reached: "),
            ({"mount_path": "/etc"}, "resources[0].mount_path: must be a directory below /workspace"),
            ({"checkout": {"type": "commit", "sha": "abc"}}, "resources[0].checkout.sha: must be the whole sha"),
        ]:
            message = self.refused(anthropic.BadRequestError, self.cloned, "true", **resource)
            self.assertTrue(message.startswith(beginning), message)
