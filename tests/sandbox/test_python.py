"""A program runs with its input, is heard, and cannot use more than it was given, whatever it tries."""

from __future__ import annotations

import os
import socket
import sys
import time
import warnings
from pathlib import Path
from random import randrange
from threading import Thread

import pytest

from stratagem.errors import InputError
from stratagem.sandbox import Limits, Sandbox, isolation, run_python, sandbox, supervisor

MEBIBYTE = 2**20


# ---- what it is for -------------------------------------------------------------------------------------------------


def test_a_program_reads_its_input_and_is_heard_on_both_streams(box: Sandbox) -> None:
    result = box.run_python("import sys\nprint(input()[::-1])\nprint('no', file=sys.stderr)", "abc\n")
    assert (result.stdout, result.stderr, result.status, result.limit, result.ok) == ("cba\n", "no\n", 0, None, True)
    assert 0 < result.seconds < 5


def test_an_exception_is_shown_as_if_the_program_had_been_run_alone(box: Sandbox) -> None:
    result = box.run_python("def f():\n    return 1 / 0\n\nf()")
    assert result.status == 1 and not result.ok and result.limit is None
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n") and 'main.py", line 2' in result.stderr
    assert "return 1 / 0" in result.stderr and "launch" not in result.stderr


@pytest.mark.parametrize("code", ["print(", "x\0y"], ids=["syntax", "null character"])
def test_what_is_no_program_fails_with_a_message(box: Sandbox, code: str) -> None:
    result = box.run_python(code)
    assert result.status == 1 and "Error" in result.stderr and "launch" not in result.stderr


