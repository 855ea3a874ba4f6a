"""The figure of the choice of alpha: a valid picture that says what was chosen, and warns at an edge."""

import xml.etree.ElementTree as ElementTree

import numpy as np

from unibrain.regression import AlphaChoice
from unibrain.regression.alpha_plot import alpha_figure, edge_warning

GRID = np.logspace(1, 5, 5)
PEAK = np.array([0.02, 0.1, 0.3, 0.2, 0.05])


def choice(r2, per="latent"):
    r2 = np.atleast_2d(r2)
    return AlphaChoice(GRID, r2, np.sqrt(np.abs(r2)), per, 12, 12, 5, 9, 9, 0)


TOKENS = choice(np.stack([PEAK, np.roll(PEAK, 1), np.roll(PEAK, 2), np.zeros(5)]), "token")


def texts(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return "\n".join("".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text"))


def test_figure_says_what_was_chosen():
    shown = texts(alpha_figure({"z_image": choice(PEAK), "c_text": TOKENS}))
    assert "image latent (AutoKL)" in shown
    assert "CLIP-Text tokens" in shown
    assert "best alpha 1e+03\n" in shown
    assert "alpha 1e+03 to 1e+05, median 1e+04" in shown
    assert "explained variance" in shown
    assert "correlation" in shown


def test_edges_are_warned_of():
    falling = choice(PEAK[::-1] - np.arange(5))
    assert edge_warning(choice(PEAK)) == ""
    assert edge_warning(falling) == "best at the edge of the grid: try alphas beyond 10 to 100000"
    assert edge_warning(TOKENS) == "1 of 4 tokens at the edge of the grid: try alphas beyond 10 to 100000"
    assert "edge of the grid" in texts(alpha_figure({"z_image": falling})).replace("\n", " ")
    assert "edge of the grid" not in texts(alpha_figure({"z_image": choice(PEAK)})).replace("\n", " ")


def test_the_same_choice_is_the_same_file():
    assert alpha_figure({"c_text": TOKENS}) == alpha_figure({"c_text": TOKENS})


def test_constant_latents_and_one_alpha_are_drawn():
    assert "nothing varies" in texts(alpha_figure({"z_text": choice(np.zeros(5))}))
    one = np.array([[0.25]])
    alone = AlphaChoice(np.array([30.0]), one, one, "latent", 4, 4, "loo", 9, 9, 0)
    assert "best alpha 30" in texts(alpha_figure({"other <latent> & more": alone}))
    assert "other <latent> & more" in texts(alpha_figure({"other <latent> & more": alone}))


def test_hundreds_of_thousands_of_targets_make_a_small_file():
    rng = np.random.default_rng(0)
    many = choice(PEAK + 0.1 * rng.standard_normal((100_000, 5)), "target")
    assert len(alpha_figure({"c_image": many})) < 100_000
