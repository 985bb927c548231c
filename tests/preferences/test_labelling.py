"""The labelling page: its file, its server, and what a person does on it in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from stratagem.errors import InputError
from stratagem.preferences.labelling import Labelling, read_questions, serve

HOSTILE = "<script>document.title = 'broken'</script>"

PAIRS = [
    {"prompt": "2 + 3?", "first": "5", "second": "6"},
    {"prompt": HOSTILE, "first": HOSTILE, "second": "<b>bold</b>"},
    {"prompt": "Walk.", "first": {"frames": ["a..", ".a.", "..a"]}, "second": {"frames": ["b..", ".b."]}},
]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def say(labelling: Labelling, verdict: str) -> dict[str, Any]:
    return labelling.label(labelling.state()["question"]["key"], verdict)


# ---- the file -------------------------------------------------------------------------------------------------------


def test_a_verdict_is_written_as_what_was_chosen_wherever_it_stood(pairs, labels):
    labelling = Labelling(pairs, labels)
    shown = labelling.state()["question"]
    assert {shown["left"], shown["right"]} == {"5", "6"}
    say(labelling, "left")
    second = labelling.state()["question"]
    say(labelling, "right")
    say(labelling, "tie")
    found = lines(labels)
    assert (found[0]["chosen"], found[0]["rejected"]) == (shown["left"], shown["right"])
    assert (found[1]["chosen"], found[1]["rejected"]) == (second["right"], second["left"])
    assert ["tie" in line for line in found] == [False, False, True]
    assert PAIRS[0][found[0]["left"]] == shown["left"]
    assert labelling.state() == {"done": 3, "total": 3, "undo": True, "question": None}


def test_who_starts_again_goes_on_where_they_stopped(pairs, labels):
    say(Labelling(pairs, labels), "left")
    again = Labelling(pairs, labels)
    assert again.state()["done"] == 1
    assert again.state()["question"]["prompt"] == HOSTILE
    assert not again.state()["undo"]
    assert Labelling(pairs, labels, "somebody else").state()["done"] == 0
    say(again, "tie")
    say(again, "tie")
    assert Labelling(pairs, labels).state()["question"] is None


def test_a_line_that_was_cut_short_is_removed_and_asked_again(pairs, labels):
    first = Labelling(pairs, labels)
    say(first, "left")
    whole = labels.read_bytes()
    say(first, "left")
    labels.write_bytes(labels.read_bytes()[:-9])
    again = Labelling(pairs, labels)
    assert (again.torn, again.state()["done"]) == (1, 1)
    assert labels.read_bytes() == whole


def test_the_last_label_can_be_taken_back_but_not_over_somebody_elses(pairs, labels):
    labelling = Labelling(pairs, labels)
    say(labelling, "left")
    whole = labels.read_bytes()
    say(labelling, "left")
    assert labelling.undo()["done"] == 1
    assert labels.read_bytes() == whole
    assert labelling.state()["question"]["prompt"] == HOSTILE
    labels.write_bytes(whole + whole)
    with pytest.raises(InputError, match="has changed since"):
        labelling.undo()
    assert labelling.state()["done"] == 1


def test_what_is_skipped_comes_last_and_a_stale_verdict_changes_nothing(pairs, labels):
    labelling = Labelling(pairs, labels)
    key = labelling.state()["question"]["key"]
    say(labelling, "skip")
    assert labelling.label(key, "left")["done"] == 0
    assert labels.read_text() == ""
    say(labelling, "left")
    say(labelling, "left")
    assert labelling.state()["question"]["key"] == key


def test_each_side_is_left_about_as_often(tmp_path, labels):
    many = tmp_path / "many.jsonl"
    rows = [{"prompt": str(number), "first": "a", "second": "b"} for number in range(400)]
    many.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelling = Labelling(many, labels)
    left = [labelling._sides(question)[0] == "first" for question in labelling.questions.values()]
    assert 160 < sum(left) < 240


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "there are no pairs"),
        ("{", "line 1: is not JSON"),
        ('{"first": "a", "second": "b"}', "line 1: prompt must be a text"),
        ('\n{"prompt": "p", "first": "a"}', "line 2: second must be a text or"),
        ('{"prompt": "p", "first": "a", "second": {"frames": []}}', "line 1: second must be"),
        ('{"prompt": "p", "first": "a", "second": "a"}', "are the same answer"),
    ],
)
def test_questions_of_another_kind_are_refused_by_line(tmp_path, content, problem):
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=problem):
        read_questions(path)


def test_files_that_will_not_do_are_refused(pairs, labels, tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: cannot be read"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is the file of questions"):
        Labelling(pairs, pairs)
    with pytest.raises(InputError, match="--annotator: must be a name"):
        Labelling(pairs, labels, " ")
    labels.write_text('{"step": 1}\n')
    with pytest.raises(InputError, match="line 1: is no label; name another file"):
        Labelling(pairs, labels)
    assert labels.read_text() == '{"step": 1}\n'


# ---- the server -----------------------------------------------------------------------------------------------------


@pytest.fixture
def served(pairs: Path, labels: Path) -> Iterator[tuple[Labelling, int]]:
    labelling = Labelling(pairs, labels)
    with serve(labelling) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield labelling, server.server_address[1]
        server.shutdown()
        thread.join()


def request(port: int, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    said = answer.status, answer.read().decode()
    connection.close()
    return said


def test_only_this_machine_in_json_is_listened_to(served, labels):
    labelling, port = served
    key = labelling.state()["question"]["key"]
    verdict = json.dumps({"key": key, "verdict": "left"})
    for expected, arguments, headers in (
        (200, ("GET", "/state"), {}),
        (404, ("GET", "/../labelling.py"), {}),
        (403, ("GET", "/state"), {"Host": "example.com"}),
        (403, ("POST", "/label", verdict), {"Host": f"example.com:{port}"}),
        (400, ("POST", "/label", verdict), {"Content_Type": "text/plain"}),
        (400, ("POST", "/label", "[]"), {}),
        (400, ("POST", "/label", "{" + " " * 5000 + "}"), {}),
        (409, ("POST", "/label", json.dumps({"key": key, "verdict": "best"})), {}),
        (404, ("POST", "/other", "{}"), {}),
    ):
        assert request(port, *arguments, **headers)[0] == expected, (arguments, headers)
    assert labels.read_text() == ""
    status, said = request(port, "POST", "/label", verdict)
    assert (status, json.loads(said)["done"]) == (200, 1)
    with pytest.raises(InputError, match=f"--port {port}: cannot be listened on"):
        serve(labelling, port)


def test_the_command_says_where_the_page_is_and_stops_at_ctrl_c(pairs, labels):
    command = [sys.executable, "-m", "stratagem", "label", str(pairs), "--out", str(labels), "--no-open"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # Whoever runs the tests in the background may have them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        said = process.stdout.readline()
        assert said.startswith("0 of 3 labelled; page: http://127.0.0.1:")
        port = int(said.rstrip().rstrip("/").rpartition(":")[2])
        key = json.loads(request(port, "GET", "/state")[1])["question"]["key"]
        assert request(port, "POST", "/label", json.dumps({"key": key, "verdict": "tie"}))[0] == 200
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        assert (process.returncode, rest) == (0, f"\n1 of 3 labelled: {labels}\n")
    finally:
        process.kill()
        process.wait()


# ---- in a browser ---------------------------------------------------------------------------------------------------


class Page:
    """The page in headless Chromium."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def press(self, key: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def text(self, selector: str) -> str:
        found: str = self.driver.execute_script("return document.querySelector(arguments[0]).innerText", selector)
        return found

    def both(self, one: str, other: str) -> tuple[str, str]:
        """What both answers show at one time."""
        script = "return [...arguments].map(side => document.querySelector(`${side} > div`).innerText)"
        first, second = self.driver.execute_script(script, one, other)
        return first, second

    def comes(self, true: Callable[[], bool]) -> bool:
        until = time.monotonic() + 10
        while not true() and time.monotonic() < until:
            time.sleep(0.02)
        return true()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("chromium")
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 "--disable-dev-shm-usage", "--no-proxy-server", f"--user-data-dir={folder}"):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield Page(driver)
    driver.quit()


