"""Fields of time and columns of users from the input to the lists, and what they are worth where they matter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from event_inputs import as_arrow, csv_folder, settings, write
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from fm_spark.config import Config, load_config
from fm_spark.core.fm_machine import FmMachine, fm_queries
from fm_spark.core.queries import Ranker, user_queries
from fm_spark.core.sequences import TEST, TRAIN, Sequences, select
from fm_spark.core.time_fields import TIME_FIELDS
from fm_spark.errors import ConfigError, InputError, TableError
from fm_spark.events.read import read_input
from fm_spark.events.sequences import ordered_events, sequences_from_arrow
from fm_spark.ranking.inputs import load_inputs
from fm_spark.tables.contracts import EVENTS, FM_PARAMETERS, TOP_N, USERS, VOCABULARY
from fm_spark.tables.runs import EVALUATION, PUBLISH
from fm_spark.tables.store import TableStore
from fm_spark.training.blocks import VALIDATION, pack_slices
from fm_spark.training.context import count_context, find_fields
from fm_spark.training.recipes import candidates
from fm_spark.training.resolve import DataSize
from fm_spark.training.stage_counts import stage_counts
from fm_spark.training.trainer import TrainingData, fit
from jobs import evaluate, events, recommend, train

START = datetime(2020, 1, 6, tzinfo=UTC)  # a Monday
N_USERS, N_ITEMS = 30, 16


def ratings() -> list[str]:
    """Users rate two items an evening; one half of the items is rated on Mondays only."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(1, N_USERS + 1):
        for place, item in enumerate(rng.permutation(N_ITEMS)):
            day = START + timedelta(days=int(place) * 5 + user % 7, hours=20)
            rows.append(f"{user},{item + 1},{3 + 2 * ((user + item) % 2)}.0,{int(day.timestamp())}")
    return rows


def users_file() -> str:
    """User 3 is not listed, the color of user 4 is not known, user 99 has no events."""
    rows = ["uid,color,tastes,age"]
    for user in [u for u in range(1, N_USERS + 1) if u != 3] + [99]:
        color = "" if user == 4 else ["red", "blue"][user % 2]
        rows.append(f"{user},{color},{'a|b' if user % 3 else 'c'},{user}")
    return "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def run(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A softmax run with every field, up to its lists."""
    return finished(spark, tmp_path_factory.mktemp("context"), "softmax", recommend)