@pytest.mark.parametrize(
    ("code", "status"),
    [("raise SystemExit(7)", 7), ("import os; os._exit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)],
)
def test_exit_statuses_are_told(box: Sandbox, code: str, status: int) -> None:
    result = box.run_python(code)
    assert (result.status, result.limit, result.ok) == (status, None, False)


def test_a_program_is_the_main_module_and_defines_what_it_likes(box: Sandbox) -> None:
    code = "import sys\nclass A: pass\nprint(__name__, A.__module__, sys.modules['__main__'].A is A, sys.argv)"
    assert box.run_python(code).stdout == "__main__ __main__ True ['main.py']\n"


def test_any_text_may_go_in_and_out(box: Sandbox) -> None:
    code = "import sys\nprint('grün', ascii(input()))\nsys.stdout.flush()\nsys.stdout.buffer.write(b'\\xff')"
    result = box.run_python(code, "zwölf \ud800\n")
    assert result.stdout == "grün 'zw\\xf6lf ?'\n�"
    assert box.run_python("x = '\ud800'\nprint(x)").stdout == "?\n"


def test_long_input_is_passed_on_and_one_that_nobody_reads_is_not_waited_for(box: Sandbox) -> None:
    long = "x" * 300_000
    assert box.run_python("print(len(input()))", long).stdout == "300000\n"
    assert box.run_python("print('done')", long).stdout == "done\n"


def test_the_same_program_says_the_same(box: Sandbox) -> None:
    said = {box.run_python("print(hash('a'), list({'x', 'y', 'z', 'w'}))").stdout for _ in range(3)}
    assert len(said) == 1


def test_nothing_of_our_environment_and_no_package_is_there(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    code = (
        "import os, sys\nprint('SECRET_TOKEN' in os.environ)\n"
        "for name in ('torch', 'stratagem'):\n"
        "    try:\n        __import__(name)\n    except ImportError:\n        print('no', name)"
    )
    assert box.run_python(code).stdout == "False\nno torch\nno stratagem\n"


def test_it_works_in_an_empty_folder_of_its_own(box: Sandbox) -> None:
    code = "import os, tempfile\nopen('a', 'w').write('1')\n"
    code += "print(sorted(os.listdir()), tempfile.gettempdir() == os.getcwd())"
    for _ in range(2):
        assert box.run_python(code).stdout == "['a', 'main.py'] True\n"


@pytest.mark.parametrize(
    "limits",
    [{"seconds": 0}, {"seconds": float("inf")}, {"seconds": float("nan")}, {"memory_bytes": 1}, {"processes": 0}],
    ids=str,
)
def test_limits_out_of_range_are_the_users_mistake(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"limits: {next(iter(limits))}="):
        Limits(**limits)  # type: ignore[arg-type]


# ---- what it stops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import signal, time\nfor n in (1, 2, 3, 13, 14, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(60)",
        "import os, time\nos.close(1), os.close(2)\ntime.sleep(60)",
        "import sys\ntry:\n    while True: pass\nfinally:\n    while True: pass",
    ],
    ids=["endless", "asleep", "deaf to signals", "closed output", "endless farewell"],
)
def test_one_that_does_not_end_is_stopped_in_time(box: Sandbox, code: str) -> None:
    started = time.monotonic()
    result = box.run_python(code, limits=Limits(seconds=0.5))
    assert (result.limit, result.status, result.ok) == ("time", None, False)
    assert time.monotonic() - started < 3


def test_what_it_wrote_before_it_was_stopped_is_kept(box: Sandbox) -> None:
    result = box.run_python("print('here', flush=True)\nwhile True: pass", limits=Limits(seconds=0.7))
    assert (result.stdout, result.limit) == ("here\n", "time")


def test_closing_its_output_does_not_end_it(box: Sandbox) -> None:
    assert box.run_python("import os, time\nos.close(1), os.close(2)\ntime.sleep(0.2)\nos._exit(5)").status == 5


@pytest.mark.parametrize(
    "code",
    [
        "x = bytearray(10**9)",
        "x = []\nwhile True: x.append(bytes(10**6))",
        "import mmap\nx = mmap.mmap(-1, 10**9)\nfor n in range(0, 10**9, 4096): x[n] = 1",
    ],
    ids=["at once", "bit by bit", "shared"],
)
def test_memory_is_bounded(box: Sandbox, code: str) -> None:
    result = box.run_python(code, limits=Limits(memory_bytes=100 * MEBIBYTE))
    assert not result.ok
    assert result.limit == "memory" or "Cannot allocate memory" in result.stderr


def test_memory_is_bounded_for_all_processes_together(box: Sandbox) -> None:
    code = (
        "import os, time\nfor n in range(6):\n    if os.fork() == 0:\n"
        "        x = b'x' * (40 * 2**20)\n        time.sleep(20)\n        os._exit(0)\ntime.sleep(20)"
    )
    result = box.run_python(code, limits=Limits(seconds=8, memory_bytes=100 * MEBIBYTE))
    assert (result.limit, result.status) == ("memory", None)


@pytest.mark.parametrize(
    "start",
    ["os.fork() or time.sleep(20)", "threading.Thread(target=time.sleep, args=(20,)).start()"],
    ids=["processes", "threads"],
)
def test_processes_and_threads_are_bounded(box: Sandbox, start: str) -> None:
    code = f"""
import os, threading, time
parent = os.getpid()
for n in range(200):
    try:
        if os.getpid() == parent: {start}
    except Exception:
        break
time.sleep(20)
"""
    result = box.run_python(code, limits=Limits(seconds=8, processes=6))
    assert result.limit in ("processes", "memory") and result.status is None
    assert result.seconds < 5


def test_as_many_processes_as_are_allowed_run(box: Sandbox) -> None:
    code = "import threading, time\nt = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(5)]\n"
    code += "for x in t: x.start()\nfor x in t: x.join()\nprint(len(t))"
    result = box.run_python(code, limits=Limits(processes=6))
    assert (result.stdout, result.limit) == ("5\n", None)


def test_a_bomb_of_forks_ends_with_all_it_made(box: Sandbox) -> None:
    code = (
        "import os, time\nfor n in range(7):\n"  # 2 ** 7 processes if nobody stops it
        "    try: os.fork()\n    except OSError: pass\ntime.sleep(20)"
    )
    limits = Limits(seconds=3, processes=6, file_bytes=unlike_others())
    result = box.run_python(code, limits=limits)
    assert result.limit is not None and result.seconds < 5
    assert not left_over(limits)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_is_cut_and_its_writer_stopped(box: Sandbox, stream: str) -> None:
    code = f"import sys\nwhile True: sys.{stream}.write('x' * 10**6)"
    result = box.run_python(code, limits=Limits(output_bytes=1000))
    assert (result.limit, result.status) == ("output", None)
    assert getattr(result, stream) == "x" * 1000 and len(result.stdout + result.stderr) == 1000


def test_output_that_just_fits_is_whole_and_one_byte_more_is_not(box: Sandbox) -> None:
    limits = Limits(output_bytes=100)
    assert box.run_python("print('x' * 99)", limits=limits).ok
    over = box.run_python("print('x' * 100)", limits=limits)
    assert (over.limit, over.stdout) == ("output", "x" * 100)


def test_files_are_bounded(box: Sandbox) -> None:
    code = "try:\n    open('a', 'wb').write(bytes(3 * 10**6))\nexcept OSError as error:\n    print('refused')"
    assert box.run_python(code, limits=Limits(file_bytes=10**6)).stdout == "refused\n"


@pytest.mark.parametrize("keep", ["", "os.close(1); os.close(2); "], ids=["with its output", "without"])
def test_a_grandchild_that_slips_away_is_killed(box: Sandbox, keep: str) -> None:
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n    os.setsid()\n"
        f"    if os.fork() == 0:\n        {keep}\n        time.sleep(30)\n    os._exit(0)\n"
        "os.wait()\nprint('done')"
    )
    limits = Limits(file_bytes=unlike_others())
    result = box.run_python(code, limits=limits)
    assert (result.stdout, result.status) == ("done\n", 0)
    assert result.seconds < 5
    assert not left_over(limits)


