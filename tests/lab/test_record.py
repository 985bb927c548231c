"""What the lab found comes back from its file as it was, and from no other file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stratagem import recipes
from stratagem.errors import InputError
from stratagem.lab import diagnose
from stratagem.lab.record import LabRecord, read_lab_record


@pytest.fixture(scope="module")
def record() -> LabRecord:
    return LabRecord({"rare": "One of 256."}, (diagnose(recipes.rloo(), "rare", groups=512),))


def test_a_record_is_read_as_it_was_written(record: LabRecord, tmp_path: Path) -> None:
    (tmp_path / "rloo.json").write_text(record.to_json())
    assert read_lab_record(tmp_path / "rloo.json") == record
    assert read_lab_record(tmp_path / "grpo.json") is None


@pytest.mark.parametrize(
    ("change", "line"),
    [({"version": 2}, "is of version 2"), ({"diagnoses": [{}]}, r"diagnoses\.0\.recipe: Field required")],
)
def test_another_file_is_refused_in_one_line(record: LabRecord, tmp_path: Path, change: dict, line: str) -> None:
    (tmp_path / "rloo.json").write_text(json.dumps({**json.loads(record.to_json()), **change}))
    with pytest.raises(InputError, match=line) as refused:
        read_lab_record(tmp_path / "rloo.json")
    assert "\n" not in str(refused.value)
