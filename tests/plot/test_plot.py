"""What is drawn is what was given: read back from the axes."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from unibrain import plot
from unibrain.audit import Audit
from unibrain.audit.audit import Neighbours
from unibrain.errors import InputError
from unibrain.evaluation import Score, Scores
from unibrain.evaluation.scores import Beside
from unibrain.plot.canvas import STYLE, styled
from unibrain.reconstruction import Decoded
from unibrain.regression import BrainDecoder
from unibrain.scans import Subject
from unibrain.stimuli import Stimuli

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
DECODED = Decoded(np.array([4, 5, 9]), PICTURES, ("a red car", "", "costs $5 and $6"))
SCORES = Scores(
    (
        Score(
            "ssim", "SSIM", "picture", 0.4, 0.1, 3, True, interval=(0.3, 0.5), beside={"oracle": Beside(0.9, 0.4, 3)}
        ),
        Score("meteor", "METEOR", "caption", None, None, 3, True, note="no captions"),
        Score("far", "Distance", "picture", 0.7, None, 3, False, beside={"random": Beside(0.8, 0.7, 3)}),
    ),
    (4, 5, 9),
    (("z_text", "V1", 0.1), ("z_text", "all", 0.3), ("mine", "all", 0.2), ("mine", "V1", float("nan"))),
    simulated=True,
)
NEAR = Neighbours((), (0.1, 0.2, 0.31, 0.4, 0.5), (0.1, 0.2, 0.42, 0.4, 0.5), (0.0, 0.5, 1.0), (1, 3), (10, 40), 0.5)
EMPTY = Decoded(np.empty(0, np.int64), np.empty((0, 8, 8, 3), np.uint8))


def subject(grid: tuple[int, int, int] = (4, 3, 5)) -> Subject:
    """A voxel in every second place of the grid."""
    places = np.arange(0, int(np.prod(grid)), 2)
    n = len(places)
    return Subject(
        "subj01",
        np.zeros((2, n), np.float32),
        np.array([1, 2]),
        np.array([False, True]),
        np.array([3, 3]),
        places,
        grid,
        {"V1": np.arange(n) < 9},
        np.linspace(0, 50, n, dtype=np.float32),
        simulated=True,
    )


def audit(near: Neighbours | None) -> Audit:
    return Audit("subj01", False, "a run", "", (), neighbours=near)


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_pictures_stand_below_what_was_seen() -> None:
    stimuli = Stimuli(
        np.array([4, 5, 9]),
        {4: ("one", "more"), 5: ("two",), 9: ("three",)},
        lambda ids: np.stack([np.full((8, 8, 3), i, np.uint8) for i in ids]),
        "a test",
    )
    axes = plot.pictures(DECODED, stimuli, most=2)
    assert axes.shape == (2, 2)
    assert [panel.images[0].get_array()[0, 0, 0] for panel in axes[0]] == [4, 5]
    assert [panel.get_xlabel() for panel in axes[0]] == ["one", "two"]
    np.testing.assert_array_equal(axes[1, 1].images[0].get_array(), PICTURES[1])
    alone = plot.pictures(DECODED)
    assert alone.shape == (1, 3)
    alone[0, 0].figure.canvas.draw()  # a dollar begins a formula, which "$5 and $" is not
    assert not plot.pictures(Decoded(np.array([4]), None, ("only words",)))[0, 0].images


def test_scores_are_drawn_where_they_are() -> None:
    axes = plot.scores(SCORES)
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["score, 95 % interval"].get_xydata().tolist() == [[0.4, 0], [0.7, 1]]
    assert drawn["shuffled"].get_xydata().tolist() == [[0.1, 0]]
    assert drawn["ceilings"].get_xydata().tolist() == [[0.9, 0]]
    assert drawn["other controls"].get_xydata().tolist() == [[0.8, 1]]
    assert [0.3, 0.5] in [list(line.get_xdata()) for line in axes.lines]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["SSIM ↑", "Distance ↓"]
    assert "simulated" in axes.get_xlabel()


def test_accuracy_has_all_voxels_first_and_gaps_where_nothing_is_known() -> None:
    axes = plot.accuracy(SCORES)
    np.testing.assert_array_equal(np.ma.filled(axes.images[0].get_array(), np.nan), [[0.3, 0.2], [0.1, np.nan]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["all voxels", "V1"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["text latent\n(Optimus)", "mine"]
    assert "0.30" in [text.get_text() for text in axes.texts]


def test_neighbours_are_shares() -> None:
    axes = plot.neighbours(audit(NEAR))
    assert [patch.get_data().values.tolist() for patch in axes.patches] == [[0.25, 0.75], [0.2, 0.8]]
    assert "median 0.31" in axes.get_legend().get_texts()[0].get_text()


def test_slices_show_each_voxel_in_its_place() -> None:
    who = subject()
    values = np.arange(len(who.voxel_indices), dtype=float)
    axes = plot.slices(who, {"ceiling": values, "signed": values - 9}, who.regions, "percent")
    volume = np.full(60, np.nan)
    volume[who.voxel_indices] = values
    volume = volume.reshape(who.grid_shape)
    for panel in axes[0]:
        place = int(panel.get_title().removeprefix("slice "))
        np.testing.assert_array_equal(np.ma.filled(panel.images[0].get_array(), np.nan), volume[:, :, place].T)
    assert [image.get_cmap().name for image in (axes[0, 0].images[0], axes[1, 0].images[0])] == ["Greys", "RdBu_r"]
    low, high = axes[1, 0].images[0].get_clim()
    assert low == -high
    np.testing.assert_array_equal(who.volume(values, np.nan), volume)


def test_a_painted_region_is_seen_though_most_voxels_are_zero() -> None:
    who = subject((7, 7, 7))
    painted = np.zeros(len(who.voxel_indices))
    painted[0] = 2.0
    assert plot.slices(who, {"painted": painted})[0, 0].images[0].get_clim() == (0, 2)


def test_penalties_are_those_of_a_fit_in_the_figure_that_was_given() -> None:
    rng = np.random.default_rng(0)
    decoder = BrainDecoder(alphas=(1.0, 10.0, 100.0)).fit(
        rng.normal(size=(20, 5)), {"z_text": rng.normal(size=(20, 3))}
    )
    figure = Figure()
    axes = plot.penalties(decoder.alpha_choice_, figure)
    assert axes.shape == (2, 1)
    assert axes[0, 0].figure is figure
    assert not pyplot.get_fignums()
    np.testing.assert_array_equal(axes[0, 0].lines[1].get_ydata(), decoder.alpha_choice_["z_text"].r2[0])


def test_a_figure_leaves_the_style_of_the_process_alone() -> None:
    before = dict(pyplot.rcParams)
    plot.scores(SCORES)
    assert dict(pyplot.rcParams) == before


def test_a_notebook_that_becomes_interactive_with_its_first_figure_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pyplot.rcParams, "interactive", False)

    @styled
    def first() -> float:
        pyplot.rcParams["interactive"] = True  # as importing pyplot does in a notebook
        return float(pyplot.rcParams["font.size"])

    usual = pyplot.rcParams["font.size"]
    assert first() == STYLE["font.size"] != usual
    assert (pyplot.rcParams["interactive"], pyplot.rcParams["font.size"]) == (True, usual)


@pytest.mark.parametrize(
    ("draw", "given", "named"),
    [
        (plot.pictures, (EMPTY,), "nothing decoded"),
        (plot.pictures, (DECODED, None, 0), "at least one"),
        (plot.scores, (Scores((SCORES.scores[1],), (4,), (), simulated=False),), "no score has a value"),
        (plot.accuracy, (Scores(SCORES.scores, (4,), (), simulated=False),), "no accuracy of latents"),
        (plot.neighbours, (audit(None),), "a run: this audit looked at no latents"),
        (plot.slices, (subject(), {}), "subj01: there is no map"),
        (plot.slices, (subject(), {"short": [1, 2]}), "'short' has the shape (2,). Give one value for each of its 30"),
        (plot.penalties, ({},), "Choose alpha by cross-validation"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(draw: Any, given: tuple[Any, ...], named: str) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        draw(*given)
    assert not pyplot.get_fignums()
