"""Protocols are what they say: no two settings share an id, and every field is in the hash."""

import dataclasses
import itertools

import pytest

from potgan.settings.protocols import (
    METRIC_LABELS,
    METRICS,
    POTGAN,
    PROTOCOLS,
    SsimSettings,
    as_they_are,
    unmet_demands,
)

EVERY = [*PROTOCOLS.values(), *(as_they_are(p, t) for p in PROTOCOLS.values() for t in ("dataset", "strip"))]


def decides(protocol, metric: str) -> tuple:
    """All that decides a metric's value, by hand: what two protocols must agree on to share a column."""
    own = [protocol.frame, protocol.file_format, protocol.targets if metric not in ("is", "mask_is") else ""]
    if metric.endswith("ssim"):
        own.append(protocol.ssim)
    elif metric not in ("l1", "psnr", "lpips"):
        own.append(protocol.feature_network)
    if "mask" in metric or metric == "foreground_ssim":
        own += [protocol.mask_id, protocol.mask_owner]
    if metric in ("fid", "mask_fid", "kid"):
        own.append(protocol.fid_reference)
    if metric in ("is", "mask_is"):
        own.append(protocol.inception_splits)
    return tuple(own)


@pytest.mark.parametrize("metric", METRICS)
def test_two_protocols_share_a_metrics_id_only_if_they_measure_the_same(metric) -> None:
    for a, b in itertools.combinations(EVERY, 2):
        if a.metric_id(metric) == b.metric_id(metric):
            assert decides(a, metric) == decides(b, metric), (a.id, b.id)


#: Another value of each setting, and a metric that it enters.
OTHER = {
    "frame": ("pad-256", "ssim"),
    "targets": ("strip", "l1"),
    "file_format": ("png", "psnr"),
    "mask_id": ("pg2-r4", "mask_ssim"),
    "mask_owner": ("source", "mask_is"),
    "feature_network": ("another", "kid"),
    "inception_splits": (5, "is"),
    "fid_reference": ("train", "fid"),
}
OTHER_SSIM = {"window": "uniform", "size": 13, "sigma": 1.2, "covariance": "sample", "data_range": "255"}


def test_a_variant_never_keeps_the_id_of_what_it_was_made_from() -> None:
    for field, (value, metric) in OTHER.items():
        assert dataclasses.replace(POTGAN, **{field: value}).metric_id(metric) != POTGAN.metric_id(metric), field
    ids = {POTGAN.metric_id("ssim")}
    for field, value in OTHER_SSIM.items():
        changed = dataclasses.replace(POTGAN, ssim=dataclasses.replace(POTGAN.ssim, **{field: value}))
        ids.add(changed.metric_id("ssim"))
    assert len(ids) == 1 + len(OTHER_SSIM)
    odd = dataclasses.replace(POTGAN, ssim=SsimSettings("gaussian", 13, 1.2, "sample", "255"))
    assert odd.metric_id("ssim") == "ssim-gaussian13-sigma1.2-sample-255"


def test_a_short_name_stands_for_one_thing() -> None:
    for a, b in itertools.combinations(PROTOCOLS.values(), 2):
        assert (a.ssim_id == b.ssim_id) == (a.ssim == b.ssim)
        assert (a.feature_id == b.feature_id) == (a.feature_network == b.feature_network)


def test_every_field_that_measures_is_in_the_hash_and_words_are_not() -> None:
    assert dataclasses.replace(POTGAN, description="other words").hash == POTGAN.hash
    for field in dataclasses.fields(POTGAN):
        if field.name == "description":
            continue
        value = getattr(POTGAN, field.name)
        if field.name == "ssim":
            for inner in dataclasses.fields(SsimSettings):
                old = getattr(value, inner.name)
                new = old + 1 if isinstance(old, int | float) else old + "x"
                changed = dataclasses.replace(POTGAN, ssim=dataclasses.replace(value, **{inner.name: new}))
                assert changed.hash != POTGAN.hash, inner.name
            continue
        new = value + 1 if isinstance(value, int) else value + "x"
        assert dataclasses.replace(POTGAN, **{field.name: new}).hash != POTGAN.hash, field.name


def test_what_was_waived_changes_the_ids_of_metrics_only_by_what_was_measured() -> None:
    """Without demands, the settings decide alone, so a metric may have the id of the protocol that measures it in the same way."""
    clean, patn = PROTOCOLS["clean"], PROTOCOLS["patn"]
    assert as_they_are(clean, "strip").metric_id("ssim") == "ssim-gauss255-strip"
    assert as_they_are(clean, "dataset").metric_id("ssim") == "ssim-gauss255"
    assert as_they_are(patn, "dataset").metric_id("ssim") == "ssim-deform-pad-256"
    assert as_they_are(patn, "strip").metric_id("ssim") == patn.metric_id("ssim")
    assert as_they_are(POTGAN, "strip").metric_id("is") == POTGAN.metric_id("is")  # IS has no target


def test_ids_and_names() -> None:
    assert list(PROTOCOLS) == [p.id for p in PROTOCOLS.values()]
    assert len({p.hash for p in EVERY}) == len(EVERY)
    assert set(METRICS) == set(METRIC_LABELS)
    assert set(METRICS.values()) == {"higher", "lower"}
    assert PROTOCOLS["potgan"].metric_id("ssim") == "ssim-deform"  # the ids of published reports stay
    assert PROTOCOLS["potgan-synthetic"].metric_id("mask_fid") == "mask-fid-synthetic"


def test_every_protocol_is_explained_to_its_last_digit(repository) -> None:
    text = (repository / "docs" / "scoring.md").read_text()
    for protocol in PROTOCOLS.values():
        assert f"`{protocol.id}`" in text
        for metric in ("ssim", "mask_ssim"):
            assert f"`{protocol.metric_id(metric)}`" in text, protocol.metric_id(metric)


def test_demands() -> None:
    clean = PROTOCOLS["clean"]
    patn = PROTOCOLS["patn"]
    assert unmet_demands(clean, "png", "dataset") == []
    assert len(unmet_demands(clean, "jpeg", "strip")) == 2
    assert unmet_demands(patn, "jpeg", "strip") == []
    assert unmet_demands(patn, "png", "dataset") == [
        "its targets are the data set's own images, and protocol patn demands those that were released with the results"
    ]
    for protocol in (clean, patn):
        for targets in ("dataset", "strip"):
            assert unmet_demands(as_they_are(protocol, targets), "jpeg", targets) == []
