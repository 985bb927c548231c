"""The report pages in a real browser: they draw without an error, offline, and answer to the hand."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stratagem.study.comparison import Comparison
from stratagem.study.comparison_report import write_comparison_report
from stratagem.study.report import write_report
from stratagem.training.run_directory import RunDirectory

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip

PHONE, DESKTOP = (390, 844), (1280, 900)
EIGHT = ("grpo", "rloo", "dr_grpo", "gspo", "dapo", "reinforce", "ppo", "cispo")
HOSTILE = "<b>&amp;\"'</script>"

MakeComparison = Callable[..., Comparison]


class Browser:
    """A page open in headless Chromium, and what can be asked of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
        """Open a file in a window whose inside has exactly this size."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get_log("browser")
        self.driver.get(page.as_uri())
        self.settle()

    def settle(self) -> None:
        """Wait until nothing on the page has changed for a while: charts are drawn after it has loaded."""
        seen: list[int] = []
        until = time.monotonic() + 5
        while len(set(seen[-4:])) != 1 or len(seen) < 4:
            assert time.monotonic() < until, "the page does not come to rest"
            time.sleep(0.05)
            seen.append(self.ask("document.documentElement.outerHTML.length"))

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {script}", *arguments)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def drawn(self, chart: str) -> tuple[int, int]:
        """How many lines and how many bands the chart shows."""
        count = (
            "[...document.querySelectorAll(arguments[0])].filter(path => path.getAttribute('d')?.length > 20).length"
        )
        lines = self.ask(count, f"#{chart} .scatterlayer .lines path.js-line:not([style*='stroke-width: 0px'])")
        return lines, self.ask(count, f"#{chart} .scatterlayer path.js-fill")

    def comes_to_draw(self, chart: str, wanted: tuple[int, int]) -> bool:
        """Whether it shows so many lines and bands soon: a click waits for whether it becomes a double click."""
        until = time.monotonic() + 5
        while self.drawn(chart) != wanted and time.monotonic() < until:
            time.sleep(0.05)
        return self.drawn(chart) == wanted

    def click(self, selector: str, place: int = 0) -> None:
        element = self.driver.find_elements("css selector", selector)[place]
        self.ask("arguments[0].scrollIntoView({block: 'center'})", element)
        webdriver.ActionChains(self.driver).move_to_element(element).click().perform()

    def double_click(self, selector: str, place: int) -> None:
        """Both clicks at once: sent one after the other, they may come too slowly to count as one double click."""
        element = self.driver.find_elements("css selector", selector)[place]
        events = "['mousedown', 'mouseup', 'mousedown', 'mouseup']"
        self.ask(
            f"{events}.forEach(name => arguments[0].dispatchEvent(new MouseEvent(name, {{bubbles: true}})))", element
        )

    def sideways(self) -> int:
        """How far the page can be scrolled sideways, in pixels."""
        pixels: int = self.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return pixels

    def axis_title(self, chart: str) -> str:
        title: str = self.ask("document.querySelector(arguments[0]).textContent", f"#{chart} .xtitle")
        return title


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests of the module."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def two(make_comparison: MakeComparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms on one task."""
    return write_comparison_report(make_comparison(), tmp_path_factory.mktemp("two") / "report.html")


