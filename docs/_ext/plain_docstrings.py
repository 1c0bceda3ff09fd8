"""Lets autodoc read docstrings that are plain text: names in single backticks, indented examples, no other markup."""

from __future__ import annotations

import dataclasses
import inspect
import re
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

CODE = re.compile(r"(`+)(.+?)\1")
SPECIAL = re.compile(r"([\\*|`]|_(?=\W|$)|:(?=\w+:))")
ITEM = re.compile(r"- |\d+\. ")


def escaped(text: str) -> str:
    """Return one line of plain text as reStructuredText that reads the same; code between backticks stays code."""
    parts: list[str] = []
    position = 0
    for match in CODE.finditer(text):
        parts += [SPECIAL.sub(r"\\\1", text[position : match.start()]), f":code:`{match[2]}`"]
        if match.end() < len(text) and not re.match(r"[\s.,;:!?)\]}/'\"-]", text[match.end()]):
            parts.append("\\ ")  # markup must end where a word ends
        position = match.end()
    return "".join([*parts, SPECIAL.sub(r"\\\1", text[position:])])


def converted(lines: list[str]) -> list[str]:
    """Return a docstring's lines as reStructuredText: indented paragraphs are examples, `- ` begins an item."""
    result: list[str] = []
    for is_blank, group in groupby(lines, key=lambda line: not line.strip()):
        paragraph = list(group)
        if is_blank:
            result.append("")
        elif all(line.startswith("  ") for line in paragraph):
            result += ["::", "", *(f"    {line}" for line in paragraph), ""]
        else:
            result += _paragraph(paragraph)
    return result


def _paragraph(lines: list[str]) -> list[str]:
    """Return prose, with each item of a list as a paragraph that keeps its continuation lines."""
    result: list[str] = []
    in_list = False
    for line in (each.strip() for each in lines):
        if ITEM.match(line):
            result += ([] if in_list else [""]) + [escaped(line)]
            in_list = True
        else:
            result.append(f"  {escaped(line)}" if in_list else escaped(line))
    return [*result, ""] if in_list else result


def _process(app: Sphinx, what: str, name: str, target: object, options: object, lines: list[str]) -> None:
    lines[:] = converted(lines)


def _signature(
    app: Sphinx, what: str, name: str, target: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Replace the signature of a dataclass: `scsiusb.base.dataclass` compiles `__init__` at its first call only."""
    if not (inspect.isclass(target) and dataclasses.is_dataclass(target)):
        return signature, returns
    fields = [each for each in dataclasses.fields(target) if each.init]
    return f"({', '.join(map(_parameter, fields))})", returns


def _parameter(field: dataclasses.Field[object]) -> str:
    """Return a field as a parameter with its type and its default."""
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    if field.default is not dataclasses.MISSING:
        return f"{field.name}: {kind} = {field.default!r}"
    return f"{field.name}: {kind}" + (" = ..." if field.default_factory is not dataclasses.MISSING else "")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks with Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}
