"""Tests of the names of released files: pairs that are read from names, and numbers as places in a pair list."""

import re

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from potgan.common.errors import UserError
from potgan.measure.released_layouts import LAYOUTS
from potgan.measure.released_names import bare, dataset_name, files_of_pairs, image_files, number_of, pairs_of_files

MARKET = ("0007_c2s3_070952_01.jpg", "0007_c3s3_077419_03.jpg")
DUKE = ("0001_c2_f0046182.jpg", "0001_c5_f0051341.jpg")
#: The category of the first holds a `_`.
FASHION = (
    "fashionWOMENTees_Tanksid0000783805_7additional.jpg",
    "fashionWOMENTees_Tanksid0000783805_1front.jpg",
)


def folder_of(place, *names: str):
    """A folder with empty files, because names alone are read here."""
    place.mkdir(exist_ok=True)
    for name in names:
        (place / name).touch()
    return place


def read(folder, layout: str) -> list[tuple[str, str]]:
    pairs, files = pairs_of_files(folder, image_files(folder), layout, LAYOUTS[layout])
    assert len(files) == len(pairs)
    return list(pairs.itertuples(index=False, name=None))


def refused(folder, layout: str) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, layout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def placed(folder, layout: str, count: int, partial: bool = False) -> dict[int, str]:
    """Place -> file, for a list of `count` pairs."""
    pairs = pd.DataFrame({"from": [f"{i}a.jpg" for i in range(count)], "to": [f"{i}b.jpg" for i in range(count)]})
    found = files_of_pairs(folder, image_files(folder), pairs, layout, LAYOUTS[layout], partial)
    return {place: path.name for place, path in found.items()}


# -- names that hold pairs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [MARKET, DUKE, FASHION, MARKET[::-1], ("-1_c1s1_000401_03.jpg", MARKET[0])])
@pytest.mark.parametrize(
    ("layout", "grammar"),
    [
        ("patn", "{a}___{b}_vis.jpg"),
        ("patn", "{sa}___{sb}_vis.png"),
        ("deform", "{a}_{b}.png"),
        ("deform", "{sa}_{sb}.png"),
        ("gfla", "{sa}_2_{sb}_vis.jpg"),
        ("gfla", "{a}_2_{b}_vis.jpg"),
        ("plain", "{sa}_to_{sb}.png"),
        ("plain", "{sa}_{sb}.jpg"),
        ("plain", "{a}___{sb}_vis.png"),
        ("cfld", "{sa}_2_{sb}_vis.png"),
        ("cfld", "{sa}_to_{sb}.png"),
        ("adgan", "{a}___{b}_vis.jpg"),
        ("pidm", "{sa}_{sb}.png"),
    ],
)
def test_names_of_the_three_data_sets_are_split_in_every_scheme(tmp_path, pair, layout: str, grammar: str) -> None:
    a, b = pair
    name = grammar.format(a=a, b=b, sa=a.removesuffix(".jpg"), sb=b.removesuffix(".jpg"))
    assert read(folder_of(tmp_path / "r", name, "index.html"), layout) == [pair]


def test_a_name_that_ends_in_jpg_twice_stays_so(tmp_path) -> None:
    folder = folder_of(tmp_path / "r", "0152_c1s1_000001_00.jpg.jpg___0152_c2s1_000002_00.jpg_vis.jpg")
    assert read(folder, "patn") == [("0152_c1s1_000001_00.jpg.jpg", "0152_c2s1_000002_00.jpg")]


