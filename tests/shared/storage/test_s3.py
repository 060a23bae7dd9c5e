"""Blobs in a bucket: the same contract as in a folder, over real HTTP, and what a bucket may do to
a service.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from urllib3 import HTTPResponse

from shared.errors import StorageFailed, StorageUnavailable
from shared.storage.blobs import BlobStore
from shared.storage.opening import open_blobs
from shared.storage.s3 import S3BlobStore

pytestmark = pytest.mark.heavy  # starts a server

ROOT = Path(__file__).resolve().parents[3]
SECRET = "a-secret-that-nobody-may-read"
NEVER_PUT = "0" * 64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [
        name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Run a service that speaks like S3, and return its address."""
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


def backend() -> Any:
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


@dataclass
class Bucket:
    """A bucket of its own for one test, as its owner sees it."""

    name: str
    endpoint: str
    client: Any

    def keys(self) -> list[str]:
        return [
            known["Key"]
            for known in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        ]

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def fill(self, number_of_blobs: int, data: bytes) -> None:
        for number in range(number_of_blobs):
            backend().put_object(self.name, f"home/main-server/{number:064x}", data)

    def age(self, key: str, age_s: float) -> None:
        backend().buckets[self.name].keys[key].last_modified -= timedelta(seconds=age_s)

    def open(self, folder: Path, service: str = "main-server") -> BlobStore:
        return open_blobs(folder, f"s3://{self.name}/home", service, self.endpoint)


numbers = count(1)


@pytest.fixture(scope="module")
def owner(server: str) -> Any:
    session = boto3.session.Session(
        aws_access_key_id="owner", aws_secret_access_key="owner", region_name="us-east-1"
    )
    return session.client("s3", endpoint_url=server)


@pytest.fixture
def bucket(server: str, owner: Any) -> Bucket:
    name = f"bucket-{next(numbers)}"
    owner.create_bucket(Bucket=name)
    return Bucket(name, server, owner)


@dataclass
class Kept:
    """A store, a second handle on what it keeps, and how its blobs are made older."""

    store: BlobStore
    again: Callable[[], BlobStore]
    age: Callable[[str, float], None]


