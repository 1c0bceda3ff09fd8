"""Configuration of the documentation: `tools/docs` builds it, without the network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from scsiusb._version import __version__

project = "scsiusb"
author = "the scsiusb authors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "plain_docstrings",
    "cli_reference",
    "command_table",
    "terminal_pictures",
]
exclude_patterns = ["_build"]
nitpicky = True
# Without intersphinx, types of other packages and private ones cannot be linked. Links that an author wrote must work.
nitpick_ignore_regex = [("py:.*", r".*")]

smartquotes = False  # `--option` must not become a dash
default_role = "code"  # docstrings put names in single backticks
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "after_fork, CDB",  # for the process's own use; a layout that prints as noise
}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"scsiusb {release}"
html_copy_source = False
html_show_sphinx = html_show_copyright = False
