"""What is wrong with a tree is said in one sentence that names the file at fault; what is sound is read."""

import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas
import pytest
from damage import cut, read_design_file, rewrite_design, rewrite_hdf5, rewrite_nifti, rewrite_table
from scipy.io import savemat

from unibrain.errors import InputError
from unibrain.scans import NsdLayout, PrepareSettings, read_nsd

NIFTI = PrepareSettings(file_format="nifti")
HDF5 = PrepareSettings(file_format="hdf5")

Damage = Callable[[NsdLayout], None]
DAMAGE: dict[str, tuple[Damage, PrepareSettings | None, tuple[str, ...]]] = {}


def wrong(*names: str, settings: PrepareSettings | None = None) -> Callable[[Damage], Damage]:
    """A row of the table: what the message must name."""

    def add(damage: Damage) -> Damage:
        DAMAGE[damage.__name__] = (damage, settings, names)
        return damage

    return add


FILES: dict[str, Callable[[NsdLayout], Path]] = {
    "design": lambda tree: tree.expdesign,
    "images": lambda tree: tree.stim_info,
    "mask": lambda tree: tree.roi("nsdgeneral"),
    "hdf5": lambda tree: tree.betas(2, "hdf5"),
    "nifti": lambda tree: tree.betas(2, "nifti"),
}
for which, find in FILES.items():
    reading = PrepareSettings(file_format=which) if which in ("hdf5", "nifti") else None
    name = find(NsdLayout(Path())).name
    DAMAGE[f"missing_{which}"] = (lambda tree, find=find: find(tree).unlink(), reading, (name, "no such file"))
    if which != "images":
        DAMAGE[f"truncated_{which}"] = (lambda tree, find=find: cut(find(tree)), reading, (name, "truncated"))


# The design and its tables


def _shift(column: str, by: int) -> Callable[[Any], Any]:
    return lambda table: table.assign(**{column: table[column] + by})


@wrong("responses.tsv", "73KID", "counted from 0")
def ids_73k_from_zero(tree: NsdLayout) -> None:
    rewrite_table(tree.responses, _shift("73KID", -1))


@wrong("responses.tsv", "10KID", "counted from 0")
def ids_10k_from_zero(tree: NsdLayout) -> None:
    rewrite_table(tree.responses, _shift("10KID", -1))


@wrong("nsd_expdesign.mat", "masterordering goes from 0")
def a_design_from_zero(tree: NsdLayout) -> None:
    rewrite_design(tree, masterordering=lambda order: order - 1)


@wrong("responses.tsv", "73KID")
def responses_of_another_subject(tree: NsdLayout) -> None:
    tree.responses.write_bytes(NsdLayout(tree.root, 2).responses.read_bytes())


@wrong("responses.tsv", "chronological")
def responses_out_of_order(tree: NsdLayout) -> None:
    rewrite_table(tree.responses, lambda table: table.iloc[::-1])


@wrong("responses.tsv", "column 73KID")
def responses_without_a_column(tree: NsdLayout) -> None:
    rewrite_table(tree.responses, lambda table: table.drop(columns="73KID"))


@wrong("responses.tsv", "10KID holds 'nan'")
def responses_with_a_gap(tree: NsdLayout) -> None:
    rewrite_table(tree.responses, lambda table: table.assign(**{"10KID": table["10KID"].where(table.index != 4)}))


@wrong("responses.tsv", "88", "87")
def more_trials_than_the_design(tree: NsdLayout) -> None:
    rewrite_table(tree.responses, lambda table: pandas.concat([table, table.tail(1)]))


@wrong("nsd_stim_info_merged.csv", "1 to 198")
def images_from_one(tree: NsdLayout) -> None:
    rewrite_table(tree.stim_info, _shift("nsdId", 1))


@wrong("nsd_stim_info_merged.csv", "1-based")
def listed_trials_from_zero(tree: NsdLayout) -> None:
    columns = [f"subject1_rep{rep}" for rep in range(3)]
    rewrite_table(
        tree.stim_info, lambda table: table.assign(**{name: (table[name] - 1).clip(lower=0) for name in columns})
    )


@wrong("nsd_stim_info_merged.csv", "shared1000")
def other_shared_images(tree: NsdLayout) -> None:
    rewrite_table(tree.stim_info, lambda table: table.assign(shared1000=np.roll(table["shared1000"], 1)))