@pytest.fixture(scope="module")
def rated(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The same with a rating model, up to its metrics."""
    return finished(spark, tmp_path_factory.mktemp("context"), "squared", evaluate)


def finished(spark: SparkSession, folder: Path, loss: str, last: ModuleType) -> Config:
    write(folder / "users.csv", users_file())
    keys = [
        f"input.path='{csv_folder(folder / 'in', ratings())}'", f"input.users_path='{folder / 'users.csv'}'",
        "input.users_id_column='uid'", "input.user_columns=['color:categorical', 'tastes:multi', 'age:numeric']",
        "train.time=['calendar', 'hour_of_week', 'days_since_first']", "train.k=4", "train.epochs=2",
        f"tables.root='{folder / 'tables'}'", "run.id='r'", "recommend.n=5", "recommend.exclude_seen=false",
        f"train.loss='{loss}'", "train.tune_seconds=0",
    ]  # fmt: skip
    config = load_config(overrides=keys)
    for job in (events, train, last):
        job.run(spark, config)
    return config


def machine_of(spark: SparkSession, config: Config, purpose: str):  # type: ignore[no-untyped-def]
    """The inputs of a job that was told nothing about the fields."""
    bare = load_config(overrides=[f"tables.root='{config.tables.root}'", "run.id='r'"])
    return load_inputs(TableStore(spark, config.tables.root), bare, purpose)


def slow_context(frame: pd.DataFrame, machine, user: int, time: datetime, first: datetime, people: pd.DataFrame):  # type: ignore[no-untyped-def]
    """Sum of the saved vectors of one user's context at a time, from the definition."""
    table = frame.set_index(["field", "value"])["factors"]

    def vector(field: str, value: str) -> np.ndarray:
        return np.array(table.get((field, value), table[(field, "__unseen__")]), np.float64)

    days = (time - first).days
    width = 0 if days == 0 else int(np.log2(days))
    bins = "0" if days == 0 else "1" if days == 1 else f"{2**width}-{2 ** (width + 1) - 1}"
    total = vector("hour_of_week", time.strftime("%A %H")) + vector("days_since_first", bins)
    total = total + vector("calendar", time.strftime("%Y-%m"))
    own = dict(people.attributes[people.user_id == user].iloc[0]) if (people.user_id == user).any() else {}
    for column in ("color", "tastes", "age"):
        values = list(own.get(column, [])) or ["__unseen__"]
        total = total + sum(vector(f"user:{column}", v) for v in values) / np.sqrt(len(values))
    return total


@pytest.mark.parametrize("kind", ["run", "rated"])
@pytest.mark.parametrize("purpose", [EVALUATION, PUBLISH])
def test_queries_of_a_machine_from_its_tables(
    spark: SparkSession, request: pytest.FixtureRequest, kind: str, purpose: str
) -> None:
    """The context of a query is that of the first held-out event, when serving that of the newest of all events."""
    config: Config = request.getfixturevalue(kind)
    inputs, store = machine_of(spark, config, purpose), TableStore(spark, config.tables.root)
    machine = inputs.machine
    assert machine.context.time == ("hour_of_week", "days_since_first", "calendar")
    assert machine.context.user == ("age", "color", "tastes")
    fields = machine.context
    log = store.read(EVENTS).toPandas().sort_values(["user_id", "position"])
    if purpose == PUBLISH:
        fields = fields._replace(as_of=int(log.time.max().timestamp() * 1e6))
    arrow = as_arrow(ordered_events(inputs.events, 1, context=fields)).to_batches()
    (block,) = sequences_from_arrow(arrow, inputs.catalogue.feature_to_item, context=fields)
    asked = block if purpose == PUBLISH else select(block, block.part == TEST)
    known = block if purpose == PUBLISH else select(block, block.part == TRAIN)
    found = user_queries(known, machine, asked) - _without_context(known, machine)
    version = "fm-r" if purpose == PUBLISH else "fm-r-eval"
    frame = store.read(FM_PARAMETERS).where(F.col("model_version") == version).toPandas()
    people = store.read(USERS).toPandas()
    for place, user in enumerate(block.user):
        own = log[log.user_id == user]
        held = own[own.split == "test"]
        time = log.time.max() if purpose == PUBLISH else held.time.iloc[0]
        expected = slow_context(frame, machine, int(user), time, own.time.iloc[0], people)
        np.testing.assert_allclose(found[place], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found).max() > 0.05


def _without_context(known: Sequences, machine: Ranker) -> np.ndarray:
    if isinstance(machine, FmMachine):
        return fm_queries(known, machine)
    return user_queries(known, machine._replace(context_factors=None))


def test_lists_are_ranked_with_the_context(spark: SparkSession, run: Config) -> None:
    inputs, store = machine_of(spark, run, PUBLISH), TableStore(spark, run.tables.root)
    newest = int(store.read(EVENTS).agg(F.max(F.unix_micros("time"))).collect()[0][0])
    fields = inputs.machine.context._replace(as_of=newest)
    arrow = as_arrow(ordered_events(inputs.events, 1, context=fields)).to_batches()
    (block,) = sequences_from_arrow(arrow, inputs.catalogue.feature_to_item, context=fields)
    scores = user_queries(block, inputs.machine, block) @ inputs.machine.item_factors.T + inputs.machine.item_bias
    lists = store.read(TOP_N).toPandas()
    # user 99 stands in the users' file alone
    assert lists.groupby("user_id")["source"].agg(list).to_dict() == {
        user: ["model" if user != 99 else "popular"] * 5 for user in [*range(1, N_USERS + 1), 99]
    }
    lists = lists[lists["source"] == "model"]
    place = {item: j for j, item in enumerate(inputs.catalogue.item_id)}
    for row in lists.itertuples():
        u = int(np.flatnonzero(block.user == row.user_id)[0])
        assert row.score == pytest.approx(float(scores[u, place[row.item_id]]), abs=1e-4)


def test_every_field_is_saved_under_its_name(spark: SparkSession, run: Config) -> None:
    store = TableStore(spark, run.tables.root)
    listed = store.read(VOCABULARY).toPandas()
    rows = store.read(FM_PARAMETERS).where("model_version = 'fm-r'").toPandas().set_index(["field", "value"])
    assert set(listed.value[listed.field == "user:color"]) == {"__unseen__", "red", "blue"}
    assert set(listed.value[listed.field == "calendar"]) == {"__unseen__", "2020-01", "2020-02", "2020-03"}
    assert len(listed[listed.field == "hour_of_week"]) == 169
    assert rows.loc[("user:color", "__unseen__"), "count"] == 2 * N_ITEMS  # users 3 and 4
    assert rows.loc[("user:color", "red"), "count"] == 14 * N_ITEMS
    assert rows.loc[("hour_of_week", "Monday 09"), "count"] == 0
    assert not np.any(rows.loc[("hour_of_week", "Monday 09"), "factors"])
    assert np.any(rows.loc[("hour_of_week", "Monday 20"), "factors"])
    per_field = rows.groupby(level=0)["count"].sum()
    assert per_field["hour_of_week"] == per_field["days_since_first"] == N_USERS * N_ITEMS


def test_users_of_the_file_are_a_table(spark: SparkSession, run: Config) -> None:
    people = TableStore(spark, run.tables.root).read(USERS).toPandas().set_index("user_id")["attributes"].map(dict)
    assert 3 not in people.index
    assert list(people[99]["tastes"]) == ["c"]
    assert list(people[4]["color"]) == ["__unseen__"]
    assert list(people[1]["age"]) == ["1/10"]


def test_training_needs_the_users_of_the_events(spark: SparkSession, tmp_path: Path) -> None:
    keys = [f"input.path='{csv_folder(tmp_path / 'in', ratings())}'", f"tables.root='{tmp_path / 'tables'}'"]
    events.run(spark, load_config(overrides=keys))
    with pytest.raises(TableError, match=r"input.user_columns = \['color'\].*no table .*users"):
        train.run(spark, load_config(overrides=[*keys, "input.user_columns=['color:categorical']"]))


@pytest.mark.parametrize(
    ("text", "keys", "error", "message"),
    [
        ("user_id,c\n1,a\n1,b\n2,c\n", {}, InputError, r"more than once, 1 rows too many: user 1: 2 rows"),
        ("user_id,c\nx,a\n", {}, InputError, r"line 2: x,a \(the id is no whole number"),
        ("user_id,d\n1,a\n", {}, InputError, r"no column 'c'.*input.user_columns"),
        ("user_id,c\n1,a\n", {"input__user_columns": ["c"]}, ConfigError, r"'c'.*name:kind"),
    ],
)
def test_users_that_cannot_be_read(
    spark: SparkSession, tmp_path: Path, text: str, keys: dict[str, object], error: type[Exception], message: str
) -> None:
    folder, file = csv_folder(tmp_path / "in", ["1,1,5.0,1", "2,2,5.0,1"]), write(tmp_path / "users.csv", text)
    given = {"input__users_path": str(file), "input__user_columns": ["c:categorical"], **keys}
    with pytest.raises(error, match=message):
        read_input(spark, settings(folder, **given).input)


def test_duplicates_may_be_dropped(spark: SparkSession, tmp_path: Path) -> None:
    folder = csv_folder(tmp_path / "in", ["1,1,5.0,1", "2,2,5.0,1"])
    file = write(tmp_path / "users.csv", "user_id,c\n1,b\n1,a\nx,c\n2,c\n")
    keys = {"input__users_path": str(file), "input__user_columns": ["c:categorical"], "input__bad_rows": "drop"}
    raw = read_input(spark, settings(folder, **keys).input)
    assert raw.users is not None
    assert {row["user_id"]: row["attributes"]["c"] for row in raw.users.collect()} == {1: ["a"], 2: ["c"]}
    assert {f.check: f.rows for f in raw.findings if "user" in f.check} == {"unreadable_users": 1, "duplicate_users": 1}


@pytest.mark.parametrize(
    ("files", "gender"),
    [
        ({"ratings.dat": "1::1::5::1\n2::2::5::1\n", "movies.dat": "1::A (1999)::Drama\n2::B (1999)::Drama\n",
          "users.dat": "1::F::25::10::48067\n2::M::56::16::70072\n"}, {1: "F", 2: "M"}),
        ({"u.data": "1\t1\t5\t1\n2\t2\t5\t1\n", "u.item": "",
          "u.user": "1|24|M|technician|85711\n2|53|F|other|94043\n"}, {1: "M", 2: "F"}),
    ],
    ids=["1M", "100K"],
)  # fmt: skip
def test_releases_know_their_users(
    spark: SparkSession, tmp_path: Path, files: dict[str, str], gender: dict[int, str]
) -> None:
    if "u.item" in files:
        flags = "|".join(["0"] * 19)
        files["u.item"] = "".join(f"{i}|T (1999)|01-Jan-1999||http://x|{flags}\n" for i in (1, 2))
    for name, text in files.items():
        write(tmp_path / name, text)
    raw = read_input(spark, settings(tmp_path, input__user_columns=["gender:categorical", "age:numeric"]).input)
    assert raw.users is not None
    found = {row["user_id"]: row["attributes"] for row in raw.users.collect()}
    assert {user: of["gender"] for user, of in found.items()} == {user: [name] for user, name in gender.items()}
    with pytest.raises(InputError, match="no column 'sex'"):
        read_input(spark, settings(tmp_path, input__user_columns=["sex:categorical"]).input)


def evening_log(spark: SparkSession) -> DataFrame:
    """Every user likes even items in the morning and odd ones in the evening, in a random order."""
    rng = np.random.default_rng(1)
    rows = []
    for user in range(80):
        for position, item in enumerate(rng.permutation(40)[:20]):
            time = START + timedelta(days=position, hours=8 if item % 2 == 0 else 20)
            rows.append((user, position, int(item), 1.0, 1.0, "train", time))
    schema = "user_id bigint, position int, item_feature int, label double, weight double, split string, time timestamp"
    names = ["user_id", "position", "item_feature", "label", "weight", "split", "time"]
    return spark.createDataFrame(pd.DataFrame(rows, columns=names), schema)


def test_hours_tell_what_is_liked_at_them(spark: SparkSession) -> None:
    log, found = evening_log(spark), {}
    recipe = candidates(load_config().train, DataSize(80, 1600, 1600, 40))[0]
    for time in ([], ["hour_of_week"]):
        config = load_config(overrides=["train.k=8", "train.epochs=8", f"train.time={time}"])
        fields = find_fields(time, [], log, None)
        slices = pack_slices(log, np.arange(40, dtype=np.int32), 1, 1, 2, (0.2, 5), context=fields)
        data = TrainingData(slices, stage_counts(slices, 40).liked, None, 1.0, context=count_context(slices, fields))
        made = fit(spark.sparkContext, data, config.train, recipe, VALIDATION, epochs=8, validate=True)
        found[len(time)] = made.metrics["ndcg_at_10"]
        slices.unpersist()
    assert found[1] > 1.2 * found[0]


@pytest.mark.parametrize("local_steps", ["on", "off"])
def test_same_bits_for_any_partitioning(spark: SparkSession, local_steps: str) -> None:
    log = evening_log(spark)
    fields = find_fields(list(TIME_FIELDS), [], log, None)
    assert fields.time == tuple(TIME_FIELDS)
    config = load_config(overrides=["train.k=4", f"train.local_steps={local_steps}"])
    recipe = candidates(config.train, DataSize(80, 1600, 1600, 40))[0]
    bits = set()
    for partitions in (1, 3):
        slices = pack_slices(
            log.repartition(partitions), np.arange(40, dtype=np.int32), 4, 2, partitions, (0.2, 5), context=fields
        )
        context = count_context(slices, fields)
        data = TrainingData(slices, stage_counts(slices, 40).liked, None, 1.0, context=context)
        made = fit(spark.sparkContext, data, config.train, recipe, VALIDATION, epochs=1)
        bits.add(b"".join(np.ascontiguousarray(a).tobytes() for a in made.learnt.arrays().values()))
        slices.unpersist()
    assert len(bits) == 1
