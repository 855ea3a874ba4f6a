"""The web page of a run: its addresses, and what answers them."""

import io
import re
import secrets
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from unibrain.errors import InputError
from unibrain.explorer import comparison
from unibrain.explorer.brain import (
    activation,
    brain_map,
    decode_activation,
    decode_scan,
    inside,
    read_upload,
)
from unibrain.explorer.guard import LOOPBACK, Guard, is_loopback, own_names
from unibrain.explorer.items import item_key, kept_item, png
from unibrain.explorer.numbers import numbers
from unibrain.explorer.recipes import SCAN_FILE, Source, as_command, as_python
from unibrain.explorer.session import Session
from unibrain.explorer.worker import Job, Worker
from unibrain.workspace.fingerprints import digest

if TYPE_CHECKING:
    from fastapi import FastAPI

    from unibrain.explorer.items import Choice

_PAGES = {
    "": ("explorer/page/index.html", "text/html; charset=utf-8"),
    "report.css": ("report/page.css", "text/css; charset=utf-8"),
    "explorer.css": ("explorer/page/explorer.css", "text/css; charset=utf-8"),
    **{
        f"{name}.js": (f"explorer/page/{name}.js", "text/javascript; charset=utf-8")
        for name in ("main", "api", "dom", "settings", "scan", "brain", "compare", "numbers", "tables")
    },
}
"""Path to the file of the package that answers it; no path of a request is looked for on the disk."""

_REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
"""The static report has its style inside; in here it runs no script and is a stranger to the page."""

_JSON = 2**20
_HEADER_BYTES = 2**12
_WAIT = 20.0
_KEY = re.compile(r"[0-9a-f]{64}")


