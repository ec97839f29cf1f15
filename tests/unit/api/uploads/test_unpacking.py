"""Archives that a stranger made: each trick is refused for what it is, and nothing outside the archive is touched."""

import io
import struct
import tarfile
import tracemalloc
import zipfile
from tempfile import TemporaryFile

import pytest

from api import refusals
from api.uploads.unpacking import Limits, members_of

LIMITS = Limits(files=20, file_bytes=10_000_000, total_bytes=20_000_000)
FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 40, "tokenizer.json": b"[1]"}


def tar(*entries, form=tarfile.PAX_FORMAT, **files):
    """A tar of these files, and of members that are changed before they are written."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as archive:
        for name, data in files.get("files", FILES).items():
            archive.addfile(member(name, len(data)), io.BytesIO(data))
        for entry, data in entries:
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def member(name, size=0, **attributes):
    info = tarfile.TarInfo(name)
    info.size = size
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def zipped(*entries, files=FILES, compression=zipfile.ZIP_DEFLATED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in [*files.items(), *entries]:
            archive.writestr(name, data)
    return content.getvalue()


def unpack(content, *, is_zip, limits=LIMITS):
    with TemporaryFile() as file:  # in memory another error tells of a place that cannot be
        file.write(content)
        members = members_of(file, is_zip=is_zip, limits=limits)
        return {found.path: b"".join(found.chunks()) for found in members}


def refusal(content, *, is_zip, limits=LIMITS):
    with pytest.raises(refusals.ArchiveRefused) as refused:
        unpack(content, is_zip=is_zip, limits=limits)
    return refused.value.code


def entry(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_model_comes_out_of_every_kind_of_tar(form):
    assert unpack(tar(form=form), is_zip=False) == FILES
    far = {f"{'a folder/' * 20}{name}": data for name, data in FILES.items()}
    if form != tarfile.USTAR_FORMAT:
        assert unpack(tar(form=form, files=far), is_zip=False) == FILES


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_model_comes_out_of_a_zip(compression):
    assert unpack(zipped(compression=compression), is_zip=True) == FILES


@pytest.mark.parametrize("folder", ["", "./", "model/", "./a/b/"])
def test_only_what_a_model_is_loaded_from_is_taken(folder):
    more = {
        "README.md": b"#",
        "a.py": b"exit()",
        "pytorch_model.bin": b"\x80",
        "._config.json": b"",
        "x/config.json": b"no",
    }
    files = {folder + name: data for name, data in {**more, **FILES}.items()}
    assert unpack(tar((member(f"{folder}x", type=tarfile.DIRTYPE), b""), files=files), is_zip=False) == FILES
    assert unpack(zipped((entry(f"{folder}y/", 0o40755), b""), files=files), is_zip=True) == FILES


OUTSIDE = [
    "../config.json",
    "/etc/passwd",
    "a/../../b.json",
    "a/..",
    "..\\config.json",
    "C:config.json",
    "C:\\config.json",
    "line\nbreak.json",
    "escape\x1b[2J.json",
    "right\u202eto left.json",
    "n" * 1001,
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_elsewhere(name):
    assert refusal(tar((member(name, 1), b"x")), is_zip=False) == "archive_member_outside"
    assert refusal(zipped((name, b"x")), is_zip=True) == "archive_member_outside"


def test_a_name_with_an_end_inside():
    content = zipped(("evil.json!/../x", b"x"))
    assert refusal(content.replace(b"json!", b"json\x00"), is_zip=True) == "archive_member_outside"


def test_a_name_that_is_empty():
    assert refusal(tar((member("", 1), b"x")), is_zip=False) == "archive_member_outside"
    assert refusal(zipped((entry(""), b"x")), is_zip=True) == "archive_member_outside"
    assert refusal(zipped(("?", b"x")).replace(b"?", b"\x00"), is_zip=True) == "archive_member_outside"


TYPES = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V"]


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_no_file_in_a_tar(kind):
    link = member("vocab.txt", type=kind, linkname="/etc/passwd")
    assert refusal(tar((link, b"")), is_zip=False) == "archive_member_no_file"


@pytest.mark.parametrize("mode", [0o120777, 0o020644, 0o060644, 0o010644, 0o140755])
def test_what_is_no_file_in_a_zip(mode):
    assert refusal(zipped((entry("vocab.txt", mode), b"/etc/passwd")), is_zip=True) == "archive_member_no_file"


def test_holes_that_would_be_filled():
    """A GNU sparse file of a terabyte in a few hundred bytes."""
    sparse = member("model-2.safetensors", 512, pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(10**12)})
    assert refusal(tar((sparse, bytes(512))), is_zip=False) == "archive_member_no_file"


@pytest.mark.parametrize("twice", ["config.json", "./config.json", "CONFIG.json", "x/a.json", "x//a.json"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice(twice):
    files = {**FILES, "x/a.json": b"1"}
    assert refusal(tar((member(twice, 1), b"2"), files=files), is_zip=False) == "archive_member_repeated"
    assert refusal(zipped((twice, b"2"), files=files), is_zip=True) == "archive_member_repeated"


def test_a_file_that_is_a_folder_too():
    assert refusal(tar((member("config.json/a", 1), b"2")), is_zip=False) == "archive_member_repeated"


def test_more_members_than_are_taken():
    many = {f"{i}.json": b"" for i in range(18)}
    assert refusal(tar(files=FILES | many), is_zip=False) == "archive_too_large"
    assert refusal(zipped(files=FILES | many), is_zip=True) == "archive_too_large"


@pytest.mark.parametrize("limits", [LIMITS._replace(file_bytes=10_000), LIMITS._replace(total_bytes=10_243)])
def test_more_bytes_than_are_taken(limits):
    assert refusal(tar(), is_zip=False, limits=limits) == "archive_too_large"
    assert refusal(zipped(), is_zip=True, limits=limits) == "archive_too_large"


def test_zeros_that_were_squeezed_to_nothing():
    assert refusal(zipped(("model-2.safetensors", bytes(9_000_000))), is_zip=True) == "archive_bomb"


def test_members_that_share_their_bytes():
    """Every entry of the directory points at the one file there is, as in a zip bomb without nesting."""
    content = zipped(files={"config.json": bytes(range(256)) * 300}, compression=zipfile.ZIP_STORED)
    directory = content[content.index(b"PK\x01\x02") : content.index(b"PK\x05\x06")]
    copies = b"".join(directory.replace(b"config", f"confi{i:x}".encode()) for i in range(8))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, len(directory + copies), content.index(directory), 0)
    bomb = content[: content.index(directory)] + directory + copies + end
    assert len(zipfile.ZipFile(io.BytesIO(bomb)).infolist()) == 9
    assert refusal(bomb, is_zip=True) == "archive_bomb"


def test_a_file_that_becomes_more_than_its_header_says():
    data = bytes(range(256)) * 200
    content = zipped(files={"config.json": data}).replace(struct.pack("<L", len(data)), struct.pack("<L", 100))
    assert refusal(content, is_zip=True) == "archive_invalid"


def test_a_file_that_becomes_less_than_its_header_says():
    data = bytes(range(256)) * 200
    content = zipped(files={"config.json": data}).replace(struct.pack("<L", len(data)), struct.pack("<L", 60_000))
    assert refusal(content, is_zip=True) == "archive_invalid"


@pytest.mark.parametrize("header", [b"x", b"L"])
def test_a_header_that_would_fill_the_memory(header):
    """A pax or long-name header as long as the archive."""
    giant = member("header", 50_000_000, type=header).tobuf(tarfile.GNU_FORMAT)
    content = giant + bytes(50_000_000) + tar()
    tracemalloc.start()
    assert refusal(content, is_zip=False) == "archive_bomb"
    assert tracemalloc.get_traced_memory()[1] < 60_000_000  # `BytesIO` has a copy of it
    tracemalloc.stop()


def test_headers_that_go_on_for_ever():
    chain = member("header", 10, type=b"x").tobuf(tarfile.GNU_FORMAT) + b"10 a=1234\n".ljust(512, b"\x00")
    assert refusal(chain * 5000 + tar(), is_zip=False) in ("archive_bomb", "archive_invalid")


def test_a_directory_that_would_fill_the_memory():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for i in range(30_000):
            archive.writestr(f"{i}.json", b"")
    assert refusal(content.getvalue(), is_zip=True) == "archive_bomb"


def test_a_size_below_zero_leads_back_to_the_same_header():
    header = bytearray(member("loop.json").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(-512, 12, tarfile.GNU_FORMAT)
    checksum = sum(header[:148]) + 256 + sum(header[156:512])
    header[148:156] = f"{checksum:06o}\0 ".encode()
    assert refusal(bytes(header) + tar(), is_zip=False) == "archive_invalid"


def test_an_encrypted_member():
    content = bytearray(zipped())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(bytes(content), is_zip=True) == "archive_member_unreadable"


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression(compression):
    assert refusal(zipped(compression=compression), is_zip=True) == "archive_member_unreadable"


def test_no_model_in_it():
    assert refusal(tar(files={"README.md": b""}), is_zip=False) == "archive_invalid"
    assert refusal(zipped(files={"README.md": b""}), is_zip=True) == "archive_invalid"


@pytest.mark.parametrize("content", [b"", b"x", bytes(10_000), b"\x80\x04pickle." * 100, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive(content):
    assert refusal(content, is_zip=False) == "archive_invalid"
    assert refusal(content, is_zip=True) == "archive_invalid"
    assert refusal(zipped(), is_zip=False) == "archive_invalid"
    assert refusal(tar(), is_zip=True) == "archive_invalid"


def test_a_zip_that_lost_bytes_at_the_front_or_within():
    """Then its directory leads to places before the first byte."""
    whole = zipped(compression=zipfile.ZIP_STORED)
    for damaged in (whole[100:], whole[:2000] + whole[2100:]):
        assert refusal(damaged, is_zip=True) == "archive_invalid"


def test_a_member_that_lies_further_away_than_files_can_reach():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
        archive.infolist()[1].header_offset = 2**62
    assert refusal(content.getvalue(), is_zip=True) == "archive_invalid"


@pytest.mark.parametrize("is_zip", [False, True])
def test_whatever_is_cut_off_or_flipped_ends_in_a_refusal_or_in_the_same_files(is_zip):
    whole = zipped() if is_zip else tar()
    for i in range(0, len(whole), 97):
        for damaged in (whole[:i], whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :]):
            try:
                files = unpack(damaged, is_zip=is_zip)
            except refusals.ArchiveRefused:
                continue
            # A tar has no checksum of its files, and may be cut behind them; the sha256 of the whole is checked before.
            assert {len(data) for data in files.values()} <= {len(data) for data in FILES.values()}
