"""conf/base.toml, its dataclasses, and every way to get a configuration wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fm_spark.config import BASE_FILE, Config, known_keys, load_config
from fm_spark.errors import ConfigError


def toml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_base_toml_holds_exactly_the_keys_of_the_dataclasses() -> None:
    base = tomllib.loads(BASE_FILE.read_text(encoding="utf-8"))
    assert [f"{section}.{key}" for section, keys in base.items() for key in keys] == known_keys()


def test_every_shipped_configuration_loads() -> None:
    files = sorted(BASE_FILE.parent.glob("*.toml"))
    assert BASE_FILE in files
    for file in files:
        assert isinstance(load_config(file), Config)


def test_the_names_that_others_rely_on_exist() -> None:
    wanted = "input.path tables.root recommend.n train.loss train.epochs train.learning_rate train.seed"
    assert set(wanted.split()) <= set(known_keys())


def test_later_layers_win_and_leave_the_rest_alone(tmp_path: Path) -> None:
    file = toml(tmp_path, "[train]\nk = 8\nepochs = 3\n[recommend]\nn = 7\n")
    config = load_config(file, ["train.k=16", "train.k=32", "tables.root=/tmp/x y", "train.decays=[0.5, 0.9]"])
    assert (config.train.k, config.train.epochs, config.recommend.n) == (32, 3, 7)
    assert config.tables.root == "/tmp/x y"
    assert config.train.decays == [0.5, 0.9]
    assert config.train.patience == load_config().train.patience


def test_a_whole_number_is_a_number_too() -> None:
    rate = load_config(overrides=["train.learning_rate=1"]).train.learning_rate
    assert rate == 1.0
    assert isinstance(rate, float)


def test_digest_follows_the_values_and_nothing_else() -> None:
    assert load_config().digest() == load_config(overrides=["train.seed=1"]).digest()
    assert load_config().digest() != load_config(overrides=["train.seed=2"]).digest()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epoch=3", ["train.epoch", "did you mean train.epochs?"]),
        ("trian.epochs=3", ["[trian]", "did you mean train?"]),
        ("train.epochs=many", ["train.epochs", "'many'", "a whole number"]),
        ("train.epochs=2.5", ["train.epochs", "2.5", "a whole number"]),
        ("train.epochs=true", ["train.epochs", "True", "a whole number"]),
        ("train.epochs=0", ["train.epochs", "0", "at least 1"]),
        ("train.refit=1", ["train.refit", "true or false"]),
        ("train.learning_rate=0", ["train.learning_rate", "above 0"]),
        ("train.learning_rate=nan", ["train.learning_rate", "nan"]),
        ("train.learning_rate=fast", ["train.learning_rate", "'fast'", '"auto"']),
        ("train.loss=softmx", ["train.loss", "'softmx'", "did you mean softmax?", "allowed:"]),
        ("train.decays=[0.5, 1.0]", ["train.decays", "at most"]),
        ("train.decays=[]", ["train.decays", "at least one decay"]),
        ("train.decays=[0.5, x]", ["train.decays", "a list of numbers"]),
        ("input.value_range=[5, 1]", ["input.value_range", "least < greatest"]),
        ("input.path=''", ["input.path", "empty"]),
        ("input.delimiter='::'", ["input.delimiter", "one character"]),
        ("run.id='a b'", ["run.id", "'a b'"]),
        ("similar.n=0", ["similar.n", "at least 1"]),
        ("similar.metric=cosin", ["similar.metric", "did you mean cosine?"]),
        ("audience.items=[1, x]", ["audience.items", "a list of whole numbers or a list of strings"]),
        ("audience.segments.old='year <'", ["audience.segments.old = 'year <'", "expected a number"]),
        ("audience.segments={old = 3}", ["audience.segments.old = 3", "must be a filter"]),
        ("run.id='../up'", ["run.id", "'../up'"]),
        ("recommend.n", ["'recommend.n'", "section.key=value"]),
        ("n=3", ["'n=3'", "section.key=value"]),
    ],
)
def test_a_bad_override_is_named_with_its_value_and_the_cure(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train\nk = 3", ["mine.toml", "not valid TOML", "line 1"]),
        ("k = 3", ["k = 3", "stands in no section"]),
        ("train = 3", ["train in", "must be a section"]),
        ("[tables]\nrot = 'x'", ["tables.rot", "'x'", "mine.toml", "did you mean tables.root?"]),
        ("[tables]\nroot = 3", ["tables.root", "3", "a string"]),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(toml(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot read the configuration file") as caught:
            load_config(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["train.user=true"], r"train.user = True has no meaning with train.loss = 'softmax'; leave it at"),
        (
            ["train.loss=squared", "train.decays=[0.5]"],
            r"train.decays = \[0.5\] has no meaning with",
        ),
        (["train.loss=bpr", "train.batch_size=64"], r"train.batch_size = 64 has no meaning"),
        (["train.validation_metric=rmse"], r"train.validation_metric = 'rmse' measures train.loss = 'squared' only"),
        (
            ["train.loss=squared", "train.validation_metric=log_loss"],
            r"'log_loss' measures",
        ),
        (["train.loss=squared", "train.user=false", "train.bag=false"], r"switch one of them on"),
        (["train.loss=bpr", "train.bag=false"], r"give train.user = true as well"),
        (["train.loss=squared", "train.epochs=5", "train.average_from=6"], r"train.average_from = 6 lies after"),
    ],
)
def test_settings_of_losses_that_do_not_fit_together(keys: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(overrides=keys)


def test_rating_models_may_be_chosen_by_their_rankings() -> None:
    load_config(overrides=["train.loss=squared", "train.validation_metric=ndcg_at_10", "train.user=false"])
