"""What the adapters share."""

import pytest

from stratagem.errors import InputError
from stratagem.tasks.adapter import episode_seed, require


def test_a_missing_package_is_named_with_the_extra_that_installs_it() -> None:
    with pytest.raises(InputError, match=r"no_such_package cannot be imported .* pip install 'stratagem\[text\]'"):
        require("no_such_package.inside", "text")


def test_training_and_test_episodes_never_share_a_seed() -> None:
    train, test = ({episode_seed(split, index) for index in range(100)} for split in ("train", "test"))  # type: ignore[arg-type]
    assert len(train) == len(test) == 100 and not train & test
