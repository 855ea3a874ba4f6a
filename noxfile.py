"""Sessions for `nox`: the whole suite, the fingerprints on the ends of the supported ranges, and the release check.

Run ``nox -s tests``, ``nox -s lowest highest`` or ``nox -s release``; ``--force-python 3.12`` takes another Python.
The two ends are taken from the ranges in ``pyproject.toml``: `lowest` installs the lower bound of every library that a
fingerprint leans on, `highest` the newest that the range allows.

PyTorch is large and not everywhere to be had in every version, so both take the one of ``constraints.txt``.
``UNIBRAIN_NOX_TORCH`` names another one; ``UNIBRAIN_NOX_TORCH=range`` takes the ends of its range too.
"""

import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
LIBRARIES = ("transformers", "diffusers", "tokenizers", "safetensors", "pillow", "numpy", "huggingface-hub")
FOLDERS = ("tests/doctor", "tests/reference", "tests/backbone")
LARGEST_WHEEL = 60.0
"""Megabytes."""

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"


def pyproject_ranges() -> dict[str, str]:
    """Range of every dependency, by name."""
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    found = (re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?\s*(.*)", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def lower_bound(wanted: str) -> str:
    """The version after ``>=``."""
    match = re.search(r">=\s*([^,\s]+)", wanted)
    if match is None:
        raise ValueError(f"no lower bound in {wanted!r}")
    return match[1]


def pinned(name: str) -> str:
    """Version of a library in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.split("==")[1] for line in lines if line.lower().startswith(f"{name}=="))


def torch_requirement(end: str) -> str:
    """PyTorch for one end of the range."""
    chosen = os.environ.get("UNIBRAIN_NOX_TORCH") or pinned("torch")
    if chosen != "range":
        return f"torch=={chosen}"
    wanted = pyproject_ranges()["torch"]
    return f"torch=={lower_bound(wanted)}" if end == "lowest" else f"torch{wanted}"


def run_fingerprints(session: nox.Session, requirements: list[str]) -> None:
    """Install the package beside these versions, show what came, and run the tests that depend on them."""
    # Not all of the extra `test`: its stand-in for S3 would have pip try hundreds of versions.
    tools = [f"{name}=={pinned(name)}" for name in ("pytest", "hypothesis")]
    session.install(*requirements, *tools, "-e", ".")
    names = "|".join((*LIBRARIES, "torch"))
    shown = session.run("python", "-m", "pip", "list", "--format=freeze", silent=True) or ""
    session.log("versions: %s", " ".join(re.findall(rf"(?im)^(?:{names.replace('-', '[-_]')})==\S+", shown)))
    # The options in pyproject.toml collect doctests too, which cannot have two folders with a conftest.py.
    options = ["--override-ini", "addopts=-ra --strict-markers", "--no-header", "-p", "no:cacheprovider"]
    session.run("python", "-m", "pytest", *options, *(session.posargs or FOLDERS))


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite with the pinned versions."""
    session.install("-c", "constraints.txt", "-e", ".[demo,test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """Fingerprints, reference data and backbone with the lowest supported versions."""
    ranges = pyproject_ranges()
    versions = [f"{name}=={lower_bound(ranges[name])}" for name in LIBRARIES if name in ranges]
    run_fingerprints(session, [torch_requirement("lowest"), *versions])


@nox.session
def highest(session: nox.Session) -> None:
    """Fingerprints, reference data and backbone with the highest supported versions that are published."""
    ranges = pyproject_ranges()
    versions = [f"{name}{ranges[name]}" for name in LIBRARIES if name in ranges]
    session.env["PIP_UPGRADE"] = "1"
    run_fingerprints(session, [torch_requirement("highest"), *versions])


@nox.session
def release(session: nox.Session) -> None:
    """Build wheel and source archive; install each into an empty environment, and run a small demo there."""
    archives = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(archives, ignore_errors=True)
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", str(archives), str(ROOT))
    built = sorted(archives.iterdir())
    session.run("python", "-m", "twine", "check", "--strict", *map(str, built))
    if {path.suffix for path in built} != {".whl", ".gz"}:
        session.error(f"expected a wheel and a source archive, found {built}")
    for path in built:
        size = path.stat().st_size / 1e6
        session.log("%s: %.1f MB", path.name, size)
        if path.suffix == ".whl" and size > LARGEST_WHEEL:
            session.error(f"{path.name} has {size:.1f} MB, and is to have at most {LARGEST_WHEEL}")
        try_archive(session, path)


def try_archive(session: nox.Session, path: Path) -> None:
    """Install one archive into an environment of its own, and run a small demo there, in a folder without the clone."""
    with tempfile.TemporaryDirectory(prefix="unibrain-release-") as folder:
        home = Path(folder)
        session.run("python", "-m", "venv", str(home / "venv"))
        python, command = (str(home / "venv" / "bin" / name) for name in ("python", "unibrain"))
        pip = (python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"))
        session.run(*pip, f"{path}[demo]", external=True)
        # The other extras are large: that they can be installed beside it is asked, and not done.
        session.run(*pip, "--dry-run", f"{path}[captions,docs,test]", external=True)
        with session.chdir(home):
            quiet = {"PYTHONPATH": None, "PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1"}
            shown = session.run(command, "--version", silent=True, external=True, env=quiet) or ""
            if shown.split()[-1:] != [path.name.removesuffix(".tar.gz").split("-")[1]]:
                session.error(f"{path.name} says {shown!r}")
            session.run(command, "doctor", external=True, env=quiet)
            demo = ("demo", "--out", "run", "--images", "4", "--training-images", "40")
            session.run(command, *demo, external=True, env=quiet)
        wanted = ("report.html", "scores.json", "decoded/decoded.json")
        missing = [name for name in wanted if not (home / "run" / name).is_file()]
        if missing:
            session.error(f"{path.name}: the demo ended without {missing[0]}")
