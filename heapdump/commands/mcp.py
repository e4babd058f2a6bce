"""`mcp`: the same answers for an assistant."""

from __future__ import annotations

from pathlib import Path

import click

from heapdump import __version__
from heapdump.commands.common.options import option
from heapdump.commands.common.request import Arguments, Request, dump_command
from heapdump.commands.common.symbol_servers import unwatched
from heapdump.errors import WrongUsage


def _none(words: tuple[str, ...]) -> dict[str, None]:
    if words:
        raise WrongUsage("mcp takes no dump; the assistant names it")
    return {"dump": None}


@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
              help="Only dumps below this folder.")  # fmt: skip
@option(
    "--tokens",
    type=click.IntRange(500),
    default=4000,
    metavar="N",
    help="Tokens of one answer, about.  [default: 4000; at least 500]",
)
@dump_command("mcp", arguments=Arguments("", _none))
def command(request: Request, root: Path | None, tokens: int) -> int:
    """The same answers for an assistant, by MCP over stdio.

    Reads dumps and writes nothing; listens on no network. Needs pip install 'heapdump[mcp]'.

    \b
    heapdump mcp --root dumps
    """
    from heapdump.commands.common.assistant.session import Session

    try:
        from heapdump.commands.common.assistant.server import make_server

        session = Session(unwatched(request), root, characters=4 * tokens)
        server = make_server(session, __version__)
    except ImportError as error:
        raise WrongUsage("mcp needs the package mcp: pip install 'heapdump[mcp]'") from error
    try:
        server.run("stdio")
    finally:
        session.close()
    return 0
