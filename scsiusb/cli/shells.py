"""Completion in shells: click's bash, zsh and fish, and PowerShell."""

from __future__ import annotations

import os
from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, shell_complete

from scsiusb.cli.options import COMPLETION_VARIABLE

SHELLS: Final = ("bash", "zsh", "fish", "powershell")
BETWEEN_WORDS: Final = "\n"
BETWEEN_FIELDS: Final = "\t"

# PowerShell removes a variable that is set to "", so COMP_CWORD may be missing. A value is quoted unless it has only
# characters that mean nothing to PowerShell.
POWERSHELL: Final = r"""
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = $commandAst.CommandElements |
        Where-Object { $_.Extent.StartOffset -lt $cursorPosition } |
        ForEach-Object {
            if ($_ -is [System.Management.Automation.Language.StringConstantExpressionAst]) { $_.Value }
            else { $_.Extent.Text }
        }
    $env:%(complete_var)s = 'powershell_complete'
    $env:COMP_WORDS = @($words) -join "`n"
    $env:COMP_CWORD = $wordToComplete
    try {
        & %(prog_name)s | ForEach-Object {
            $kind, $value, $help = $_ -split "`t", 3
            if ($kind -eq 'plain') {
                $text = if ($value -match '^[\w:./=+-]+$') { $value } else { "'" + $value.Replace("'", "''") + "'" }
                $tip = if ($help) { $help } else { $value }
                [System.Management.Automation.CompletionResult]::new($text, $value, 'ParameterValue', $tip)
            } else {
                [System.Management.Automation.CompletionCompleters]::CompleteFilename($wordToComplete)
            }
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:COMP_WORDS, Env:COMP_CWORD -ErrorAction SilentlyContinue
    }
}
"""


class PowerShellComplete(ShellComplete):
    """Completion for Windows PowerShell 5.1 and PowerShell 7."""

    name = "powershell"
    source_template = POWERSHELL

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete arguments, and the one to complete: "" for a new one."""
        arguments = os.environ.get("COMP_WORDS", "").split(BETWEEN_WORDS)[1:]
        incomplete = os.environ.get("COMP_CWORD", "").strip("'\"")
        if incomplete and arguments and arguments[-1].strip("'\"") == incomplete:
            arguments.pop()
        return arguments, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return a line for the script: kind, value, help."""
        help_text = " ".join((item.help or "").split())
        return BETWEEN_FIELDS.join((item.type, str(item.value), help_text))


def register() -> None:
    """Make PowerShell known to click."""
    add_completion_class(PowerShellComplete)


def complete(command: click.Command, instruction: str) -> int:
    """Print what a shell's script asks for by COMPLETION_VARIABLE; return the exit status."""
    register()
    return shell_complete(command, {}, "scsiusb", COMPLETION_VARIABLE, instruction)
