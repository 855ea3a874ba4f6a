"""Whatever is wrong with the files is said in one sentence that names the file."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from damage import HDF5, NIFTI, message, rewrite_hdf5, rewrite_nifti

from unibrain.errors import InputError
from unibrain.scans import PrepareSettings, read_nsd
from unibrain.scans.nsd_layout import NsdLayout

FILES: dict[str, Callable[[NsdLayout], Path]] = {
    "design": lambda layout: layout.expdesign,
    "images": lambda layout: layout.stim_info,
    "responses": lambda layout: layout.responses,
    "mask": lambda layout: layout.roi("nsdgeneral"),
    "hdf5": lambda layout: layout.betas(2, "hdf5"),
    "nifti": lambda layout: layout.betas(2, "nifti"),
}


@pytest.mark.parametrize("which", FILES)
def test_a_missing_file(own_tree: NsdLayout, which: str) -> None:
    path = FILES[which](own_tree)
    path.unlink()
    text = message(own_tree, PrepareSettings(file_format=which if which in ("hdf5", "nifti") else "auto"))
    assert str(path) in text
    assert "found no such file" in text


@pytest.mark.parametrize("which", ["design", "mask", "hdf5", "nifti"])
def test_a_truncated_file(own_tree: NsdLayout, which: str, truncate: Callable[[Path], None]) -> None:
    path = FILES[which](own_tree)
    truncate(path)
    text = message(own_tree, PrepareSettings(file_format=which if which in ("hdf5", "nifti") else "auto"))
    assert str(path) in text
    assert "truncated" in text


def test_a_file_of_garbage(own_tree: NsdLayout) -> None:
    own_tree.ncsnr().write_bytes(b"no volume")
    assert str(own_tree.ncsnr()) in message(own_tree)


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_nsd(tmp_path / "nowhere")


def test_auto_takes_the_format_that_is_complete(own_tree: NsdLayout) -> None:
    before = read_nsd(own_tree.root).betas
    own_tree.betas(2, "hdf5").unlink()
    np.testing.assert_array_equal(read_nsd(own_tree.root).betas, before)
    own_tree.betas(3, "nifti").unlink()
    assert "1 of 3 sessions" in message(own_tree)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (PrepareSettings(file_format="mat"), "'mat'"),
        (PrepareSettings(sessions=(1, 4)), "session 4"),
        (PrepareSettings(sessions=()), "none were given"),
        (PrepareSettings(mask="../../secret"), "plain name"),
        (PrepareSettings(beta_version=".."), "plain name"),
        (PrepareSettings(mask="floc-none"), "floc-none.nii.gz"),
    ],
)
def test_settings_that_do_not_fit(tree: Path, settings: PrepareSettings, says: str) -> None:
    assert says in message(NsdLayout(tree), settings)


@pytest.mark.parametrize("subject", [0, 9])
def test_a_subject_that_nsd_does_not_have(tree: Path, subject: int) -> None:
    with pytest.raises(InputError, match="1 to 8"):
        read_nsd(tree, subject)


def test_a_subject_that_was_not_scanned(tree: Path) -> None:
    assert "subj03" in message(NsdLayout(tree, 3))


def test_hdf5_in_matlab_order(own_tree: NsdLayout) -> None:
    rewrite_hdf5(own_tree.betas(1, "hdf5"), lambda betas: betas.T)
    text = message(own_tree, HDF5)
    assert "(8, 9, 7, 29)" in text
    assert "(29, 7, 9, 8)" in text


def test_hdf5_without_betas(own_tree: NsdLayout) -> None:
    with h5py.File(own_tree.betas(1, "hdf5"), "w") as file:
        file["other"] = [1]
    assert "no dataset 'betas'" in message(own_tree, HDF5)


def test_nifti_with_a_trial_too_few(own_tree: NsdLayout) -> None:
    rewrite_nifti(own_tree.betas(3, "nifti"), lambda betas: betas[..., :-1])
    text = message(own_tree, NIFTI)
    assert "betas_session03.nii.gz" in text
    assert "(8, 9, 7, 28)" in text


def test_betas_of_another_grid(own_tree: NsdLayout) -> None:
    rewrite_nifti(own_tree.betas(1, "nifti"), lambda betas: np.moveaxis(betas, 0, 1))
    assert "(9, 8, 7, 29)" in message(own_tree, NIFTI)


def test_regions_of_another_grid(own_tree: NsdLayout) -> None:
    rewrite_nifti(own_tree.roi("floc-words"), lambda labels: labels[1:])
    assert "(7, 9, 7)" in message(own_tree)


def test_a_mask_with_fractions(own_tree: NsdLayout) -> None:
    rewrite_nifti(own_tree.roi("nsdgeneral"), lambda labels: labels + 0.5)
    assert "whole numbers" in message(own_tree)


def test_a_mask_with_nan(own_tree: NsdLayout) -> None:
    rewrite_nifti(own_tree.roi("nsdgeneral"), lambda labels: np.where(labels < 0, np.nan, labels))
    assert "whole numbers" in message(own_tree)


def test_an_empty_mask(own_tree: NsdLayout) -> None:
    rewrite_nifti(own_tree.roi("nsdgeneral"), lambda labels: np.minimum(labels, 0))
    assert "no voxel above 0" in message(own_tree)


def test_a_label_table_without_the_name(own_tree: NsdLayout) -> None:
    table = own_tree.label_tables("prf-visualrois")[0]
    table.write_text(table.read_text().replace("hV4", "other"))
    assert "no label hV4" in message(own_tree)


def test_a_label_table_with_a_number_twice(own_tree: NsdLayout) -> None:
    table = own_tree.label_tables("prf-visualrois")[0]
    table.write_text("0 Unknown\n1 V1v\n1 V1d\n")
    assert "'1 V1d' in line 3" in message(own_tree)


def test_missing_regions_and_ceiling_are_left_out_with_a_warning(
    own_tree: NsdLayout, caplog: pytest.LogCaptureFixture
) -> None:
    own_tree.roi("floc-faces").unlink()
    own_tree.ncsnr().unlink()
    subject = read_nsd(own_tree.root)
    assert "faces" not in subject.regions
    assert np.isnan(subject.noise_ceiling).all()
    assert "floc-faces.nii.gz" in caplog.text
    assert "ncsnr.nii.gz" in caplog.text


def test_nan_betas(own_tree: NsdLayout) -> None:
    def spoil(betas: np.ndarray) -> np.ndarray:
        betas = betas.astype(np.float32)
        betas[3, *np.argwhere(betas[0] != 0)[5]] = np.nan
        return betas

    everything = PrepareSettings(file_format="hdf5", mask="brainmask")
    rewrite_hdf5(own_tree.betas(2, "hdf5"), spoil)
    text = message(own_tree, everything)
    assert "NaN or infinite values in 1 of" in text
    assert "betas_session02.hdf5" in text


def test_nan_betas_in_nifti(own_tree: NsdLayout) -> None:
    rewrite_nifti(own_tree.betas(1, "nifti"), lambda betas: np.where(betas == 0, np.nan, betas).astype(np.float32))
    read_nsd(own_tree.root, 1, NIFTI)  # outside the mask NaN does no harm
    rewrite_nifti(own_tree.betas(1, "nifti"), lambda betas: betas * np.float32(np.inf))
    assert "NaN or infinite" in message(own_tree, NIFTI)


def test_constant_voxels_are_dropped_and_counted(own_tree: NsdLayout, caplog: pytest.LogCaptureFixture) -> None:
    before = read_nsd(own_tree.root)
    x, y, z = np.unravel_index(before.voxel_indices[[4, 17]], before.grid_shape)
    for session in (1, 2, 3):

        def flatten(betas: np.ndarray) -> np.ndarray:
            betas[:, z[0], y[0], x[0]] = 0
            betas[:, z[1], y[1], x[1]] = 123
            return betas

        rewrite_hdf5(own_tree.betas(session, "hdf5"), flatten)
    with caplog.at_level(logging.WARNING):
        after = read_nsd(own_tree.root)
    assert f"dropped 2 of {before.betas.shape[1]} voxels" in caplog.text
    np.testing.assert_array_equal(after.voxel_indices, np.delete(before.voxel_indices, [4, 17]))
    np.testing.assert_array_equal(after.betas, np.delete(before.betas, [4, 17], axis=1))
    np.testing.assert_array_equal(after.regions["V1"], np.delete(before.regions["V1"], [4, 17]))
    np.testing.assert_array_equal(after.noise_ceiling, np.delete(before.noise_ceiling, [4, 17]))


def test_nothing_but_constant_voxels(own_tree: NsdLayout) -> None:
    for session in (1, 2, 3):
        rewrite_hdf5(own_tree.betas(session, "hdf5"), np.zeros_like)
    assert "voxels constant" in message(own_tree)


def test_the_marker_is_plain_json(tree: Path) -> None:
    assert json.loads(NsdLayout(tree).marker.read_text())["simulated"] is True
