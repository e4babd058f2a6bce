"""The command line: the click group, the entry point `main`, and the only `except HeapdumpError`."""

from __future__ import annotations

import errno
import gc
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from heapdump import __version__, available_memory, system
from heapdump.cli.group import LazyGroup
from heapdump.commands.common.options import CONTEXT
from heapdump.errors import CannotWrite, Ended, HeapdumpError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LazyGroup", "cli", "main", "run"]


@click.group(cls=LazyGroup, context_settings=CONTEXT, subcommand_metavar="COMMAND [OPTIONS] [DUMP] ...")
@click.version_option(__version__, prog_name="heapdump")
@click.option("-d", "--dump", type=click.Path(path_type=Path), help="The dump, for whatever command follows.")
@click.option("--debug", is_flag=True, expose_value=False, help="Print the traceback of a defect of heapdump.")
def cli(dump: Path | None) -> None:
    """Where the memory went, who holds it, and what broke the heap, from a Windows user-mode crash dump.

    \b
    heapdump crash.dmp                            one page on what happened
    heapdump summary crash.dmp                    where the memory went
    heapdump leaks crash.dmp --group-by module    which DLL allocated it
    heapdump diff old.dmp new.dmp                 what grew
    heapdump help leaks                           the options of a command

    Without a dump named: $HEAPDUMP_DUMP, else the only dump in the current folder. Sizes are in units of 1,024 as
    WinDbg prints them: 1 kB = 1,024 bytes.

    \b
    Exit codes: 0 done, 1 findings, 2 usage or output that cannot be written,
    3 not a readable minidump, 4 done but part of the answer is missing (the
    page or stderr says why), 70 a defect of heapdump.
    """


_NEW_OBJECTS = 1_000_000
"""New objects after which the garbage collector searches for cycles.

At Python's 700 it searches a hundred times through the objects that imports leave behind, none of which is garbage:
0.2 s of a command that loads numba.
"""


EXIT_MEMORY = 4
"""Exit code where memory ran out: a sentence says so, and the answer is missing."""

EXIT_DEFECT = 70
"""Exit code of an exception that nobody foresaw: EX_SOFTWARE of sysexits.h."""


def main() -> None:
    """Runs the command line and exits."""
    from heapdump.cli.streams import open_standard_streams

    gc.set_threshold(_NEW_OBJECTS)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's algebra, not used here: memory for each processor
    system.fill_standard_streams()
    open_standard_streams()
    if instruction := os.environ.get("_HEAPDUMP_COMPLETE"):
        from heapdump.cli.completion import complete

        sys.exit(_flushed(complete(cli, instruction)))
    signals: list[int] = []

    def end(number: int) -> None:
        """Ends the command; remembers the signal, because a module that is just being loaded may hide the exception."""
        signals.append(number)
        raise Ended(number)

    system.on_end_signals(end)
    try:
        code = _flushed(run(sys.argv[1:], signals))
    except KeyboardInterrupt as error:  # a second Ctrl-C
        code = _ended(error, None)
    gc.freeze()  # no last search for cycles at the end: 0.25 s where numba was loaded
    sys.exit(code)


def _flushed(code: int) -> int:
    """Writes what still waits for the standard output; the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        system.leave_pipe(sys.stdout)
        if not system.is_closed_pipe(error) and code in (0, 1, 4):
            _complain(None, str(CannotWrite(None, error)))
            return CannotWrite.exit_code
    return code


def run(arguments: Sequence[str], signals: Sequence[int] = ()) -> int:
    """Carries out one command line; the exit code. `signals`: gets the numbers of signals that end the process."""
    context = None
    try:
        context = cli.make_context("heapdump", list(arguments))
        with context:
            code = cli.invoke(context)
    except HeapdumpError as error:
        _complain(context, str(error))
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        return _wrong_usage(context, error)
    except (click.Abort, KeyboardInterrupt) as error:
        return _ended(error, context)
    except Exception as error:  # noqa: BLE001  # never a traceback that nobody asked for, never exit code 1
        if isinstance(error, OSError) and system.is_closed_pipe(error):  # has seen enough (`--help | head`)
            system.leave_pipe(sys.stdout)
            return 0
        return _ended(Ended(signals[0]), context) if signals else _unforeseen(error, context, "--debug" in arguments)
    return code if isinstance(code, int) else 0


def _wrong_usage(context: click.Context | None, error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    else:
        _complain(getattr(error, "ctx", None) or context, _words(error))
    return error.exit_code


def _ended(error: BaseException, context: click.Context | None) -> int:
    _complain(context, "interrupted")
    cause = error if isinstance(error, Ended) else error.__context__
    return cause.exit_code if isinstance(cause, Ended) else 130


def _unforeseen(error: Exception, context: click.Context | None, has_traceback: bool) -> int:
    """Prints one line on an exception that nobody foresaw; the exit code."""
    if has_traceback:
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            _say(line)
    if available_memory.is_shortage(error):
        _complain(context, available_memory.shortage(error))
        return EXIT_MEMORY
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        _complain(context, str(CannotWrite(None, error)))
        return CannotWrite.exit_code
    what = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_MESSAGE].rstrip(": ")
    how = "" if has_traceback else f" with what `{_command(context)} … --debug` prints"
    _complain(context, f"{what}; this is a defect of heapdump {__version__}, please report it{how}")
    return EXIT_DEFECT


_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)
"""Errors of the standard output; those of other files are turned into errors of ours where they occur."""

_MOST_MESSAGE = 300
"""Characters of the message of an exception that nobody foresaw."""


def _complain(context: click.Context | None, text: str) -> None:
    """The one form of errors: `heapdump leaks: error: …`."""
    _say(f"{_command(context)}: error: {text}")


def _command(context: click.Context | None) -> str:
    """`heapdump leaks`; `heapdump` where no command is known."""
    if context is None:
        return "heapdump"
    name = context.info_name if context.parent is not None else context.invoked_subcommand
    return f"heapdump {name}" if name else "heapdump"


def _say(text: str) -> None:
    from heapdump.render.text import printable

    click.echo(printable(text), err=True)


def _words(error: click.ClickException) -> str:
    """What is wrong; of an unknown option in words of our own, because versions of click differ."""
    if not isinstance(error, click.NoSuchOption):
        return _sentence(error.format_message())
    near = " or ".join(repr(one) for one in sorted(error.possibilities or ()))
    return f"no such option {error.option_name!r}" + (f"; did you mean {near}?" if near else "")


def _sentence(message: str) -> str:
    """Click's message as messages are written here: in one line, without a capital letter and a full stop."""
    line = " ".join(message.split()).removesuffix(".")
    line = re.sub(r"\. Did you mean (one of )?(.*)\?$", lambda found: f"; did you mean {found[2]}?", line)
    line = re.sub(r"a valid integer( range)?", "a whole number", line)
    return line[:1].lower() + line[1:]
