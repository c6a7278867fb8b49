"""Tests of the archives that CFLD, PIDM and ADGAN released and of numbered results, by `potgan score` and by `external_methods`.

The files are made here in the shapes of the archives. Every pixel of a panel tells which panel of which pair it is, so that the
mean difference to the targets (L1) tells what was measured against what. Real strips are renamed in a copy, if they lie beside the
repository.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potgan import cli
from potgan.common.errors import UserError
from potgan.data.pairs import pairs_csv
from potgan.measure.released import TargetFolder, read_results
from potgan.measure.released_layouts import LAYOUTS, layout_of, places_in, strip_of
from potgan.pipeline import stages
from potgan.settings.layout import Layout
from potgan.settings.reading import load
from potgan.settings.schema import PIDM_PANELS, RESULT_LAYOUTS, Benchmark

PAIRS = pd.DataFrame(
    {
        "from": [f"fashionWOMENTees_Tanksid00000{i:03}01_1front.jpg" for i in (80, 81, 82)],
        "to": [f"fashionWOMENTees_Tanksid00000{i:03}01_7additional.jpg" for i in (80, 81, 82)],
    }
)
#: The panels of PIDM's comparison as its README lists them.
PIDM_ORDER = ["target pose", "source", "ground truth", "ADGAN", "PISE", "GFLA", "DPTN", "CASD", "NTED", "PIDM"]

#: The protocol `patn` gives 176 columns 40 white ones left and right, where results and targets are equal (docs/decisions.md, D39).
OF_256 = 176 / 256


pytestmark = pytest.mark.usefixtures("no_weights")


def write(path: Path, *values: int, size: tuple[int, int] = (256, 176), noise: int | None = None) -> None:
    """Write panels of one grey level each, side by side, or noise of a seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.concatenate([np.full((*size, 3), value, np.uint8) for value in values], axis=1)
    if noise is not None:
        image = np.random.default_rng(noise).integers(0, 256, image.shape, np.uint8)
    assert cv2.imwrite(str(path), image)


def names(between: str = "___", ending: str = "", jpg: bool = False) -> list[str]:
    return [
        (f"{a}{between}{b}" if jpg else f"{a[:-4]}{between}{b[:-4]}") + ending for a, b in PAIRS.itertuples(index=False)
    ]


class Program:
    """`potgan score` in this process, which takes milliseconds where a new one takes seconds."""

    def __init__(self, capsys, place: Path) -> None:
        self.capsys, self.place = capsys, place
        (place / "pairs.csv").write_text(pairs_csv(PAIRS))

    def arguments(
        self, layout: str, *more: str, images: str = "results", pairs: str | Path | None = None, protocol="patn"
    ):
        pairs = pairs or self.place / "pairs.csv"
        return list(map(str, ["score", "--images", self.place / images, "--layout", layout, "--pairs", pairs, "--protocol",
                protocol, "--out", self.place / "out", *more]))  # fmt: skip

    def scores(self, *arguments: str, **options: str) -> dict:
        code = cli.main(self.arguments(*arguments, **options))
        assert code == 0, self.capsys.readouterr().err
        return json.loads((self.place / "out" / "scores.json").read_text())

    def l1(self, *arguments: str, **options: str) -> float:
        return self.scores(*arguments, **options)["metrics"]["l1"]["value"]

    def refused(self, *arguments: str, **options: str) -> str:
        self.capsys.readouterr()
        assert cli.main(self.arguments(*arguments, **options)) == 2
        lines = [line for line in self.capsys.readouterr().err.splitlines() if "error:" in line or "Traceback" in line]
        assert len(lines) == 1, lines
        assert lines[0].startswith("potgan score: error: ")
        return lines[0]


@pytest.fixture
def program(capsys, tmp_path) -> Program:
    return Program(capsys, tmp_path)


# -- layouts ----------------------------------------------------------------------------------------------------------


def test_every_layout_that_a_configuration_may_name_is_there() -> None:
    assert [layout_of(name).strips for name in RESULT_LAYOUTS]
    assert {name.partition(":")[0] for name in RESULT_LAYOUTS} == set(LAYOUTS)
    assert PIDM_ORDER[3:] == list(PIDM_PANELS)


