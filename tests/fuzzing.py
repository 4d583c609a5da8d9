"""Readers of files that others wrote, with good files of each and a strategy that damages them.

Each reader must read a file or raise one of its errors, with one line. `tests.test_fuzzing` tries a few dozen damaged
files of each, `scripts.fuzz` many.
"""

import contextlib
import dataclasses
import io
import json
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
import tifffile
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import numpy as safetensors

from hep2jax import config as configs
from hep2jax import files
from hep2jax.config import Config, to_dict
from hep2jax.data.splits import lists
from hep2jax.errors import UsageError
from hep2jax.handover import card
from hep2jax.handover.programs import Program
from hep2jax.models.pretrained import weight_files
from hep2jax.report import write_report
from hep2jax.tasks.joint import JointTask
from hep2jax.training import workdir
from hep2jax.training.evaluation import Trained
from tests.data.tables import cells
from tests.models import test_pretrained as weights
from tests.tfds_builders import excel
from tests.tfds_builders.zarr_folders import shards, write_zarr
from tfds_builders import image_files, pixels, sheets, tables
from tfds_builders.aida import layout as aida
from tfds_builders.folder import layout as own_folder
from tfds_builders.frames import ImageFileError
from tfds_builders.icpr2012 import layout as icpr2012
from tfds_builders.snphep2 import layout as snphep2

_RNG = np.random.default_rng(3)
_GREY = _RNG.integers(0, 256, (12, 10), np.uint8)
_RGB = _RNG.integers(0, 256, (12, 10, 3), np.uint8)
_DEEP = _RNG.integers(0, 4096, (12, 10), np.uint16)
_ARRAYS = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.arange(3)}


