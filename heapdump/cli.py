"""The command line: a click group that finds its commands in `commands/`, and the only `except HeapdumpError`."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from heapdump import __version__, commands, system
from heapdump.errors import CannotWrite, Ended, HeapdumpError


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
@click.option("--debug", is_flag=True, expose_value=False, help="Print the traceback of a defect of heapdump.")
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
    Exit codes: 0 done, 1 findings, 2 usage or output that cannot be written,
    3 not a readable minidump, 4 done but part of the answer is missing (why is
    on stderr), 70 a defect of heapdump.
    """


_NEW_OBJECTS = 1_000_000
"""New objects after which the garbage collector searches for cycles.

At Python's 700 it searches a hundred times through the objects that imports leave behind, none of which is garbage:
0.2 s of a command that loads numba.
"""


EXIT_DEFECT = 70
"""Exit code of an exception that nobody foresaw: EX_SOFTWARE of sysexits.h."""


def main() -> None:
    """Runs the command line and exits."""
    gc.set_threshold(_NEW_OBJECTS)
    system.fill_standard_streams()
    _open_standard_streams()
    signals: list[int] = []

    def end(number: int) -> None:
        """Ends the command; remembers the signal, because a module that is just being loaded may hide the exception."""
        signals.append(number)
        raise Ended(number)

    system.on_end_signals(end)
    try:
        code = _flushed(run(sys.argv[1:], signals))
    except KeyboardInterrupt as error:  # a second Ctrl-C
        code = _ended(error)
    gc.freeze()  # no last search for cycles at the end: 0.25 s where numba was loaded
    sys.exit(code)


class _Diagnostics(io.TextIOWrapper):
    """The standard error stream. Where it is closed or full, lines are lost: there is nobody to complain to."""

    def write(self, text: str) -> int:
        """Writes what can be written."""
        with contextlib.suppress(OSError, ValueError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes what can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            super().flush()


def _open_standard_streams() -> None:
    """Streams that write what the terminal cannot show as escapes, and never fail for want of a reader of stderr."""
    if sys.stdout is None:  # started with a closed stream (`>&-`): nobody reads
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open to the end
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding, errors = sys.stderr.encoding, "backslashreplace"
        sys.stderr = _Diagnostics(sys.stderr.detach(), encoding=encoding, errors=errors, line_buffering=True)


def _flushed(code: int) -> int:
    """Writes what still waits for the standard output; the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        system.leave_pipe(sys.stdout)
        if not system.is_closed_pipe(error) and code in (0, 1, 4):
            _complain(str(CannotWrite(None, error)))
            return CannotWrite.exit_code
    return code


def run(arguments: list[str], signals: Sequence[int] = ()) -> int:
    """Carries out one command line; the exit code. `signals`: gets the numbers of signals that end the process."""
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
    except (click.Abort, KeyboardInterrupt) as error:
        return _ended(error)
    except SystemExit:  # click's answer to a closed pipe: the reader has seen enough (`--help | head`)
        return 0
    except Exception as error:  # noqa: BLE001  # never a traceback that nobody asked for, never exit code 1
        return _ended(Ended(signals[0])) if signals else _unforeseen(error, arguments)
    return code if isinstance(code, int) else 0


def _ended(error: BaseException) -> int:
    _complain("interrupted")
    cause = error if isinstance(error, Ended) else error.__context__
    return cause.exit_code if isinstance(cause, Ended) else 130


def _unforeseen(error: Exception, arguments: list[str]) -> int:
    """Prints one line on an exception that nobody foresaw; the exit code."""
    if "--debug" in arguments:
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            _say(line)
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        _complain(str(CannotWrite(None, error)))
        return CannotWrite.exit_code
    names = [name for name in arguments if name in cli.list_commands(click.Context(cli))]
    command = " ".join(["heapdump", *names[:1]])
    what = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST_MESSAGE].rstrip(": ")
    how = "" if "--debug" in arguments else f" with what `{command} … --debug` prints"
    _complain(f"{command} failed: {what}; this is a defect of heapdump {__version__}, please report it{how}")
    return EXIT_DEFECT


_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)
"""Errors of the standard output; those of other files are turned into errors of ours where they occur."""

_MOST_MESSAGE = 300
"""Characters of the message of an exception that nobody foresaw."""


def _complain(text: str) -> None:
    _say(f"heapdump: error: {text}")


def _say(text: str) -> None:
    from heapdump.render.text import printable

    click.echo(printable(text), err=True)
