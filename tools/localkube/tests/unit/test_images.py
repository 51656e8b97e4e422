"""Image archives for nodes without a registry."""

import hashlib
import json
import tarfile
from pathlib import Path

from localkube import images


def test_an_image_archive_is_an_oci_layout_whose_digests_hold(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"#!")
    image = images.Image("localhost/x:1", ["/program"], environment={"A": "b"}, labels={"l": "v"})
    for name in ("one", "two"):
        images.write_layer(tmp_path / "layer.tar", {"/bin/program": program})
        images.write_archive(tmp_path / name, image, [tmp_path / "layer.tar"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with tarfile.open(tmp_path / "one") as archive:
        contents = {entry.name: _content(archive, entry) for entry in archive}
    assert contents["oci-layout"] == b'{"imageLayoutVersion": "1.0.0"}'
    for name in contents.keys() - {"oci-layout", "index.json"}:
        assert name == f"blobs/sha256/{hashlib.sha256(contents[name]).hexdigest()}"
    (entry,) = json.loads(contents["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/x:1"
    manifest = json.loads(_blob(contents, entry["digest"]))
    made = json.loads(_blob(contents, manifest["config"]["digest"]))
    assert made["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    assert (made["config"]["User"], made["config"]["Env"]) == ("65532:65532", ["A=b"])


def test_a_layers_programs_can_be_run_by_any_user(tmp_path: Path) -> None:
    (tmp_path / "program").touch(mode=0o600)
    images.write_layer(tmp_path / "layer.tar", {"/bin/program": tmp_path / "program"})
    with tarfile.open(tmp_path / "layer.tar") as layer:
        assert [(entry.name, entry.mode, entry.uid) for entry in layer] == [("bin/program", 0o755, 0)]


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    assert file
    return file.read()


def _blob(contents: dict[str, bytes], digest: str) -> bytes:
    return contents[f"blobs/{digest.replace(':', '/')}"]
