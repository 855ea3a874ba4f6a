"""What tests of the page share: a job that is followed to its end, and arrays and pictures as the page has them."""

import base64
import io
import time
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient


def follow(client: TestClient, answer: Any) -> dict[str, Any]:
    """What a job says in the end, with all of its events."""
    state = answer.json()
    assert answer.status_code == 200, state
    events, first = list(state["events"]), state
    deadline = time.monotonic() + 30
    while state["state"] in ("waiting", "running") and time.monotonic() < deadline:
        state = client.get(f"/api/jobs/{state['job']}?after={len(events)}").json()
        events += state["events"]
    return first | state | {"events": events}


def picture_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()