def test_other_names_are_split_only_where_there_is_no_doubt(tmp_path) -> None:
    assert read(folder_of(tmp_path / "1", "anna_1___anna_2_vis.jpg"), "patn") == [("anna_1", "anna_2")]
    assert read(folder_of(tmp_path / "2", "anna_to_bert.png"), "plain") == [("anna", "bert")]
    assert read(folder_of(tmp_path / "3", "anna_1.jpg_bert_2.jpg.png"), "deform") == [("anna_1.jpg", "bert_2.jpg")]
    # One image of its own is no pair, whatever the number of `_` in it.
    message = refused(folder_of(tmp_path / "4", "img_001.png", "img_002.png", "anna___bert.png"), "plain")
    assert "2 of 3 names cannot be read as pairs; the first, img_001.png, does not hold two image names" in message
    assert "name a pair list with --pairs" in message
    message = refused(folder_of(tmp_path / "5", "a_to_b_to_c.png", "anna___bert.png"), "plain")
    assert "1 of 2 names cannot be read as pairs; the first, a_to_b_to_c.png, may be a,b_to_c or a_to_b,c" in message
    assert "cannot be read" in refused(folder_of(tmp_path / "6", "____.png"), "plain")
    assert "may be a.jpg,b.jpg_c.jpg or a.jpg_b.jpg,c.jpg" in refused(
        folder_of(tmp_path / "7", "a.jpg_b.jpg_c.jpg.png"), "deform"
    )


def test_a_wrong_layout_is_named_with_one_that_fits(tmp_path) -> None:
    folder = folder_of(tmp_path / "r", f"{bare(MARKET[0])}_2_{bare(MARKET[1])}_vis.jpg")
    message = refused(folder, "patn")
    assert "1 of 1 names cannot be read as pairs" in message
    assert "(layout patn: <from>___<to>_vis.jpg); try layout gfla, or name a pair list" in message
    assert "try layout numbered" in refused(folder_of(tmp_path / "n", "00001.png"), "plain")
    message = refused(folder, "numbered")
    assert "1 of 1 names are no numbers, first 0007_c2s3_070952_01_2_0007_c3s3_077419_03_vis.jpg" in message


def test_two_files_of_one_pair_are_refused(tmp_path) -> None:
    a, b = MARKET
    names = (f"{a}___{b}_vis.jpg", f"{bare(a)}___{bare(b)}_vis.png", f"{b}___{a}_vis.jpg", f"{b}___{a}_vis.png")
    message = refused(folder_of(tmp_path / "r", *names), "patn")
    assert f"{names[0]} and {names[1]} are one pair; keep one of them; 2 files are such" in message
    assert "01.png and 1.png are one pair" in refused(folder_of(tmp_path / "n", "1.png", "01.png"), "numbered")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_pair_of_data_set_names_is_read_back(data) -> None:
    digits = st.integers(0, 9999).map("{:04}".format)
    market = st.builds("{}_c{}s{}_{:06}_{:02}".format, digits, st.integers(1, 6), st.integers(1, 6),
                       st.integers(0, 999999), st.integers(0, 99))  # fmt: skip
    fashion = st.builds("fashion{}{}id{:010}_{}{}".format, st.sampled_from(["MEN", "WOMEN"]),
                        st.sampled_from(["Denim", "Tees_Tanks", "Sweatshirts_Hoodies"]),
                        st.integers(0, 9999999999), st.integers(1, 7), st.sampled_from(["front", "additional"]))  # fmt: skip
    pair = data.draw(st.tuples(market, market) | st.tuples(fashion, fashion))
    layout = data.draw(st.sampled_from([name for name in LAYOUTS if not LAYOUTS[name].numbered]))
    grammar = LAYOUTS[layout]
    between, ending = data.draw(st.sampled_from(grammar.between)), data.draw(st.sampled_from(grammar.endings))
    suffix = data.draw(st.sampled_from(["", ".jpg"]))

    class File:  # what is read of a path
        name = stem = f"{pair[0]}{suffix}{between}{pair[1]}{suffix}{ending}"

    pairs, _ = pairs_of_files("folder", [File()], layout, grammar)
    assert tuple(pairs.loc[0]) == (pair[0] + ".jpg", pair[1] + ".jpg")