@pytest.fixture(scope="module")
def eight(make_comparison: MakeComparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight arms on two tasks."""
    comparison = make_comparison(arms=EIGHT, tasks=("key_door", "sokoban"), lead=0.03)
    return write_comparison_report(comparison, tmp_path_factory.mktemp("eight") / "report.html")


def test_opens_from_a_file_and_draws_without_an_error(browser: Browser, two: Path) -> None:
    browser.open(two)
    assert browser.errors() == []
    assert browser.comes_to_draw("curves-0", (2, 2))
    assert browser.ask("document.querySelectorAll('#finals-0 .points path').length") == 2 * (1 + 5)
    assert browser.ask("document.querySelectorAll('#differences-0 .points path').length") == 1 + 5


def test_eight_arms_have_a_panel_for_each_task(browser: Browser, eight: Path) -> None:
    browser.open(eight)
    assert browser.errors() == []
    assert [browser.drawn(f"curves-{place}") for place in (0, 1)] == [(8, 8), (8, 8)]


def test_a_run_report_draws_without_an_error(browser: Browser, learned: RunDirectory, tmp_path: Path) -> None:
    browser.open(write_report([learned], tmp_path / "report.html", "A run"))
    assert browser.errors() == []
    assert browser.comes_to_draw("held_out-0", (2, 0))
    assert browser.axis_title("held_out-0") == "training steps"
    browser.click("#axis input[value=minutes]")
    assert browser.axis_title("held_out-0") == "training minutes"


def test_a_click_on_the_legend_hides_an_arm_with_its_band_and_another_shows_it(browser: Browser, eight: Path) -> None:
    """In every panel; and the arm stays hidden when the axis is switched."""
    browser.open(eight)
    second = "#curves-0 .legendtoggle"
    browser.click(second, 1)
    assert all(browser.comes_to_draw(f"curves-{place}", (7, 7)) for place in (0, 1))
    browser.click("#axis input[value=minutes]")
    assert browser.comes_to_draw("curves-0", (7, 7))
    time.sleep(0.4)  # or the two clicks are a double click
    browser.click(second, 1)
    assert all(browser.comes_to_draw(f"curves-{place}", (8, 8)) for place in (0, 1))


def test_a_double_click_shows_an_arm_alone_and_another_all_of_them(browser: Browser, eight: Path) -> None:
    browser.open(eight)
    browser.double_click("#curves-0 .legendtoggle", 3)
    assert browser.comes_to_draw("curves-1", (1, 1))
    time.sleep(0.4)  # Until a click is no longer one more of the last two.
    browser.double_click("#curves-0 .legendtoggle", 3)
    assert browser.comes_to_draw("curves-1", (8, 8))


def test_the_axis_and_the_mode_can_be_switched_by_keyboard(browser: Browser, two: Path) -> None:
    browser.open(two)
    assert browser.axis_title("curves-0") == "tokens or actions sampled"
    sampled = browser.ask("document.querySelectorAll('#curves-0 .lines path')[1].getAttribute('d')")
    browser.driver.find_element("css selector", "#axis input:checked").send_keys("\ue014")  # right arrow
    assert browser.axis_title("curves-0") == "training minutes"
    assert browser.ask("document.getElementById('curves-0').data[0].x.at(40)") == 1.0
    browser.driver.find_element("css selector", "#mode input:checked").send_keys("\ue014")
    assert browser.ask("document.querySelectorAll('#curves-0 .lines path')[1].getAttribute('d')") != sampled
    assert browser.ask("document.getElementById('curves-0').data[2].y.at(-1)") == pytest.approx(0.75)


def test_a_phone_scrolls_tables_and_not_the_page(
    browser: Browser, make_comparison: MakeComparison, tmp_path: Path
) -> None:
    """With many arms, with names that have no place to break, and with everything unfolded."""
    recipe = make_comparison().plan.arms["grpo"]
    played = {"messages": [{"role": "user", "content": "w" * 200}], "return": 1.0}
    comparison = make_comparison(
        arms={**dict.fromkeys(EIGHT, recipe), "a" * 60: recipe},
        tasks=("key_door", "t" * 80),
        meetings=[{"mode": "greedy", "episode": 0, "before": played, "after": {"last_observation": "o" * 200}}],
    )
    browser.open(write_comparison_report(comparison, tmp_path / "report.html"), PHONE)
    browser.ask("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert browser.sideways() == 0
    assert browser.ask("document.querySelector('.scroll').scrollWidth") > PHONE[0]


def test_a_run_report_fits_a_phone(browser: Browser, learned: RunDirectory, tmp_path: Path) -> None:
    browser.open(write_report([learned], tmp_path / "report.html", "A run"), PHONE)
    assert browser.sideways() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(browser: Browser, two: Path, scheme: str) -> None:
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3), in text, notes, verdicts and charts."""
    browser.open(two, scheme=scheme)
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    inks = [
        browser.ask("getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, style)
        for selector, style in (("h1", "color"), (".note", "color"), (".rose", "color"), (".xtitle", "fill"))
    ]
    assert (luminance(ground) > 0.5) == (scheme == "light")
    assert min(contrast(ink, ground) for ink in inks) >= 4.5


def test_hostile_names_are_shown_as_they_are(browser: Browser, make_comparison: MakeComparison, tmp_path: Path) -> None:
    recipe = make_comparison().plan.arms["grpo"]
    comparison = make_comparison(arms={"7": recipe, HOSTILE: recipe}, tasks=(HOSTILE,))
    browser.open(write_comparison_report(comparison, tmp_path / "report.html"))
    assert browser.errors() == []
    legend = browser.ask("[...document.querySelectorAll('#curves-0 .legendtext')].map(text => text.textContent)")
    assert legend == ["7", HOSTILE[:15] + "…"]
    assert browser.ask("document.title") == f"Does {HOSTILE} beat 7 on {HOSTILE}?"


def contrast(ink: str, ground: str) -> float:
    """Contrast ratio of WCAG: (lighter + 0.05) / (darker + 0.05)."""
    darker, lighter = sorted((luminance(ink), luminance(ground)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    """Relative luminance of ``rgb(r, g, b)``."""
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