@given(st.sampled_from([(128, 64), (256, 176), (256, 256), (64, 32)]), st.sampled_from(RESULT_LAYOUTS), st.data())
@settings(max_examples=80)
def test_a_width_means_one_number_of_panels_or_is_refused(size, name: str, data) -> None:
    layout = layout_of(name)
    size = data.draw(st.sampled_from(layout.sizes)) if layout.sizes else size
    strip = data.draw(st.sampled_from(layout.strips))
    assert strip_of((size[0], size[1] * len(strip)), layout, name, "x") == strip
    if name != "plain":
        with pytest.raises(UserError, match="; check the layout"):
            strip_of((size[0], size[1] * len(strip) + 1), layout, name, "x")


@pytest.mark.parametrize("method", PIDM_ORDER[3:])
def test_a_panel_of_pidms_rows_is_chosen_by_its_name(method: str) -> None:
    places = places_in(layout_of(f"pidm:{method}").strips[0])
    assert places == {"source": 1, "target": 2, "result": PIDM_ORDER.index(method)}


# -- PIDM -------------------------------------------------------------------------------------------------------------


def pidm(place: Path, panels: int = 10, size=(256, 176), suffix: str = "png") -> None:
    for name in names("_"):
        write(place / "results" / f"{name}.{suffix}", *range(100, 100 + 10 * panels, 10), size=size)


def test_pidms_rows_give_each_method_its_panel(program, tmp_path) -> None:
    pidm(tmp_path)
    for method in ("ADGAN", "NTED", "PIDM"):  # the ground truth is 120, ADGAN 130, NTED 180, PIDM 190
        assert program.l1("pidm", "--panel", method) == OF_256 * {"ADGAN": 10, "NTED": 60, "PIDM": 70}[method]
    scores = program.scores("pidm:CASD", pairs="from-names")
    assert scores["metrics"]["l1"]["value"] == OF_256 * 50
    assert scores["method"] == "results/CASD"
    assert (scores["origin"]["layout"], scores["origin"]["panels"]) == ("pidm:CASD", 10)
    assert program.l1("pidm:CASD", "--use", "source") == OF_256 * 10


def test_what_pidms_rows_are_refused_for(program, tmp_path) -> None:
    pidm(tmp_path)
    all_of_them = ", ".join(PIDM_PANELS)
    assert f"holds the results of several methods; choose one of the panels {all_of_them}" in program.refused("pidm")
    assert f"there is no panel 'PATN'; choose one of the panels {all_of_them}" in program.refused(
        "pidm", "--panel", "PATN"
    )
    assert "layout patn: each file holds one result" in program.refused("patn", "--panel", "NTED")
    for change, stated in (
        (
            {"panels": 8},
            "is 1408 x 256 pixels (width x height), and 10 panels side by side (layout pidm:NTED) must be 1760 x 256",
        ),
        ({"size": (256, 256)}, "is 2560 x 256 pixels"),
    ):
        pidm(tmp_path, **change)
        assert stated in program.refused("pidm", "--panel", "NTED")
    pidm(tmp_path)
    write(tmp_path / "results" / f"{names('_')[2]}.png", *range(9))
    assert "must be of one size" in program.refused("pidm", "--panel", "NTED")


# -- ADGAN ------------------------------------------------------------------------------------------------------------


def adgan(place: Path, panels: int = 5, size=(256, 176), suffix: str = "png") -> None:
    for name in names("___", "_vis", jpg=True):
        write(place / "results" / f"{name}.{suffix}", *(50, 250, 100, 250, 107)[:panels], size=size)


def test_adgans_strips_of_five(program, tmp_path) -> None:
    adgan(tmp_path)
    assert program.l1("adgan") == OF_256 * 7
    assert program.l1("adgan", pairs="from-names") == OF_256 * 7
    assert program.l1("adgan", "--use", "source") == OF_256 * 50
    adgan(tmp_path, panels=3)
    assert "is 528 x 256 pixels (width x height), and 5 panels side by side (layout adgan) must be 880 x 256" in (
        program.refused("adgan")
    )
    adgan(tmp_path, size=(128, 64))
    assert "must be 880 x 256" in program.refused("adgan")
    adgan(tmp_path)
    adgan(tmp_path, suffix="jpg")
    assert "are one pair; keep one of them" in program.refused("adgan")
    (tmp_path / "results" / f"{names('___', '_vis', jpg=True)[1]}.png").unlink()
    for index in (0, 2):
        (tmp_path / "results" / f"{names('___', '_vis', jpg=True)[index]}.jpg").unlink()
    assert "holds PNG and JPEG files side by side" in program.refused("adgan", pairs="from-names")


