import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from runs import command, toy

from unibrain.errors import InputError
from unibrain.evaluation.statistics import paired_interval
from unibrain.experiments import Bench, ablate, as_text, open_bench, write_findings
from unibrain.experiments.ablation import ablation_settings
from unibrain.experiments.findings import write_index
from unibrain.pipeline import RunFolder
from unibrain.pipeline.stages import run_fingerprint
from unibrain.pipeline.tasks import perform
from unibrain.reconstruction import reconstruct
from unibrain.workspace.shards import Work

pytestmark = pytest.mark.usefixtures("few_metrics")


def test_settings_are_those_of_the_paper() -> None:
    settings = ablation_settings(captions=True)
    assert settings["without C_I"] == {"z_image", "z_text", "c_text"}
    assert settings["only Z"] == {"z_image", "z_text"}
    assert list(settings) == ["full", "without Z", "without C_I", "without C_T", "only Z", "only C_I", "only C_T"]
    # Of two parts, leaving one out is leaving the other alone.
    assert list(ablation_settings(captions=False)) == ["full", "without Z", "without C_I"]


def test_settings_are_decoded_as_they_are_called(bench: Bench) -> None:
    strips = {strip.label: strip for strip in ablate(bench).strips}
    predicted, network = bench.predicted, toy().load("toy")
    only_z = [network.decode(kind, predicted[name]) for kind, name in (("picture", "z_image"), ("caption", "z_text"))]
    assert np.array_equal(strips["only Z"].pictures, only_z[0])
    assert list(strips["only Z"].captions) == list(only_z[1])
    weights = bench.sampling | {"image_weight": 1.0}
    no_text = reconstruct(network, predicted, kinds=bench.kinds, **weights)
    assert np.array_equal(strips["without C_T"].pictures, no_text.pictures)
    assert list(strips["without C_T"].captions) == list(no_text.captions)
    assert np.array_equal(strips["full"].pictures, bench.decoded().pictures)


def test_pictures_without_captions_have_no_caption_side(bench: Bench) -> None:
    none = dict.fromkeys(bench.stimuli.captions_by_id, ())
    bench.stimuli = replace(bench.stimuli, captions_by_id=none, has_captions=False)
    found = ablate(bench)
    assert found.strips[0].captions is None
    assert found.settings == ("full", "without Z", "without C_I")


def test_what_was_kept_by_other_code_is_not_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bench.cache
    monkeypatch.setattr("unibrain.experiments.bench.code_digest", lambda *places: "another" * 9)
    assert bench.cache.parent == before.parent
    assert bench.cache != before


def test_differences_are_paired(bench: Bench) -> None:
    found = ablate(bench)
    full, without = bench.score(bench.decoded()), bench.score(bench.decode(bench.predicted, use={"c_image", "c_text"}))
    cell = found.cell("without Z", "pixcorr")
    assert cell.value == pytest.approx(without["pixcorr"].value)
    a, b = without["pixcorr"].per_image, full["pixcorr"].per_image
    interval = paired_interval(a, b)
    assert cell.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert (cell.difference_low, cell.difference_high) == pytest.approx((interval.low, interval.high))
    assert cell.differs == (interval.low > 0 or interval.high < 0)
    assert found.cell("full", "pixcorr").difference is None


def test_nothing_is_decoded_twice(run: RunFolder) -> None:
    first, second = toy(), toy()
    with open_bench(run, 6, source=first) as bench:
        once = ablate(bench)
    with open_bench(run, 6, source=second) as bench:
        again = ablate(bench)
    assert any(call.startswith("sample") for call in bench_calls(first))
    assert not any(call.startswith("sample") for call in bench_calls(second))
    assert once.cells == again.cells


def bench_calls(source: object) -> list[str]:
    return source.load("toy").calls


