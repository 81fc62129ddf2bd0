"""The programs of the README, run as they stand there."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import DEADLINE, Case, Server, call

README = Path(__file__).parents[3] / "README.md"
# What the model of both programs does; it wants to see what the programs answer.
SCRIPT = [
    call("weather", city="Oslo"),
    {
        **call("bash", command="echo rain > weather.txt && wc -c < weather.txt"),
        "expect": {"last_tool_result_contains": "Rain in Oslo"},
    },
    {"expect": {"last_tool_result_contains": "5"}, "text": "It rains in Oslo.", "usage": {"output_tokens": 7}},
]
TOLD = "runs bash\nIt rains in Oslo.\n7 tokens\n"


def program(language):
    """The one block in that language of the README's section about the SDKs, without what lies below it."""
    _, section = README.read_text().split("\n## Use it from the official SDKs\n")
    section = re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} blocks of {language}"
    return found[0]


class Readme(Case):
    def setUp(self):
        super().setUp()
        self.dir = tempfile.TemporaryDirectory(dir=os.environ["CASEMATE_TEST_NODE_DIR"])
        self.addCleanup(self.dir.cleanup)

    def runs(self, language, name, *command):
        text = program(language)
        model = re.search(r'model: "(.*?)"|model="(.*?)"', text)
        model = model.group(1) or model.group(2)
        script = self.server.model(*SCRIPT)
        served = Server("--route", f"{model}={script}")
        self.addCleanup(served.close)
        path = Path(self.dir.name) / name
        path.write_text(text)
        env = {**os.environ, "ANTHROPIC_BASE_URL": served.url, "ANTHROPIC_API_KEY": served.key}
        done = subprocess.run([*command, path], env=env, capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual((done.returncode, done.stdout), (0, TOLD), done.stderr)
        with served.client() as client:
            (session,) = client.beta.sessions.list(include_archived=True)
            self.assertIsNotNone(session.archived_at)

    def test_the_python_program(self):
        self.runs("python", "program.py", sys.executable)

    def test_the_typescript_program(self):
        # Nothing in it needs a compiler.
        self.runs("typescript", "program.mjs", "node")
