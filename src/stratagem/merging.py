"""Merging: weights of models that were fine-tuned from one base, averaged into one model."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stratagem.catalogue import paper
from stratagem.errors import InputError
from stratagem.training.run_directory import whole_directory

Weights = Mapping[str, Tensor]
"""Tensors by name, as ``state_dict`` returns them."""

INDIFFERENT = frozenset(
    {
        "_name_or_path",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "max_position_embeddings",
        "max_window_layers",
        "pad_token_id",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Entries of a model's config in which models to be merged may differ: they do not change what weights compute."""

QUANTISED = ("qweight", "qzeros", "g_idx", "SCB", "absmax", "quant_map", "weight_scale", "weight_scale_inv")
"""Last part of a tensor's name that only a quantised model has."""

TOKENIZERS = ("tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
"""Files of a tokenizer that has no ``tokenizer.json``."""


# ---- two stages -----------------------------------------------------------------------------------------------------


@paper(
    "2509.00309",
    title="Balanced Actor Initialization: Stable RLHF Training of Distillation-Based Reasoning Models",
    family="objectives",
    roles=("policy",),
    year=2025,
    name="bai",
)
@dataclass(frozen=True)
class TwoStageMerge:
    """Weights to start reinforcement learning from: ``b (a distilled + (1 - a) instructed) + (1 - b) pretrained``.

    Three models of one architecture and tokenizer: the base, one fine-tuned to follow instructions, and one fine-tuned
    on the long reasoning of a teacher. The latter alone, the paper says, collapses in length and dips in reward when
    reinforcement learning begins; the merge does not. :func:`stratagem.study.length_collapse` and
    :func:`stratagem.study.reward_dip` measure both.

    a: share of the distilled model in the first stage.  b: share of the first stage in the second. Both in [0, 1].

    The order of the stages is the abstract's. Its shares were not available: 0.5 and 0.5 are ours, for "balanced".
    Raises :class:`InputError` for a share out of range; models are checked as by :func:`merge_linear`.
    """

    a: float = 0.5
    b: float = 0.5

    def __post_init__(self) -> None:
        for name, share in (("a", self.a), ("b", self.b)):
            if not 0 <= share <= 1:
                raise InputError(f"bai.{name} = {share}: must lie in [0, 1]")

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of the distilled, the instructed and the pretrained model: ``a b``, ``(1 - a) b`` and ``1 - b``."""
        return self.a * self.b, (1 - self.a) * self.b, 1 - self.b

    def __call__(self, distilled: Weights, instructed: Weights, pretrained: Weights) -> dict[str, Tensor]:
        """The merged weights, in the types and the order of the distilled model."""
        models = {"distilled": distilled, "instructed": instructed, "pretrained": pretrained}
        return _merged(models, lambda tensors: _weighted(tensors, self.shares))

    def merge_folders(
        self, distilled: str | Path, instructed: str | Path, pretrained: str | Path, out: str | Path
    ) -> Path:
        """Merge three Hugging Face model folders into ``out``, whole or not at all; returns it.

        Tokenizer, chat template and config come from the distilled model. One tensor of each model is in memory at a
        time, beside the result. Raises :class:`InputError` when a folder is no model with safetensors, tokenizers or
        configs differ in what changes meaning, weights do not fit, a model is quantised, or ``out`` is not empty.
        """
        out = Path(out)
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise InputError(f"--out {out}: exists and is not an empty folder")
        named = {"distilled": distilled, "instructed": instructed, "pretrained": pretrained}
        folders = {label: _Folder(Path(path)) for label, path in named.items()}
        _check_alike(folders)
        merged = _merged(folders, lambda tensors: _weighted(tensors, self.shares))
        with whole_directory(out) as directory:
            save_file(merged, directory / "model.safetensors", metadata={"format": "pt"})
            folders["distilled"].copy_rest(directory)
            (directory / "README.md").write_text(self._card(folders), encoding="utf-8")
        return out

    def _card(self, folders: Mapping[str, _Folder]) -> str:
        rows = "\n".join(
            f"| {label} | {folder.path.resolve().name} | {share:g} |"
            for (label, folder), share in zip(folders.items(), self.shares, strict=True)
        )
        return (
            f"# Merged weights\n\nThree models merged by Stratagem (arXiv 2509.00309, a = {self.a:g}, b = {self.b:g}), "
            f"to start reinforcement learning from.\n\n| model | folder | share |\n|---|---|---|\n{rows}\n"
        )


# ---- other ways to merge --------------------------------------------------------------------------------------------


def merge_linear(models: Sequence[Weights], shares: Sequence[float]) -> dict[str, Tensor]:
    """``sum_k share_k W_k`` for every floating-point tensor; shares are at least 0 and add up to 1.

    Computed in float32 (float64 where a model has it) and cast to the type of the first model. A model of share 1 is
    returned bit for bit, equal models give themselves. Integer and boolean tensors are those of the first model.
    Tensors that share memory in all models share it in the result.

    Raises :class:`InputError` when names or shapes differ, a weight is not finite, or a model is quantised. Running
    statistics of normalisation layers are merged with a warning, for they should be estimated anew.
    """
    if not math.isclose(sum(shares), 1.0, abs_tol=1e-6) or not all(share >= 0 for share in shares):
        raise InputError(f"shares = {list(shares)}: must be at least 0 and add up to 1")
    return _merged(_numbered(models, shares), lambda tensors: _weighted(tensors, shares))


def task_arithmetic(base: Weights, tuned: Sequence[Weights], coefficients: Sequence[float]) -> dict[str, Tensor]:
    """``base + sum_k c_k (W_k - base)`` (arXiv 2212.04089), with the conventions and errors of :func:`merge_linear`.

    With ``c = (a b, (1 - a) b)`` for a distilled and an instructed model it is :class:`TwoStageMerge`.
    """
    if not all(map(math.isfinite, coefficients)):
        raise InputError(f"coefficients = {list(coefficients)}: must be finite")
    shares = (1 - sum(coefficients), *coefficients)
    return _merged(_numbered([base, *tuned], shares), lambda tensors: _weighted(tensors, shares))


def merge_slerp(first: Weights, second: Weights, share: float) -> dict[str, Tensor]:
    """Each tensor along the arc from ``first`` (share 0) to ``second`` (share 1), errors as in :func:`merge_linear`.

    ``(sin((1 - t) w) X + sin(t w) Y) / sin w`` with ``w`` the angle between the two as vectors; along the line where
    they are parallel or one is zero.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share = {share}: must lie in [0, 1]")
    return _merged({"first": first, "second": second}, lambda tensors: _on_the_arc(tensors, share))


def add_rows(models: Sequence[Weights], names: Sequence[str]) -> list[dict[str, Tensor]]:
    """The models with the tensors in ``names`` (embedding, head) as long as the longest of each.

    For vocabularies of which one goes on where the others end: rows that a model lacks are copied from the longest.
    Raises :class:`InputError` for a name a model does not have, and for tensors that differ in more than their rows.
    """
    extended = [dict(model) for model in models]
    for name in names:
        lacking = [number for number, model in enumerate(models) if name not in model]
        if lacking:
            raise InputError(f"model {lacking[0]}: has no tensor {name}")
        longest = max((model[name] for model in models), key=len)
        for number, model in enumerate(models):
            if model[name].shape[1:] != longest.shape[1:]:
                raise InputError(f"{name}: {_shapes([m[name] for m in models])}: may differ in their rows only")
            if len(model[name]) < len(longest):
                tied = [other for other in names if other in model and _memory(model[other]) == _memory(model[name])]
                added = longest[len(model[name]) :].to(model[name])
                grown = torch.cat((model[name], added)) if tied[0] == name else extended[number][tied[0]]
                extended[number][name] = grown
    return extended


# ---- tensor by tensor -----------------------------------------------------------------------------------------------


def _merged(models: Mapping[str, Weights], rule: Callable[[list[Tensor]], Tensor]) -> dict[str, Tensor]:
    _check_names(models)
    first, *others = models.values()
    tied = _tied(first)
    for other in others:
        tied = {name: alias for name, alias in tied.items() if _tied(other).get(name) == alias}
    merged: dict[str, Tensor] = {}
    for name in first:
        if name in tied:
            merged[name] = merged[tied[name]]
        else:
            merged[name] = _merged_tensor(name, {label: model[name] for label, model in models.items()}, rule)
    statistics = [name for name in merged if name.endswith(("running_mean", "running_var"))]
    if statistics:
        warnings.warn(f"running statistics were merged and should be estimated anew: {_few(statistics)}", stacklevel=3)
    return merged


def _merged_tensor(name: str, tensors: Mapping[str, Tensor], rule: Callable[[list[Tensor]], Tensor]) -> Tensor:
    values = list(tensors.values())
    for label, tensor in tensors.items():
        if _is_quantised(name, tensor):
            raise InputError(f"{label}: {name} is quantised; merge the models it was made from")
    if len({tensor.shape for tensor in values}) > 1:
        raise InputError(f"{name}: {_shapes(values)} in {', '.join(tensors)}: shapes must be the same")
    if len({tensor.is_floating_point() for tensor in values}) > 1:
        raise InputError(f"{name}: is of floating-point numbers in some of {', '.join(tensors)} and not in others")
    if not values[0].is_floating_point():
        return values[0].clone()
    for label, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{label}: {name} has a weight that is not finite")
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in values) else torch.float32
    merged = rule([tensor.to(wide) for tensor in values]).to(values[0].dtype, copy=True)
    if not bool(merged.isfinite().all()):
        raise InputError(f"{name}: the merged weights leave the range of {merged.dtype}")
    return merged