@wrong("nsd_stim_info_merged.csv", "subject1_rep2")
def images_without_a_column(tree: NsdLayout) -> None:
    rewrite_table(tree.stim_info, lambda table: table.drop(columns="subject1_rep2"))


@wrong("nsd_stim_info_merged.csv", "100 images", "nsd_expdesign.mat")
def a_table_of_images_that_was_cut(tree: NsdLayout) -> None:
    rewrite_table(tree.stim_info, lambda table: table[table["nsdId"] < 100])


@wrong("nsd_stim_info_merged.csv", "198 images", "nsd_expdesign.mat", "73001")
def ids_too_large(tree: NsdLayout) -> None:
    design = read_design_file(tree)
    design["subjectim"][0, -1] = 73_001
    savemat(tree.expdesign, design)
    last = design["subjectim"].shape[1]
    rewrite_table(
        tree.responses, lambda table: table.assign(**{"73KID": table["73KID"].where(table["10KID"] != last, 73_001)})
    )


@wrong("nsd_expdesign.mat", "no field subjectim")
def a_design_without_a_field(tree: NsdLayout) -> None:
    savemat(tree.expdesign, {"masterordering": np.arange(1, 4)})


@wrong("nsd_expdesign.mat", "masterordering", "Python objects")
def a_design_of_cells(tree: NsdLayout) -> None:
    rewrite_design(tree, masterordering=lambda order: order.astype(object))


@wrong("nsd_expdesign.mat", "must not be trained on")
def a_test_image_in_training(tree: NsdLayout) -> None:
    design = read_design_file(tree)
    twice, once = int(design["subjectim"][0, 2]), int(design["subjectim"][0, -1])
    design["subjectim"][0, -1] = twice
    savemat(tree.expdesign, design)
    rewrite_table(tree.responses, lambda table: table.assign(**{"73KID": table["73KID"].replace(once, twice)}))


@wrong("betas_fithrf", "1 training images")
def one_training_image(tree: NsdLayout) -> None:
    design = read_design_file(tree)
    shared = design["sharedix"].size
    order = np.array([1, 2, 3, shared + 1, 4, 5])
    ids = design["subjectim"][0, order - 1].astype(int)
    savemat(tree.expdesign, {**design, "masterordering": order[None]})
    trials = {"SESSION": 1, "73KID": ids, "10KID": order}
    pandas.DataFrame(trials).to_csv(tree.responses, sep="\t", index=False)

    def listed(table: Any) -> Any:
        columns = [f"subject1_rep{rep}" for rep in range(3)]
        table[columns] = 0
        table.loc[ids - 1, columns[0]] = np.arange(1, 7)
        return table

    rewrite_table(tree.stim_info, listed)


# Betas


@wrong("betas_session01.hdf5", "(8, 9, 7, 29)", "(29, 7, 9, 8)", "other order", settings=HDF5)
def betas_in_matlab_order(tree: NsdLayout) -> None:
    rewrite_hdf5(tree.betas(1, "hdf5"), lambda betas: betas.T)


@wrong("betas_session01.hdf5", "no dataset betas", settings=HDF5)
def hdf5_without_betas(tree: NsdLayout) -> None:
    with h5py.File(tree.betas(1, "hdf5"), "w") as file:
        file["other"] = [1]


@wrong("betas_session01.hdf5", "group", settings=HDF5)
def betas_as_a_group(tree: NsdLayout) -> None:
    with h5py.File(tree.betas(1, "hdf5"), "w") as file:
        file["betas/inside"] = [1]


@wrong("betas_session01.hdf5", "text", settings=HDF5)
def betas_of_text(tree: NsdLayout) -> None:
    rewrite_hdf5(tree.betas(1, "hdf5"), lambda betas: betas.astype("S3"))


@wrong("betas_session03.nii.gz", "(8, 9, 7, 28)", settings=NIFTI)
def a_trial_too_few(tree: NsdLayout) -> None:
    rewrite_nifti(tree.betas(3, "nifti"), lambda betas: betas[..., :-1])


@wrong("betas_session01.nii.gz", "(9, 8, 7, 29)", settings=NIFTI)
def betas_of_another_grid(tree: NsdLayout) -> None:
    rewrite_nifti(tree.betas(1, "nifti"), lambda betas: np.moveaxis(betas, 0, 1))


