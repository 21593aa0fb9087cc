import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from corgi.demo.raster import file_name
from corgi.demo.site import Site
from corgi.demo.url_list import rows, struck_pictures, write_url_list
from corgi.settings.errors import CorgiError, InputError
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(picture_folder):
    with Site(picture_folder, port=0) as running:
        yield running


def connect(address: str) -> http.client.HTTPConnection:
    host, port = address.split(":")
    return http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)


def get(site: Site, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(connect(site.address)) as connection:
        connection.request("GET", path, headers={"Host": "emoji.test"})
        response = connection.getresponse()
        return response, response.read()


def tally(site: Site) -> dict[str, int]:
    return json.loads(get(site, "/_tally")[1])


def path_of(fault, pictures) -> tuple[str, str]:
    name = file_name(min(struck_pictures(pictures, fault)))
    return f"/{fault}/{name}", name


def test_every_url_of_the_list_gets_its_kind_of_answer(picture_folder, few_pictures):
    paths = {row.url.removeprefix("http://emoji.test") for row in rows(few_pictures)}
    with Site(picture_folder, port=0) as site:
        for path in sorted(paths):
            response, body = get(site, path)
            kind, name = path.strip("/").split("/")
            assert response.status == {"gone": 404, "busy": 503}.get(kind, 200)
            if kind in {"pictures", "copy", "noai"}:
                assert body == (picture_folder / name).read_bytes()
                assert (
                    response.getheader("Content-Type") == f"image/{name.split('.')[1].replace('jpg', 'jpeg')}"
                )
        counts = tally(site)
    assert sum(counts.values()) == len(paths)
    assert set(counts) == {"pictures", "busy_503", "copy", "gone", "cut", "page", "noai"}


def test_busy_asks_once_for_patience_and_then_answers(site, few_pictures, picture_folder):
    path, name = path_of("busy", few_pictures)
    refused, _ = get(site, path)
    assert (refused.status, refused.getheader("Retry-After")) == (503, "0")
    for _ in range(2):
        answered, body = get(site, path)
        assert answered.status == 200
        assert body == (picture_folder / name).read_bytes()


def test_cut_looks_whole_to_http_and_broken_to_a_decoder(site, few_pictures):
    response, body = get(site, path_of("cut", few_pictures)[0])
    assert response.status == 200
    assert int(response.getheader("Content-Length", "0")) == len(body) > 0
    with pytest.raises(OSError):
        Image.open(io.BytesIO(body)).load()


def test_page_is_html_under_a_picture_name(site, few_pictures):
    response, body = get(site, path_of("page", few_pictures)[0])
    assert response.status == 200
    assert response.getheader("Content-Type", "").startswith("text/html")
    assert body.startswith(b"<!DOCTYPE html>")


def test_noai_is_a_fine_picture_with_a_refusal(site, few_pictures):
    response, body = get(site, path_of("noai", few_pictures)[0])
    assert response.getheader("X-Robots-Tag") == "noai"
    Image.open(io.BytesIO(body)).load()


def test_only_noai_refuses(site, few_pictures):
    response, _ = get(site, f"/pictures/{file_name(few_pictures[0].id)}")
    assert response.getheader("X-Robots-Tag") is None


def test_copy_has_the_bytes_of_the_original(site, few_pictures):
    path, name = path_of("copy", few_pictures)
    assert get(site, path)[1] == get(site, f"/pictures/{name}")[1]


@pytest.mark.parametrize(
    "path", ["/pictures/FFFF.png", "/pictures/..%2F..%2Fetc%2Fpasswd", "/x/y/z", "/", "/other/{}"]
)
def test_anything_else_is_not_found(site, few_pictures, path):
    assert get(site, path.format(file_name(few_pictures[0].id)))[0].status == 404


def test_one_connection_serves_many_requests(site, few_pictures):
    with closing(connect(site.address)) as connection:
        sockets = set()
        for picture in few_pictures[:5]:
            connection.request("GET", f"/pictures/{file_name(picture.id)}", headers={"Host": "any.example"})
            assert connection.getresponse().read()
            sockets.add(connection.sock)
        assert len(sockets) == 1
        assert None not in sockets


def test_taken_port_is_one_line_and_leaves_the_holder_alone(site, picture_folder):
    port = int(site.address.split(":")[1])
    with pytest.raises(InputError, match=f"127.0.0.1:{port}") as caught, Site(picture_folder, port):
        pass
    assert "\n" not in str(caught.value)
    assert "--port" in str(caught.value)
    assert isinstance(tally(site), dict)


def test_port_is_free_again_at_once_and_state_starts_anew(picture_folder, few_pictures):
    path = path_of("busy", few_pictures)[0]
    with Site(picture_folder, port=0) as first:
        port = int(first.address.split(":")[1])
        assert [get(first, path)[0].status for _ in range(2)] == [503, 200]
    with Site(picture_folder, port) as second:
        assert get(second, path)[0].status == 503
    second.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    with pytest.raises(CorgiError, match="not running"):
        _ = second.lifeline


def test_list_does_not_depend_on_the_port(picture_folder, few_pictures, tmp_path):
    written = []
    for number in range(2):
        with Site(picture_folder, port=0) as site:
            path = tmp_path / f"{number}.parquet"
            write_url_list(path, few_pictures, "credit")
            written.append((site.address.encode(), path.read_bytes()))
    assert written[0][1] == written[1][1]
    assert written[0][0] not in written[0][1]


OPENER = """
import subprocess, sys, time
from pathlib import Path
from corgi.demo.site import Site
if __name__ == "__main__":
    with Site(Path(sys.argv[1]), port=0) as site:
        fds = (site.lifeline,) if sys.argv[2] == "shared" else ()
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=fds)
        print(site.address, child.pid, flush=True)
        time.sleep(600)
"""


def is_listening(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return False
    return True


def wait_until_closed(address: str, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_listening(address):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("lifeline", ["own", "shared"])
def test_killed_opener_frees_the_port_when_its_last_user_has_gone(picture_folder, tmp_path, lifeline):
    script = tmp_path / "opener.py"
    script.write_text(OPENER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(picture_folder), lifeline]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as opener:
        assert opener.stdout is not None
        address, child = opener.stdout.readline().split()
        try:
            opener.kill()
            opener.wait()
            if lifeline == "shared":
                assert not wait_until_closed(address, 0.5)
                os.kill(int(child), signal.SIGKILL)
            assert wait_until_closed(address, PATIENCE_S)
        finally:
            if lifeline == "own":
                os.kill(int(child), signal.SIGKILL)
