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
from scipy.io import loadmat, savemat

from unibrain.errors import InputError
from unibrain.scans import PrepareSettings, read_nsd
from unibrain.scans.nsd_layout import NsdLayout

NIFTI = PrepareSettings(file_format="nifti")

Damage = Callable[[NsdLayout], object]


def rewrite_hdf5(path: Path, change: Callable[[np.ndarray], np.ndarray], name: str = "betas") -> None:
    with h5py.File(path, "r") as file:
        values = change(file[name][:])
    with h5py.File(path, "w") as file:
        file[name] = values


def rewrite_nifti(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nibabel.load(path)
    changed = change(np.asarray(image.dataobj).copy())
    nibabel.save(nibabel.Nifti1Image(changed, image.affine, dtype=changed.dtype), path)


def read_design_file(layout: NsdLayout) -> dict[str, np.ndarray]:
    return {name: values for name, values in loadmat(layout.expdesign).items() if not name.startswith("__")}


def rewrite_design(layout: NsdLayout, **changes: Callable[[np.ndarray], np.ndarray]) -> None:
    content = read_design_file(layout)
    savemat(layout.expdesign, {n: changes[n](v.copy()) if n in changes else v for n, v in content.items()})


def rewrite_table(path: Path, change: Callable[[Any], Any]) -> None:
    separator = "\t" if path.suffix == ".tsv" else ","
    table = change(pandas.read_csv(path, sep=separator))
    table.to_csv(path, sep=separator, index=False, na_rep="NaN")


def changed(
    rewrite: Callable[[Path, Any], None], find: Callable[[NsdLayout], Path], change: Callable[[Any], Any]
) -> Damage:
    return lambda tree: rewrite(find(tree), change)


def table(find: Callable[[NsdLayout], Path], change: Callable[[Any], Any]) -> Damage:
    return changed(rewrite_table, find, change)


def nifti(session: int, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return changed(rewrite_nifti, lambda tree: tree.betas(session, "nifti"), change)


def hdf5(session: int, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return changed(rewrite_hdf5, lambda tree: tree.betas(session, "hdf5"), change)


def labels(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return changed(rewrite_nifti, lambda tree: tree.roi(name), change)


def raw(change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes in the NIfTI of session 2."""
    return lambda tree: (path := tree.betas(2, "nifti")).write_bytes(change(path.read_bytes()))


def flipped(content: bytes) -> bytes:
    stored = bytearray(gzip.compress(gzip.decompress(content), compresslevel=0))
    stored[len(stored) // 2] ^= 1
    return bytes(stored)


def shifted(column: str, by: int) -> Callable[[Any], Any]:
    return lambda rows: rows.assign(**{column: rows[column] + by})


def one_nan(betas: np.ndarray) -> np.ndarray:
    betas = betas.astype(np.float32)
    betas[3, *np.argwhere(betas[0] != 0)[5]] = np.nan
    return betas


def ids_too_large(tree: NsdLayout) -> None:
    design = read_design_file(tree)
    design["subjectim"][0, -1] = 73_001
    savemat(tree.expdesign, design)
    last = design["subjectim"].shape[1]
    rewrite_table(
        tree.responses, lambda rows: rows.assign(**{"73KID": rows["73KID"].where(rows["10KID"] != last, 73_001)})
    )


def a_test_image_in_training(tree: NsdLayout) -> None:
    design = read_design_file(tree)
    twice, once = int(design["subjectim"][0, 2]), int(design["subjectim"][0, -1])
    design["subjectim"][0, -1] = twice
    savemat(tree.expdesign, design)
    rewrite_table(tree.responses, lambda rows: rows.assign(**{"73KID": rows["73KID"].replace(once, twice)}))


def one_training_image(tree: NsdLayout) -> None:
    design = read_design_file(tree)
    order = np.array([1, 2, 3, design["sharedix"].size + 1, 4, 5])
    ids = design["subjectim"][0, order - 1].astype(int)
    savemat(tree.expdesign, {**design, "masterordering": order[None]})
    trials = {"SESSION": 1, "73KID": ids, "10KID": order}
    pandas.DataFrame(trials).to_csv(tree.responses, sep="\t", index=False)

    def listed(rows: Any) -> Any:
        rows[REPEATS] = 0
        rows.loc[ids - 1, REPEATS[0]] = np.arange(1, 7)
        return rows

    rewrite_table(tree.stim_info, listed)


def not_downloaded(tree: NsdLayout) -> None:
    tree.betas(2, "hdf5").unlink()
    tree.betas(3, "nifti").unlink()


REPEATS = [f"subject1_rep{rep}" for rep in range(3)]
RESPONSES, IMAGES, DESIGN = (lambda tree: tree.responses), (lambda tree: tree.stim_info), "nsd_expdesign.mat"
FILES = (
    *(lambda tree: tree.expdesign, IMAGES, lambda tree: tree.roi("nsdgeneral")),
    *(lambda tree: tree.betas(2, "hdf5"), lambda tree: tree.betas(2, "nifti")),
)
WRONG: list[tuple[Damage, tuple[str, ...]]] = [
    *((lambda tree, find=find: find(tree).unlink(), (find(NsdLayout(Path())).name, "no such file")) for find in FILES),
    # The design and its tables
    (table(RESPONSES, shifted("73KID", -1)), ("responses.tsv", "73KID", "counted from 0")),
    (table(RESPONSES, shifted("10KID", -1)), ("responses.tsv", "10KID", "counted from 0")),
    (table(RESPONSES, lambda rows: rows.iloc[::-1]), ("responses.tsv", "chronological")),
    (table(RESPONSES, lambda rows: rows.drop(columns="73KID")), ("responses.tsv", "column 73KID")),
    (table(RESPONSES, lambda rows: pandas.concat([rows, rows.tail(1)])), ("responses.tsv", "88", "87")),
    (
        lambda tree: tree.responses.write_bytes(NsdLayout(tree.root, 2).responses.read_bytes()),
        ("responses.tsv", "73KID"),
    ),
    (lambda tree: rewrite_design(tree, masterordering=lambda order: order - 1), (DESIGN, "masterordering goes from 0")),
    (lambda tree: savemat(tree.expdesign, {"masterordering": np.arange(1, 4)}), (DESIGN, "no field subjectim")),
    (a_test_image_in_training, (DESIGN, "must not be trained on")),
    (one_training_image, ("betas_fithrf", "1 training images")),
    (table(IMAGES, shifted("nsdId", 1)), ("nsd_stim_info_merged.csv", "1 to 198")),
    (
        table(IMAGES, lambda rows: rows.assign(**{name: (rows[name] - 1).clip(lower=0) for name in REPEATS})),
        ("nsd_stim_info_merged.csv", "1-based"),
    ),
    (
        table(IMAGES, lambda rows: rows.assign(shared1000=np.roll(rows["shared1000"], 1))),
        ("nsd_stim_info_merged.csv", "shared1000"),
    ),
    (table(IMAGES, lambda rows: rows[rows["nsdId"] < 100]), ("nsd_stim_info_merged.csv", "100 images", DESIGN)),
    (ids_too_large, ("nsd_stim_info_merged.csv", "198 images", DESIGN, "73001")),
    # Betas
    (not_downloaded, ("betas_session02.hdf5", "1 of 3", "1, 3 are there")),
    (hdf5(1, lambda betas: betas.T), ("betas_session01.hdf5", "(8, 9, 7, 29)", "(29, 7, 9, 8)", "other order")),
    (hdf5(2, one_nan), ("betas_session02.hdf5", "1 of", "NaN")),
    (nifti(3, lambda betas: betas[..., :-1]), ("betas_session03.nii.gz", "(8, 9, 7, 28)")),
    (raw(lambda content: content[:-4]), ("betas_session02.nii.gz", "truncated")),
    (raw(flipped), ("betas_session02.nii.gz", "truncated", "CRC")),
    (
        raw(lambda content: gzip.compress(gzip.decompress(content)[:-2000])),
        ("betas_session02.nii.gz", "truncated", "volume 1 to 29 of 29"),
    ),
    (lambda tree: [hdf5(session, np.zeros_like)(tree) for session in (1, 2, 3)], ("betas_fithrf", "constant")),
    # Volumes and labels
    (labels("nsdgeneral", lambda found: found[1:]), ("nsdgeneral.nii.gz", "(7, 9, 7)", "(8, 9, 7)")),
    (changed(rewrite_nifti, lambda tree: tree.ncsnr(), lambda found: found[1:]), ("ncsnr.nii.gz", "(7, 9, 7)")),
    (labels("nsdgeneral", lambda found: np.where(found < 0, np.nan, found)), ("nsdgeneral.nii.gz", "whole numbers")),
    (labels("nsdgeneral", lambda found: np.minimum(found, 0)), ("roi", "nsdgeneral", "no voxel")),
    (
        lambda tree: (path := tree.label_tables("prf-visualrois")[0]).write_text(path.read_text().replace("hV4", "x")),
        ("prf-visualrois.mgz.ctab", "hV4"),
    ),
    (
        lambda tree: tree.label_tables("prf-visualrois")[0].write_text("0 Unknown\n1 V1v\n1 V1d\n"),
        ("prf-visualrois.mgz.ctab", "line 3", "'1 V1d'"),
    ),
]


@pytest.mark.parametrize(("damage", "names"), WRONG)
def test_the_file_at_fault_is_named(own_tree: NsdLayout, damage: Damage, names: tuple[str, ...]) -> None:
    damage(own_tree)
    kind = "nifti" if "betas_session" in names[0] and "nii" in names[0] else "hdf5" if "hdf5" in names[0] else "auto"
    with pytest.raises(InputError) as caught:
        read_nsd(own_tree.root, 1, PrepareSettings(file_format="auto" if "1 of 3" in names else kind))
    text = str(caught.value)
    head, _, rest = text.partition(": ")
    assert head.startswith(str(own_tree.root))
    assert "\n" not in text
    assert names[0] in head
    for name in names[1:]:
        assert name in rest
    assert ("truncated" in text) == ("truncated" in names), "only what is damaged is called so"


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
    own_tree.betas(2, "hdf5").unlink()
    same(own_tree, before)  # from the format that is complete
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


def test_nan_outside_the_mask_does_no_harm(own_tree: NsdLayout) -> None:
    before = read_nsd(own_tree.root)

    def outside(betas: np.ndarray) -> np.ndarray:
        never = (betas == 0).all(axis=-1, keepdims=True)  # a single zero also happens in a voxel of the brain
        return np.where(never, np.nan, betas).astype(np.float32)

    rewrite_nifti(own_tree.betas(1, "nifti"), outside)
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


@pytest.mark.parametrize(
    ("sessions", "factor", "dtype"),
    [((1, 2, 3), 1 / 300, np.int16), ((2,), 1 / 300, np.float32), ((2,), 1.0, np.int16)],
)
def test_percent_and_scaled_betas_come_in_one_unit(
    own_tree: NsdLayout, sessions: tuple[int, ...], factor: float, dtype: type, caplog: pytest.LogCaptureFixture
) -> None:
    plain = PrepareSettings(file_format="nifti", zscore="none")
    raw, z = read_nsd(own_tree.root, 1, plain), read_nsd(own_tree.root, 1, NIFTI)
    for session in sessions:
        save_scaled(own_tree.betas(session, "nifti"), factor, dtype)
    np.testing.assert_allclose(read_nsd(own_tree.root, 1, plain).betas, raw.betas, atol=2e-3)
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
        read_nsd(own_tree.root)
