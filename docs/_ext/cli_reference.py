"""The directive `cli-reference`: every command and option of `scsiusb`, as click has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import TYPE_CHECKING, ClassVar

import click
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from scsiusb.cli.app import scsiusb

if TYPE_CHECKING:
    from sphinx.application import Sphinx

NAME = "scsiusb"
OPTION = re.compile(r"(?<![\w-])(--?[a-z][\w-]*(?:=\S+)?)")


def commands(command: click.Command, path: str = NAME) -> Iterator[tuple[str, click.Context]]:
    """Yield every command with its full name, the group itself first."""
    context = click.Context(command, info_name=path)
    yield path, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (inner := command.get_command(context, name)) is not None:
                yield from commands(inner, f"{path} {name}")


def options(context: click.Context) -> dict[str, str]:
    """Return a command's options with their help text, as `--help` prints them."""
    parameters = context.command.get_params(context)
    records = (each.get_help_record(context) for each in parameters if isinstance(each, click.Option))
    return {record[0]: record[1] for record in records if record}


class CliReference(SphinxDirective):
    """Adds a section for each command; options that all commands share are in the first one only."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """See `Directive.run`."""
        listed = list(commands(scsiusb))
        shared = options(listed[0][1])
        return [self._section(path, context, {} if path == NAME else shared) for path, context in listed]

    def _section(self, path: str, context: click.Context, shared: dict[str, str]) -> nodes.section:
        title = "Options of every command" if path == NAME else path
        section = nodes.section(ids=[nodes.make_id(path)])
        section += nodes.title(text=title)
        section += nodes.literal_block(text=" ".join([path, *context.command.collect_usage_pieces(context)]))
        section += prose(cleandoc(context.command.help or ""))
        own = {names: text for names, text in options(context).items() if names not in shared}
        if own:
            section += definitions(own)
        if type(context.command).format_epilog is not click.Command.format_epilog:
            section += printed_epilog(context)
        if context.command.epilog:
            section += prose(cleandoc(context.command.epilog))
        self.env.note_dependency(__file__)
        return section


def prose(text: str) -> list[nodes.Node]:
    """Return click's help text as nodes; a paragraph that begins with backspace keeps its line breaks."""
    result: list[nodes.Node] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.startswith("\b"):
            result += _as_printed(paragraph.lstrip("\b\n"))
        else:
            result.append(nodes.paragraph("", "", *inline(" ".join(paragraph.split()))))
    return result


def _as_printed(text: str) -> list[nodes.Node]:
    first, _, rest = text.partition("\n")
    if first.strip() != "Examples:":
        return [nodes.literal_block(text=text)]
    return [nodes.literal_block(text="\n".join(f"$ {line.strip()}" for line in rest.splitlines()), language="console")]


def inline(text: str) -> list[nodes.Node]:
    """Return text with the options in it as code."""
    parts = OPTION.split(text)
    return [nodes.literal(text=part) if number % 2 else nodes.Text(part) for number, part in enumerate(parts)]


def definitions(rows: dict[str, str]) -> nodes.definition_list:
    """Return a definition list of options or faults."""
    result = nodes.definition_list()
    for names, text in rows.items():
        term = nodes.term("", "", nodes.literal(text=names))
        result += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph("", "", *inline(text))))
    return result


def printed_epilog(context: click.Context) -> list[nodes.Node]:
    """Return what a command's own `format_epilog` prints, as it prints it."""
    formatter = click.HelpFormatter(width=110)
    context.command.format_epilog(context, formatter)
    return [nodes.literal_block(text=cleandoc(formatter.getvalue()), language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("cli-reference", CliReference)
    return {"parallel_read_safe": True}
