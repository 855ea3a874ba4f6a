"""`unibrain import --bids`: a folder of BIDS derivatives into a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from bids_tree import BidsData, make, write_captions, write_laion, write_pictures

from unibrain.cli.main import main
from unibrain.pipeline import RunFolder, kept_settings
from unibrain.scans import load_subject, read_bids, read_custom, read_picture_split
from unibrain.stimuli import read_custom_stimuli


@pytest.fixture
def data(tmp_path: Path) -> BidsData:
    data = make(tmp_path / "laion")
    write_laion(data)
    write_pictures(tmp_path / "shown")
    write_captions(tmp_path / "captions.csv")
    return data


def test_what_is_imported_is_what_the_reader_gives(
    data: BidsData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["import", str(run), "--bids", str(data.root), "--subject", "01", "--zscore", "session"]
    arguments += ["--split", str(data.split_file), "--mask", str(data.mask_file)]
    assert main(arguments) == 2
    assert "no pictures named" in capsys.readouterr().err
    arguments += ["--pictures", str(tmp_path / "shown"), "--captions", str(tmp_path / "captions.csv")]
    assert main([*arguments, "--scans", "betas.npy"]) == 2
    assert "--scans and --bids" in capsys.readouterr().err
    assert main([*arguments, "--split", "tau"]) == 2
    assert "laion_fmri is not installed" in capsys.readouterr().err
    assert not run.exists()
    assert main(arguments) == 0
    shown = capsys.readouterr().err
    assert "12 of 15 scans, 24 voxels, 6 pictures of 20 x 20 pixels; split: tau.json: 4 of 5 training" in shown
    subject = load_subject(run)
    found = read_bids(data.root, "sub-01", split=read_picture_split(str(data.split_file)))
    expected = read_custom(found.table, found.scans, data.mask_file, zscore="session")
    np.testing.assert_array_equal(subject.betas, expected.betas)
    assert subject.name == "sub-01"
    assert read_custom_stimuli(run / "stimuli").captions([2])[0][0].startswith("first of shared_12rep")
    about = json.loads((run / "split.json").read_text())
    assert about["counts"]["test_images"] == 2
    custom = kept_settings(RunFolder(run)).custom
    assert custom is not None
    assert custom.bids == str(data.root)
    assert main(arguments) == 0
    assert "(up to date)" in capsys.readouterr().out
    assert main(["audit", str(run), "--json"]) in (0, 1)
    capsys.readouterr()
    data.split_file.write_text(data.split_file.read_text().replace("tau", "other"))
    assert main(arguments) == 0
    assert "(up to date)" not in capsys.readouterr().out
