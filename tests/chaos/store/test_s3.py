"""S3 in and out: list and tables in a bucket of a real S3 server, killed in two stages and resumed; equal to a disk's tables."""

import os
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pyarrow as pa
import pytest

from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import subset
from corgi.demo.raster import folder_name, rasterise
from corgi.demo.site import Site
from corgi.demo.url_list import HOST, write_url_list
from corgi.tables.run import Run
from tests.support.ports import free_port
from tests.support.process_tree import kill_tree
from tests.support.s3_server import BUCKET, s3_server
from tests.support.table_digest import table_digest

HOME = Path(__file__).resolve().parents[3]
TABLES = {
    "plan": ("plan",),
    "download": ("images", "captions", "ledger"),
    "embed": ("image_embeddings", "caption_embeddings"),
    "curate": ("selection",),
}
NUM_PICTURES = 200


class Flow:
    """pipelines/full.py up to the shift stage over a site on loopback, in an environment."""

    def __init__(self, site: Site, environment: dict[str, str], folder: Path) -> None:
        self.site, self.environment, self.folder = site, environment, folder
        folder.mkdir()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [
            *(sys.executable, str(HOME / "pipelines" / "full.py"), "pipelines/recipes/smoke.yaml"),
            *("--until", "shift", "plan.number_sample_per_shard=32", "tower.training.num_steps=20"),
            *(
                f'download.resolve=["{HOST}:80={self.site.address}"]',
                f'download.allow_private=["{self.site.address}"]',
            ),
            *arguments,
        ]
        with (self.folder / "said.log").open("a") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                text=True,
                cwd=HOME,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def finish(self, *arguments: str) -> None:
        process = self.start(*arguments)
        assert process.wait(timeout=900) == 0, (self.folder / "said.log").read_text()[-4000:]

    def kill_when(self, ready: object, *arguments: str) -> None:
        """SIGKILL the driver and all below it once `ready()` says so."""
        process = self.start(*arguments)
        deadline = time.monotonic() + 400
        while not ready():  # pyright: ignore[reportCallIssue]
            assert process.poll() is None, (self.folder / "said.log").read_text()[-4000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        kill_tree(process)


def digests(run: Run) -> dict[str, str]:
    """Return a digest of every table of a run, rows sorted."""
    return {
        f"{stage}/{table}": table_digest(
            pa.concat_tables([run.store.read(s, table) for s in run.shards(stage)])
        )
        for stage, tables in TABLES.items()
        for table in tables
    }


@pytest.mark.flow
@pytest.mark.timeout(1700)
def test_the_flow_on_s3_killed_twice_equals_the_flow_on_a_disk(tmp_path, monkeypatch, promise):
    pictures = subset(packaged().pictures, NUM_PICTURES)
    rasterise(pictures, tmp_path / folder_name(packaged()))
    rows = write_url_list(tmp_path / "urls.parquet", pictures, packaged().credit)
    with Site(tmp_path / folder_name(packaged()), free_port()) as site, s3_server() as environment:
        client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], **credentials(environment))
        client.upload_file(str(tmp_path / "urls.parquet"), BUCKET, "lists/urls.parquet")
        disk = Flow(site, {}, tmp_path / "disk")
        disk.finish(f"root={tmp_path / 'disk' / 'runs'}", f"plan.input={tmp_path / 'urls.parquet'}")
        wanted = digests(Run.open(tmp_path / "disk" / "runs" / "smoke"))
        root = f"s3://{BUCKET}/runs"
        remote = Flow(site, environment, tmp_path / "remote")
        arguments = [
            f"root={root}",
            f"scratch={tmp_path / 'scratch'}",
            f"plan.input=s3://{BUCKET}/lists/urls.parquet",
        ]

        def committed(stage: str) -> bool:
            listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"runs/store/{stage}/").get("Contents", [])
            return any("/manifest-" in item["Key"] for item in listed)

        for stage in ("download", "embed"):
            remote.kill_when(lambda stage=stage: committed(stage), *arguments)
        remote.finish(*arguments)
        remote.finish(*arguments)
        assert "0 stages ran" in (tmp_path / "remote" / "said.log").read_text()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        run = Run.open(f"{root}/smoke")
        found = digests(run)
        assert found == wanted
        assert run.published("report.html") == f"{root}/smoke/report.html"
    promise(
        1,
        f"S3 in and out, {rows} rows, killed in download and embed: {len(found)} of {len(found)} table digests equal to a disk's",
    )


def credentials(environment: dict[str, str]) -> dict[str, str]:
    return {
        "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
        "region_name": environment["AWS_REGION"],
    }
