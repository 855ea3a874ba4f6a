"""The audit of a laboratory's custom data."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibrain.audit import load_audit
from unibrain.cli.main import main
from unibrain.demo import render, sample_scene
from unibrain.pipeline import CustomSection, RunFolder, Settings, run_one


def custom_data(folder: Path) -> CustomSection:
    """Twelve pictures, two of them nearly the same on both sides, in two sessions.

    A voxel is silent in the second session; the scans of the first picture are the same.
    """
    (folder / "pictures").mkdir(parents=True)
    scenes = [render(sample_scene(2, number, "train")) for number in range(12)]
    scenes[11] = np.clip(scenes[0] * 1.1 + 8, 0, 255).astype(np.uint8)
    for number, scene in enumerate(scenes):
        Image.fromarray(scene).save(folder / "pictures" / f"{number:02d}.png")
    betas = np.random.default_rng(0).normal(size=(24, 5)).astype(np.float32)
    betas[12:, 3] = 0
    betas[0, 3] = 0
    betas[12] = betas[0]
    np.save(folder / "scans.npy", betas)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["scan_from_0", "picture", "session", "split", "captions"])
        for scan in range(24):
            number = scan % 12
            text = f"scene {number}|another of {number}"
            rows.writerow([scan, f"{number:02d}.png", "ab"[scan // 12], "test" if number >= 9 else "train", text])
    files = {"scans": "scans.npy", "pictures": "pictures", "table": "table.csv"}
    return CustomSection(**{name: str(folder / file) for name, file in files.items()})


def test_faults_of_custom_data_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run")
    run_one("prepare", run, Settings(custom=custom_data(tmp_path / "data")))
    assert main(["audit", str(run.root)]) == 1
    assert "session 2 trial 1" in capsys.readouterr().out
    found = load_audit(run.artefact("audit"))
    assert [(entry.trials, entry.training, entry.zero) for entry in found.sessions] == [(12, 9, 0), (12, 9, 1)]
    assert found.finding("single scans").details == {"empty": [], "same": [[[1, 1], [2, 1]]]}
    assert found.finding("near duplicates").details["pairs"][0][:2] == [11, 0]
    assert found.finding("repeats").details == {"training": {"2": 9}, "test": {"2": 3}}
    assert (found.finding("captions").level, found.finding("captions").details["captions"]) == ("note", 24)
    assert found.finding("noise ceiling").what == "not known for any voxel"
    assert f"unibrain extract {run.root}" in found.finding("overlap in meaning").advice