class Strict(BaseModel):
    """A body without surprises."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Settings(Strict):
    """See `unibrain.explorer.items.Choice`; what is left out is as the run decodes."""

    use: list[str] | None = None
    seed: int | None = None
    sampling: dict[str, dict[str, int | float | str]] = {}


class DecodeRequest(Strict):
    """A test image, or a scan that was handed over, and how to decode it."""

    image: int | None = None
    scan: str | None = None
    settings: Settings = Settings()


class Painted(Strict):
    """Voxels, and how far each is from its mean."""

    voxels: list[int] = []
    values: list[float] = []


class BrainRequest(Strict):
    """What is active, and how to decode it."""

    regions: dict[str, float] = {}
    painted: Painted = Painted()
    contributions: bool = False
    settings: Settings = Settings()


class CompareRequest(Strict):
    """Two settings and a number of images, or the name of another run."""

    run: str | None = None
    images: int = 12
    first: Settings = Settings()
    second: Settings = Settings()


class Service:
    """What the addresses of the page do with a session.

    Parameters
    ----------
    session : Session
    worker : Worker
    """

    def __init__(self, session: Session, worker: Worker) -> None:
        self.session, self.worker = session, worker

    @cached_property
    def about(self) -> dict[str, Any]:
        """The run; ``session`` keeps browsers from showing pictures of another run that was served here before."""
        return self.session.about() | {"session": secrets.token_hex(4)}

    @cached_property
    def map(self) -> dict[str, Any]:
        """The voxels."""
        return brain_map(self.session)

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """The tables."""
        return numbers(self.session)

    def decode(self, asked: DecodeRequest) -> dict[str, Any]:
        """Decode a scan: what is kept at once, else a job."""
        if (asked.image is None) == (asked.scan is None):
            raise InputError("name one image or one scan.")
        choice = self.session.choose(asked.settings.model_dump())
        source: Source = asked.image if asked.image is not None else str(asked.scan)
        said = self.session.control_captions(source) if isinstance(source, int) else {}
        about = {"recipe": self.recipe(source, choice), "controls": said}
        key = digest("decode", source, asdict(choice))
        if isinstance(source, int):
            latents = self.session.latents(source)
            kept = {
                kind: kept_item(self.session.bench, item_key(self.session.bench, latents, choice, kind))
                for kind in choice.sampling
            }
            if all(kept.values()):
                return {"job": key, "state": "done", "ahead": 0, "events": [], "result": {"items": kept}, **about}
        else:
            self.session.scan(source)

        def work(job: Job) -> dict[str, Any]:
            return {"items": decode_scan(self.session, self.session.latents(source), choice, job)}

        return self.state(self.worker.submit(key, work)) | about

    def activate(self, asked: BrainRequest) -> dict[str, Any]:
        """Decode a scan that was painted."""
        active = activation(self.session, asked.regions, asked.painted.voxels, asked.painted.values)
        choice = self.session.choose(asked.settings.model_dump())
        scan = self.session.keep(self.session.scan_of(active))
        key = digest("activate", scan, asked.contributions, asdict(choice))

        def work(job: Job) -> dict[str, Any]:
            return decode_activation(self.session, active, choice, asked.contributions, job)

        return self.state(self.worker.submit(key, work)) | {"scan": scan, "recipe": self.recipe(scan, choice)}

    def compare(self, asked: CompareRequest) -> dict[str, Any]:
        """Put two settings, or two runs, side by side."""
        if asked.run is not None:
            name = asked.run

            def beside(job: Job) -> dict[str, Any]:
                return comparison.plain(comparison.compare_with(self.session, name))

            return self.state(self.worker.submit(digest("beside", name), beside))
        choices = {
            "A": self.session.choose(asked.first.model_dump()),
            "B": self.session.choose(asked.second.model_dump()),
        }

        def work(job: Job) -> dict[str, Any]:
            return comparison.plain(comparison.compare_settings(self.session, choices, asked.images, job))

        key = digest("compare", asked.images, *map(asdict, choices.values()))
        return self.state(self.worker.submit(key, work))

    def upload(self, what: str, content: bytes) -> dict[str, Any]:
        """Take a scan, or a painted mask, as an ``.npy`` file."""
        subject = self.session.bench.subject
        voxels = subject.betas.shape[1]
        values = inside(read_upload(content, voxels, subject.grid_shape), subject.voxel_indices, painted=what == "mask")
        if what == "scan":
            return {"scan": self.session.keep(values.astype(np.float32)), "voxels": voxels}
        painted = np.flatnonzero(values)
        activation(self.session, {}, painted.tolist(), values[painted].tolist())
        return {"painted": {"voxels": painted.tolist(), "values": values[painted].tolist()}, "voxels": voxels}

    def job(self, key: str) -> Job:
        """A job by its key."""
        job = self.worker.find(key) if _KEY.fullmatch(key) else None
        if job is None:
            raise InputError("there is no such request any more. Ask again.")
        return job

    def state(self, job: Job, after: int = 0) -> dict[str, Any]:
        """What there is to know of a job."""
        return {
            "job": job.key,
            "state": job.state,
            "ahead": self.worker.ahead(job),
            "events": job.events[after:],
            "result": job.result,
            "error": job.error,
        }

    def recipe(self, source: Source, choice: "Choice") -> dict[str, str]:
        """The same as Python, and as a command."""
        import torch

        run, network = self.session.bench.run.root.resolve(), self.session.bench.settings.extract.backbone
        device, threads = self.session.source, torch.get_num_threads()
        return {
            "python": as_python(run, network, device, source, choice, threads),
            "command": as_command(run, device, source, choice, threads),
        }


def make_app(session: Session, worker: Worker, host: str = "127.0.0.1", token: str | None = None) -> Any:
    """The page of a session as an ASGI application, behind its guard.

    Parameters
    ----------
    session : Session
    worker : Worker
        Where it computes.
    host : str
        The address that it is served at.
    token : str, optional
        What browsers have to bring.
    """
    app = _routes(Service(session, worker))
    public = not is_loopback(host)
    names = {*LOOPBACK, host.lower(), *(own_names() if public else ())}
    most = max(_JSON, 8 * max(int(np.prod(session.bench.subject.grid_shape)), session.bench.subject.betas.shape[1]))
    return Guard(app, names, public, token, most + _HEADER_BYTES)


def _routes(service: Service) -> "FastAPI":
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    # The pages that describe an interface of this kind fetch scripts from elsewhere.
    app = FastAPI(title="unibrain explorer", docs_url=None, redoc_url=None, openapi_url=None)
    page = {path: (files("unibrain").joinpath(file).read_bytes(), kind) for path, (file, kind) in _PAGES.items()}
    session = service.session

    @app.exception_handler(InputError)
    def mistake(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.exception_handler(RequestValidationError)
    def misfit(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        return JSONResponse({"error": f"{where or 'the request'}: {first['msg'].lower()}."}, 400)

    def static(content: bytes, kind: str) -> Callable[[], Response]:
        return lambda: Response(content, media_type=kind)

    for path, (content, kind) in page.items():
        app.add_api_route(f"/{path}", static(content, kind), methods=["GET"])

    @app.get("/report")
    def report() -> Response:
        file = session.bench.run.artefact("report")
        if not file.is_file():
            return Response(f"Run `unibrain report {session.bench.run.root}` first.\n", 404, media_type="text/plain")
        policy = {"content-security-policy": _REPORT_POLICY}
        return Response(file.read_bytes(), media_type="text/html; charset=utf-8", headers=policy)

    @app.get("/api/run")
    def run() -> JSONResponse:
        return JSONResponse(service.about)

    @app.get("/api/map")
    def voxels() -> JSONResponse:
        return JSONResponse(service.map)

    @app.get("/api/numbers")
    def tables() -> JSONResponse:
        return JSONResponse(service.numbers)

    @app.get("/api/pictures/{identity}/{what}")
    def picture(identity: int, what: str) -> Response:
        found = session.picture(identity, what)
        if found is None:
            return JSONResponse({"error": f"there is no picture {what[:40]!r} of image {identity}."}, 404)
        # Nothing changes in a run while it is explored: its folder is locked.
        return Response(png(found), media_type="image/png", headers={"cache-control": "private, max-age=600"})

    posts: dict[str, Callable[..., dict[str, Any]]] = {
        "decode": service.decode,
        "activate": service.activate,
        "compare": service.compare,
    }
    for name, answer in posts.items():
        app.add_api_route(f"/api/{name}", answer, methods=["POST"], response_model=None)

    @app.post("/api/uploads/{what}")
    async def upload(what: str, request: Request) -> JSONResponse:
        if what not in ("scan", "mask"):
            return JSONResponse({"error": "hand over a scan or a mask."}, 404)
        return JSONResponse(service.upload(what, await request.body()))

    @app.get("/api/scans/{key}")
    def scan(key: str) -> Response:
        buffer = io.BytesIO()
        np.save(buffer, session.scan(key), allow_pickle=False)
        keep = {"content-disposition": f'attachment; filename="{SCAN_FILE}"'}
        return Response(buffer.getvalue(), media_type="application/octet-stream", headers=keep)

    @app.get("/api/jobs/{key}")
    def watch(key: str, after: int = 0) -> JSONResponse:
        job = service.job(key)
        job.wait(max(0, after), _WAIT)
        return JSONResponse(service.state(job, max(0, after)))

    @app.delete("/api/jobs/{key}")
    def leave(key: str) -> JSONResponse:
        job = service.job(key)
        service.worker.leave(job)
        return JSONResponse(service.state(job, len(job.events)))

    return app


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises
    ------
    InputError
        If the port is busy, or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        raise InputError(
            f"--port {port} of {host} cannot be used ({(error.strerror or str(error)).lower()}). Choose another "
            "one, or --port 0 for one that is free."
        ) from None
    return found


def serve(session: Session, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until the process is stopped.

    Parameters
    ----------
    session : Session
    host : str
        Anything but this machine itself needs a token, which is made here.
    port : int
        0 for one that is free.
    ready : callable
        Called with the address of the page once it can be opened.

    Raises
    ------
    InputError
        If the port is busy.
    """
    import uvicorn

    from unibrain.workspace.progress import show

    listening = bind(host, port)
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    worker = Worker(lambda error: traceback.print_exception(error, file=sys.stderr))
    try:
        app = make_app(session, worker, host, token)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
            server_header=False,
        )

        def warm(_: Job) -> None:
            session.warm_up()

        worker.submit(digest("warm up"), warm)
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}/" + ("" if token is None else f"?token={token}"))
        show("quiet")  # bars of every request would hide the address
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        show("normal")
        worker.close()
        listening.close()
