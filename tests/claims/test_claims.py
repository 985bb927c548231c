"""Every technique carries its evidence: a claim, and a record of what the claim says today."""

from __future__ import annotations

from stratagem import catalogue
from stratagem.study.claims import BUDGET, FOLDER, claims, read_record, shipped

TECHNIQUES = {card.name for card in catalogue.cards()}
CLAIMS = {claim.technique: claim for claim in claims()}


def test_every_technique_has_a_claim():
    assert sorted(TECHNIQUES - CLAIMS.keys()) == []


def test_every_claim_names_a_technique():
    from stratagem.study.claims import _CLAIMS

    assert sorted(_CLAIMS.keys() - TECHNIQUES) == []


def test_every_claim_is_on_record_as_it_stands():
    records = {name: read_record(name, shipped(FOLDER)) for name in CLAIMS}
    outdated = [name for name, record in records.items() if record is None or not record.describes(CLAIMS[name])]
    assert outdated == []


def test_no_record_is_of_something_else():
    assert sorted({path.stem for path in shipped(FOLDER).glob("*.json")} - CLAIMS.keys()) == []


def test_every_claim_kept_its_budget():
    records = {name: read_record(name, shipped(FOLDER)) for name in CLAIMS}
    slow = {name: m.seconds for name, record in records.items() if record for m in record.measurements}
    assert {name: seconds for name, seconds in slow.items() if seconds > BUDGET} == {}
