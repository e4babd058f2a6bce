"""The command line: a click group that finds its commands in `commands/`, and the only `except HeapdumpError`."""

from __future__ import annotations

import gc
import importlib
import io
import os
import pkgutil
import sys
from pathlib import Path

import click

from heapdump import __version__, commands
from heapdump.errors import HeapdumpError


class LazyGroup(click.Group):
    """Lists the files of `commands/`; imports a file when its command is called or its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Command names: file names with `-` for `_`."""
        names = (module.name for module in pkgutil.iter_modules(commands.__path__) if not module.ispkg)
        return sorted(name.replace("_", "-") for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{commands.__name__}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="heapdump")
@click.option("-d", "--dump", type=click.Path(path_type=Path), help="The dump, for whatever command follows.")
def cli(dump: Path | None) -> None:
    """Where the memory went, who holds it, and what broke the heap, from a Windows user-mode crash dump.

    \b
    heapdump summary crash.dmp        where the memory of the process went
    heapdump triage crash.dmp         one page on what happened
    heapdump check crash.dmp          what broke the heap
    heapdump leaks crash.dmp          who allocated what is busy
    heapdump info crash.dmp           what this dump can and cannot answer

    Without a dump named: $HEAPDUMP_DUMP, else the only dump in the current folder.

    \b
    Exit codes: 0 done, 1 findings, 2 usage, 3 not a readable minidump,
    4 done but part of the answer is missing (why is on stderr).
    """


_NEW_OBJECTS = 1_000_000
"""New objects after which the garbage collector searches for cycles.

At Python's 700 it searches a hundred times through the objects that imports leave behind, none of which is garbage:
0.2 s of a command that loads numba.
"""


def main() -> None:
    """Runs the command line and exits."""
    gc.set_threshold(_NEW_OBJECTS)
    if sys.stdout is None or sys.stderr is None:
        # started with closed streams (`>&-`): nobody reads, nothing to complain to
        sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open to the end
        sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    gc.freeze()  # no last search for cycles at the end: 0.25 s where numba was loaded
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Carries out one command line; the exit code."""
    try:
        code = cli.main(arguments, prog_name="heapdump", standalone_mode=False)
    except HeapdumpError as error:
        _complain(str(error))
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return 130
    return code if isinstance(code, int) else 0


def _complain(text: str) -> None:
    from heapdump.render.text import printable

    click.echo(f"heapdump: error: {printable(text)}", err=True)
