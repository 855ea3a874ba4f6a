from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
from asking import follow, picture_of
from starlette.testclient import TestClient

from unibrain.errors import InputError
from unibrain.experiments.regions import activate
from unibrain.explorer import Session
from unibrain.explorer.brain import activation, brain_map, inside, moved
from unibrain.explorer.surface import place_vertices, vertex_voxels


def test_slices_show_every_voxel_once(session: Session) -> None:
    found = brain_map(session)
    subject = session.bench.subject
    n = subject.betas.shape[1]
    assert found["kind"] == "slices"
    assert found["voxel"] == list(range(n))
    assert len(set(zip(found["x"], found["y"], strict=True))) == n
    for axis, size in (("x", "width"), ("y", "height")):
        assert min(found[axis]) >= 0
        assert max(found[axis]) + found["size"] <= found[size]
    assert {region["name"]: len(region["voxels"]) for region in found["regions"]} == {
        name: int(mask.sum()) for name, mask in subject.regions.items() if mask.any()
    }


def test_a_region_that_is_set_is_what_the_experiment_activates(session: Session) -> None:
    bench = session.bench
    name, mask = next((name, mask) for name, mask in bench.subject.regions.items() if mask.any())
    expected = activate(bench, {name: mask}, 2.0)[name]
    found = session.predict(session.scan_of(activation(session, {name: 2.0}, [], [])))
    for latent in expected:
        np.testing.assert_array_equal(found[latent], expected[latent])


def test_regions_and_paint_add_up(session: Session) -> None:
    regions = session.bench.subject.regions
    one, other = [name for name, mask in regions.items() if mask.any()][:2]
    found = activation(session, {one: 1.0, other: 2.0}, [0], [-0.5])
    expected = regions[one] * 1.0 + regions[other] * 2.0
    expected[0] -= 0.5
    np.testing.assert_array_equal(found, expected)


def test_what_each_region_adds(client: TestClient, session: Session) -> None:
    masks = {name: mask for name, mask in session.bench.subject.regions.items() if mask.any()}
    one = next(iter(masks))
    body = {"regions": {one: 3.0}, "contributions": True}
    found = follow(client, client.post("/api/activate", json=body))["result"]
    parts = {part["region"]: part for part in found["parts"]}
    shared = {name for name, mask in masks.items() if (mask & masks[one]).any()}
    assert set(parts) == shared
    # Without its only active region, a scan is that of the mean, and all that moved is that region's.
    np.testing.assert_array_equal(
        picture_of(parts[one]["items"]["picture"]["item"]), picture_of(found["nothing"]["picture"]["item"])
    )
    assert parts[one]["moved"] == found["moved"]
    assert min(found["moved"].values()) > 0
    calm = follow(client, client.post("/api/activate", json={}))["result"]
    assert calm["items"] == calm["nothing"]
    assert (set(calm["moved"].values()), calm["parts"]) == ({0.0}, [])


def test_moved_is_in_units_of_test_scans(session: Session) -> None:
    rest = session.predict(session.scan_of(np.zeros(session.bench.subject.betas.shape[1])))
    test = session.predicted.read()
    each = [moved(session, test.rows(slice(row, row + 1)), rest) for row in range(test.n)]
    for latent in test:
        values = np.array([one[latent] for one in each], dtype=float)
        assert np.sqrt((values**2).mean()) == pytest.approx(1, rel=1e-5)


def test_a_volume_outside_of_the_mask() -> None:
    volume = np.zeros((2, 2, 2))
    volume[0, 0, 1], volume[1, 1, 1] = 2, 3
    np.testing.assert_array_equal(inside(volume, np.array([1, 6]), painted=False), [2, 0])
    with pytest.raises(InputError, match="1 painted voxels are outside of the mask"):
        inside(volume, np.array([1, 6]), painted=True)


def surface(tmp_path: Path, places: Any, natives: Any) -> tuple[Path, Path]:
    """NSD's transforms of a hemisphere: places of native vertices, and the native vertex of each of fsaverage."""
    files = tmp_path / "lh.func1pt8-to-layerB2.mgz", tmp_path / "lh.white-to-fsaverage.mgz"
    for path, values in zip(files, (np.array(places)[:, None], np.array(natives)[:, None, None]), strict=True):
        nibabel.save(nibabel.MGHImage(values.astype(np.float32), np.eye(4)), path)
    return files


def test_vertices_show_the_voxels_that_lie_there(tmp_path: Path) -> None:
    # Voxels (0, 0, 0), (1, 0, 1) and (1, 1, 1) of a grid of two a side.
    subject = SimpleNamespace(grid_shape=(2, 2, 2), voxel_indices=np.array([0, 5, 7]))
    places = [[2, 1, 2], [1.2, 0.9, 1], [9999, 9999, 9999], [1, 2, 1], [2.4, 2, 2], [3, 1, 1]]
    files = surface(tmp_path, places, [1, 2, 3, 4, 5, 6, 2])
    found = vertex_voxels(SimpleNamespace(subject=subject), *files)  # type: ignore[arg-type]
    assert found.tolist() == [1, 0, -1, -1, 2, -1, 0]
    with pytest.raises(InputError, match="names vertices"):
        vertex_voxels(SimpleNamespace(subject=subject), *surface(tmp_path, places, [7]))  # type: ignore[arg-type]


def test_hemispheres_lie_side_by_side_without_what_has_no_voxel() -> None:
    mesh = np.array([[-4.0, 2.0], [6.0, -3.0], [0.0, 0.0]])
    found = place_vertices({"lh": mesh, "rh": mesh}, {"lh": np.array([3, -1, 5, 8]), "rh": np.array([-1, 4, 3, 9])})
    assert found["voxel"] == [3, 5, 4, 3]
    left, right = found["x"][:2], found["x"][2:]
    assert max(left) < min(right)
    assert 0 <= min(found["x"]) <= max(found["x"]) <= found["width"]
    assert found["y"][0] < found["y"][1] < found["y"][2] <= found["height"]  # anterior or upper vertices are above
    assert [panel["label"] for panel in found["panels"]] == ["left hemisphere", "right hemisphere"]
    with pytest.raises(InputError, match="right hemisphere"):
        place_vertices({"lh": mesh, "rh": mesh}, {"lh": np.array([3, 1, 2]), "rh": np.array([-1, -1, -1])})
