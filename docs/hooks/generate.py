"""The hook by which MkDocs writes the pages of the catalogue and of recorded results; no experiment runs here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import chaos_table
import circle_figure
import equilibria_figure
import learned_psro_figure
from docstrings import as_markdown
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from technique_pages import Evidence, family_page, family_title, pages

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.study.comparison import Comparison
from stratagem.study.comparison_report import write_comparison_report
from stratagem.study.stress import Stress
from stratagem.study.stress_report import write_stress_report


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every family, with its techniques under it, below Methods in the navigation."""
    entries: list[dict[str, Any]] = config.nav or []
    methods = next(entry["Methods"] for entry in entries if "Methods" in entry)
    for family in catalogue.FAMILIES:
        cards = catalogue.cards(family)
        if cards:
            techniques = [{card.name: f"methods/{card.name}.md"} for card in cards]
            methods.append({family_title(family): [family_page(family), *techniques]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and reports. A page of the same address written by hand is not lost: the page ends with it."""
    try:
        evidence = Evidence.read(Path(config.config_file_path).parent / "results")
        for address, text in pages(evidence).items():
            by_hand = files.get_file_from_path(address)
            if by_hand is not None:
                text += "\n" + by_hand.content_string
                files.remove(by_hand)
            files.append(File.generated(config, address, content=as_markdown(text)))
        for name, comparison in evidence.comparisons.items():
            files.append(File.generated(config, f"comparisons/{name}.html", content=_report(comparison)))
        for name, stress in evidence.stress.items():
            files.append(File.generated(config, f"stress/{name}.html", content=_stress_report(stress)))
    except InputError as error:
        raise PluginError(str(error)) from None
    return files


RECORDED: Mapping[str, tuple[Callable[[Path], str], str]] = {
    chaos_table.PLACE: (chaos_table.chaos_table, "chaos.json"),
    circle_figure.PLACE: (circle_figure.circle_figure, "circle.json"),
    equilibria_figure.PLACE: (equilibria_figure.equilibria_figure, "equilibria.json"),
    learned_psro_figure.PLACE: (learned_psro_figure.learned_psro_figure, "learned_psro.json"),
}
"""The line of a page that a recorded result takes the place of, what writes it, and the file it is read from."""


def on_page_markdown(markdown: str, config: MkDocsConfig, **_: Any) -> str:
    """Put tables and figures of recorded results where a page asks for them."""
    results = Path(config.config_file_path).parent / "results"
    try:
        for place, (written, name) in RECORDED.items():
            if place in markdown:
                markdown = markdown.replace(place, written(results / name))
    except InputError as error:
        raise PluginError(str(error)) from None
    return markdown


def _report(comparison: Comparison) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return write_comparison_report(comparison, Path(folder) / "report.html").read_text(encoding="utf-8")


def _stress_report(stress: Stress) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return write_stress_report(stress, Path(folder) / "report.html").read_text(encoding="utf-8")
