"""Shell completion: bash, zsh and fish as click has them, and PowerShell.

`_HEAPDUMP_COMPLETE=bash_source heapdump` prints the script that a shell's start file evaluates; the script calls
heapdump again for what stands on the line.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, shell_complete

VARIABLE = "_HEAPDUMP_COMPLETE"


class _PowerShell(ShellComplete):
    """Windows PowerShell 5.1 and PowerShell 7. Where nothing is returned, the shell completes names of files."""

    name = "powershell"
    source_template = """\
Register-ArgumentCompleter -Native -CommandName '%(prog_name)s', '%(prog_name)s.exe' -ScriptBlock {
    param($word, $ast, $position)
    $words = $ast.CommandElements | Where-Object { $_.Extent.StartOffset -lt $position } | ForEach-Object {
        if ($_ -is [System.Management.Automation.Language.StringConstantExpressionAst]) { $_.Value }
        else { $_.Extent.Text }
    }
    $env:COMP_WORDS = $words -join "`n"
    $env:COMP_CWORD = $word
    $env:%(complete_var)s = 'powershell_complete'
    try {
        & '%(prog_name)s' | Where-Object { $_ } | ForEach-Object {
            $value, $help = $_ -split "`t", 2
            if (-not $help) { $help = $value }
            [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $help)
        }
    }
    finally {
        Remove-Item Env:COMP_WORDS, Env:COMP_CWORD, Env:%(complete_var)s -ErrorAction SilentlyContinue
    }
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """(words before the one that is completed, its characters before the cursor)."""
        words = [word for word in os.environ.get("COMP_WORDS", "").splitlines() if word][1:]
        incomplete = os.environ.get("COMP_CWORD", "").strip("'\"")
        return (words[:-1] if incomplete else words), incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """`value<TAB>help`; nothing for names of files."""
        return "" if item.type != "plain" else f"{item.value}\t{' '.join((item.help or '').split())}"


def complete(cli: click.Command, instruction: str) -> int:
    """Prints a script or completions; the exit code. `instruction`: `bash_source`, `bash_complete` and the like."""
    add_completion_class(_PowerShell)
    try:
        return shell_complete(cli, {}, "heapdump", VARIABLE, instruction)
    except click.ClickException:  # the line is none of ours yet
        return 0
