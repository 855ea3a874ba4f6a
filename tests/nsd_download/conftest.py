import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from fake_bucket import NSD_BUCKET, S3, Between, handler_of

from unibrain.demo import SimulationSettings, simulate_nsd

SETTINGS = SimulationSettings(
    training_images=14,
    test_images=4,
    sessions=3,
    grid=(8, 9, 7),
    picture_size=16,
    beta_formats=("hdf5", "nifti"),
)
NOT_NEEDED = (
    "nsddata/experiments/nsd/nsd_stim_info_merged.pkl",
    "nsddata/ppdata/subj02/behav/responses.tsv",
    "nsddata/ppdata/subj01/func1pt8mm/R2.nii.gz",
    "nsddata/ppdata/subj01/func1pt8mm/roi/HCP_MMP1.nii.gz",
    "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/R2_session01.nii.gz",
    "nsddata_betas/ppdata/subj01/func1pt8mm/betas_assumehrf/betas_session01.hdf5",
)


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated tree on disk, as the bucket holds it."""
    root = tmp_path_factory.mktemp("bucket") / "nsd"
    simulate_nsd(root, SETTINGS)
    (root / "SIMULATED.json").unlink()
    for name in NOT_NEEDED:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not needed")
    return root


@pytest.fixture(scope="session", autouse=True)
def _descriptions_are_read_once() -> Iterator[None]:
    """Every session of boto3 reads the description of S3 anew; a command has one, and these tests have a hundred."""
    import boto3

    session = boto3.session.Session()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boto3.session, "Session", lambda: session)
        yield


@pytest.fixture(scope="session")
def s3(tree: Path) -> Iterator[S3]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        store = S3(host, port)
        store.client.create_bucket(Bucket=NSD_BUCKET, ACL="public-read")
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                store.put(path.relative_to(tree).as_posix(), path.read_bytes())
        yield store
    finally:
        server.stop()


@pytest.fixture
def between(s3: S3) -> Iterator[Between]:
    about = Between()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(about, s3))
    server.daemon_threads = True
    about.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield about
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _quick_and_local(monkeypatch: pytest.MonkeyPatch) -> None:
    # boto3 waits between its tries.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