@wrong("betas_session01.hdf5", "(29, 7, 9, 7)")
def betas_of_another_grid_in_hdf5(tree: NsdLayout) -> None:
    rewrite_hdf5(tree.betas(1, "hdf5"), lambda betas: betas[..., :-1])


@wrong("betas_session02.hdf5", "1 of", "NaN", settings=PrepareSettings(file_format="hdf5", mask="brainmask"))
def nan_betas(tree: NsdLayout) -> None:
    def spoil(betas: np.ndarray) -> np.ndarray:
        betas = betas.astype(np.float32)
        betas[3, *np.argwhere(betas[0] != 0)[5]] = np.nan
        return betas

    rewrite_hdf5(tree.betas(2, "hdf5"), spoil)


@wrong("betas_session01.nii.gz", "infinite", settings=NIFTI)
def infinite_betas(tree: NsdLayout) -> None:
    rewrite_nifti(tree.betas(1, "nifti"), lambda betas: np.where(betas > 0, np.inf, betas).astype(np.float32))


@wrong("betas_session01.nii.gz", "complex", settings=NIFTI)
def complex_betas(tree: NsdLayout) -> None:
    rewrite_nifti(tree.betas(1, "nifti"), lambda betas: betas.astype(np.complex64))


@wrong("betas_fithrf", "constant")
def nothing_but_constant_voxels(tree: NsdLayout) -> None:
    for session in (1, 2, 3):
        rewrite_hdf5(tree.betas(session, "hdf5"), np.zeros_like)


@wrong("betas_session02.nii.gz", "truncated", settings=NIFTI)
def a_nifti_cut_in_its_checksum(tree: NsdLayout) -> None:
    path = tree.betas(2, "nifti")
    path.write_bytes(path.read_bytes()[:-4])


@wrong("betas_session02.nii.gz", "damaged", "CRC", settings=NIFTI)
def a_nifti_with_a_flipped_bit(tree: NsdLayout) -> None:
    path = tree.betas(2, "nifti")
    stored = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    stored[len(stored) // 2] ^= 1
    path.write_bytes(bytes(stored))


@wrong("betas_session02.nii.gz", "it ends in volume 1 to 29 of 29", settings=NIFTI)
def a_nifti_shorter_than_its_header_says(tree: NsdLayout) -> None:
    path = tree.betas(2, "nifti")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-2000]))


# Volumes and labels


@wrong("nsdgeneral.nii.gz", "(7, 9, 7)", "(8, 9, 7)")
def a_mask_of_another_grid(tree: NsdLayout) -> None:
    rewrite_nifti(tree.roi("nsdgeneral"), lambda labels: labels[1:])


@wrong("brainmask.nii.gz", "(7, 9, 7)", "(8, 9, 7)")
def a_brain_of_another_grid(tree: NsdLayout) -> None:
    rewrite_nifti(tree.brainmask, lambda labels: labels[1:])


@wrong("floc-words.nii.gz", "(7, 9, 7)")
def regions_of_another_grid(tree: NsdLayout) -> None:
    rewrite_nifti(tree.roi("floc-words"), lambda labels: labels[1:])


@wrong("ncsnr.nii.gz", "(7, 9, 7)")
def a_ceiling_of_another_grid(tree: NsdLayout) -> None:
    rewrite_nifti(tree.ncsnr(), lambda ratio: ratio[1:])


@wrong("ncsnr.nii.gz", "gzip")
def a_ceiling_of_garbage(tree: NsdLayout) -> None:
    tree.ncsnr().write_bytes(b"no volume")


@wrong("nsdgeneral.nii.gz", "whole numbers")
def a_mask_with_fractions(tree: NsdLayout) -> None:
    rewrite_nifti(tree.roi("nsdgeneral"), lambda labels: labels + 0.5)


@wrong("nsdgeneral.nii.gz", "whole numbers")
def a_mask_with_nan(tree: NsdLayout) -> None:
    rewrite_nifti(tree.roi("nsdgeneral"), lambda labels: np.where(labels < 0, np.nan, labels))


@wrong("roi", "nsdgeneral", "no voxel")
def an_empty_mask(tree: NsdLayout) -> None:
    rewrite_nifti(tree.roi("nsdgeneral"), lambda labels: np.minimum(labels, 0))