LEFT, RIGHT, DOWN = "\ue012", "\ue014", "\ue015"


def test_pairs_are_labelled_by_keyboard_and_hostile_text_is_text(page, served, labels):
    _, port = served
    page.driver.get(f"http://127.0.0.1:{port}/")
    assert page.comes(lambda: page.text("#count") == "0 of 3")
    left = page.text("#left > div")
    assert {left, page.text("#right > div")} == {"5", "6"}
    page.press(LEFT)
    assert page.comes(lambda: page.text("#count") == "1 of 3")
    assert lines(labels)[0]["chosen"] == left
    assert page.text("#prompt") == HOSTILE
    assert {page.text("#left > div"), page.text("#right > div")} == {HOSTILE, "<b>bold</b>"}
    assert page.driver.title == "Which is better?"
    page.press("u")
    assert page.comes(lambda: page.text("#count") == "0 of 3")
    assert labels.read_text() == ""
    right = page.text("#right > div")
    page.press(RIGHT)
    assert page.comes(lambda: page.text("#count") == "1 of 3")
    assert lines(labels)[0]["chosen"] == right
    page.press("s")
    assert page.comes(lambda: page.text("#prompt") == "Walk.")
    page.press(DOWN)
    assert page.comes(lambda: page.text("#count") == "2 of 3")
    assert lines(labels)[1]["tie"] is True
    page.driver.find_element("css selector", "#right").click()
    assert page.comes(lambda: page.text("#count") == "3 of 3")
    assert page.driver.find_element("css selector", "#finished").is_displayed()
    assert not page.driver.find_element("css selector", "#question").is_displayed()
    page.press(LEFT)
    assert len(lines(labels)) == 3
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_trajectories_are_played_side_by_side_and_can_be_stopped(page, served):
    labelling, port = served
    for _ in range(2):
        say(labelling, "tie")
    page.driver.get(f"http://127.0.0.1:{port}/")
    assert page.comes(lambda: page.text("#count") == "2 of 3")
    long, short = ("#left", "#right") if "a" in page.text("#left > div") else ("#right", "#left")
    seen: list[tuple[str, str]] = []
    until = time.monotonic() + 10
    while len(set(seen)) < 3 and time.monotonic() < until:
        seen.append(page.both(long, short))
        time.sleep(0.02)
    # The shorter one holds its last frame until the longer one is over.
    assert set(seen) == {("a..", "b.."), (".a.", ".b."), ("..a", ".b.")}
    page.press(" ")
    assert page.comes(lambda: page.text("#pause span") == "go on")
    held = page.text(f"{long} > div")
    time.sleep(0.7)
    assert page.text(f"{long} > div") == held
    assert labelling.state()["done"] == 2


def test_a_server_that_is_gone_is_said_and_a_reload_goes_on(page, pairs, labels):
    labelling = Labelling(pairs, labels)
    server = serve(labelling)
    port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    page.driver.get(f"http://127.0.0.1:{port}/")
    assert page.comes(lambda: page.text("#count") == "0 of 3")
    page.press(LEFT)
    assert page.comes(lambda: page.text("#count") == "1 of 3")
    server.shutdown()
    thread.join()
    server.server_close()
    page.press(LEFT)
    assert page.comes(lambda: "does not answer" in page.text("#problem"))
    assert len(lines(labels)) == 1
    with serve(Labelling(pairs, labels), port) as again:
        threading.Thread(target=again.serve_forever, daemon=True).start()
        page.driver.refresh()
        assert page.comes(lambda: page.text("#count") == "1 of 3")
        again.shutdown()
