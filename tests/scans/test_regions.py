"""Masks and regions by name against the label volumes read directly."""

import logging

import nibabel
import numpy as np
import pytest

from unibrain.errors import InputError
from unibrain.scans import PrepareSettings, read_nsd
from unibrain.scans.nsd_layout import NsdLayout
from unibrain.scans.nsd_regions import REGIONS, read_mask, read_regions


def volume(layout: NsdLayout, name: str) -> np.ndarray:
    return np.asarray(nibabel.load(layout.roi(name)).dataobj)


def write(layout: NsdLayout, name: str, labels: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4), dtype=labels.dtype), layout.roi(name))


@pytest.fixture(scope="module")
def layout(tree: object) -> NsdLayout:
    return NsdLayout(tree)  # type: ignore[arg-type]


def test_masks_by_name(layout: NsdLayout) -> None:
    visual, faces, streams = (volume(layout, name) for name in ("prf-visualrois", "floc-faces", "streams"))
    left = volume(layout, "lh.prf-visualrois")
    expected = {
        "prf-visualrois": visual > 0,
        "V1": np.isin(visual, (1, 2)),
        "V1v": visual == 1,
        "prf-visualrois:V1v": visual == 1,
        "prf-visualrois:1": visual == 1,
        "V1+V2+faces": np.isin(visual, (1, 2, 3, 4)) | (faces > 0),
        "FFA-1+hV4": (faces == 2) | (visual == 7),
        "streams:ventral": streams == 5,
        "streams": streams > 0,
        "ecc4++V1v": (volume(layout, "prf-eccrois") == 5) | (visual == 1),
        "ecc4": volume(layout, "prf-eccrois") == 4,
        "lh.V1": np.isin(left, (1, 2)),
        "rh.prf-visualrois:hV4": volume(layout, "rh.prf-visualrois") == 7,
        "lh": volume(layout, "lh.nsdgeneral") >= 0,
        "rh.brainmask": volume(layout, "rh.nsdgeneral") >= 0,
        "lh.V1+rh.nsdgeneral": np.isin(left, (1, 2)) | (volume(layout, "rh.nsdgeneral") > 0),
    }
    for name, voxels in expected.items():
        assert voxels.any(), name
        np.testing.assert_array_equal(read_mask(layout, name), voxels, err_msg=name)


def test_a_mask_of_regions_reads_the_same_numbers(layout: NsdLayout) -> None:
    whole = read_nsd(layout.root)
    part = read_nsd(layout.root, 1, PrepareSettings(mask="V1+faces"))
    inside = whole.regions["V1"] | whole.regions["faces"]
    np.testing.assert_array_equal(part.voxel_indices, whole.voxel_indices[inside])
    np.testing.assert_array_equal(part.betas, whole.betas[:, inside])
    np.testing.assert_array_equal(part.noise_ceiling, whole.noise_ceiling[inside])


def test_all_regions(layout: NsdLayout) -> None:
    mask = read_mask(layout, "nsdgeneral")
    default, everything = read_regions(layout, mask), read_regions(layout, mask, "all")
    assert list(default) == list(REGIONS)
    assert list(everything)[: len(default)] == list(default)
    assert {"lh", "rh", "streams", "ventral", "early", "V1v", "hV4", "FFA-1", "PPA", "ecc4+"} < set(everything)
    assert (everything["lh"] ^ everything["rh"]).all()
    assert not everything["aTL-faces"].any(), "a label without voxels"
    np.testing.assert_array_equal(everything["V1v"] | everything["V1d"], everything["V1"])
    np.testing.assert_array_equal(everything["streams"], volume(layout, "streams")[mask] > 0)


def test_regions_on_request_come_in_order(layout: NsdLayout) -> None:
    subject = read_nsd(layout.root, 1, PrepareSettings(regions="lh.faces, streams:early,default"))
    assert list(subject.regions) == ["lh.faces", "streams:early", *REGIONS]
    assert 0 < subject.regions["lh.faces"].sum() < subject.regions["faces"].sum()


def test_other_volumes_and_names_that_are_taken(own_tree: NsdLayout, caplog: pytest.LogCaptureFixture) -> None:
    visual = volume(own_tree, "prf-visualrois")
    write(
        own_tree, "HCP_MMP1", np.where(visual == 1, 18, np.where(visual == 2, 1, visual.clip(max=0))).astype(np.int16)
    )
    write(own_tree, "Kastner2015", np.where(visual == 7, 8, visual).astype(np.float64))
    write(own_tree, "mine", visual.astype(np.float32))
    table = own_tree.label_tables("HCP_MMP1")[1]
    table.parent.mkdir(parents=True)
    table.write_text("0 Unknown\n1 V1\n18 FFC\t\n")
    mask = read_mask(own_tree, "nsdgeneral")
    with caplog.at_level(logging.WARNING):
        regions = read_regions(own_tree, mask, "all")
    np.testing.assert_array_equal(regions["FFC"], regions["V1v"])
    np.testing.assert_array_equal(regions["HCP_MMP1:V1"], regions["V1d"])
    np.testing.assert_array_equal(regions["Kastner2015:V1v"], regions["V1v"])
    np.testing.assert_array_equal(regions["VO1"], regions["hV4"])
    np.testing.assert_array_equal(regions["mine:3"], regions["V2v"])
    assert "not confirmed for NSD" in caplog.text
    np.testing.assert_array_equal(read_mask(own_tree, "HCP_MMP1:FFC"), visual == 1)


@pytest.mark.parametrize("dtype", [np.float64, np.int8])
def test_label_volumes_of_any_type(own_tree: NsdLayout, dtype: type) -> None:
    before = read_mask(own_tree, "nsdgeneral")
    write(own_tree, "nsdgeneral", volume(own_tree, "nsdgeneral").astype(dtype))
    np.testing.assert_array_equal(read_mask(own_tree, "nsdgeneral"), before)
    write(own_tree, "nsdgeneral", volume(own_tree, "nsdgeneral")[..., None])
    np.testing.assert_array_equal(read_mask(own_tree, "nsdgeneral"), before)


def test_a_hemisphere_of_a_volume_without_its_own_file(own_tree: NsdLayout) -> None:
    before = read_mask(own_tree, "lh.faces")
    own_tree.roi("floc-faces", "lh").unlink()
    np.testing.assert_array_equal(read_mask(own_tree, "lh.faces"), before)
    for path in (own_tree.volumes / "roi").glob("lh.*"):
        path.unlink()
    with pytest.raises(InputError, match=r"lh\.nsdgeneral\.nii\.gz: no such file"):
        read_mask(own_tree, "lh.faces")
