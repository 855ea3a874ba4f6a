"""A bucket on this machine: S3 as moto has it, and a server in front of it that misbehaves as told."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

NSD_BUCKET = "natural-scenes-dataset"


class S3:
    """A local S3 server that holds a small simulated tree under NSD's names."""

    def __init__(self, host: str, port: int) -> None:
        import boto3

        self.host, self.port = host, port
        self.endpoint = f"http://{host}:{port}"
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def put(self, key: str, content: bytes, acl: str = "public-read", bucket: str = NSD_BUCKET) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=content, ACL=acl)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=NSD_BUCKET, Key=key)

    def put_parts(self, key: str, parts: list[bytes]) -> None:
        upload = self.client.create_multipart_upload(Bucket=NSD_BUCKET, Key=key, ACL="public-read")
        about: dict[str, Any] = {"Bucket": NSD_BUCKET, "Key": key, "UploadId": upload["UploadId"]}
        done = [
            {"PartNumber": number, "ETag": self.client.upload_part(**about, PartNumber=number, Body=part)["ETag"]}
            for number, part in enumerate(parts, 1)
        ]
        self.client.complete_multipart_upload(**about, MultipartUpload={"Parts": done})


@dataclass
class Asked:
    """A request as it came in."""

    method: str
    target: str
    range: str | None
    if_match: str | None

    @property
    def name(self) -> str:
        """Of the file; empty for a list."""
        return "" if "list-type=2" in self.target else self.target.partition("?")[0].rpartition("/")[2]


@dataclass
class Between:
    """A server that hands requests on to S3, notes them, and misbehaves as told."""

    endpoint: str = ""
    asked: list[Asked] = field(default_factory=list)
    cut: dict[str, list[int]] = field(default_factory=dict)
    """File name to after how many bytes of the body to hang up, one entry per request."""
    status: dict[str, list[int]] = field(default_factory=dict)
    """File name to statuses that are answered instead, one per request."""
    spoil: Callable[[str, bytes], bytes] = lambda name, body: body
    """Changes a body on its way."""
    keys_per_page: int = 0
    """If set, a list is cut into pages of so many."""
    page: bytes | None = None
    """If set, every answer is this page."""
    hang: threading.Event | None = None
    """If set, a body stops in the middle until the event comes."""

    def downloads(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "GET" and asked.name]


def handler_of(between: Between, s3: S3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            asked = Asked(self.command, self.path, self.headers["Range"], self.headers["If-Match"])
            between.asked.append(asked)
            if between.page is not None or between.status.get(asked.name):
                self.send_response(200 if between.page else between.status[asked.name].pop(0))
                self.send_header("Content-Length", str(len(between.page or b"")))
                self.end_headers()
                self.wfile.write(between.page or b"")
                return
            path = self.path
            if between.keys_per_page and "list-type=2" in path:
                path += f"&max-keys={between.keys_per_page}"
            headers = {name: self.headers[name] for name in ("Range", "If-Match") if self.headers[name]}
            onward = http.client.HTTPConnection(s3.host, s3.port)
            onward.request(self.command, path, headers=headers)
            answer = onward.getresponse()
            body = answer.read()
            onward.close()
            if self.command == "GET" and asked.name:
                body = between.spoil(asked.name, body)
            self.send_response(answer.status)
            for name in ("Content-Type", "ETag", "Content-Range", "x-amz-mp-parts-count"):
                if answer.headers[name]:
                    self.send_header(name, answer.headers[name])
            length = answer.headers["Content-Length"] if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            if between.hang is not None and asked.name:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                between.hang.wait(20)
                return
            if self.command == "GET" and between.cut.get(asked.name):
                body = body[: between.cut[asked.name].pop(0)]
                self.close_connection = True
            if self.command == "GET":
                self.wfile.write(body)

    return Handler