def unlike_others() -> int:
    """A limit by which the processes of one program can be told from those of others."""
    return randrange(10**6, 10**9)


def left_over(limits: Limits) -> list[str]:
    """Processes with such limits among their arguments that are still there a moment later."""
    for _ in range(50):
        found = [text for text in map(_command, Path("/proc").glob("[0-9]*")) if f"FSIZE={limits.file_bytes} " in text]
        if not found:
            return []
        time.sleep(0.05)
    return found


def test_what_is_left_over_would_be_seen(box: Sandbox) -> None:
    limits = Limits(seconds=1, file_bytes=unlike_others())
    running = Thread(target=box.run_python, args=("import time\ntime.sleep(5)",), kwargs={"limits": limits})
    running.start()
    time.sleep(0.4)
    assert any(f"FSIZE={limits.file_bytes} " in text for text in map(_command, Path("/proc").glob("[0-9]*")))
    running.join()
    assert not left_over(limits)


def _command(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.mkdir('a')\nopen('a/b', 'w').close()\nos.chmod('a', 0)",
        "import os\nfor n in range(1100):\n    os.mkdir('a')\n    os.chdir('a')",
        "import os\nos.symlink('/', 'a')\nos.symlink('/nowhere', 'b')\nos.mkfifo('c')",
    ],
    ids=["without permissions", "nested", "links"],
)
def test_its_folder_is_gone_afterwards(
    box: Sandbox, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation.tempfile, "tempdir", str(tmp_path))
    assert box.run_python(code).ok
    assert list(tmp_path.iterdir()) == []


# ---- what only bubblewrap keeps from it -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", __file__, "/proc/1/root/etc/passwd", "/proc/1/environ"])
def test_files_of_this_machine_cannot_be_read(confined: Sandbox, path: str) -> None:
    result = confined.run_python(f"data = open({path!r}).read()\nassert 'PYTHONHASHSEED' not in data\nprint(len(data))")
    assert result.status == 1
    assert any(name in result.stderr for name in ("FileNotFoundError", "PermissionError", "AssertionError"))


