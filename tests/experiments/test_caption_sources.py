import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import toy

from unibrain.errors import InputError
from unibrain.experiments import Bench, caption_sources, open_bench
from unibrain.experiments.caption_sources import AS_RUN, CONTROL, FROM_FILE, SHUFFLED, _read
from unibrain.latents import Latents, extract
from unibrain.pipeline import RunFolder
from unibrain.regression import BrainDecoder

pytestmark = pytest.mark.usefixtures("few_metrics")


def written(bench: Bench, folder: Path, ids: object = None) -> Path:
    """A file that says something of its own of every image."""
    ids = bench.stimuli.stimulus_ids if ids is None else ids
    path = folder / "machine.json"
    path.write_text(json.dumps({int(i): [f"{bench.stimuli.captions([i])[0][0]} in a photograph"] for i in ids}))
    return path


@pytest.mark.usefixtures("drawn")
def test_sources_are_fitted_and_decoded_as_they_are_called(bench: Bench, tmp_path: Path) -> None:
    file = written(bench, tmp_path)
    found = caption_sources(bench, file)
    assert {AS_RUN, "mean of all", "one", "longest", SHUFFLED, FROM_FILE, CONTROL} <= set(found.settings)
    strips = {strip.label: strip for strip in found.strips}
    assert list(strips[AS_RUN].captions) == list(bench.decoded().captions)
    # The same by hand, through the package's own extraction: each source as the captions of an experiment.
    captions, train = bench.stimuli.captions_by_id, bench.train
    longest = {i: (max(texts, key=lambda text: len(text.split())),) for i, texts in captions.items()}
    machine = {i: tuple(texts) for i, texts in _read(bench, file).items()}
    for name, chosen in {
        "one": {i: texts[:1] for i, texts in captions.items()},
        "longest": longest,
        FROM_FILE: machine,
    }.items():
        stimuli = replace(bench.stimuli, captions_by_id=chosen)
        latents = extract(toy().load("toy"), stimuli, train.stimulus_ids)
        targets = {latent: latents[latent] for latent in ("z_text", "c_text")}
        predicted = BrainDecoder().fit(train.betas, targets, train.stimulus_ids).predict(bench.test.betas)
        whole = Latents(bench.ids, {**bench.predicted, **predicted})
        decoded = bench.decode(whole)
        assert list(strips[name].captions) == list(decoded.captions), name
        assert np.array_equal(strips[name].pictures, decoded.pictures), name
        rouge = replace(bench, stimuli=stimuli).score(replace(decoded, pictures=None))["rougeL"].value
        assert found.cell(f"{name}, against its own", "rougeL").value == pytest.approx(rouge)
        assert found.cell(name, "rougeL").value == pytest.approx(bench.score(decoded)["rougeL"].value)
    assert found.cell("one", "rougeL").against == AS_RUN
    assert found.figures
    assert "shuffled captions" in found.answer


def test_shuffled_captions_fall_to_the_control(bench: Bench) -> None:
    # Voxels that hold the text latents: whatever is lost, shuffling has taken.
    true = bench.stored.select(bench.subject.stimulus_ids).read()
    texts = np.concatenate([true[name].reshape(true.n, -1) for name in ("z_text", "c_text")], axis=1)
    voxels = np.random.default_rng(0).standard_normal((texts.shape[1], bench.subject.betas.shape[1]))
    bench = replace(bench, subject=replace(bench.subject, betas=(texts @ voxels).astype(np.float32)))
    found = caption_sources(bench)
    assert FROM_FILE not in found.settings
    control = found.cell(CONTROL, "rouge1").value
    assert control == pytest.approx(bench.score(bench.decoded())["rouge1"].control)
    assert found.cell(f"{SHUFFLED}, text latents alone", "rouge1").value == pytest.approx(control, abs=0.1)
    assert found.cell("one", "z_text_r").value > 0.5
    assert found.cell(SHUFFLED, "z_text_r").value < 0.25
    assert found.cell(SHUFFLED, "z_text_two_way").value < found.cell("one", "z_text_two_way").value


def test_nothing_is_encoded_or_decoded_twice(run: RunFolder) -> None:
    with open_bench(run, 6, source=toy()) as bench:
        once = caption_sources(bench)
    second = toy()
    with open_bench(run, 6, source=second) as bench:
        again = caption_sources(bench)
    assert not any(call.startswith("sample") for call in second.load("toy").calls)
    assert once.cells == again.cells


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ("no-captions", "no captions"),
        ("file-lacks-image", "has no caption of image id"),
        ("file-of-names", "0-based ids"),
        ("no-file", "cannot be read"),
        ("budget", "--budget"),
    ],
)
def test_refused_before_work(bench: Bench, tmp_path: Path, spoil: str, named: str) -> None:
    file = None
    if spoil == "no-captions":
        bench = replace(bench, stimuli=replace(bench.stimuli, captions_by_id={}, has_captions=False))
    elif spoil == "file-lacks-image":
        file = written(bench, tmp_path, bench.stimuli.stimulus_ids[1:])
    elif spoil == "file-of-names":
        file = tmp_path / "names.csv"
        file.write_text("id,caption\nfirst.png,a red car\n")
    elif spoil == "no-file":
        file = tmp_path / "none.json"
    else:
        bench = replace(bench, budget=0.0)
    with pytest.raises(InputError, match=named):
        caption_sources(bench, file)
    assert not any(call.startswith(("sample", "encode z_text")) for call in bench.network.calls)
