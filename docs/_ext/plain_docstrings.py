"""Lets autodoc read docstrings that are plain text: names in single backticks, indented examples, no other markup."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import re
from itertools import groupby
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.addnodes import pending_xref

import scsiusb

if TYPE_CHECKING:
    from sphinx.application import Sphinx

CODE = re.compile(r"(`+)(.+?)\1")
SPECIAL = re.compile(r"([\\*|`]|_(?=\W|$)|:(?=\w+:))")
ITEM = re.compile(r"- |\d+\. ")
NAME_ITEM = re.compile(r"`\w+`: ")
RAISE = re.compile(r"Raises? ")
ERRORS = re.compile(rf"\b({'|'.join(name for name in scsiusb.__all__ if name[0].isupper())})\b(?!\.)")
PUBLIC = re.compile(rf"({'|'.join(scsiusb.__all__)})(\.\w+)?")


def escaped(text: str) -> str:
    """Return one line of plain text as reStructuredText that reads the same; public names become links."""
    parts: list[str] = []
    position = 0
    for match in CODE.finditer(text):
        code = match[2]
        link = f":py:obj:`{code} <scsiusb.{code}>`" if PUBLIC.fullmatch(code) else f":code:`{code}`"
        parts += [_escaped_prose(text[position : match.start()]), link]
        if match.end() < len(text) and not re.match(r"[\s.,;:!?)\]}/'\"-]", text[match.end()]):
            parts.append("\\ ")  # markup must end where a word ends
        position = match.end()
    return "".join([*parts, _escaped_prose(text[position:])])


def _escaped_prose(text: str) -> str:
    """Return text without code; the names of errors and classes in it become links."""
    parts = ERRORS.split(SPECIAL.sub(r"\\\1", text))
    return "".join(
        rf"\ :py:obj:`{part} <scsiusb.{part}>`\ " if number % 2 else part for number, part in enumerate(parts)
    )


def converted(lines: list[str]) -> list[str]:
    """Return a docstring's lines as reStructuredText.

    An indented paragraph is an example; `- ` begins an item of a list, and so does a name with a colon.
    """
    result: list[str] = []
    in_example = False
    for is_blank, group in groupby(lines, key=lambda line: not line.strip()):
        paragraph = list(group)
        if is_blank:
            result.append("")
        elif all(line.startswith("  ") for line in paragraph):
            result += ([] if in_example else ["::", ""]) + [f"    {line}" for line in paragraph]
            in_example = True
        else:
            in_example = False
            result += _paragraph([line.strip() for line in paragraph])
    return result


def _paragraph(lines: list[str]) -> list[str]:
    """Return prose, with each item of a list as a paragraph that keeps its continuation lines."""
    has_names = bool(NAME_ITEM.match(lines[0]))
    result: list[str] = []
    in_list = False
    for number, line in enumerate(lines):
        is_name = has_names and bool(NAME_ITEM.match(line))
        if is_name or ITEM.match(line):
            result += ([] if in_list else [""]) + [("- " if is_name else "") + escaped(line)]
            in_list = True
        elif RAISE.match(line) and number and lines[number - 1].endswith("."):
            result += ["", escaped(line)]
            in_list = False
        else:
            result.append(f"  {escaped(line)}" if in_list else escaped(line))
    return [*result, ""]


def _process(app: Sphinx, what: str, name: str, target: object, options: object, lines: list[str]) -> None:
    lines[:] = converted(lines)


def _signature(
    app: Sphinx, what: str, name: str, target: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Replace the signature of a dataclass: `scsiusb.base.dataclass` compiles `__init__` at its first call only."""
    if not (inspect.isclass(target) and dataclasses.is_dataclass(target)):
        return signature, returns
    fields = [each for each in dataclasses.fields(target) if each.init and not each.name.startswith("_")]
    return f"({', '.join(map(_parameter, fields))})", returns


def _parameter(field: dataclasses.Field[object]) -> str:
    """Return a field as a parameter with its type and its default."""
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    if field.default is not dataclasses.MISSING:
        return f"{field.name}: {kind} = {field.default!r}"
    return f"{field.name}: {kind}" + (" = ..." if field.default_factory is not dataclasses.MISSING else "")


def _unlink_builtins(app: Sphinx, tree: nodes.document) -> None:
    """Remove links to builtins: Sphinx would take the `type` of an annotation for the attribute `Partition.type`."""
    for link in list(tree.findall(pending_xref)):
        if link.get("refdomain") == "py" and hasattr(builtins, link["reftarget"]):
            link.replace_self(nodes.Text(link["reftarget"]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks with Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-read", _unlink_builtins)
    return {"parallel_read_safe": True}
