"""Every example of the gallery at the smallest size, the notebook, and the pages that list them."""

import json
import re
import runpy
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from matplotlib import pyplot
from runs import SETTINGS, cheaply

from toy_backbone import ToyBackbone
from unibrain import evaluation, load_backbone
from unibrain.backbone import BackboneConfig
from unibrain.backbone.folder import backbone_folder
from unibrain.evaluation import METRICS
from unibrain.latents import LATENTS

ROOT = Path(__file__).parents[2]
ORDER: tuple[str, ...] = runpy.run_path(str(ROOT / "docs" / "gallery_order.py"))["ORDER"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for all examples, which share a run of thirty images by a toy backbone, with few metrics."""

    def small(name: str = "small", **options: str) -> object:
        return ToyBackbone() if name == "small" else load_backbone(name, **options)

    few = {name: METRICS[name] for name in ("pixcorr", "ssim", "two_way_picture", "rougeL", "latent_accuracy")}
    with cheaply(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "evaluate", partial(evaluation.evaluate, metrics=few))
        own = BackboneConfig.from_json(backbone_folder("small") / "config.json")
        patch.setattr("unibrain.backbone.config.OFFICIAL", own)
        patch.setattr("unibrain.pipeline.demo_settings", lambda **sizes: SETTINGS)
        patch.setattr("unibrain.backbone.load_backbone", small)
        patch.setenv("UNIBRAIN_HOME", str(tmp_path_factory.mktemp("home")))
        folder = tmp_path_factory.mktemp("examples")
        patch.chdir(folder)
        yield folder


@pytest.mark.parametrize("name", ORDER)
def test_an_example_runs_and_draws(place: Path, name: str) -> None:
    before = dict(LATENTS)
    try:
        left = runpy.run_path(str(ROOT / "examples" / name))
        assert pyplot.get_fignums() or any(hasattr(value, "_repr_html_") for value in left.values())
    finally:
        pyplot.close("all")
    assert before == LATENTS, "the next example would have another table"


def test_the_gallery_has_every_example_and_each_says_what_is_simulated() -> None:
    assert sorted(ORDER) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))
    for name in ORDER:
        text = (ROOT / "examples" / name).read_text(encoding="utf-8")
        assert re.search(r"no human was scanned|cannot show", text.split('"""')[1], re.IGNORECASE), name


def test_the_notebook_has_the_cells_of_the_first_example() -> None:
    notebook = json.loads((ROOT / "examples" / "first_decode.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]).strip() for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = (ROOT / "examples" / "plot_first_decode.py").read_text(encoding="utf-8")
    blocks = script.split("# %%\n")[1:]
    code = ["\n".join(line for line in block.splitlines() if not line.startswith("#")).strip() for block in blocks]
    assert cells == code
    assert notebook["nbformat"] == 4
    assert not any(cell.get("outputs") for cell in notebook["cells"])


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r"(?m)^[a-z/-]+$", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages - set(listed) == set()