@pytest.mark.parametrize("folder", ["/", "/usr", "/dev", "/dev/shm", "/run", "/etc", "/proc", sys.base_prefix])
def test_nothing_can_be_written_outside_its_folder(confined: Sandbox, folder: str) -> None:
    result = confined.run_python(f"open({folder + '/stratagem-was-here'!r}, 'w')")
    assert result.status == 1 and "Error" in result.stderr
    assert not Path(folder, "stratagem-was-here").exists()


def test_all_its_files_together_are_bounded(confined: Sandbox) -> None:
    code = "for n in range(9):\n    open(f'/tmp/{n}', 'wb').write(bytes(600_000))"
    result = confined.run_python(code, limits=Limits(file_bytes=2 * MEBIBYTE))
    assert result.status == 1 and "No space left" in result.stderr


def test_a_server_of_this_machine_cannot_be_reached(confined: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        socket.create_connection(address, timeout=2).close()
        result = confined.run_python(f"import socket\nsocket.create_connection({address!r}, timeout=1)")
    assert result.status == 1 and "Error" in result.stderr


def test_only_its_own_processes_can_be_seen(confined: Sandbox) -> None:
    code = "import os\nprint(len([n for n in os.listdir('/proc') if n.isdigit()]) <= 3, os.getpid() < 10)"
    assert confined.run_python(code).stdout == "True True\n"
    assert "ProcessLookupError" in confined.run_python(f"import os\nos.kill({os.getpid() + 10**6}, 0)").stderr


def test_it_has_no_privileges_and_cannot_get_any(confined: Sandbox) -> None:
    code = (
        "import os, ctypes, resource\nlines = dict(x.split(':\\t') for x in open('/proc/self/status') if ':\\t' in x)\n"
        "print(int(lines['CapEff'], 16), int(lines['CapBnd'], 16), lines['NoNewPrivs'].strip(), os.getuid())\n"
        "print(ctypes.CDLL(None).unshare(0x10000000))\n"
        "try:\n    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nexcept ValueError:\n    print('refused')"
    )
    assert confined.run_python(code).stdout == "0 0 1 65534\n-1\nrefused\n"


def test_two_programs_share_no_files(confined: Sandbox) -> None:
    assert confined.run_python("open('/tmp/a', 'w').write('1')").ok
    assert confined.run_python("import os\nprint(os.path.exists('/tmp/a'))").stdout == "False\n"


# ---- which one it is ------------------------------------------------------------------------------------------------


@pytest.fixture
def _asked_anew():
    sandbox.cache_clear(), isolation._warn_once.cache_clear()
    yield
    sandbox.cache_clear(), isolation._warn_once.cache_clear()


@pytest.mark.usefixtures("_asked_anew")
def test_without_bubblewrap_a_limited_process_says_once_that_it_is_no_boundary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert sandbox().isolation == "process"
    assert str(sandbox()) == "limited process, no security boundary (bwrap is not installed)"
    with pytest.warns(UserWarning, match=r"no security boundary \(bwrap is not installed\)") as warned:
        assert run_python("print(1)").stdout == run_python("print(1)").stdout == "1\n"
    assert len(warned) == 1


@pytest.mark.usefixtures("_asked_anew")
def test_a_bubblewrap_that_does_not_work_is_not_used_and_the_reason_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: no permission here' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert sandbox().isolation == "process"
    assert sandbox().reason == f"{tmp_path / 'bwrap'} does not work here: bwrap: no permission here"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run_python("print(1)").stdout == "1\n"


def test_bubblewrap_does_not_warn(confined: Sandbox) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert confined.run_python("print(1)").ok


@pytest.mark.parametrize(
    ("release", "apart"), [("6.1.0-13-amd64", True), ("5.14.0", True), ("5.4.0-90-generic", False), ("4.18.0", False)]
)
def test_whether_forks_are_counted_apart_goes_by_the_kernel(
    monkeypatch: pytest.MonkeyPatch, release: str, apart: bool
) -> None:
    monkeypatch.setattr(supervisor.os, "uname", lambda: os.uname_result(("Linux", "x", release, "", "")))
    assert supervisor.forks_are_counted_apart() is apart
