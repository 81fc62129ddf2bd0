"""A server made with the Python SDK. `server.py stdio`, `server.py http PORT` or `server.py sse PORT`."""

import asyncio
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image

server = MCPServer("sdk")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def picture() -> Image:
    """A picture of one byte."""
    return Image(data=b"\x89PNG", format="png")


@server.tool()
async def steps(context: Context) -> str:
    """Reports progress."""
    for step in range(3):
        await context.report_progress(step, 3, "on its way")
        await asyncio.sleep(0.4)
    return "three steps"


@server.tool()
def fails() -> str:
    """Goes wrong."""
    raise ValueError("it went wrong")


@server.tool()
def note(text: str) -> str:
    """Writes a file into the working directory."""
    with open("note.txt", "w", encoding="utf-8") as file:
        file.write(text)
    return "written"


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        transport = {"http": "streamable-http", "sse": "sse"}[sys.argv[1]]
        server.run(transport, host="127.0.0.1", port=int(sys.argv[2]))
