"""The completion command: print a completion script for a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from scsiusb.cli.options import COMPLETION_VARIABLE, global_options
from scsiusb.cli.output import show


@click.command("completion", short_help="Print a completion script for a shell.")
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
@global_options
def completion_command(shell: str) -> None:
    """Print a completion script for a shell.

    \b
    Examples:
      scsiusb completion bash >> ~/.bash_completion
      scsiusb completion zsh >> ~/.zshrc
      scsiusb completion fish > ~/.config/fish/completions/scsiusb.fish
    """
    root = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    show(kind(root.command, {}, "scsiusb", COMPLETION_VARIABLE).source())