@pytest.mark.usefixtures("drawn")
def test_files_hold_the_numbers(bench: Bench) -> None:
    found = replace(ablate(bench), answer="<script>")
    page = write_findings(bench.run.experiments / "ablate", found)
    with page.with_name("table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows if row["metric"] == "ssim"] == [
        cell.value for cell in found.cells if cell.metric == "ssim"
    ]
    content = json.loads(page.with_name("findings.json").read_bytes())
    assert content["simulated"] is True
    assert len(content["cells"]) == len(found.cells)
    html = page.read_text(encoding="utf-8")
    assert "No human was scanned" in html
    assert "<script>" not in html
    assert "SIMULATED" in as_text(found)


def test_report_links_what_was_done_on_this_very_run(run: RunFolder) -> None:
    with open_bench(run, 6, source=toy()) as bench:
        write_findings(run.experiments / "ablate", ablate(bench))
    link = "experiments/ablate/index.html"
    assert link not in run.artefact("report").read_text(encoding="utf-8")
    command(run, "report")
    assert link in run.artefact("report").read_text(encoding="utf-8")
    index, earlier = run.experiments / "index.html", "earlier state"
    write_index(run.experiments, run_fingerprint(run))
    assert earlier not in index.read_text(encoding="utf-8")
    command(run, "reconstruct", steps=4)  # what was found before is of another state
    for name in ("controls", "evaluate", "report"):
        command(run, name)
    assert link not in run.artefact("report").read_text(encoding="utf-8")
    write_index(run.experiments, run_fingerprint(run))
    assert earlier in index.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("images", "budget", "named"), [(1, 60.0, "1"), (6, 0.0, "--budget")], ids=["one-image", "beyond-budget"]
)
def test_refused_before_work(run: RunFolder, images: int, budget: float, named: str) -> None:
    source = toy()
    with pytest.raises(InputError, match=named), open_bench(run, images, source=source, budget=budget) as bench:
        ablate(bench)
    assert not bench_calls(source)


def test_stale_run_is_refused(run: RunFolder) -> None:
    text = run.settings.read_text(encoding="utf-8").replace("[reconstruct]", "[reconstruct]\nsteps = 3\n")
    run.settings.write_text(text if "steps = 3" in text else f"{text}\n[reconstruct]\nsteps = 3\n", encoding="utf-8")
    with pytest.raises(InputError, match="reconstruct"), open_bench(run, 6, source=toy()):
        pass


def test_validation_images_are_training_images_that_were_left_out(bench: Bench) -> None:
    found = bench.validation(5)
    train = bench.train
    assert set(found.stimulus_ids) <= set(train.stimulus_ids.tolist())
    out = np.isin(train.stimulus_ids, found.stimulus_ids)
    ids = train.stimulus_ids[~out]
    decoder = bench.refit(train.betas[~out], bench.stored.select(ids), ids)
    assert decoder.alpha_ == pytest.approx(bench.decoder.alpha_)
    expected = decoder.predict(train.betas[out], train.stimulus_ids[out])
    for name in found:
        assert np.allclose(found[name], expected[name], atol=1e-5)
    with pytest.raises(InputError, match="40"):
        bench.validation(40)


def test_settings_are_decoded_in_shards_as_by_one_process(run: RunFolder) -> None:
    asked, source = list[Work](), toy()

    def engine(work: Work) -> None:
        asked.append(work)
        for shard in reversed(work.shards):
            perform(work, shard, toy())

    with open_bench(run, 6, source=source, engine=engine) as bench:
        jobs = {name: (bench.predicted, {"use": use}) for name, use in ablation_settings(captions=True).items()}
        found = bench.decode_all(jobs)
        assert not [call for call in source.load("toy").calls if call.startswith(("sample", "decode"))]  # type: ignore[attr-defined]
    assert len({shard.task["job"] for shard in asked[0].shards}) == len(jobs)
    assert len(json.loads(json.dumps(asked[0].about))["jobs"]) == len(jobs)
    assert not asked[0].folder.exists()
    shutil.rmtree(run.cache("experiments"))
    with open_bench(run, 6, source=toy()) as bench:
        alone = bench.decode_all(jobs)
    for name in jobs:
        assert np.array_equal(found[name].pictures, alone[name].pictures)
        assert found[name].captions == alone[name].captions
