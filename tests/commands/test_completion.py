"""Shell completion: scripts for four shells, and what they ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def asked(instruction: str, words: str = "", word: str | int = "") -> str:
    variables = {
        "_HEAPDUMP_COMPLETE": instruction,
        "COMP_WORDS": words,
        "COMP_CWORD": str(word),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-m", "heapdump"], env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.stderr == "" and done.returncode in (0, 1)
    return done.stdout


@pytest.fixture
def with_heapdump(tmp_path: Path) -> dict[str, str]:
    """An environment in which shells find the command."""
    (tmp_path / "heapdump").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m heapdump "$@"\n')
    (tmp_path / "heapdump").chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_every_shell_has_a_script(shell):
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash for its version")
    text = asked(f"{shell}_source")
    assert f"{shell}_complete" in text and "heapdump" in text and "%(" not in text
    assert text.count("{") == text.count("}") and text.count("(") == text.count(")") if shell == "powershell" else True


@pytest.mark.parametrize(
    ("words", "word", "first"),
    [
        ("heapdump\nle", "le", "leaks\tWho allocated busy memory, by stack, DLL or type; leaks."),
        ("heapdump\nleaks\n--group-by\nowner-", "owner-", "owner-module\t"),
        ("heapdump\nleaks\n'--weigh'", "'--weigh'", "--weight\tWhat folded lines count."),
        ("heapdump\ncache\n--c", "--c", "--clear\tDelete it."),
        ("heapdump\nC:\\dumps\\a b.dmp\n--jso", "--jso", "--json\tOne JSON document on stdout."),
        ("heapdump\nblocks\n--columns\naddress,entry_", "address,entry_", "address,entry_size\t"),
        ("heapdump\ncrash", "crash", ""),
        ("heapdump\nblock\ncrash", "crash", ""),
        ("heapdump\nnonsense\n--x", "--x", ""),
        ("heapdump", "", "block\tWhat is at an address, and what owns it, as !heap -p -a."),
    ],
)
def test_powershell_gets_a_completion_a_line(words, word, first):
    lines = asked("powershell_complete", words, word).splitlines()
    assert (lines or [""])[0] == first


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="no bash")
def test_bash_completes(with_heapdump):
    script = 'eval "$(_HEAPDUMP_COMPLETE=bash_source heapdump)"; COMP_WORDS=(heapdump lea); COMP_CWORD=1; '
    script += '_heapdump_completion heapdump; echo "${COMPREPLY[@]}"; complete -p heapdump'
    done = subprocess.run(["bash", "-c", script], env=with_heapdump, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "leaks" and "_heapdump_completion" in second


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish_completes(with_heapdump, tmp_path):
    (tmp_path / "server.dmp").write_bytes(b"")
    lines = ("heapdump lea", "heapdump leaks --group-by owner-", "heapdump triage serv")
    script = "_HEAPDUMP_COMPLETE=fish_source heapdump | source; " + "; ".join(f"complete -C '{line}'" for line in lines)
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=with_heapdump,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["leaks", "owner-module", "server.dmp"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_completes_what_is_typed(with_heapdump):
    """A shell with a terminal of its own, in which somebody presses the tabulator."""
    script = r"""
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'PS1=; autoload -U compinit; compinit -u -D; eval "$(_HEAPDUMP_COMPLETE=zsh_source heapdump)"; echo REA""DY'
        zpty -r -m shell seen '*READY*'
        zpty -w -n shell $'heapdump lea\t'
        zpty -r -m shell seen '*heapdump leaks*'
        print -r -- completed
        zpty -d shell
    """
    done = subprocess.run(
        ["zsh", "-f", "-c", script], env=with_heapdump, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["completed"]
