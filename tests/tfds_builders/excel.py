"""Writes the least files that are Excel tables: BIFF8 in a compound file (.xls), and Office Open XML (.xlsx)."""

import pathlib
import struct
import zipfile
from collections.abc import Sequence
from xml.sax.saxutils import escape

Cells = Sequence[Sequence[str | float]]

_SECTOR = 512
_FREE, _END, _TABLE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def write_xls(path: pathlib.Path, rows: Cells) -> None:
    globals_ = _record(0x809, struct.pack("<HHHHII", 0x600, 0x5, 0, 0, 0, 0))
    bound = struct.pack("<IBBBB", len(globals_) + 4 + 8 + 1 + 4, 0, 0, 1, 0) + b"S"
    sheet = _record(0x809, struct.pack("<HHHHII", 0x600, 0x10, 0, 0, 0, 0))
    sheet += b"".join(_cell(i, k, entry) for i, row in enumerate(rows) for k, entry in enumerate(row))
    _write_compound(path, globals_ + _record(0x85, bound) + _record(0x0A) + sheet + _record(0x0A))


def _record(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<HH", kind, len(body)) + body


def _cell(row: int, column: int, entry: str | float) -> bytes:
    place = struct.pack("<HHH", row, column, 0)
    if isinstance(entry, str):
        return _record(0x204, place + struct.pack("<HB", len(entry), 1) + entry.encode("utf-16-le"))
    return _record(0x203, place + struct.pack("<d", entry))


def _write_compound(path: pathlib.Path, stream: bytes) -> None:
    """One stream, long enough to need no table of short sectors: allocation table, directory, stream."""
    stream = stream.ljust(max(4096, -(-len(stream) // _SECTOR) * _SECTOR), b"\0")
    count = len(stream) // _SECTOR
    chain = [_TABLE, _END, *range(3, 2 + count), _END]
    assert len(chain) <= _SECTOR // 4
    table = struct.pack("<128I", *chain, *[_FREE] * (128 - len(chain)))
    signature = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header = signature + struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<9I", 0, 1, 1, 0, 4096, _END, 0, _END, 0) + struct.pack("<109I", 0, *[_FREE] * 108)
    directory = _entry("Root Entry", 5, 1, _END, 0) + _entry("Workbook", 2, _FREE, 2, len(stream))
    path.write_bytes(header + table + directory.ljust(_SECTOR, b"\0") + stream)


def _entry(name: str, kind: int, child: int, start: int, size: int) -> bytes:
    encoded = name.encode("utf-16-le")
    links = struct.pack("<HBBIII", len(encoded) + 2, kind, 1, _FREE, _FREE, child)
    return encoded.ljust(64, b"\0") + links + bytes(36) + struct.pack("<IQ", start, size)


def write_xlsx(path: pathlib.Path, rows: Cells) -> None:
    schemas = "http://schemas.openxmlformats.org"
    main, office = f'xmlns="{schemas}/spreadsheetml/2006/main"', f"{schemas}/officeDocument/2006/relationships"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    types = {"workbook": f"{kind}.sheet.main+xml", "sheet": f"{kind}.worksheet+xml"}
    overrides = "".join(f'<Override PartName="/{name}.xml" ContentType="{types[name]}"/>' for name in types)
    sheet = '<sheet name="S" sheetId="1" r:id="r"/>'
    lines = "".join(f"<row>{''.join(map(_xml_cell, row))}</row>" for row in rows)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{schemas}/package/2006/content-types">{overrides}</Types>',
        "_rels/.rels": _relation(schemas, office, "officeDocument", "workbook.xml"),
        "_rels/workbook.xml.rels": _relation(schemas, office, "worksheet", "sheet.xml"),
        "workbook.xml": f'<workbook {main} xmlns:r="{office}"><sheets>{sheet}</sheets></workbook>',
        "sheet.xml": f"<worksheet {main}><sheetData>{lines}</sheetData></worksheet>",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')


def _relation(schemas: str, office: str, kind: str, target: str) -> str:
    entry = f'<Relationship Id="r" Type="{office}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{schemas}/package/2006/relationships">{entry}</Relationships>'


def _xml_cell(entry: str | float) -> str:
    if isinstance(entry, str):
        return f'<c t="inlineStr"><is><t>{escape(entry)}</t></is></c>'
    return f"<c><v>{entry}</v></c>"
