"""Secrets never reach a file, a log or a message; locations of a configuration hold no tricks; nothing is unpickled."""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import pytest

from fm_spark import secrecy
from fm_spark.config import load_config
from fm_spark.errors import ConfigError
from fm_spark.secrecy import MaskSecrets, looks_secret, masked
from fm_spark.submit import PROJECT, main

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "setting",
    [
        f"input.password={SECRET}",
        f"input.api_key='{SECRET}'",
        f"input.path=s3a://AKIDEXAMPLE:{SECRET}@bucket/x",
        f"input.path=s3://{SECRET}@bucket/x",
        f"input.items_path=jdbc:db://host/x?user=me&password={SECRET}",
        f"tables.root=hdfs://me:{SECRET}@host/x",
        f"input.item_columns=['a', 'token={SECRET}']",
        f"spark.hadoop.fs.s3a.secret.key={SECRET}",
        f"input.path='https://me:${{ENV:USER_PART}}{SECRET}@host'",
        "input.path=/x?id=AKIAIOSFODNN7EXAMPLE",
        "input.password=123456",
    ],
)
def test_a_secret_in_clear_text_is_refused_and_not_shown(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"secret in clear text.*\$\{ENV:NAME\}|unknown section") as caught:
        load_config(overrides=[setting])
    for word in (SECRET, "AKIAIOSFODNN7EXAMPLE", "123456"):
        assert word not in str(caught.value)


def test_a_secret_in_a_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(f'[input]\npassword = "{SECRET}"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"input\.password holds a secret") as caught:
        load_config(tmp_path / "own.toml")
    assert SECRET not in str(caught.value)


def test_innocent_values_stay() -> None:
    for text in ("abfss://container@account.dfs.core.windows.net/x", "data/keys/2024", "a@b", "s3a://bucket/token/x"):
        assert load_config(overrides=[f"input.path='{text}'"]).input.path == text


def test_a_reference_is_resolved_but_stored_and_shown_as_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_SECRET", SECRET)
    monkeypatch.setenv("FOLDER", "/data/x")
    config = load_config(overrides=["input.path='s3a://me:${ENV:MY_SECRET}@b/x'", "tables.root='${ENV:FOLDER}/t'"])
    assert config.input.path == f"s3a://me:{SECRET}@b/x"
    assert config.tables.root == "/data/x/t"
    stored = json.loads(config.to_json())
    assert stored["input"]["path"] == "s3a://me:${ENV:MY_SECRET}@b/x"
    assert stored["tables"]["root"] == "${ENV:FOLDER}/t"
    assert SECRET not in repr(config)
    assert SECRET not in masked(f"cannot read {SECRET}")
    logger = logging.getLogger("fm_spark.test_security")
    logger.addFilter(MaskSecrets())
    logger.warning("cannot open %s", config.input.path)
    assert caplog.messages == ["cannot open s3a://***@b/x"]


def test_a_reference_to_nothing_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ConfigError, match="environment variable NOT_THERE is not set"):
        load_config(overrides=["input.path='${ENV:NOT_THERE}'"])
    with pytest.raises(ConfigError, match="names no environment variable"):
        load_config(overrides=["input.path='${ENV:a b}'"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("open s3a://K:S@b/x failed", "open s3a://***@b/x failed"),
        ("fs.s3a.secret.key=abc, next", "fs.s3a.secret.key=***, next"),
        ('{"password": "a b"}', '{"password": ***}'),
        ("user=me;password='x y';z", "user=me;password=***;z"),
        ("key AKIAIOSFODNN7EXAMPLE", "key ***"),
        ("round 3: loss 0.5, keys (user_id) occur twice", "round 3: loss 0.5, keys (user_id) occur twice"),
        ("password=${ENV:PW}", "password=${ENV:PW}"),
    ],
)
def test_what_has_the_form_of_a_secret_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_names_of_secrets() -> None:
    for name in ("spark.hadoop.fs.s3a.secret.key", "spark.ssl.keyPassword", "input.token", "fs.azure.account.key.x"):
        assert looks_secret(name)
    for name in ("spark.driver.memory", "input.user_column", "train.k", "spark.sql.shuffle.partitions", "monkey.time"):
        assert not looks_secret(name)


def test_a_dry_run_masks_settings(capsys: pytest.CaptureFixture[str]) -> None:
    conf = ["--conf", f"spark.hadoop.fs.s3a.secret.key={SECRET}", "--conf", f"spark.x=s3a://k:{SECRET}@b"]
    assert main(["train", *conf, "--dry-run"]) == 0
    output = capsys.readouterr()
    assert SECRET not in output.out + output.err
    assert "spark.hadoop.fs.s3a.secret.key=***" in output.out
    assert main(["train", "--conf", f"password={SECRET}"]) == 2
    assert SECRET not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("../tables", r"climbs out"),
        ("/data/a/../b", r"climbs out"),
        ("s3a://bucket/%2e%2e/x", r"climbs out"),
        ("/data/`x`", r"backtick"),
        ("/data/x\\ny", r"control character"),
        ("/data/x\\u0000y", r"control character"),
        ("ftp://host/x", r"unknown scheme 'ftp'"),
        ("javascript:alert(1)", r"unknown scheme"),
        ("s3a:bucket", r"not a URI"),
        ("s3a://bucket/x?y=1", r"query"),
        ("~/tables", r"'~'"),
    ],
)
def test_a_root_with_tricks_is_refused(root: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"tables\.root = .*{message}"):
        load_config(overrides=[f'tables.root="{root}"'])


@pytest.mark.parametrize("root", ["warehouse", "/data/a b", "file:///data", "s3a://b/x", "hdfs://h:8020/x", "/a/..b"])
def test_a_plain_root_is_accepted(root: str) -> None:
    assert load_config(overrides=[f"tables.root='{root}'"]).tables.root == root


def test_inputs_are_read_from_where_they_are() -> None:
    assert load_config(overrides=["input.path='../data'"]).input.path == "../data"
    with pytest.raises(ConfigError, match=r"input\.users_path.*backtick"):
        load_config(overrides=["input.users_path='a`b'"])


# what Python workers of one job hand to its driver, or to its later tasks, in bytes that never lie in a table
BETWEEN_WORKERS = {"fm_spark/evaluation/predictions.py", "fm_spark/training/blocks.py"}


def test_nothing_is_unpickled_from_tables_and_no_shell_is_started() -> None:
    for path in [*(PROJECT / "fm_spark").rglob("*.py"), *(PROJECT / "jobs").glob("*.py")]:
        name = path.relative_to(PROJECT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert name in BETWEEN_WORKERS or modules.isdisjoint({"pickle", "cloudpickle", "joblib", "shelve", "marshal"})
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            function = ast.unparse(call.func)
            assert function not in ("eval", "exec", "os.system", "os.popen"), f"{name}: {function}"
            assert not any(
                k.arg in ("shell", "allow_pickle") and ast.unparse(k.value) != "False" for k in call.keywords
            )


def test_the_registry_of_secrets_holds_no_short_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "a")
    secrecy.resolve("input.path", "${ENV:MY_TOKEN}")
    assert masked("a banana") == "a banana"
