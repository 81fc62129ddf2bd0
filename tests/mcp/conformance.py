"""The client of the conformance suite: a session with the suite's server, whose model calls what the scenario is about.

The suite judges what its servers saw. What came of the calls is judged here, and said in the last line."""

import json
import os
import sys

from harness import Casemate, results

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))

CALLS = {
    "initialize": [],
    "tools_call": [("add_numbers", {"a": 5, "b": 3})],
    "sse-retry": [("test_reconnection", {})],
    "elicitation-sep1034-client-defaults": [("test_client_elicitation_defaults", {})],
}
# The suite's own client is known by this document.
DOCUMENT = "https://conformance-test.local/client-metadata.json"
# Where no token that is given out is of any use, and where there must be none.
REFUSED = ["auth/scope-retry-limit", "auth/resource-mismatch"]


def settings(url, casemate):
    """The part of the configuration that a user would write for the scenario's server."""
    oauth = {}
    if SCENARIO == "auth/basic-cimd":
        oauth["client_id"] = DOCUMENT
    for given, field, variable in [
        ("client_id", "client_id", None),
        ("client_secret", "client_secret_env", "SUITE_SECRET"),
        ("private_key_pem", "private_key_env", "SUITE_KEY"),
    ]:
        if given in CONTEXT:
            oauth[field] = variable or CONTEXT[given]
            if variable:
                casemate.environment[variable] = CONTEXT[given]
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in oauth.items())
    lines = [f"[mcp.servers.{json.dumps(url)}]", 'elicitation = "defaults"']
    if SCENARIO.startswith("auth/"):
        lines.append(f"oauth = {{ {fields} }}")
    return "\n".join(lines) + "\n"


def main():
    url = sys.argv[-1]
    calls = CALLS[SCENARIO] if SCENARIO in CALLS else [("test-tool", {})]
    with Casemate() as casemate:
        casemate.configure(settings(url, casemate))
        log = casemate.session({"type": "url", "name": "suite", "url": url}, calls)
    errors = [event["error"] for event in log if event["type"] == "session.error"]
    failed = [said for is_error, said in results(log) if is_error]
    said = [said for _, said in results(log)]
    if SCENARIO in REFUSED:
        expected = [error["type"] for error in errors] == ["mcp_authentication_failed_error"]
    else:
        expected = not errors and not failed and len(said) == len(calls)
    if SCENARIO.startswith("elicitation"):
        # Whoever reads the log sees what was said in the user's name.
        expected = expected and "it was answered with its own defaults" in said[0]
    if not expected:
        sys.exit(json.dumps([errors, results(log)]))
    print("as expected")


if __name__ == "__main__":
    main()