@wrong("prf-visualrois.mgz.ctab", "hV4")
def a_label_table_without_the_name(tree: NsdLayout) -> None:
    table = tree.label_tables("prf-visualrois")[0]
    table.write_text(table.read_text().replace("hV4", "other"))


@wrong("prf-visualrois.mgz.ctab", "line 3", "'1 V1d'")
def a_label_table_with_a_number_twice(tree: NsdLayout) -> None:
    tree.label_tables("prf-visualrois")[0].write_text("0 Unknown\n1 V1v\n1 V1d\n")


@wrong("betas_session02.hdf5", "1 of 3", "1, 3 are there")
def betas_that_were_not_downloaded(tree: NsdLayout) -> None:
    tree.betas(2, "hdf5").unlink()
    tree.betas(3, "nifti").unlink()


@pytest.mark.parametrize("case", DAMAGE)
def test_the_file_at_fault_is_named(own_tree: NsdLayout, case: str) -> None:
    damage, settings, names = DAMAGE[case]
    damage(own_tree)
    with pytest.raises(InputError) as caught:
        read_nsd(own_tree.root, 1, settings)
    text = str(caught.value)
    assert text.startswith(str(own_tree.root)), text
    assert "\n" not in text
    head, _, rest = text.partition(": ")
    assert names[0] in head
    for name in names[1:]:
        assert name in rest
    assert ("truncated" in text) == ("truncated" in names or "damaged" in names or "it ends in" in rest)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"file_format": "mat"}, "'mat'"),
        ({"sessions": (1, 4)}, "no session 4"),
        ({"sessions": ()}, "none was asked for"),
        ({"protocol": "unibrain"}, "sessions 1-3, no session 4-37"),
        ({"sessions": "some"}, "'some'"),
        ({"mask": "../../secret"}, "'../../secret'"),
        ({"beta_version": ".."}, "'..'"),
        ({"mask": "floc-none"}, "floc-none"),
        ({"mask": "V9"}, "V9"),
        ({"mask": "streams:dorsal"}, "early, midventral"),
        ({"mask": "streams:5x"}, "no label 5x"),
        ({"mask": "nothing:V1"}, "nothing.nii.gz"),
        ({"mask": "nsdgeneral+"}, "nsdgeneral+"),
        ({"mask": "floc-faces:aTL-faces"}, "floc-faces:aTL-faces"),
        ({"protocol": "nsd"}, "protocol is 'nsd'"),
        ({"average": "none"}, "average is 'none'"),
        ({"zscore": "test"}, "zscore is 'test'"),
        ({"subject": 0}, "subject is 0"),
        ({"subject": 9}, "subject is 9"),
        ({"subject": 3}, "subj03"),
    ],
)
def test_settings_that_do_not_fit(tree: Path, settings: dict[str, Any], names: str) -> None:
    subject = settings.pop("subject", 1)
    with pytest.raises(InputError) as caught:
        read_nsd(tree, subject, PrepareSettings(**settings))
    assert names in str(caught.value)


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_nsd(tmp_path / "nowhere")


def test_a_mask_and_betas_that_no_third_file_can_judge(own_tree: NsdLayout) -> None:
    """Only two grids are known: the betas', which come first, and the mask's."""
    rewrite_nifti(own_tree.roi("nsdgeneral"), lambda labels: labels[1:])
    own_tree.brainmask.unlink()
    for path in (own_tree.volumes / "roi").iterdir():
        if path.name != "nsdgeneral.nii.gz":
            path.unlink()
    with pytest.raises(InputError, match=r"nsdgeneral\.nii\.gz: .*\(7, 9, 7\).* betas_session01\.hdf5 has \(8, 9, 7\)"):
        read_nsd(own_tree.root)


# What is sound


def same(tree: NsdLayout, before: Any, settings: PrepareSettings | None = None) -> None:
    after = read_nsd(tree.root, 1, settings)
    np.testing.assert_array_equal(after.betas, before.betas)
    np.testing.assert_array_equal(after.stimulus_ids, before.stimulus_ids)
    np.testing.assert_array_equal(after.is_test, before.is_test)


def test_images_in_another_order_are_sound(own_tree: NsdLayout) -> None:
    before = read_nsd(own_tree.root)
    rewrite_table(own_tree.stim_info, lambda table: table.sample(frac=1, random_state=3))
    same(own_tree, before)