@pytest.fixture(params=["folder", "bucket"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "folder":
        folder = tmp_path / "blobs"

        def age(digest: str, age_s: float) -> None:
            os.utime(folder / digest, (time.time() - age_s,) * 2)

        return Kept(BlobStore(folder), lambda: BlobStore(folder), age)
    bucket: Bucket = request.getfixturevalue("bucket")
    folders = count()

    def elsewhere() -> BlobStore:
        return bucket.open(tmp_path / str(next(folders)))

    return Kept(
        elsewhere(),
        elsewhere,
        lambda digest, age_s: bucket.age(f"home/main-server/{digest}", age_s),
    )


# --- what every store does


@pytest.mark.parametrize(
    "data", [b"", b"some bytes", bytes(range(256)) * 8192], ids=["none", "few", "2 MB"]
)
def test_blob_comes_back_as_it_was_wherever_it_is_asked_for(kept: Kept, data: bytes) -> None:
    digest = kept.store.put(data)
    assert digest == sha256(data)
    for store in (kept.store, kept.again()):
        assert store.get(digest) == data
        assert store.path(digest).read_bytes() == data


def test_path_alone_is_enough_to_read_a_blob(kept: Kept) -> None:
    assert kept.again().path(kept.store.put(b"some bytes")).read_bytes() == b"some bytes"


def test_putting_twice_keeps_one_blob(kept: Kept) -> None:
    assert kept.store.put(b"some bytes") == kept.again().put(b"some bytes")
    assert kept.store.size() == (10, 1)


def test_blob_that_was_never_put_is_not_found(kept: Kept) -> None:
    with pytest.raises(FileNotFoundError):
        kept.store.get(NEVER_PUT)


def test_name_that_is_no_digest_is_refused(kept: Kept) -> None:
    strange = [
        "",
        "short",
        "A" * 64,
        "g" * 64,
        "0" * 63,
        "0" * 65,
        NEVER_PUT + "\n",
        "../" + "0" * 61,
        "/etc/passwd",
    ]
    for name in [*strange, "٣" * 64]:
        for call in (kept.store.get, kept.store.path, kept.store.delete):
            with pytest.raises(ValueError, match="no SHA-256"):
                call(name)


def test_deleted_blob_is_gone_and_may_be_put_again(kept: Kept) -> None:
    digest, other = kept.store.put(b"some bytes"), kept.store.put(b"other bytes")
    kept.store.delete(digest)
    kept.store.delete(digest)
    for store in (kept.store, kept.again()):
        with pytest.raises(FileNotFoundError):
            store.get(digest)
        assert store.get(other) == b"other bytes"
    assert kept.store.put(b"some bytes") == digest
    assert kept.again().get(digest) == b"some bytes"


def test_size_is_bytes_and_blobs(kept: Kept) -> None:
    assert kept.store.size() == (0, 0)
    kept.store.put(b"some bytes")
    kept.store.put(b"other bytes")
    assert kept.store.size() == (21, 2)
    assert (kept.again().size().bytes, kept.again().size().blobs) == (21, 2)


def test_prune_takes_what_is_old_and_not_needed(kept: Kept) -> None:
    needed, old, young = (kept.store.put(data) for data in (b"needed", b"old bytes", b"young"))
    kept.age(needed, 1000)
    kept.age(old, 1000)
    kept.age(young, 100)
    assert kept.store.prune([needed], grace_s=500) == len(b"old bytes")
    assert kept.again().get(needed) == b"needed"
    assert kept.again().get(young) == b"young"
    with pytest.raises(FileNotFoundError):
        kept.again().get(old)
    assert kept.store.prune([needed], grace_s=500) == 0


def test_blob_put_again_is_young_again(kept: Kept) -> None:
    digest = kept.store.put(b"some bytes")
    kept.age(digest, 1000)
    kept.again().put(b"some bytes")
    assert kept.store.prune((), grace_s=500) == 0
    assert kept.again().get(digest) == b"some bytes"


def test_many_writers_and_a_pruner_lose_nothing(kept: Kept) -> None:
    stores = [kept.store, *(kept.again() for _ in range(3))]
    digests: list[list[str]] = [[] for _ in stores]

    def write(number: int) -> None:
        for turn in range(5):
            digests[number].append(stores[number].put(b"shared by all"))
            digests[number].append(stores[number].put(f"blob {number} {turn}".encode()))
            stores[number].prune((), grace_s=60)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(len(stores))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert {len(written) for written in digests} == {10}
    assert kept.store.size().blobs == 21
    fresh = kept.again()
    assert all(sha256(fresh.get(digest)) == digest for written in digests for digest in written)


# --- a bucket and its folders


def test_keys_are_below_the_prefix_of_the_service(bucket: Bucket, tmp_path: Path) -> None:
    digest = bucket.open(tmp_path / "a", "device-1").put(b"some bytes")
    bare = open_blobs(tmp_path / "b", f"s3://{bucket.name}", "device-2", bucket.endpoint)
    bare.put(b"some bytes")
    assert bucket.keys() == [f"device-2/{digest}", f"home/device-1/{digest}"]
    assert bare.size() == (10, 1)


def test_services_do_not_see_or_prune_one_anothers_blobs(bucket: Bucket, tmp_path: Path) -> None:
    main, other = bucket.open(tmp_path / "a", "main"), bucket.open(tmp_path / "b", "main-server")
    digest = main.put(b"some bytes")
    bucket.age(f"home/main/{digest}", 1000)
    for name in ("notes.txt", digest[:-1], f"{digest}.old", f"deeper/{digest}"):
        bucket.write(f"home/main-server/{name}", b"not a blob")
        bucket.age(f"home/main-server/{name}", 1000)
    with pytest.raises(FileNotFoundError):
        other.get(digest)
    assert other.size() == (0, 0)
    assert other.prune((), grace_s=0) == 0
    assert len(bucket.keys()) == 5


def test_more_blobs_than_one_answer_lists_are_counted_and_pruned(
    bucket: Bucket, tmp_path: Path
) -> None:
    store = bucket.open(tmp_path)
    bucket.fill(1005, b"xyz")
    assert store.size() == (3015, 1005)
    for number in (0, 1002, 1004):
        bucket.age(f"home/main-server/{number:064x}", 1000)
    assert store.prune([f"{1004:064x}"], grace_s=500) == 6
    assert store.size() == (3009, 1003)


def test_blob_that_is_in_the_folder_is_not_fetched(bucket: Bucket, tmp_path: Path) -> None:
    bucket.open(tmp_path / "a").put(b"some bytes")
    store = bucket.open(tmp_path / "b")
    digest = sha256(b"some bytes")
    store.get(digest)
    bucket.client.delete_object(Bucket=bucket.name, Key=f"home/main-server/{digest}")
    assert store.get(digest) == b"some bytes"
    assert store.path(digest) == tmp_path / "b" / digest


def test_prune_empties_the_folder_too(bucket: Bucket, tmp_path: Path) -> None:
    store = bucket.open(tmp_path / "a")
    digest = store.put(b"some bytes")
    os.utime(tmp_path / "a" / digest, (0, 0))
    assert store.prune((), grace_s=500) == 0
    assert list((tmp_path / "a").iterdir()) == []
    assert store.get(digest) == b"some bytes"


def test_age_is_told_by_the_buckets_clock(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket.open(tmp_path)
    digest = store.put(b"some bytes")
    date = "Fri, 01 Jan 2100 00:00:00 GMT"

    def from_the_future(parsed: dict[str, Any], **_: object) -> None:
        parsed["ResponseMetadata"]["HTTPHeaders"]["date"] = date

    store._client.meta.events.register("after-call.s3", from_the_future)
    assert store.prune((), grace_s=500) == 10
    with pytest.raises(FileNotFoundError):
        bucket.open(tmp_path / "b").get(digest)


@pytest.mark.parametrize("forged", [b"", b"other bytes", b"some byteS", b"some bytes and more"])
def test_object_that_is_not_what_was_put_is_refused(
    bucket: Bucket, tmp_path: Path, forged: bytes
) -> None:
    digest = bucket.open(tmp_path / "a").put(b"some bytes")
    bucket.write(f"home/main-server/{digest}", forged)
    store = bucket.open(tmp_path / "b")
    for call in (store.get, store.path):
        with pytest.raises(StorageFailed, match="is not what was put there"):
            call(digest)
    assert list((tmp_path / "b").iterdir()) == []


def test_put_heals_an_object_that_is_not_what_was_put(bucket: Bucket, tmp_path: Path) -> None:
    store = bucket.open(tmp_path / "a")
    digest = store.put(b"some bytes")
    bucket.write(f"home/main-server/{digest}", b"other bytes")
    store.put(b"some bytes")
    assert bucket.open(tmp_path / "b").get(digest) == b"some bytes"


def test_removal_waits_for_a_put_of_the_same_bytes_and_then_lets_them_be(
    bucket: Bucket, tmp_path: Path
) -> None:
    """The put comes between the last look at an object and its removal, from another process of
    this machine.
    """
    store, other = bucket.open(tmp_path / "a"), bucket.open(tmp_path / "a")
    digest = store.put(b"some bytes")
    bucket.age(f"home/main-server/{digest}", 1000)
    again = threading.Thread(target=lambda: other.put(b"some bytes"))

    def while_removing(**_: object) -> None:
        again.start()
        again.join(0.5)

    store._client.meta.events.register("before-call.s3.DeleteObject", while_removing)
    assert store.prune((), grace_s=500) == 10
    again.join(10)
    assert bucket.open(tmp_path / "b").get(digest) == b"some bytes"


def test_look_at_an_object_is_the_last_one_that_counts(bucket: Bucket, tmp_path: Path) -> None:
    """The put comes between the listing and the removal, from another machine."""
    store, other = bucket.open(tmp_path / "a"), bucket.open(tmp_path / "b")
    digest = store.put(b"some bytes")
    bucket.age(f"home/main-server/{digest}", 1000)
    store._client.meta.events.register(
        "before-call.s3.HeadObject", lambda **_: other.put(b"some bytes") and None
    )
    assert store.prune((), grace_s=500) == 0
    assert bucket.open(tmp_path / "c").get(digest) == b"some bytes"


def test_object_that_another_pruned_meanwhile_frees_nothing(bucket: Bucket, tmp_path: Path) -> None:
    store, other = bucket.open(tmp_path / "a"), bucket.open(tmp_path / "b")
    digest = store.put(b"some bytes")
    bucket.age(f"home/main-server/{digest}", 1000)
    store._client.meta.events.register(
        "before-call.s3.HeadObject", lambda **_: other.delete(digest)
    )
    assert store.prune((), grace_s=500) == 0


# --- a folder that fails, while the bucket does not

PUT_ON_A_FULL_DISK = """
import pathlib, resource, sys
from shared.storage.opening import open_blobs
folder, place, endpoint = sys.argv[1:]
store = open_blobs(pathlib.Path(folder), place, "main-server", endpoint)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
digest = store.put(b"x" * 100_000)
print(digest, len(store.get(digest)), list(pathlib.Path(folder).iterdir()))
store.path(digest)
"""


def test_what_does_not_fit_onto_the_disk_is_in_the_bucket_all_the_same(
    bucket: Bucket, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-c",
        PUT_ON_A_FULL_DISK,
        tmp_path / "a",
        f"s3://{bucket.name}/home",
        bucket.endpoint,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    digest = sha256(b"x" * 100_000)
    assert done.stdout == f"{digest} 100000 []\n"
    assert done.stderr.count("The disk is full: the folder") == 3  # put and get go on, path cannot
    assert "shared.errors.StorageFailed" in done.stderr
    assert bucket.open(tmp_path / "b").get(digest) == b"x" * 100_000


def test_process_killed_while_it_writes_the_folder_has_put_it_into_the_bucket(
    bucket: Bucket, tmp_path: Path
) -> None:
    program = (
        "import os, pathlib, sys; from shared.storage.opening import open_blobs; os.fsync = lambda _: os._exit(9);"
        "open_blobs(pathlib.Path(sys.argv[1]), sys.argv[2], 'main-server', sys.argv[3]).put(b'some bytes')"
    )
    command = [
        sys.executable,
        "-c",
        program,
        tmp_path / "a",
        f"s3://{bucket.name}/home",
        bucket.endpoint,
    ]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    assert bucket.open(tmp_path / "b").get(sha256(b"some bytes")) == b"some bytes"
    assert not (tmp_path / "a" / sha256(b"some bytes")).exists()


def test_nothing_is_in_the_folder_before_it_is_in_the_bucket(
    bucket: Bucket, tmp_path: Path
) -> None:
    store = bucket.open(tmp_path)
    bucket.client.delete_bucket(Bucket=bucket.name)
    with pytest.raises(StorageFailed):
        store.put(b"some bytes")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_read_is_passed_over(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    store = bucket.open(tmp_path)
    digest = store.put(b"some bytes")
    monkeypatch.setattr(Path, "read_bytes", fail)
    assert store.get(digest) == b"some bytes"


def test_folder_that_was_lost_is_filled_again(bucket: Bucket, tmp_path: Path) -> None:
    digest = bucket.open(tmp_path / "a").put(b"some bytes")
    shutil.rmtree(tmp_path / "a")
    assert bucket.open(tmp_path / "a").path(digest).read_bytes() == b"some bytes"


# --- a bucket that refuses, or is not there

CALLS: dict[str, Callable[[BlobStore], object]] = {
    "put": lambda store: store.put(b"some bytes"),
    "get": lambda store: store.get(NEVER_PUT),
    "path": lambda store: store.path(NEVER_PUT),
    "delete": lambda store: store.delete(NEVER_PUT),
    "prune": lambda store: store.prune((), 0),
    "size": lambda store: store.size(),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attempts follow one another at once."""
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda _: None))


@dataclass
class Stub:
    """An endpoint that gives one answer to everything."""

    url: str
    status: int = 200
    body: bytes = b""
    asked: int = 0

    def refuse(self, status: int, code: str, message: str = "") -> None:
        self.status = status
        self.body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@pytest.fixture
def stub() -> Iterator[Stub]:
    told = Stub("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told.asked += 1
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(told.status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        do_PUT = do_DELETE = do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        told.url = f"http://127.0.0.1:{listening.server_port}"
        threading.Thread(
            target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        yield told
        listening.shutdown()


@every_call
def test_bucket_that_is_not_there_is_named(
    server: str, tmp_path: Path, call: Callable[[BlobStore], object]
) -> None:
    with pytest.raises(StorageFailed, match="There is no bucket nowhere-to-be-found") as refused:
        call(open_blobs(tmp_path, "s3://nowhere-to-be-found", "main-server", server))
    assert not isinstance(refused.value, StorageUnavailable)
    assert refused.value.status == 507


@every_call
def test_endpoint_where_nobody_listens_is_unavailable_at_once(
    tmp_path: Path, call: Callable[[BlobStore], object]
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    store, began = open_blobs(tmp_path, "s3://bucket", "main-server", nobody), time.monotonic()
    with pytest.raises(StorageUnavailable, match="does not answer at the moment") as refused:
        call(store)
    assert refused.value.status == 503
    assert time.monotonic() - began < 20


@every_call
def test_endpoint_that_says_nothing_is_given_up(
    tmp_path: Path, call: Callable[[BlobStore], object]
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        store, began = (
            S3BlobStore(tmp_path, "bucket", "a/", endpoint, timeout_s=0.2),
            time.monotonic(),
        )
        with pytest.raises(StorageUnavailable, match="ReadTimeoutError"):
            call(store)
    assert time.monotonic() - began < 20


def test_patience_is_bounded_where_nobody_says_otherwise(stub: Stub, tmp_path: Path) -> None:
    config = open_blobs(tmp_path, "s3://bucket", "main-server", stub.url)._client.meta.config
    assert config.connect_timeout * config.retries["total_max_attempts"] < 15
    assert config.read_timeout * config.retries["total_max_attempts"] < 40


@pytest.mark.usefixtures("no_pause")
@every_call
def test_bucket_that_is_busy_is_unavailable_for_the_moment(
    stub: Stub, tmp_path: Path, call: Callable[[BlobStore], object]
) -> None:
    stub.refuse(503, "SlowDown")
    with pytest.raises(StorageUnavailable, match=r"does not answer at the moment \(503 SlowDown\)"):
        call(open_blobs(tmp_path, "s3://bucket", "main-server", stub.url))
    assert stub.asked == 3


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("status", [408, 429, 500, 502, 504])
def test_what_passes_is_not_told_as_a_refusal(stub: Stub, tmp_path: Path, status: int) -> None:
    stub.refuse(status, "InternalError")
    with pytest.raises(
        StorageUnavailable, match=f"does not answer at the moment \\({status} InternalError"
    ):
        open_blobs(tmp_path, "s3://bucket", "main-server", stub.url).get(NEVER_PUT)


@every_call
def test_bucket_that_refuses_is_told_with_its_code_and_no_more(
    stub: Stub, tmp_path: Path, call: Callable[[BlobStore], object]
) -> None:
    stub.refuse(403, "AccessDenied", f"AKIAIOSFODNN7EXAMPLE {SECRET}")
    with pytest.raises(
        StorageFailed, match=r"refuses this service \(403 AccessDenied\)"
    ) as refused:
        call(open_blobs(tmp_path, "s3://bucket", "main-server", stub.url))
    assert not isinstance(refused.value, StorageUnavailable)
    assert "AKIA" not in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("status", [400, 405, 412, 501, 505])
def test_what_does_not_pass_is_told_as_a_refusal(stub: Stub, tmp_path: Path, status: int) -> None:
    stub.refuse(status, "Sorry")
    with pytest.raises(StorageFailed, match=f"refuses this service \\({status} Sorry") as refused:
        open_blobs(tmp_path, "s3://bucket", "main-server", stub.url).get(NEVER_PUT)
    assert not isinstance(refused.value, StorageUnavailable)


@pytest.mark.parametrize("code", ["AKIAIOSFODNN7EXAMPLE", SECRET, "a" * 100, "x y", "1"])
def test_code_that_is_none_is_not_repeated(stub: Stub, tmp_path: Path, code: str) -> None:
    stub.refuse(403, code)
    with pytest.raises(StorageFailed, match=r"refuses this service \(403\)"):
        open_blobs(tmp_path, "s3://bucket", "main-server", stub.url).put(b"some bytes")


def test_bucket_that_is_full_says_so(stub: Stub, tmp_path: Path) -> None:
    stub.refuse(507, "XMinioStorageFull")
    with pytest.raises(StorageFailed, match="The bucket bucket is full") as refused:
        open_blobs(tmp_path, "s3://bucket", "main-server", stub.url).put(b"some bytes")
    assert not isinstance(refused.value, StorageUnavailable)


@pytest.mark.parametrize(
    ("name", "status"),
    [*((name, 404) for name in CALLS), ("get", 200), ("path", 200), ("size", 200), ("prune", 200)],
)
def test_endpoint_that_is_something_else_is_not_taken_for_an_empty_bucket(
    stub: Stub, tmp_path: Path, name: str, status: int
) -> None:
    stub.status, stub.body = status, b"<html>Welcome<br></html>"
    with pytest.raises(StorageFailed):
        CALLS[name](open_blobs(tmp_path, "s3://bucket", "main-server", stub.url))


@every_call
def test_without_credentials_the_service_says_what_it_lacks(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[BlobStore], object]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageFailed, match=r"NoCredentialsError.*Look at the credentials"):
        call(open_blobs(tmp_path, "s3://bucket", "main-server", stub.url))
    assert stub.asked == 0


def test_half_of_the_credentials_are_none(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageFailed, match="PartialCredentialsError"):
        open_blobs(tmp_path, "s3://bucket", "main-server", stub.url)


def test_answer_cut_short_is_not_taken(bucket: Bucket, tmp_path: Path) -> None:
    digest = bucket.open(tmp_path / "a").put(b"some bytes")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def cut_short() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsome")
            connection.close()

        threading.Thread(target=cut_short, daemon=True).start()
        store = open_blobs(
            tmp_path / "b", "s3://bucket", "a", f"http://127.0.0.1:{listener.getsockname()[1]}"
        )
        with pytest.raises(StorageUnavailable):
            store.get(digest)
    assert list((tmp_path / "b").iterdir()) == []


@pytest.mark.parametrize("endpoint", ["http://s3.example.org", "https://s3.example.org", None])
def test_what_is_sent_carries_its_sha256_and_no_header_that_only_amazon_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str | None
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    store, sent = open_blobs(tmp_path, "s3://bucket/home", "main-server", endpoint), []

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 200, {}, HTTPResponse(io.BytesIO(), preload_content=False))

    store._client.meta.events.register("before-send.s3", answer)
    digest = store.put(b"some bytes")
    place = f"{endpoint}/bucket" if endpoint else "https://bucket.s3.eu-central-1.amazonaws.com"
    assert sent[0].url == f"{place}/home/main-server/{digest}"
    headers = {name.lower(): value for name, value in sent[0].headers.items()}
    assert headers["x-amz-content-sha256"] in (digest, digest.encode())
    assert not [
        name
        for name in headers
        if "checksum" in name or name in ("x-amz-trailer", "content-encoding")
    ]
    assert SECRET not in str(headers)
