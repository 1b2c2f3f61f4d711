"""What names say: time stamps, series, words."""

from datetime import datetime, timezone

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from holdfast.inventory.run_names import named_like, run_name, series_of, started_from_name, strip_run


@pytest.mark.parametrize(
    ("name", "series", "started"),
    [
        ("small_data_10k_20250525_130522", "small_data_10k", "2025-05-25T13:05:22"),
        ("medium_model_v2_20250525_131811", "medium_model_v2", "2025-05-25T13:18:11"),
        ("2025-05-25_13-05-22_resnet", "resnet", "2025-05-25T13:05:22"),
        ("resnet-2025-05-25T13:05:22Z", "resnet", "2025-05-25T13:05:22"),
        ("resnet_20250525T1305", "resnet", "2025-05-25T13:05:00"),
        ("resnet.2025.05.25", "resnet", "2025-05-25T00:00:00"),
        ("run-20250525_130522-1a2b3c4d", "run", "2025-05-25T13:05:22"),
        ("resnet_1748178322", "resnet", "2025-05-25T13:05:22"),
        ("resnet_seed42_fold_3", "resnet", None),
        ("resnet_run_7", "resnet", None),
        ("resnet_9f86d08", "resnet", None),
        ("resnet_550e8400-e29b-41d4-a716-446655440000", "resnet", None),
        ("resnet_50", "resnet_50", None),
        ("facade_decade_v3", "facade_decade_v3", None),
        ("lr_0.001_d2000000", "lr_0.001_d2000000", None),
        ("shop_20251399", "shop_20251399", None),  # no date
        ("20250525_130522", "", "2025-05-25T13:05:22"),
        ("version_3", "", None),
    ],
)
def test_names(name: str, series: str, started: str | None) -> None:
    assert strip_run(name) == series
    moment = started_from_name(name)
    assert (None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S")) == started


WORDS = st.lists(st.sampled_from(["small", "data", "10k", "v2", "lstm", "base", "x"]), min_size=1, max_size=4)
STAMPS = st.datetimes(datetime(1995, 1, 1), datetime(2095, 1, 1)).map(lambda moment: moment.replace(microsecond=0))
FORMS = st.sampled_from(["%Y%m%d_%H%M%S", "%Y-%m-%d_%H-%M-%S", "%Y%m%dT%H%M%S", "%Y-%m-%dT%H:%M:%S", "%Y%m%d-%H%M%S"])


@settings(deadline=None, derandomize=True)
@given(words=WORDS, joint=st.sampled_from("_-"), moment=STAMPS, form=FORMS, first=st.booleans())
def test_a_stamp_leaves_the_words(words: list[str], joint: str, moment: datetime, form: str, first: bool) -> None:
    name, stamp = joint.join(words), moment.strftime(form)
    whole = f"{stamp}{joint}{name}" if first else f"{name}{joint}{stamp}"
    # eight letters and digits behind a stamp are a tracker's id
    assume(not (first and len(words[0]) == 8))
    assert strip_run(whole) == name
    assert started_from_name(whole) == moment.replace(tzinfo=timezone.utc)


@settings(deadline=None, derandomize=True)
@given(name=st.text(st.sampled_from("ab19_-. vT:sefd025"), max_size=40))
def test_stripping_twice_is_stripping_once(name: str) -> None:
    once = strip_run(name)
    assert strip_run(once) == once
    assert set(once) <= set(name) | {"_"}
    started_from_name(name)


def test_numbers_count_runs_only_where_they_count() -> None:
    names = ["pilot_1", "pilot_2", "pilot_3", "resnet_18", "resnet_50", "vgg_1", "vgg_3", "lone_1", "net_4", "net_5"]
    series = {path[-1]: found[1] for path, found in series_of([("top", name) for name in names]).items()}
    assert series == {
        "pilot_1": "pilot",
        "pilot_2": "pilot",
        "pilot_3": "pilot",
        "resnet_18": "resnet_18",
        "resnet_50": "resnet_50",
        "vgg_1": "vgg_1",
        "vgg_3": "vgg_3",
        "lone_1": "lone_1",
        "net_4": "net_4",
        "net_5": "net_5",
    }


def test_series_of_one_name_in_two_folders_are_two() -> None:
    found = series_of(
        [("top", "a", "net_20250525"), ("top", "b", "net_20250526"), ("top", "b", "seed_1"), ("top", "b")]
    )
    assert found["top", "a", "net_20250525"] == ("top/a/net", "net")
    assert found["top", "b", "net_20250526"] == ("top/b/net", "net")
    assert found["top", "b", "seed_1"] == found["top", "b"] == ("top/b", "b")


def test_a_run_with_a_number_for_a_name_is_called_after_its_series() -> None:
    assert run_name(("top", "resnet", "lightning_logs", "version_3")) == "resnet/version_3"
    assert run_name(("top", "resnet_20250525")) == "resnet_20250525"
    assert run_name(("20250525",)) == "20250525"


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("safe_test_3", "test"),
        ("SafeTest", "test"),
        ("latest_model", None),
        ("contest", None),
        ("dry-run-2", "dry_run"),
    ],
)
def test_words_are_whole(name: str, token: str | None) -> None:
    assert named_like(name, ("test", "dry_run")) == token
