"""Hooks of mkdocs.yml: README.md is the first page, and what a page says of files of the repository stays text.

A link to a file that is not there ends the build. Not covered: what the pages say; tests/test_docs.py and its
neighbours run their commands.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)\[((?:[^\[\]`]|`[^`]*`)*)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """The README as index.md."""
    files.append(File.generated(config, "index.md", content=within((ROOT / "README.md").read_text(), ROOT)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page with the links that lead somewhere on the site."""
    return markdown if page.file.src_uri == "index.md" else within(markdown, ROOT / "docs")


def within(markdown: str, folder: Path) -> str:
    """The text of a file of `folder` as a page of docs/. PluginError for a link to nothing."""

    def link(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups()
        path = (folder / target).resolve()
        if not path.exists():
            raise PluginError(f"{target} does not exist")
        if not path.is_relative_to(ROOT / "docs") or path.is_dir():
            return str(text)
        return f"{image}[{text}]({path.relative_to(ROOT / 'docs')}{anchor or ''})"

    return LINK.sub(link, markdown)
