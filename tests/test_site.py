"""The pages of docs/ as a site: every link between them leads somewhere, and the API page has what it promises."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for library in ("mkdocs", "mkdocstrings", "mkdocstrings_handlers"):
        pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / page.stem / "index.html").is_file()
    assert "trains a language model from its own failures" in (site / "index.html").read_text()


def test_links_between_pages_lead_somewhere(site: Path) -> None:
    ids: dict[Path, set[str]] = {}
    seen = 0
    for page in site.rglob("*.html"):
        if page.name != "404.html":
            for target, anchor in re.findall(
                r'(?:href|src)="(?!https?:|data:|mailto:)([^"#]*)#?([^"]*)"', page.read_text()
            ):
                path = (page.parent / target).resolve() if target else page
                path = path / "index.html" if path.is_dir() else path
                assert path.exists(), f"{page.relative_to(site)}: {target}"
                if anchor and path.suffix == ".html":
                    known = ids.setdefault(path, set(re.findall(r'id="([^"]*)"', path.read_text())))
                    assert anchor in known, f"{page.relative_to(site)}: {target}#{anchor}"
                    seen += 1
    assert seen > 20


def test_the_api_page_has_shapes_and_settings(site: Path) -> None:
    text = (site / "api/index.html").read_text()
    for part in ("resd.types.Verdict", "resd.envs.load", "resd.settings.run.OptimizerSettings", "learning rate after"):
        assert part in text, part


def test_a_bracket_that_stays_open_takes_no_time() -> None:
    """Before, each code span behind one doubled the time: a build of minutes, or for ever."""
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "scripts/site.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    text = "[ `[a` " + "`b` " * 400 + "and [`c`](tasks.md), [one](../LICENSE)"
    assert hooks.within(text, ROOT / "docs") == text.replace("[one](../LICENSE)", "one")