# -- CFLD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 176), (512, 352), (128, 64)])
@pytest.mark.parametrize(("between", "ending"), [("_to_", ""), ("_2_", "_vis"), ("_", ""), ("___", "")])
def test_cflds_folders_of_several_methods(program, tmp_path, size, between: str, ending: str) -> None:
    for row, (method, name) in enumerate((m, n) for m in ("NTED", "CFLD") for n in names(between, ending)):
        write(tmp_path / "results" / method / f"{name}.png", 103 if method == "NTED" else 109, size=size)
        write(tmp_path / "targets" / PAIRS["to"][row % 3].replace(".jpg", ".png"), 100, size=size)
    for method, expected in (("NTED", 3), ("CFLD", 9)):
        more = ("--targets", str(tmp_path / "targets"))
        assert program.l1("cfld", *more, images=f"results/{method}", protocol="clean") == expected
        assert program.l1("cfld", *more, images=f"results/{method}", protocol="clean", pairs="from-names") == expected
    assert "holds no PNG or JPEG image; its folder CFLD does; name that" in program.refused("cfld")


def test_what_cflds_folders_are_refused_for(program, tmp_path) -> None:
    for name in names("_to_"):
        write(tmp_path / "results" / f"{name}.png", 3)
    assert "its files hold no targets; name the folder of the data set's images with --targets" in program.refused(
        "cfld"
    )
    for name in names("_to_"):
        write(tmp_path / "results" / f"{name}.png", 3, size=(256, 256))
    assert "and 1 panel (layout cfld) must be 176 x 256, 352 x 512 or 64 x 128; check the layout" in program.refused(
        "cfld"
    )
    for name in names("_to_"):
        (tmp_path / "results" / f"{name}.png").unlink()
        write(tmp_path / "results" / f"{name}.jpg", 3)
    assert "holds JPEG files, and those of layout cfld are PNG; check the layout" in program.refused("cfld")


# -- numbers ----------------------------------------------------------------------------------------------------------


def numbered(
    place: Path, start: int = 0, gen: str = "png", to: str | None = "png", count: int = 3, digits: int = 1
) -> None:
    """gen/<number>.png and to/<number>.png; pair k is 10 k and 10 k + k."""
    for k in range(count):
        name = f"{start + k:0{digits}}"
        write(place / "gen" / f"{name}.{gen}", 10 * k, size=(64, 32))
        if to:
            write(place / "to" / f"{start + k}.{to}", 10 * k + k, size=(64, 32))


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("pairs", [None, "from-names"])
def test_generated_and_target_by_the_same_number(program, tmp_path, start: int, pairs: str | None) -> None:
    numbered(tmp_path, start, count=3, digits=5)
    scores = program.scores("numbered", "--targets", str(tmp_path / "to"), images="gen", pairs=pairs)
    assert scores["metrics"]["l1"]["value"] == 1  # the mean of 0, 1 and 2
    assert scores["origin"]["targets"] == "numbers"
    assert scores["origin"]["pairs"] == ("from-names" if pairs else "list")
    table = pd.read_csv(tmp_path / "out" / "per-pair.csv", dtype=str)
    assert table["to"].tolist() == ([str(start + k) for k in range(3)] if pairs else PAIRS["to"].tolist())
    assert table["l1"].astype(float).tolist() == [0, 1, 2]


def test_numbers_and_the_data_sets_own_images(program, tmp_path) -> None:
    numbered(tmp_path, to=None)
    for k, name in enumerate(PAIRS["to"]):
        write(tmp_path / "targets" / name.replace(".jpg", ".png"), 10 * k + k, size=(64, 32))
    more = ("--targets", str(tmp_path / "targets"))
    assert program.l1("numbered", *more, images="gen", protocol="clean") == 1
    message = program.refused("numbered", *more, images="gen", pairs="from-names")
    assert (
        "is not named by the results' numbers, which alone tell no target; name the pair list with --pairs" in message
    )
    line = program.refused("numbered", "--keypoints", "k.csv", images="gen", pairs="from-names")
    assert "named by numbers, which have no key points" in line


