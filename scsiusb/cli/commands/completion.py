"""The completion command: print a completion script for a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from scsiusb.cli.options import COMPLETION_VARIABLE, global_options, settings
from scsiusb.cli.output import show, show_json
from scsiusb.cli.shells import SHELLS, register


@click.command("completion", short_help="Print a completion script for a shell.")
@click.argument("shell", metavar="|".join(SHELLS), type=click.Choice(SHELLS))
@global_options
def completion_command(shell: str) -> None:
    """Print a completion script for a shell.

    \b
    Examples:
      scsiusb completion bash >> ~/.bash_completion
      scsiusb completion zsh >> ~/.zshrc
      scsiusb completion fish > ~/.config/fish/completions/scsiusb.fish
      scsiusb completion powershell >> $PROFILE
    """
    root = click.get_current_context().find_root()
    register()
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    script = kind(root.command, {}, "scsiusb", COMPLETION_VARIABLE).source()
    if settings().json:
        show_json({"shell": shell, "script": script})
    else:
        show(script)
