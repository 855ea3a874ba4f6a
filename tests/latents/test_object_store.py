"""Latents in a local stand-in for S3."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from unibrain.errors import InputError
from unibrain.latents import Latents, open_latents, read_manifest, save_latents, write_latents
from unibrain.latents.writer import LatentWriter
from unibrain.regression import BrainDecoder

IDS = np.arange(100, 112)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="lab")
        yield "s3://lab"
    server.stop()


@pytest.fixture
def latents() -> Latents:
    random = np.random.default_rng(0)
    shapes = {"z_image": (3, 4, 4), "c_image": (5, 6)}
    return Latents(IDS, {name: random.normal(size=(12, *shape)).astype("float32") for name, shape in shapes.items()})


def test_latents_come_back_from_the_store_and_a_decoder_reads_its_targets_there(
    bucket: str, latents: Latents, tmp_path: Path
) -> None:
    folder, address = tmp_path / "latents", f"{bucket}/run/latents"
    writer = LatentWriter(folder, IDS, "toy", "f" * 64, storage="zarr")
    writer.begin({name: array.shape[1:] for name, array in latents.items()})
    writer.write_rows(0, dict(latents.items()))
    writer.finish()
    write_latents(folder, address)
    stored = open_latents(address, fingerprint="f" * 64)
    assert stored.manifest_sha256 == open_latents(folder).manifest_sha256
    found = stored.select(IDS[[7, 2]]).read()
    for name, array in latents.items():
        np.testing.assert_array_equal(found[name], array[[7, 2]])

    scans = np.random.default_rng(1).normal(size=(12, 8)).astype("float32")
    fitted = BrainDecoder(alpha=1.0).fit(scans, open_latents(folder), IDS)
    fitted.save(tmp_path / "decoder")
    elsewhere = BrainDecoder.load(tmp_path / "decoder", targets=address)
    there, here = elsewhere.predict(scans[:2]), fitted.predict(scans[:2])
    assert all(np.array_equal(there[name], here[name]) for name in here)


def test_npy_is_written_as_zarr_and_an_address_holds_whole_latents_or_none(
    bucket: str, latents: Latents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_latents(tmp_path / "predicted", latents, "toy", "f" * 64)
    write_latents(tmp_path / "predicted", f"{bucket}/predicted")
    assert read_manifest(tmp_path / "predicted")["storage"] == "npy"
    found = open_latents(f"{bucket}/predicted").read()
    assert all(np.array_equal(found[name], array) for name, array in latents.items())
    assert {path.name for path in tmp_path.iterdir()} == {"predicted"}

    for address, named in (
        (f"{bucket}/nothing", "no latents can be read"),
        ("s3://no-such-bucket/x", "no latents can be read"),
    ):
        with pytest.raises(InputError, match=named):
            open_latents(address)
    with pytest.raises(InputError, match="cannot be written there"):
        write_latents(tmp_path / "predicted", "s3://no-such-bucket/x")