def test_numbered_strips_need_no_list(program, tmp_path) -> None:
    for k in range(3):  # as the 100 results of PG2 with index names: source, target, generated
        write(tmp_path / "results" / f"{k + 100:05}.png", 9, 20, 20 + k, size=(128, 64))
    assert program.l1("numbered", pairs="from-names") == 1
    assert "3 of 3 numbers are outside" in program.refused("numbered")
    write(tmp_path / "results" / "00100.png", 9, 20, 20, 20, size=(128, 64))
    message = program.refused("numbered", pairs="from-names")
    assert "1, 3 or 5 panels of this height side by side (layout numbered) are" in message


def test_a_start_that_the_numbers_do_not_tell_must_be_said(program, tmp_path) -> None:
    numbered(tmp_path, start=1, count=2)
    more = ("--targets", str(tmp_path / "to"))
    assert "may count the 3 pairs from 0 or from 1" in program.refused("numbered", *more, images="gen")
    assert "1 of 3 pairs have no image, first row 3" in program.refused("numbered-from-1", *more, images="gen")
    assert "1 of 3 pairs have no image, first row 1" in program.refused("numbered-from-0", *more, images="gen")
    for layout, rows in (("numbered-from-1", [0, 1]), ("numbered-from-0", [1, 2])):
        scores = program.scores(layout, *more, "--partial", images="gen")
        assert scores["n_pairs"] == 2
        assert pd.read_csv(tmp_path / "out" / "per-pair.csv")["to"].tolist() == PAIRS["to"][rows].tolist()
    assert "measures the 2 of 3 pairs that have an image" in program.capsys.readouterr().err


def test_png_results_beside_jpeg_targets(program, tmp_path) -> None:
    numbered(tmp_path, to="jpg")
    more = ("--targets", str(tmp_path / "to"))
    message = program.refused("numbered", *more, images="gen")
    assert "holds PNG files, and its targets are JPEG, or measure them --as-they-are" in message
    assert (
        program.scores("numbered", *more, "--as-they-are", images="gen")["protocol"]["id"] == "patn-as-they-are-strip"
    )
    write(tmp_path / "to" / "0.png", 0, size=(64, 32))
    assert "0.jpg and 0.png are one pair" in program.refused("numbered", *more, images="gen")
    (tmp_path / "to" / "0.jpg").unlink()
    assert "holds PNG and JPEG files side by side (0.png, 1.jpg)" in program.refused("numbered", *more, images="gen")


def test_released_targets_are_not_the_data_sets_own(program, tmp_path) -> None:
    numbered(tmp_path)
    message = program.refused("numbered", "--targets", str(tmp_path / "to"), images="gen", protocol="clean")
    assert (
        "its targets are those that were released with the results, and protocol clean demands the data set's own"
        in message
    )


def test_numbers_that_do_not_meet(program, tmp_path) -> None:
    numbered(tmp_path)
    more = ("--targets", str(tmp_path / "to"))
    (tmp_path / "to" / "1.png").unlink()
    for pairs in (None, "from-names"):
        message = program.refused("numbered", *more, images="gen", pairs=pairs)
        assert "1 of 3 results have no target of their number, first" in message
        assert "(number 1)" in message
    numbered(tmp_path)
    write(tmp_path / "to" / "3.png", 0, size=(64, 32))
    message = program.refused("numbered", *more, images="gen", pairs="from-names")
    assert "1 of 4 targets have no result of their number, first 3.png" in message
    write(tmp_path / "to" / "1.png", 0, size=(64, 33))
    (tmp_path / "to" / "3.png").unlink()
    assert "targets must be of the results' size" in program.refused("numbered", *more, images="gen")
    for name in names():
        write(tmp_path / "named" / f"{name}.png", 0, size=(64, 32))
    message = program.refused("plain", *more, images="named", pairs="from-names")
    assert "is named by numbers, which are places in a pair list; name that list" in message