def test_the_data_sets_names_are_those_of_their_facts(repository) -> None:
    examples = {"market1501": [*MARKET, "-1_c1s1_000401_03.jpg"], "dukemtmc": DUKE, "deepfashion": FASHION}
    for kind, names in examples.items():
        pattern = yaml.safe_load((repository / "benchmarks" / f"{kind}.yaml").read_text())["name_pattern"]
        for name in names:
            assert re.fullmatch(pattern, name)
            assert dataset_name(name) == dataset_name(bare(name)) == name
    for other in ("img_001.jpg", "0007_c2s3_070952", "fashionWOMEN", "0007", ""):
        assert dataset_name(other) is None


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_that_tell_from_where_they_are_counted(tmp_path) -> None:
    zero = folder_of(tmp_path / "zero", "00000.png", "00001.png", "00002.png")
    one = folder_of(tmp_path / "one", "1.jpg", "2.jpg", "3.jpg")
    assert placed(zero, "numbered", 3) == {0: "00000.png", 1: "00001.png", 2: "00002.png"}
    assert placed(one, "numbered", 3) == {0: "1.jpg", 1: "2.jpg", 2: "3.jpg"}
    many = folder_of(tmp_path / "many", *(f"{i}.png" for i in range(12)))  # in the order of numbers, not of names
    assert list(placed(many, "numbered", 12).values()) == [f"{i}.png" for i in range(12)]
    assert placed(folder_of(tmp_path / "vis", "0_vis.jpg", "1_vis.jpg"), "numbered", 2) == {
        0: "0_vis.jpg",
        1: "1_vis.jpg",
    }


def test_numbers_that_do_not_tell_are_refused_until_it_is_said(tmp_path) -> None:
    folder = folder_of(tmp_path / "r", "1.png", "2.png")  # 0 is missing, or 3 is
    with pytest.raises(UserError) as caught:
        placed(folder, "numbered", 3)
    assert "its numbers run from 1 to 2, and may count the 3 pairs from 0 or from 1" in str(caught.value)
    assert "numbered-from-0 or numbered-from-1" in str(caught.value)
    with pytest.raises(UserError, match=r"1 of 3 pairs have no image, first row 1 \(0a\.jpg,0b\.jpg\)"):
        placed(folder, "numbered-from-0", 3)
    assert placed(folder, "numbered-from-0", 3, partial=True) == {1: "1.png", 2: "2.png"}
    assert placed(folder, "numbered-from-1", 3, partial=True) == {0: "1.png", 1: "2.png"}


def test_numbers_outside_of_the_list_are_refused(tmp_path) -> None:
    folder = folder_of(tmp_path / "r", "0.png", "1.png", "2.png")
    with pytest.raises(UserError, match=r"1 of 3 numbers are outside of 0 to 1, first 2\.png"):
        placed(folder, "numbered", 2)
    with pytest.raises(UserError, match=r"1 of 3 numbers are outside of 1 to 3, first 0\.png"):
        placed(folder, "numbered-from-1", 3)


@given(count=st.integers(1, 12), start=st.sampled_from([0, 1]), lost=st.sets(st.integers(0, 11), max_size=8))
@settings(max_examples=80, deadline=None)
def test_an_inferred_start_is_never_the_wrong_one(count: int, start: int, lost: set[int]) -> None:
    class File:
        def __init__(self, number: int) -> None:
            self.stem, self.name = str(number), f"{number}.png"

    numbers = [start + place for place in range(count) if place not in lost]
    if not numbers:
        return
    pairs = pd.DataFrame({"from": ["a"] * count, "to": ["b"] * count})
    try:
        found = files_of_pairs("r", [File(n) for n in numbers], pairs, "numbered", LAYOUTS["numbered"], True)
    except UserError:
        assert lost  # whole folders are always understood
        return
    assert {place: int(file.stem) - start for place, file in found.items()} == {n - start: n - start for n in numbers}


def test_what_a_number_is(tmp_path) -> None:
    for name, number in (
        ("00047.png", 47),
        ("0.jpg", 0),
        ("a1.png", None),
        ("1_2.png", None),
        ("-1.png", None),
        ("²", None),
    ):
        assert number_of(tmp_path / name) == number
    assert number_of(tmp_path / "47_vis.jpg", ("", "_vis")) == 47


def test_numbers_without_a_list_are_pairs_of_their_own(tmp_path) -> None:
    folder = folder_of(tmp_path / "r", "10.png", "9.png", "007.png")
    assert read(folder, "numbered") == [("7", "7"), ("9", "9"), ("10", "10")]