def _weighted(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Weighted sum as the model of the largest share and what leads from it to the others: exact for equal models."""
    largest = max(range(len(shares)), key=shares.__getitem__)
    merged = tensors[largest]
    for number, share in enumerate(shares):
        if number != largest and share != 0:
            merged = merged + share * (tensors[number] - tensors[largest])
    return merged


def _on_the_arc(tensors: Sequence[Tensor], share: float) -> Tensor:
    x, y = tensors
    if share in (0.0, 1.0):
        return y if share else x
    lengths = x.norm() * y.norm()
    cosine = float((x * y).sum() / lengths) if lengths > 0 else 1.0
    if abs(cosine) > 1 - 1e-6:
        return torch.lerp(x, y, share)
    angle = math.acos(cosine)
    return (math.sin((1 - share) * angle) * x + math.sin(share * angle) * y) / math.sin(angle)


# ---- checks ---------------------------------------------------------------------------------------------------------


def _numbered(models: Sequence[Weights], shares: Sequence[float]) -> dict[str, Weights]:
    if len(models) != len(shares) or not models:
        raise InputError(f"{len(models)} models and {len(shares)} shares: must be as many, at least one")
    return {f"model {number}": model for number, model in enumerate(models)}


def _check_names(models: Mapping[str, Weights]) -> None:
    (reference, first), *others = models.items()
    for label, model in others:
        for lacking, having, names in (
            (label, reference, first.keys() - model.keys()),
            (reference, label, model.keys() - first.keys()),
        ):
            if names:
                raise InputError(f"{lacking} lacks {_few(sorted(names))}, which {having} has")


def _tied(weights: Weights) -> dict[str, str]:
    """Names whose tensor lies in the same memory as that of an earlier name, which is given."""
    if not isinstance(weights, dict):  # Read from a file, where every tensor is stored once.
        return {}
    first: dict[tuple[Any, ...], str] = {}
    aliases = {name: first.setdefault(_memory(tensor), name) for name, tensor in weights.items() if tensor.numel()}
    return {name: alias for name, alias in aliases.items() if name != alias}


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()


def _is_quantised(name: str, tensor: Tensor) -> bool:
    last = name.rsplit(".", 1)[-1]
    small = tensor.is_quantized or (tensor.is_floating_point() and tensor.dtype.itemsize == 1)
    packed = tensor.dtype in (torch.int8, torch.uint8, torch.int32) and tensor.ndim >= 2 and last == "weight"
    return small or packed or last in QUANTISED or "quant_state" in name


def _few(names: Sequence[str], shown: int = 8) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors)


# ---- folders --------------------------------------------------------------------------------------------------------


class _Folder(Mapping[str, Tensor]):
    """The weights of a Hugging Face model folder, read when they are asked for."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(f"model {path}: no such folder")
        self.path = path
        self.config = self._json("config.json")
        index = path / "model.safetensors.index.json"
        files = sorted(set(self._json(index.name).get("weight_map", {}).values())) if index.is_file() else None
        try:
            opened: list[Any] = [safe_open(path / file, framework="pt") for file in files or ["model.safetensors"]]
        except (OSError, SafetensorError) as error:
            raise InputError(f"model {path}: no readable safetensors ({type(error).__name__})") from None
        self._file_of = {name: file for file in opened for name in file.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file_of[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def tokenizer(self) -> dict[str, Any]:
        """What the tokenizer does, by file. Raises :class:`InputError` when there is none."""
        if (self.path / "tokenizer.json").is_file():
            said = self._json("tokenizer.json")
            return {"tokenizer.json": {key: said[key] for key in said.keys() - {"padding", "truncation"}}}
        found = {name: (self.path / name).read_bytes() for name in TOKENIZERS if (self.path / name).is_file()}
        if not found:
            raise InputError(f"model {self.path}: has no tokenizer")
        return found

    def copy_rest(self, directory: Path) -> None:
        """Copy config, tokenizer and whatever else is neither weights nor a description of them."""
        for file in self.path.iterdir():
            weights = file.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf") or ".index." in file.name
            if file.is_file() and not weights and file.name != "README.md":
                shutil.copyfile(file, directory / file.name)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            said = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(f"model {self.path}: {name} is missing or not valid JSON") from None
        if not isinstance(said, dict):
            raise InputError(f"model {self.path}: {name} must hold a JSON object")
        return said


def _check_alike(folders: Mapping[str, _Folder]) -> None:
    for folder in folders.values():
        if "quantization_config" in folder.config:
            raise InputError(f"model {folder.path}: is quantised; merge the models it was made from")
    (reference, first), *others = folders.items()
    for label, folder in others:
        keys = (first.config.keys() | folder.config.keys()) - INDIFFERENT
        different = sorted(key for key in keys if first.config.get(key) != folder.config.get(key))
        if different:
            said = [json.dumps(config.get(different[0])) for config in (first.config, folder.config)]
            raise InputError(
                f"config of {reference} and {label} differ in {_few(different)} (first: {said[0]}, {said[1]}); "
                "only models of one architecture can be merged"
            )
        ours, theirs = first.tokenizer(), folder.tokenizer()
        if ours != theirs:
            file = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))[0]
            raise InputError(f"tokenizers of {reference} and {label} differ ({file}): tokens must mean the same")
