"""The client of the conformance suite: a session with the suite's server, whose model calls what the scenario is about."""

import os
import sys

from harness import Casemate

CALLS = {
    "tools_call": [("add_numbers", {"a": 5, "b": 3})],
    "sse-retry": [("test_reconnection", {})],
}


def main():
    calls = CALLS.get(os.environ.get("MCP_CONFORMANCE_SCENARIO"), [])
    with Casemate() as casemate:
        casemate.session({"type": "url", "name": "suite", "url": sys.argv[-1]}, calls)


if __name__ == "__main__":
    main()