@dataclasses.dataclass(frozen=True)
class Reader:
    """How a kind of file is read, and what may be raised."""

    good: Sequence[bytes]
    read: Callable[[pathlib.Path], object]
    errors: tuple[type[Exception], ...]
    file: str = "file"
    """Name of the file, relative to the folder that `read` is given."""
    is_text: bool = False

    def try_on(self, data: bytes, folder: pathlib.Path) -> str:
        """Read a file of these bytes in an empty folder; returns the error's message, empty if there was none."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        try:
            self.read(folder)
        except self.errors as error:
            return str(error)
        return ""


def _image(kind: str, pixels: np.ndarray | Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, kind, **options)
    return stream.getvalue()


def _tiff(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def _images_of_8_bits() -> list[bytes]:
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        *(_image("PNG", array) for array in (_GREY, _RGB, _GREY > 99, np.dstack([_RGB, _GREY]))),
        _image("PNG", Image.fromarray(_RGB).quantize(8)),
        _image("JPEG", _RGB, exif=turned),
        *(_image("BMP", array) for array in (_GREY, _RGB, _GREY > 99)),
        *(_image("TIFF", _RGB, compression=name) for name in ("jpeg", "tiff_lzw", "packbits")),
        _image("TIFF", _GREY > 99, compression="group4"),
        _tiff(_GREY, compression="zlib", rowsperstrip=3),
    ]


def _images() -> list[bytes]:
    deep = io.BytesIO()
    Image.fromarray(_DEEP).save(deep, "PNG")
    return [
        *_images_of_8_bits(),
        deep.getvalue(),
        _image("JPEG", Image.fromarray(_RGB).convert("CMYK")),
        _tiff(np.stack([_DEEP] * 3), ome=True, photometric="minisblack"),
        _tiff(np.stack([_DEEP] * 2), imagej=True),
        _tiff(np.stack([_DEEP] * 3, axis=-1), bigtiff=True, tile=(16, 16), compression="zlib", photometric="rgb"),
        _tiff(_DEEP, byteorder=">", compression="lzw", predictor=True),
        _tiff(_GREY, compression="zstd", rowsperstrip=3),
    ]


def _weights() -> list[bytes]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights/data.pkl", weights._dictionary(_ARRAYS))
        for number, array in enumerate(_ARRAYS.values()):
            file.writestr(f"weights/data/{number}", array.tobytes())
    return [archive.getvalue(), weights.legacy_file(_ARRAYS), safetensors.save(_ARRAYS)]


def _excel(write: Callable[[pathlib.Path, excel.Cells], None], folder: pathlib.Path) -> bytes:
    write(
        folder / "good", [["ImageFileName", "StainingPatterns", "Patient"], ["a.png", "AC-4", 7.0], ["b.png", "", 8.0]]
    )
    return (folder / "good").read_bytes()


def _report(folder: pathlib.Path) -> None:
    write_report(folder, metrics={}, layout=JointTask.layout, gallery={}, environment={}, timings={})


def _history(folder: pathlib.Path) -> None:
    _report(folder)
    workdir.MetricsWriter(folder, first_step=5).close()


def _builders_images(folder: pathlib.Path) -> None:
    with contextlib.suppress(ValueError):
        pixels.read_grey(folder / "file")
    with contextlib.suppress(ValueError):
        pixels.read_colour(folder / "file")
    pixels.read_any(folder / "file")


def _aida(folder: pathlib.Path) -> None:
    (folder / "a.png").touch()
    aida.read_contents(folder)


def _own_folder(folder: pathlib.Path) -> None:
    (folder / "a.png").write_bytes(_image("PNG", _GREY))
    contents = own_folder.read_contents(folder, own_folder.SPECIMENS)
    for line in (*contents.faults, *contents.notes):
        assert line.isprintable()


def _zarr(folder: pathlib.Path, version: int, array: dict, name: str) -> Reader:
    """The reader of an OME-Zarr folder of which one file is damaged."""
    whole = write_zarr(folder / name.replace("/", "-"), _DEEP, version=version, chunks=(12, 10), array=array)
    others = {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    good = others.pop(pathlib.PurePath(name))

    def read(damaged: pathlib.Path) -> None:
        for other, data in others.items():
            (damaged / other).parent.mkdir(parents=True, exist_ok=True)
            (damaged / other).write_bytes(data)
        list(image_files.read(damaged))

    text = name.endswith(("zarr.json", ".zattrs", ".zarray"))
    return Reader([good], read, (ImageFileError,), name, is_text=text)


def _split_lists(folder: pathlib.Path) -> None:
    lists.assign(str(folder), "made_up", cells(specimens=2, size=2), ("nuclear_membrane", "golgi"))


def _keys(folder: pathlib.Path) -> None:
    """Files of which a damaged one is made again."""
    assert isinstance(files.kept(folder / "file"), dict)
    assert isinstance(files.kept_arrays(folder / "file"), dict)


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **_ARRAYS)
    return stream.getvalue()


def _trained_on(folder: pathlib.Path) -> None:
    (folder / "checkpoints" / "1").mkdir(parents=True, exist_ok=True)
    workdir.check_same_data(folder, "digest")


def _card(folder: pathlib.Path) -> None:
    configs.save(Config(), folder / workdir.CONFIG)
    trained = Trained(
        config=Config(), classes=("golgi",), network=None, parameters=({}, {}), nuclear_size=None, calibration=None
    )
    program = Program(run=lambda image: image, reads_fields=False, takes_masks=False, least_side=2, channels=("golgi",))
    card.make(folder, trained, program)


def readers(folder: pathlib.Path) -> dict[str, Reader]:
    """Every reader by its name; `folder` is for files that are only written to a path."""
    json_texts = [json.dumps(value).encode() for value in ({"identity": "a", "splits": {"test": [1.5]}}, ["a"], "b")]
    objects = b"cell_ID;object_type;pattern;intensity\n1;cell;homogeneous;positive\n2;artefact;;\n"
    index = b"image,class,specimen,mask,cell_id\na.png,Homogeneous,1,a_mask.png,1\nb/c.png,centromere,2,,2\n"
    aida_table = b"ImageFileName,StainingPatterns,Patient\na.png,AC-4;AC-1,7\nb.png,negative,8\n"
    labels = b"image;mask;pattern;specimen;split\na.png;;golgi;1;train\nb.png;b_mask.png;AC-1;2;test\n"
    log = b'{"step": 1, "split": "train", "loss": 0.5, "a": {"b": 1}}\n{"step": 9, "split": "test", "loss": 1e3}\n'
    per_class, pixel = {"golgi": {"recall": None, "support": 3}}, {"Dice": 0.75, "Dice_ci95": [0.5, 1]}
    measured = {
        "mca": 0.5,
        "mca_ci95": None,
        "protocol": "a",
        "per_class": per_class,
        "pixel": pixel,
        "num_examples": 3,
    }
    metrics = json.dumps({"test": measured, "validation": measured}).encode()
    owner = (ValueError, FileNotFoundError)
    blosc = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5}}
    return {
        "images": Reader(_images(), lambda f: list(image_files.read(f / "file")), (ImageFileError,)),
        "metadata of OME-Zarr": _zarr(folder, 3, {}, "zarr.json"),
        "array of Zarr 3": _zarr(folder, 3, shards([6, 5], blosc), "0/zarr.json"),
        "shard of Zarr": _zarr(folder, 3, shards([6, 5], blosc), "0/c/0/0"),
        "array of Zarr 2": _zarr(folder, 2, {"compressor": {"id": "zlib", "level": 1}}, "0/.zarray"),
        "chunk of Zarr": _zarr(folder, 2, {"compressor": {"id": "blosc", "cname": "zstd"}}, "0/0.0"),
        "owners' images": Reader(_images_of_8_bits(), _builders_images, (ValueError,)),
        "csv": Reader([objects, index], lambda f: tables.read_rows(f / "file"), (ValueError,), is_text=True),
        "csv of icpr2012": Reader([objects], lambda f: icpr2012.read_objects(f / "file"), owner, is_text=True),
        "csv of snphep2": Reader(
            [index], lambda f: snphep2.read_contents(snphep2.find_tree(f)), owner, "index.csv", is_text=True
        ),
        "csv of aida": Reader([aida_table], _aida, owner, "AIDA_HEp-2_GroundTruth.csv", is_text=True),
        "csv of folder": Reader([labels], _own_folder, owner, own_folder.TABLE, is_text=True),
        "xls": Reader([_excel(excel.write_xls, folder)], lambda f: sheets.read_sheet(f / "a.xls"), owner, "a.xls"),
        "xlsx": Reader([_excel(excel.write_xlsx, folder)], lambda f: sheets.read_sheet(f / "a.xlsx"), owner, "a.xlsx"),
        "split lists": Reader(
            [b"Image ID,Image class\n00001,NuMem\n00005,Golgi\n", b"1\n5"],
            _split_lists,
            (UsageError,),
            "training.csv",
            is_text=True,
        ),
        "config.json": Reader(
            [json.dumps(to_dict(Config())).encode()],
            workdir.open_for_reading,
            (UsageError,),
            workdir.CONFIG,
            is_text=True,
        ),
        "config.json of a report": Reader(
            [json.dumps(to_dict(Config())).encode()], _report, (), workdir.CONFIG, is_text=True
        ),
        "classes.json": Reader(
            [b'["homogeneous", "golgi"]'], workdir.read_classes, (UsageError,), workdir.CLASSES, is_text=True
        ),
        "trained_on.json": Reader([b'"digest"'], _trained_on, (UsageError,), workdir.TRAINED_ON, is_text=True),
        "metrics.jsonl": Reader([log], _history, (), workdir.METRICS, is_text=True),
        "metrics.json": Reader([metrics], _card, (UsageError,), "report/metrics.json", is_text=True),
        "kept files": Reader([*json_texts, _npz()], _keys, ()),
        "weights": Reader(_weights(), lambda f: weight_files.parse((f / "file").read_bytes(), "file"), (UsageError,)),
    }


_NUMBERS = (0, 1, 2, 7, 127, 255, 256, 14_000, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_WORDS = (
    *("null", "true", "-1", "0", "1e999", "NaN", "9" * 5000, "1" * 30, "[]", "{}", '""', '"a"', "[" * 3000),
    *('{"a":' * 3000, "../../a", "/etc/passwd", "a\\..\\b", "<script>", "&lt;", "\0", "\ufeff", "²", "٣", "é" * 300),
    *(",", ";", '"', "\n", "\r", "a" * 140_000),
)


@st.composite
def damaged(draw: st.DrawFn, reader: Reader) -> bytes:
    """A good file, changed in one to four places: cut, flipped, overwritten, spliced with another, repeated."""
    data = bytearray(draw(st.sampled_from(reader.good)))
    kinds = ("cut", "flip", "number", "splice", "insert", "remove", "repeat") + ("word",) * (3 if reader.is_text else 0)
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4)):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(1, 40))
        if kind == "cut":
            del data[at:]
        elif kind == "flip":
            data[at : at + 1] = bytes(byte ^ draw(st.integers(1, 255)) for byte in data[at : at + 1])
        elif kind == "number":
            width = draw(st.sampled_from((1, 2, 4, 8)))
            number = draw(st.sampled_from(_NUMBERS)) % 256**width
            data[at : at + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
        elif kind == "splice":
            other = draw(st.sampled_from(reader.good))
            start = draw(st.integers(0, len(other)))
            data[at : at + length] = other[start : start + length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=length))
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 200))
        else:
            end = at + draw(st.sampled_from((0, 1, length)))
            data[at:end] = draw(st.sampled_from(_WORDS)).encode()
    return bytes(data)


def try_damaged(reader: Reader, attempt: Callable[[bytes], None], examples: int, start: int | None = None) -> None:
    """Call `attempt` with damaged files, the same ones each time; `start` chooses others."""

    @settings(
        max_examples=examples,
        derandomize=start is None,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(damaged(reader))
    def run(data: bytes) -> None:
        attempt(data)

    (run if start is None else seed(start)(run))()