def test_a_list_in_another_order_is_noticed_where_a_target_stands_twice(program, tmp_path) -> None:
    pairs = pd.DataFrame({"from": ["a.jpg", "b.jpg", "c.jpg"], "to": ["x.jpg", "y.jpg", "x.jpg"]})
    for k, value in enumerate((10, 20, 10)):
        write(tmp_path / "gen" / f"{k}.png", value, size=(64, 32))
        write(tmp_path / "to" / f"{k}.png", value, size=(64, 32))
    (tmp_path / "list.csv").write_text(pairs_csv(pairs))
    (tmp_path / "other.csv").write_text(pairs_csv(pairs.iloc[[0, 2, 1]]))
    more = ("--targets", str(tmp_path / "to"))
    assert program.l1("numbered", *more, images="gen", pairs=tmp_path / "list.csv") == 0
    message = program.refused("numbered", *more, images="gen", pairs=tmp_path / "other.csv")
    assert "0.png and 1.png are different images, and the pair list says that both are x.jpg" in message


def test_names_of_a_data_set_that_are_numbers_are_believed(tmp_path) -> None:
    for k in range(3):
        write(tmp_path / f"{k}.png", 10 * k, size=(64, 32))
    found = TargetFolder(tmp_path, ["2.jpg", "0.jpg"], numbers=[0, 1])
    assert (found.found, found.file_format) == ({"2.jpg": "2.png", "0.jpg": "0.png"}, None)


# -- external methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["pidm:NTED", "adgan", "cfld", "numbered", "numbered-from-0"])
def test_each_layout_becomes_a_row_of_a_benchmark(tmp_path, monkeypatch, layout: str) -> None:
    monkeypatch.chdir(tmp_path)
    released = tmp_path / "released"
    for k, (row, five, name) in enumerate(zip(names("_"), names("___", "_vis", jpg=True), names("_to_"), strict=True)):
        match layout:
            case "pidm:NTED":
                write(released / f"{row}.png", *range(100 + k, 200 + k, 10))
            case "adgan":
                write(released / f"{five}.png", 0, 0, 0, 0, 180 + k)
            case "cfld":
                write(released / f"{name}.png", 180 + k)
            case _:
                write(released / f"{k:05}.png", 180 + k)
    benchmark, place = with_row(tmp_path, {"layout": layout})
    stages.generate.__wrapped__(benchmark, place, "deepfashion", "theirs", 0)
    made = place.generate("deepfashion", "theirs", 0)
    table = pd.read_csv(made / "generated.csv")
    assert table[["from", "to"]].equals(PAIRS)
    assert [set(cv2.imread(str(made / file)).ravel()) for file in table["file"]] == [{180}, {181}, {182}]
    record = json.loads((made / "generate.json").read_text())
    assert (record["layout"], record["panels"]) == (layout, {"pidm:NTED": 10, "adgan": 5}.get(layout, 1))


def with_row(folder: Path, row: dict) -> tuple[Benchmark, Layout]:
    """A benchmark with one row of released results, and its pairs."""
    external = {"label": "Theirs", "dataset": "deepfashion", "images": "released"} | row
    benchmark = load(
        {
            "benchmark": "trial",
            "description": "A trial.",
            "protocol": "clean",
            "datasets": {"deepfashion": {"kind": "deepfashion", "label": "D", "source": "x", "image_size": [256, 176]}},
            "models": {"potgan": {}},
            "external_methods": {"theirs": external},
        }
    )
    place = Layout("trial", folder)
    place.pairs("deepfashion").mkdir(parents=True)
    (place.pairs("deepfashion") / "pairs-test.csv").write_text(pairs_csv(PAIRS))
    return benchmark, place


@pytest.mark.parametrize("layout", ["numbered", "numbered-from-1"])
def test_a_row_is_not_measured_against_targets_that_came_with_the_results(tmp_path, monkeypatch, layout: str) -> None:
    """`potgan score` refuses them, too, under a protocol that demands the data set's own."""
    monkeypatch.chdir(tmp_path)
    first = int(layout != "numbered")
    for k in range(3):
        write(tmp_path / "released" / f"{first + k:05}.png", 180 + k)
        write(tmp_path / "to" / f"{first + k}.png", 50 + k)
    benchmark, place = with_row(tmp_path, {"layout": layout, "targets": "to"})
    with pytest.raises(UserError, match=r"external_methods\.theirs\.targets: to was released with the results"):
        stages.generate.__wrapped__(benchmark, place, "deepfashion", "theirs", 0)
    assert not place.generate("deepfashion", "theirs", 0).exists()


