"""Archives are read in place: hostile ones are refused, damaged ones named, nothing is written."""

import io
import random
import tarfile
import zipfile

import pytest

from kdcli.data import archives, trees
from kdcli.data.archives import read_members
from kdcli.errors import DATA, KdcliError


def member(name, content=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, io.BytesIO(content)


def tar_of(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, content)
    return path


def read(path, *names, limit=100):
    return read_members(path, "top", dict.fromkeys(names or ["a.bin"], "0" * 32), limit).content


def test_wanted_members_are_read_and_others_passed_over(tmp_path):
    path = tar_of(
        tmp_path / "x.tar.gz",
        member("top", kind=tarfile.DIRTYPE),
        member("top/other", b"?" * 1000),
        member("a.bin", b"not in the folder"),
        member("./top/a.bin", b"content"),
    )
    assert read(path) == {"a.bin": b"content"}


@pytest.mark.parametrize(
    "hostile",
    [
        member("../a.bin", b"x"),
        member("top/../../a.bin", b"x"),
        member("/etc/a.bin", b"x"),
        member("C:\\a.bin", b"x"),
        member("top/a.bin", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("top/a.bin", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
        member("top/a.bin", kind=tarfile.CHRTYPE),
        member("top/a.bin", kind=tarfile.FIFOTYPE),
    ],
    ids=lambda pair: f"{pair[0].name} {pair[0].type}",
)
def test_members_that_could_leave_the_folder_are_refused(tmp_path, hostile):
    (tmp_path / "data").mkdir()
    path = tar_of(tmp_path / "data" / "x.tar.gz", hostile, member("top/a.bin", b"good"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KdcliError, match="refused") as caught:
        read(path)
    assert caught.value.code == DATA
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_larger_than_it_can_be_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tar_of(tmp_path / "bomb.tar.gz", member("top/a.bin", bytes(10_000_000)))
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(tarfile.TarFile, "extractfile", None)
    with pytest.raises(KdcliError, match="10,000,000 bytes, at most 100"):
        read(path)


def test_archives_with_too_many_or_too_large_members_are_refused(tmp_path, monkeypatch):
    path = tar_of(tmp_path / "x.tar.gz", *(member(f"top/{n}", b"12345") for n in range(20)))
    monkeypatch.setattr(archives, "MEMBERS", 10)
    with pytest.raises(KdcliError, match="more than 10 files"):
        read(path)
    monkeypatch.setattr(archives, "MEMBERS", 100)
    monkeypatch.setattr(archives, "TOTAL", 50)
    with pytest.raises(KdcliError, match="or 50 bytes"):
        read(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>Not Found</html>", "it is a web page"),
        (b"plain words", "it is no such archive"),
        (b"\x1f\x8b\x08broken", "truncated or damaged"),
    ],
)
def test_what_is_no_archive_is_called_what_it_is(tmp_path, content, said):
    for name, opened in (("x.tar.gz", read), ("x.zip", lambda path: trees.Zip(path, "top"))):
        path = tmp_path / name
        path.write_bytes(content.replace(b"\x1f\x8b", b"PK") if name == "x.zip" else content)
        with pytest.raises(KdcliError, match=said) as caught:
            opened(path)
        assert str(path) in str(caught.value) and caught.value.code == DATA


def test_an_archive_cut_anywhere_is_an_error_and_never_half_a_dataset(tmp_path):
    one, two = (random.Random(seed).randbytes(5_000) for seed in (0, 1))  # do not compress
    path = tar_of(tmp_path / "x.tar.gz", member("top/a.bin", one), member("top/b.bin", two))
    whole = path.read_bytes()
    assert read(path, "a.bin", "b.bin", limit=5_000) == {"a.bin": one, "b.bin": two}
    for length in (0, 5, 30, 500, 4_000, 5_300, 8_000, 10_000):
        path.write_bytes(whole[:length])
        with pytest.raises(KdcliError, match=r"x\.tar\.gz") as caught:
            read(path, "a.bin", "b.bin", limit=5_000)
        assert caught.value.code == DATA


def test_a_flipped_bit_in_an_archive_is_found_even_behind_the_last_wanted_byte(tmp_path):
    one = random.Random(0).randbytes(5_000)
    path = tar_of(tmp_path / "x.tar.gz", member("top/a.bin", one), member("top/other", b"1" * 99))
    whole = path.read_bytes()
    for place in (1_000, 3_000, len(whole) - 6):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(KdcliError, match=r"x\.tar\.gz is broken \(truncated or damaged"):
            read(path, limit=5_000)


def test_official_files_need_not_be_read_to_the_end_of_their_archive(tmp_path):
    path = tar_of(tmp_path / "x.tar.gz", member("top/a.bin", b"1"), member("top/other", b"2"))
    path.write_bytes(path.read_bytes()[:-8])  # without checksum and length
    sums = {"a.bin": "c4ca4238a0b923820dcc509a6f75849b"}  # of "1"
    assert read_members(path, "top", sums, 100) == ({"a.bin": b"1"}, ())
    with pytest.raises(KdcliError, match="truncated or damaged"):
        read(path)


def test_missing_members_are_named(tmp_path):
    path = tar_of(tmp_path / "x.tar.gz", member("top/a.bin", b"1"))
    with pytest.raises(KdcliError, match=r"lacks b\.bin, c\.bin:"):
        read(path, "a.bin", "b.bin", "c.bin")


def test_a_zip_gives_what_its_unpacked_folder_gives(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("top/", "")
        made.writestr("top/b/two.txt", "2" * 500)
        made.writestr("top/a.txt", "1")
        made.writestr("elsewhere.txt", "3")
    with zipfile.ZipFile(tmp_path / "x.zip") as made:
        made.extractall(tmp_path)
    packed, folder = trees.Zip(tmp_path / "x.zip", "top"), trees.Folder(tmp_path / "top")
    assert packed.files == folder.files == ["a.txt", "b/two.txt"]
    assert [packed.read(f) for f in packed.files] == [folder.read(f) for f in folder.files]


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "top/../../a.txt"])
def test_a_zip_whose_members_could_leave_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr(name, "x")
    with pytest.raises(KdcliError, match="refused"):
        trees.Zip(tmp_path / "x.zip", "top")


def test_a_flipped_bit_in_a_zip_is_found_and_named(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("top/a.txt", "0123456789" * 10)
    content = bytearray(path.read_bytes())
    content[content.index(b"56789")] ^= 1
    path.write_bytes(content)
    with pytest.raises(KdcliError, match=r"x\.zip is broken \(top/a\.txt"):
        trees.Zip(path, "top").read("a.txt")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("top/a.txt", bytes(1_000_000))
    monkeypatch.setattr(trees, "LIMIT", 1000)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(KdcliError, match="more than 1,000 bytes"):
        trees.Zip(tmp_path / "x.zip", "top").read("a.txt")
