"""casemate with a scripted model and the MCP servers of a test."""

import json
import os
import pathlib
import pty
import select
import shutil
import subprocess
import tempfile

CASEMATE = os.environ["CASEMATE"]


def text_of(event):
    return "\n".join(block.get("text", f"[{block['type']}]") for block in event["content"])


class Casemate:
    """One installation, gone with the block."""

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp())
        self.work = self.dir / "work"
        self.work.mkdir()
        (self.dir / "home").mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.dir / "home"),
            "CASEMATE_DATA_DIR": str(self.dir / "data"),
        }
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def configure(self, text):
        """The user's configuration."""
        place = self.dir / "home/.config/casemate"
        place.mkdir(parents=True)
        (place / "config.toml").write_text(text)

    def run(self, *words):
        finished = subprocess.run(
            [CASEMATE, *map(str, words)], env=self.environment, cwd=self.work, text=True,
            capture_output=True, timeout=120, check=False,
        )
        if finished.returncode != 0:
            raise AssertionError(finished)
        return finished.stdout

    def on_terminal(self, *words):
        """All that a run writes to its terminal."""
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [CASEMATE, *map(str, words)], env={**self.environment, "TERM": "xterm"}, cwd=self.work,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )
        os.close(theirs)
        written = b""
        while select.select([ours], [], [], 120)[0]:
            try:
                written += os.read(ours, 4096)
            except OSError:
                break
        os.close(ours)
        if child.wait(timeout=120) != 0:
            raise AssertionError(written)
        return written.decode()

    def agent(self, server, calls):
        """An agent with that server, whose model makes these calls, one after another."""
        turns = [{"tool_calls": [{f"mcp__{server['name']}__{name}": given}]} for name, given in calls]
        script = self.dir / "script.json"
        script.write_text(json.dumps({"turns": [*turns, {"text": "done"}]}))
        allowed = {"permission_policy": {"type": "always_allow"}}
        agent = self.dir / "agent.json"
        agent.write_text(json.dumps({
            "model": f"scripted:{script}",
            "mcp_servers": [server],
            "tools": [
                {"type": "agent_toolset_20260401"},
                {"type": "mcp_toolset", "mcp_server_name": server["name"], "default_config": allowed},
            ],
        }))
        return agent

    def session(self, server, calls, *words):
        """The log of a session whose model makes these calls."""
        self.run("run", "--agent", self.agent(server, calls), *words, "go")
        listed = json.loads(self.run("sessions", "list", "--json"))
        lines = self.run("sessions", "events", listed[0]["id"], "--internal").splitlines()
        return [json.loads(line) for line in lines]


def results(log):
    """Whether each call failed, and what it said."""
    found = [event for event in log if event["type"] == "agent.mcp_tool_result"]
    return [(event["is_error"], text_of(event)) for event in found]