def test_a_configuration_names_the_panel() -> None:
    external = {"label": "T", "dataset": "synthetic", "images": "x", "layout": "pidm"}
    tree = {
        "benchmark": "trial",
        "description": "A trial.",
        "protocol": "potgan-synthetic",
        "datasets": {"synthetic": {"kind": "synthetic", "label": "S"}},
        "models": {"potgan": {}},
        "external_methods": {"t": external},
    }
    with pytest.raises(UserError, match=r"external_methods\.t\.layout must be one of .*pidm:NTED.*, and is 'pidm'"):
        load(tree)


# -- real released results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "layout"), [("vunet", "patn"), ("deform", "deform"), ("deform", "plain")])
def test_the_names_of_real_results_tell_the_pairs_that_their_authors_list(shared, method: str, layout: str) -> None:
    panels = shared / "market1501-sample" / "panels"
    if layout == "plain":  # the names alone, since `plain` has no strips
        from potgan.measure.released_names import image_files, pairs_of_files

        found, _ = pairs_of_files(panels, image_files(panels / method), layout, LAYOUTS[layout])
    else:
        found = read_results(panels / method, layout, None, want=("result",)).pairs
    listed = pd.read_csv(panels / f"{method}-pairs.csv")
    assert len(found) == 100
    assert set(found.itertuples(index=False, name=None)) == set(listed.itertuples(index=False, name=None))


def test_real_results_have_the_same_ssim_by_list_by_names_and_by_numbers(shared, program, tmp_path) -> None:
    """VUNet's 100 strips on Market-1501. Their SSIM is 0.262, where PATN's authors measured 0.266 on all pairs."""
    panels = shared / "market1501-sample" / "panels"
    listed = pd.read_csv(panels / "vunet-pairs.csv")
    for row, (source, target) in enumerate(listed.itertuples(index=False)):
        file = panels / "vunet" / f"{source}___{target}_vis.jpg"
        (tmp_path / "strips").mkdir(exist_ok=True)
        (tmp_path / "strips" / f"{row:05}.jpg").write_bytes(file.read_bytes())
        strip = cv2.imread(str(file))
        for folder, panel in (("gen", strip[:, 128:]), ("to", strip[:, 64:128])):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{row + 1}.png"), panel)
    (tmp_path / "original").symlink_to(panels / "vunet")
    ways = [
        program.scores("patn", images="original", pairs=panels / "vunet-pairs.csv"),
        program.scores("patn", images="original", pairs="from-names"),
        program.scores("numbered", images="strips", pairs=panels / "vunet-pairs.csv"),
        program.scores("numbered", images="strips", pairs="from-names"),
        program.scores("numbered", "--targets", str(tmp_path / "to"), images="gen", pairs=panels / "vunet-pairs.csv"),
        program.scores("numbered", "--targets", str(tmp_path / "to"), images="gen", pairs="from-names"),
    ]
    values = [scores["metrics"]["ssim"]["value"] for scores in ways]
    assert values == pytest.approx([0.262] * 6, abs=0.001)
    assert values == pytest.approx([values[0]] * 6, abs=1e-12)


def test_names_alone_find_key_points_of_real_results(shared, program, tmp_path) -> None:
    panels = shared / "market1501-sample" / "panels"
    (tmp_path / "original").symlink_to(panels / "vunet")
    keypoints = ("--keypoints", str(shared / "published" / "market-annotation-test.csv"))
    by_list = program.scores("patn", *keypoints, images="original", pairs=panels / "vunet-pairs.csv")
    by_names = program.scores("patn", *keypoints, images="original", pairs="from-names")
    value = by_names["metrics"]["mask_ssim"]["value"]
    assert value == pytest.approx(by_list["metrics"]["mask_ssim"]["value"], abs=1e-12)
    assert value == pytest.approx(0.793, abs=0.03)  # PATN re-ran VUNet on all 12,000 pairs (TABLE 1 of PATN's paper)
