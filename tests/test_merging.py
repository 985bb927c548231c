"""Merging: the numbers worked by hand, exactness where nothing is to be averaged, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stratagem import catalogue
from stratagem.errors import InputError
from stratagem.merging import TwoStageMerge, add_rows, merge_linear, merge_slerp, task_arithmetic

SHARES = st.floats(0, 1, allow_subnormal=False)


def numbers(value: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A model of one weight."""
    return {"weight": torch.tensor([value], dtype=dtype)}


def random_model(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=source).to(dtype) for name, shape in {"a": (3, 4), "b": (5,)}.items()}


def assert_equal(merged: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Names, order, types and bits."""
    assert list(merged) == list(expected)
    for name, tensor in expected.items():
        assert merged[name].dtype == tensor.dtype
        assert torch.equal(merged[name].signbit(), tensor.signbit()) and torch.equal(merged[name], tensor), name


# ---- two stages -----------------------------------------------------------------------------------------------------


def test_the_two_stages_worked_by_hand():
    distilled, instructed, pretrained = numbers(4), numbers(2), numbers(0)
    merge = TwoStageMerge(a=0.5, b=0.5)
    # First (4 + 2) / 2 = 3, then (3 + 0) / 2.
    assert merge(distilled, instructed, pretrained)["weight"].item() == 1.5
    assert merge.shares == (0.25, 0.25, 0.5)


def test_the_order_of_the_stages_matters():
    # Distilled with pretrained is 2, and that with instructed 2, too.
    assert TwoStageMerge(0.5, 0.5)(numbers(4), numbers(0), numbers(2))["weight"].item() == 2.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("a", "b", "alone"), [(1, 1, 0), (0, 1, 1), (0.3, 0, 2), (1, 0, 2)])
def test_at_the_corners_one_model_comes_back_bit_for_bit(dtype, a, b, alone):
    models = [random_model(seed, dtype) for seed in range(3)]
    models[alone]["b"][0] = -0.0
    assert_equal(TwoStageMerge(a, b)(*models), models[alone])


@settings(deadline=None)
@given(SHARES, SHARES)
def test_equal_models_give_themselves(a, b):
    model = random_model(0)
    assert_equal(TwoStageMerge(a, b)(model, random_model(0), random_model(0)), model)


@settings(deadline=None)
@given(SHARES, SHARES)
def test_it_is_one_linear_merge_after_the_other(a, b):
    distilled, instructed, pretrained = (random_model(seed) for seed in range(3))
    first = merge_linear([distilled, instructed], [a, 1 - a])
    both = merge_linear([first, pretrained], [b, 1 - b])
    torch.testing.assert_close(TwoStageMerge(a, b)(distilled, instructed, pretrained), both)


@settings(deadline=None)
@given(SHARES, SHARES)
def test_it_is_task_arithmetic_with_the_shares_as_coefficients(a, b):
    distilled, instructed, pretrained = (random_model(seed) for seed in range(3))
    other = task_arithmetic(pretrained, [distilled, instructed], [a * b, (1 - a) * b])
    torch.testing.assert_close(TwoStageMerge(a, b)(distilled, instructed, pretrained), other)


def test_a_merged_linear_network_says_the_merged_outputs():
    layers = [nn.Linear(6, 4) for _ in range(3)]
    merge = TwoStageMerge(0.7, 0.4)
    merged = nn.Linear(6, 4)
    merged.load_state_dict(merge(*(layer.state_dict() for layer in layers)))
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    expected = sum(share * layer(x) for share, layer in zip(merge.shares, layers, strict=True))
    torch.testing.assert_close(merged(x), expected, atol=1e-6, rtol=1e-5)


def test_averages_are_computed_in_float32_and_have_the_type_of_the_first_model():
    # In bfloat16 the first sum would be 256 + 1 = 256; a third of 256 + 1 + 1 is 86.
    models = [numbers(256, torch.bfloat16), numbers(1, torch.bfloat16), numbers(1)]
    merged = merge_linear(models, [1 / 3, 1 / 3, 1 / 3])["weight"]
    assert (merged.item(), merged.dtype) == (86.0, torch.bfloat16)


@pytest.mark.parametrize(("a", "b", "named"), [(1.5, 0.5, "a = 1.5"), (0.5, -1, "b = -1"), (math.nan, 0.5, "a = nan")])
def test_shares_out_of_range_are_refused(a, b, named):
    with pytest.raises(InputError, match=rf"^bai\.{named}: must lie in \[0, 1\]$"):
        TwoStageMerge(a, b)


def test_it_is_in_the_catalogue_and_no_recipe():
    card = catalogue.card("bai")
    assert card.build() == TwoStageMerge(0.5, 0.5)
    with pytest.raises(InputError, match="bai is not a recipe but of type TwoStageMerge"):
        card.recipe()


# ---- other ways to merge --------------------------------------------------------------------------------------------


def test_task_arithmetic_adds_what_fine_tuning_changed():
    merged = task_arithmetic(numbers(1), [numbers(4), numbers(0)], [2.0, 0.5])
    assert merged["weight"].item() == 1 + 2 * 3 - 0.5


def test_slerp_keeps_the_length_where_the_line_cuts_the_corner():
    x, y = ({"w": torch.tensor(values)} for values in ([1.0, 0.0], [0.0, 1.0]))
    root = math.sqrt(0.5)
    assert merge_slerp(x, y, 0.5)["w"].tolist() == pytest.approx([root, root])
    assert merge_slerp(x, y, 1 / 3)["w"].tolist() == pytest.approx([math.cos(math.pi / 6), 0.5])
    assert merge_linear([x, y], [0.5, 0.5])["w"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("second", [[2.0, 4.0], [0.0, 0.0], [-1.0, -2.0]])
def test_slerp_goes_along_the_line_where_there_is_no_arc(second):
    x, y = ({"w": torch.tensor(values)} for values in ([1.0, 2.0], second))
    expected = [0.75 * one + 0.25 * other for one, other in zip((1.0, 2.0), second, strict=True)]
    assert merge_slerp(x, y, 0.25)["w"].tolist() == pytest.approx(expected)


def test_slerp_ends_at_its_models_bit_for_bit():
    x, y = random_model(0), random_model(1)
    assert_equal(merge_slerp(x, y, 0), x)
    assert_equal(merge_slerp(x, y, 1), y)


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (lambda m: merge_linear([m, m], [0.5, 0.6]), r"shares = \[0.5, 0.6\]: must be at least 0 and add up to 1"),
        (lambda m: merge_linear([m, m], [1.5, -0.5]), r"shares = \[1.5, -0.5\]: must be"),
        (lambda m: merge_linear([m], [0.5, 0.5]), "1 models and 2 shares: must be as many"),
        (lambda m: task_arithmetic(m, [m], [math.inf]), r"coefficients = \[inf\]: must be finite"),
        (lambda m: merge_slerp(m, m, 2), r"share = 2: must lie in \[0, 1\]"),
    ],
)
def test_wrong_numbers_are_refused(merge, message):
    with pytest.raises(InputError, match=message):
        merge(numbers(1))


# ---- what is in a model beside numbers ------------------------------------------------------------------------------


def test_integers_and_masks_are_those_of_the_first_model():
    first = {"steps": torch.tensor(7), "mask": torch.tensor([True, False])}
    second = {"steps": torch.tensor(9), "mask": torch.tensor([True, True])}
    merged = merge_linear([first, second], [0.5, 0.5])
    assert_equal(merged, first)
    assert merged["mask"].data_ptr() != first["mask"].data_ptr()


class Tied(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_are_merged_once_and_stay_tied():
    models = [Tied(seed) for seed in range(3)]
    merged = TwoStageMerge()(*(model.state_dict() for model in models))
    assert merged["embedding.weight"].data_ptr() == merged["head.weight"].data_ptr()
    fresh = Tied(9)
    fresh.load_state_dict(merged)
    expected = sum(s * m.head.weight for s, m in zip(TwoStageMerge().shares, models, strict=True))
    assert fresh.head.weight is fresh.embedding.weight
    torch.testing.assert_close(fresh.head.weight, expected)


def test_weights_tied_in_one_model_alone_are_merged_each_by_itself():
    tied, loose = Tied(0).state_dict(), Tied(1).state_dict()
    loose["head.weight"] = loose["head.weight"] + 1
    merged = merge_linear([tied, loose], [0.5, 0.5])
    torch.testing.assert_close(merged["head.weight"], merged["embedding.weight"] + 0.5)


def test_running_statistics_are_merged_with_a_warning():
    norms = [nn.BatchNorm1d(2) for _ in range(2)]
    with pytest.warns(UserWarning, match="running statistics were merged .*: running_mean, running_var"):
        merge_linear([norm.state_dict() for norm in norms], [0.5, 0.5])


def test_rows_that_a_model_lacks_are_copied_from_the_one_that_has_them():
    long = {"embed": torch.arange(8.0).view(4, 2), "other": torch.zeros(1)}
    short = {"embed": torch.full((3, 2), 10.0), "other": torch.ones(1)}
    extended = add_rows([short, long], ["embed"])
    assert extended[0]["embed"].tolist() == [[10.0, 10.0]] * 3 + [[6.0, 7.0]]
    assert extended[1]["embed"] is long["embed"] and extended[0]["other"] is short["other"]
    assert merge_linear(extended, [0.5, 0.5])["embed"][-1].tolist() == [6.0, 7.0]


def test_added_rows_of_tied_weights_stay_tied():
    model = Tied(0).state_dict()
    longer = {name: torch.cat((tensor, torch.ones(1, 3))) for name, tensor in model.items()}
    [extended, _] = add_rows([model, longer], ["embedding.weight", "head.weight"])
    assert extended["embedding.weight"] is extended["head.weight"]
    assert len(extended["head.weight"]) == 6


def test_only_rows_can_be_added():
    with pytest.raises(InputError, match=r"^a: \(3, 4\), \(3, 5\): may differ in their rows only$"):
        add_rows([{"a": torch.zeros(3, 4)}, {"a": torch.zeros(3, 5)}], ["a"])
    with pytest.raises(InputError, match=r"^model 1: has no tensor a$"):
        add_rows([{"a": torch.zeros(3)}, {}], ["a"])


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"b": None}, "^instructed lacks b, which distilled has$"),
        ({"c": torch.zeros(1), "d": torch.zeros(1)}, "^distilled lacks c, d, which instructed has$"),
        ({"a": torch.zeros(4, 3)}, r"^a: \(3, 4\), \(4, 3\), \(3, 4\) in distilled, instructed, pretrained: shapes"),
        ({"b": torch.tensor([0.0, 1, math.nan, 3, 4])}, "^instructed: b has a weight that is not finite$"),
        ({"b": torch.tensor([0.0, 1, math.inf, 3, 4])}, "^instructed: b has a weight that is not finite$"),
        ({"b": torch.zeros(5, dtype=torch.int64)}, "^b: is of floating-point numbers in some of distilled"),
        ({"b": torch.zeros(5).to(torch.float8_e4m3fn)}, "^instructed: b is quantised; merge the models it was made"),
    ],
)  # fmt: skip
def test_models_that_do_not_fit_are_refused_by_name(changes, message):
    instructed = {name: tensor for name, tensor in {**random_model(1), **changes}.items() if tensor is not None}
    with pytest.raises(InputError, match=message):
        TwoStageMerge()(random_model(0), instructed, random_model(2))


@pytest.mark.parametrize(
    "packed",
    [
        {"layer.weight": torch.zeros(4, 1, dtype=torch.uint8)},
        {"layer.qweight": torch.zeros(4, 4, dtype=torch.int32)},
        {"layer.weight_scale": torch.ones(4)},
        {"layer.weight.quant_state.bitsandbytes__nf4": torch.zeros(3)},
    ],
    ids=lambda packed: next(iter(packed)),
)
def test_quantised_models_are_refused(packed):
    with pytest.raises(InputError, match="is quantised"):
        merge_linear([packed, packed], [0.5, 0.5])


def test_what_leaves_the_range_of_its_type_is_refused():
    with pytest.raises(InputError, match=r"^weight: the merged weights leave the range of torch\.float16$"):
        task_arithmetic(numbers(0, torch.float16), [numbers(60_000, torch.float16)], [2.0])


def test_many_names_are_counted():
    many = {f"layer.{number:02}": torch.zeros(1) for number in range(12)}
    with pytest.raises(InputError, match=r"^model 1 lacks layer\.00, .*, layer\.07 and 4 more, which model 0 has$"):
        merge_linear([many, {}], [0.5, 0.5])


# ---- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, make_policy: Any) -> list[Path]:
    """Three random models with tied weights, of one shape and tokenizer."""
    root = tmp_path_factory.mktemp("three")
    paths = [root / name for name in ("distilled", "instructed", "pretrained")]
    for seed, path in enumerate(paths):
        make_policy(seed).save(path, "# A card of its own")
    return paths


@pytest.fixture
def copies(folders: list[Path], tmp_path: Path) -> list[Path]:
    """The three models, to be spoiled."""
    for folder in folders:
        shutil.copytree(folder, tmp_path / folder.name)
    return [tmp_path / folder.name for folder in folders]


def test_merged_folders_are_a_model_whose_weights_are_the_average(folders, tmp_path):
    from stratagem.language.policy import LanguagePolicy

    merge = TwoStageMerge(0.6, 0.5)
    out = merge.merge_folders(*folders, tmp_path / "merged")
    policies = [dict(LanguagePolicy.from_path(folder).weights()) for folder in folders]
    merged = LanguagePolicy.from_path(out)
    assert merged.model.get_output_embeddings().weight is merged.model.get_input_embeddings().weight
    for name, tensor in merged.weights():
        expected = sum(share * weights[name] for share, weights in zip(merge.shares, policies, strict=True))
        torch.testing.assert_close(tensor, expected)
    assert (out / "chat_template.jinja").read_bytes() == (folders[0] / "chat_template.jinja").read_bytes()
    assert "| instructed | instructed | 0.2 |" in (out / "README.md").read_text(encoding="utf-8")


def test_a_model_in_several_files_is_read_as_one(copies, folders, tmp_path):
    weights = load_file(copies[1] / "model.safetensors")
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: weights[name] for name in part}, copies[1] / file)
    (copies[1] / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (copies[1] / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    split = TwoStageMerge().merge_folders(*copies, tmp_path / "split")
    whole = TwoStageMerge().merge_folders(*folders, tmp_path / "whole")
    assert_equal(load_file(split / "model.safetensors"), load_file(whole / "model.safetensors"))


def test_tokenizers_without_their_own_json_are_compared_by_their_files(copies, tmp_path):
    for copy in copies:
        (copy / "tokenizer.json").unlink()
        (copy / "vocab.json").write_text("{}", encoding="utf-8")
    TwoStageMerge().merge_folders(*copies, tmp_path / "merged")
    (copies[2] / "vocab.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizers of distilled and pretrained differ \(vocab\.json\)"):
        TwoStageMerge().merge_folders(*copies, tmp_path / "again")


def edited(path: Path, **changes: Any) -> None:
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**said, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "model .*instructed: no such folder"),
        (lambda f: (f / "config.json").unlink(), r"config\.json is missing or not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), r"config\.json must hold a JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), "instructed: no readable safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"broken"), "instructed: no readable safetensors"),
        (lambda f: (f / "tokenizer.json").unlink(), "instructed: has no tokenizer"),
        (lambda f: edited(f / "tokenizer.json", version="2"), r"distilled and instructed differ \(tokenizer\.json\)"),
        (lambda f: edited(f / "config.json", hidden_act="relu"), r'differ in hidden_act \(first: "silu", "relu"\)'),
        (lambda f: edited(f / "config.json", quantization_config={}), "instructed: is quantised"),
    ],
)  # fmt: skip
def test_folders_that_do_not_fit_are_refused_and_nothing_is_written(copies, tmp_path, spoil, message):
    spoil(copies[1])
    with pytest.raises(InputError, match=message):
        TwoStageMerge().merge_folders(*copies, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_configs_may_differ_in_what_changes_no_output(copies, tmp_path):
    edited(copies[1] / "config.json", transformers_version="0", eos_token_id=1)
    edited(copies[1] / "tokenizer.json", padding=None, truncation={"max_length": 3})
    assert (TwoStageMerge().merge_folders(*copies, tmp_path / "merged") / "model.safetensors").is_file()


def test_what_is_there_already_is_not_replaced(folders, tmp_path):
    (tmp_path / "mine").write_text("")
    for taken in (tmp_path, tmp_path / "mine"):
        with pytest.raises(InputError, match=r"^--out .*: exists and is not an empty folder$"):
            TwoStageMerge().merge_folders(*folders, taken)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert TwoStageMerge().merge_folders(*folders, empty) == empty
