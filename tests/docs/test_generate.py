"""The hook adds pages, reports and navigation to the site, and keeps what was written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("griffe")

from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files, get_files

from stratagem import catalogue
from stratagem.study.comparison import to_json

HOOK = Path(__file__).parents[2] / "docs" / "hooks" / "generate.py"


@pytest.fixture
def config(tmp_path):
    """A site of nothing but the hook and one page written by hand."""
    by_hand = tmp_path / "docs" / "methods" / "baselines" / "index.md"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_text("## Side by side\n\nBy hand.")
    site = "site_name: Site\nnav:\n  - Methods:\n      - methods/index.md\n"
    (tmp_path / "mkdocs.yml").write_text(f"{site}plugins: []\nhooks:\n  - {HOOK}\n")
    return load_config(str(tmp_path / "mkdocs.yml"))


def files_of(config) -> Files:
    return config.plugins.on_files(get_files(config), config=config)


def test_techniques_stand_below_their_family_in_the_navigation(config):
    methods = config.plugins.on_config(config).nav[0]["Methods"]
    assert methods[0] == "methods/index.md"
    baselines = methods[1]["Baselines"]
    assert baselines[0] == "methods/baselines/index.md" and {"grpo": "methods/grpo.md"} in baselines
    assert sum(len(*family.values()) - 1 for family in methods[1:]) == len(catalogue.cards())


def test_a_page_ends_with_what_was_written_by_hand(config):
    page = files_of(config).get_file_from_path("methods/baselines/index.md").content_string
    assert page.startswith("# Baselines\n") and page.endswith("\n## Side by side\n\nBy hand.")


def test_sessions_of_docstrings_are_blocks_of_code():
    from docstrings import as_markdown

    text = "It adds.\n\n>>> [one for one in (1, 2)]\n[1, 2]\n>>> 1 + 1\n2\n\nname: what it is."
    fenced = "```pycon\n>>> [one for one in (1, 2)]\n[1, 2]\n>>> 1 + 1\n2\n```"
    assert as_markdown(text) == f"It adds.\n\n{fenced}\n\nname: what it is."
    assert as_markdown(">>> 1") == "```pycon\n>>> 1\n```"


def test_roles_of_docstrings_are_plain_code_on_pages(config):
    assert not [file.src_uri for file in files_of(config) if ":class:" in file.content_string]


def test_a_broken_record_stops_the_build_with_one_line(config, tmp_path):
    (tmp_path / "results" / "claims").mkdir(parents=True)
    (tmp_path / "results" / "claims" / "rloo.json").write_text("{}")
    with pytest.raises(PluginError, match=r"^\S+rloo\.json: is of version None[^\n]+$"):
        files_of(config)


def test_every_comparison_on_record_has_its_report_in_the_site(config, tmp_path, a_comparison):
    folder = tmp_path / "results" / "compare" / "rloo"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(to_json(a_comparison()))
    files = files_of(config)
    assert "Does rloo beat grpo on key_door?" in files.get_file_from_path("comparisons/rloo.html").content_string
    assert "(comparisons/rloo.html)" in files.get_file_from_path("comparisons.md").content_string
