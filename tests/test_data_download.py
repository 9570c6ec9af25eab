"""A download is retried, checked, and stands under its name only when it is whole."""

import hashlib
import http.server
import socket
import threading

import pytest

from kdcli import data
from kdcli.data import cifar, download
from kdcli.errors import DATA, ENVIRONMENT, KdcliError
from tests.test_data_cifar import cifar100, write_tar

pytest.importorskip("torchvision")
GOOD = b"the archive " * 1000


class Server(http.server.ThreadingHTTPServer):
    """Answers each GET by the next of `answers`; the last one stays."""

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers, self.gets = answers, 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}/archive.tar.gz"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Method") == "HEAD":  # torchvision follows redirects with this header
            return self.answer(b"")
        answers = self.server.answers
        answer = answers[min(self.server.gets, len(answers) - 1)]
        self.server.gets += 1
        return self.answer(answer)

    def answer(self, answer):
        if isinstance(answer, int):
            return self.send_error(answer)
        cut = isinstance(answer, tuple)
        content = answer[0] if cut else answer
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) * 2 if cut else len(content)))
        self.end_headers()
        return self.wfile.write(content)

    def log_message(self, *arguments):
        """Tests are silent."""


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(*answers):
        servers.append(Server(*answers))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(url, folder):
    checksum = hashlib.md5(GOOD).hexdigest()
    return download.download(url, folder / "archive.tar.gz", checksum)


def test_a_download_makes_its_folder_and_says_nothing_on_stdout(serve, tmp_path, capsys):
    path = fetch(serve(GOOD).url, tmp_path / "new" / "data")
    assert path.read_bytes() == GOOD
    assert [file.name for file in path.parent.iterdir()] == ["archive.tar.gz"]
    assert capsys.readouterr().out == ""


def test_lost_connections_and_busy_servers_are_tried_again(serve, tmp_path):
    server = serve((GOOD[:3000],), 503, GOOD)
    assert fetch(server.url, tmp_path).read_bytes() == GOOD
    assert server.gets == 3


def test_what_always_breaks_off_leaves_nothing_behind(serve, tmp_path):
    server = serve(*((GOOD[: 100 * number],) for number in range(1, 9)))
    with pytest.raises(KdcliError, match="cannot download") as caught:
        fetch(server.url, tmp_path)
    assert caught.value.code == DATA
    assert server.gets == download.ATTEMPTS
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_fetched_once_more_and_both_checksums_named(serve, tmp_path):
    page = b"<html>please log in</html>"
    server = serve(page)
    with pytest.raises(KdcliError) as caught:
        fetch(server.url, tmp_path)
    assert server.gets == 2
    for content in (page, GOOD):
        assert hashlib.md5(content).hexdigest() in str(caught.value)
    assert caught.value.code == DATA
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_is_not_there_is_not_asked_for_again(serve, tmp_path):
    server = serve(404)
    with pytest.raises(KdcliError, match="404") as caught:
        fetch(server.url, tmp_path)
    assert server.gets == 1 and caught.value.code == DATA


def test_without_network_there_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/archive.tar.gz"
        with pytest.raises(KdcliError, match="Connection refused") as caught:
            fetch(url, tmp_path)
    said = str(caught.value)
    assert str(tmp_path / "archive.tar.gz") in said and "KDCLI_DATA_DIR" in said
    assert "\n" not in said and caught.value.code == DATA


def test_a_folder_that_cannot_be_made_is_the_fault_of_the_machine(serve, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KdcliError, match="cannot write") as caught:
        fetch(serve(GOOD).url, tmp_path / "file" / "data")
    assert caught.value.code == ENVIRONMENT


def test_a_full_disk_is_not_taken_for_the_network(serve, tmp_path, monkeypatch):
    def full(url, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_fetch", full)
    with pytest.raises(KdcliError, match="No space left") as caught:
        fetch(serve(GOOD).url, tmp_path)
    assert caught.value.code == ENVIRONMENT


def test_cifar100_is_downloaded_once_and_then_read_offline(serve, tmp_path, monkeypatch):
    archive = write_tar(tmp_path / "made.tar.gz", cifar100()[0]).read_bytes()
    server = serve(archive)
    layout = cifar.LAYOUTS["cifar100"]._replace(
        url=server.url, archive_md5=hashlib.md5(archive).hexdigest()
    )
    monkeypatch.setitem(cifar.LAYOUTS, "cifar100", layout)
    root = tmp_path / "data"
    first = data.load("cifar100", root)
    assert server.gets == 1
    assert first.source == str(root / "cifar-100-python.tar.gz")
    assert data.load("cifar100", root).digest == first.digest
    assert server.gets == 1