def test_the_design_says_all_that_responses_do(own_tree: NsdLayout, caplog: pytest.LogCaptureFixture) -> None:
    before = read_nsd(own_tree.root)
    first = read_nsd(own_tree.root, 1, PrepareSettings(sessions=(1, 2)))
    own_tree.responses.unlink()
    same(own_tree, before)
    assert "responses.tsv: no such file" in caplog.text
    for kind in ("hdf5", "nifti"):
        own_tree.betas(3, kind).unlink()
    same(own_tree, first)
    for kind in ("hdf5", "nifti"):
        own_tree.betas(1, kind).unlink()
    with pytest.raises(InputError, match="betas_session01"):
        read_nsd(own_tree.root)


@pytest.mark.parametrize("version", ["narrow", "7.3"])
def test_designs_of_any_kind_are_read(own_tree: NsdLayout, version: str) -> None:
    before = read_nsd(own_tree.root)
    content = read_design_file(own_tree)
    if version == "narrow":
        savemat(own_tree.expdesign, {n: v.astype(np.uint16) for n, v in content.items()}, oned_as="column")
    else:
        with h5py.File(own_tree.expdesign, "w") as file:
            for name, values in content.items():
                file[name] = values.T
    same(own_tree, before)


def test_auto_takes_the_format_that_is_complete(own_tree: NsdLayout) -> None:
    before = read_nsd(own_tree.root)
    own_tree.betas(2, "hdf5").unlink()
    same(own_tree, before)


def test_nan_outside_the_mask_does_no_harm(own_tree: NsdLayout) -> None:
    before = read_nsd(own_tree.root)
    rewrite_nifti(own_tree.betas(1, "nifti"), lambda betas: np.where(betas == 0, np.nan, betas).astype(np.float32))
    same(own_tree, before, NIFTI)


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
    assert f"2 of {before.betas.shape[1]} voxels are constant" in caplog.text
    np.testing.assert_array_equal(after.voxel_indices, np.delete(before.voxel_indices, [4, 17]))
    np.testing.assert_array_equal(after.betas, np.delete(before.betas, [4, 17], axis=1))
    np.testing.assert_array_equal(after.regions["V1"], np.delete(before.regions["V1"], [4, 17]))
    np.testing.assert_array_equal(after.noise_ceiling, np.delete(before.noise_ceiling, [4, 17]))


# Units


def save_scaled(path: Path, factor: float, dtype: type = np.int16) -> None:
    """The file's values times a factor; nibabel chooses the slope of integers."""
    image = nibabel.load(path)
    scaled = nibabel.Nifti1Image(np.asarray(image.dataobj) * factor, image.affine)
    scaled.set_data_dtype(dtype)
    nibabel.save(scaled, path)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("sessions", [(1, 2, 3), (2,)])
@pytest.mark.parametrize("factor", [1 / 300, 1.0])
def test_percent_and_scaled_betas_come_in_one_unit(
    own_tree: NsdLayout,
    sessions: tuple[int, ...],
    factor: float,
    dtype: type,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw, z = (read_nsd(own_tree.root, 1, PrepareSettings(file_format="nifti", zscore=how)) for how in ("none", "train"))
    for session in sessions:
        save_scaled(own_tree.betas(session, "nifti"), factor, dtype)
    after = read_nsd(own_tree.root, 1, PrepareSettings(file_format="nifti", zscore="none"))
    np.testing.assert_allclose(after.betas, raw.betas, atol=2e-3)
    np.testing.assert_allclose(read_nsd(own_tree.root, 1, NIFTI).betas, z.betas, atol=5e-3)
    assert ("percent signal change" in caplog.text) == (factor < 1)


@pytest.mark.parametrize("factor", [4.0, 0.2])
def test_a_session_of_other_size_is_warned_about(
    own_tree: NsdLayout, factor: float, caplog: pytest.LogCaptureFixture
) -> None:
    save_scaled(own_tree.betas(2, "nifti"), factor, np.float32)
    read_nsd(own_tree.root, 1, NIFTI)
    assert "betas_session02.nii.gz: its betas vary" in caplog.text


def test_a_session_in_another_unit_is_refused(own_tree: NsdLayout) -> None:
    rewrite_hdf5(own_tree.betas(2, "hdf5"), lambda betas: (betas / 12).astype(np.int16))
    with pytest.raises(InputError, match=r"betas_session02\.hdf5: .*another unit"):
        read_nsd(own_tree.root, 1, HDF5)
