"""Data of each format, made by the libraries of Python where there is one, else by hand after the standards."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import sqlite3
import struct
import tarfile
import wave
import zipfile
import zlib

TEXT = b"a line of text that is long enough to be worth it, and another one. " * 8
NOISE = random.Random(26).randbytes


def png(width: int = 640, height: int = 480, color: int = 6) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(TEXT)) + chunk(b"IEND", b"")


def jpeg(marker: int = 0xE0, name: bytes = b"JFIF\0", length: int = 16, behind: bytes = b"\xff\xdb") -> bytes:
    return (
        b"\xff\xd8\xff"
        + bytes([marker])
        + struct.pack(">H", length)
        + name.ljust(length - 2, b"\1")
        + behind
        + b"\0" * 80
    )


def bmp(width: int = 20, height: int = 10, depth: int = 24, planes: int = 1) -> bytes:
    pixels = bytes((width * depth + 31) // 32 * 4 * height)
    header = dib(width, height, depth, planes)[:40]
    return struct.pack("<2sIIII", b"BM", 54 + len(pixels), 0, 54, 0)[:14] + header + pixels


def dib(width: int = 20, height: int = -10, depth: int = 32, planes: int = 1, cut: int = 0) -> bytes:
    pixels = (width * depth + 31) // 32 * 4 * abs(height)
    return struct.pack("<IiiHHIIiiII", 40, width, height, planes, depth, 0, 0, 0, 0, 0, 0) + bytes(pixels - cut)


def tiff(order: str = "<", at: int = 8, kind: int = 3) -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", at) + struct.pack(f"{order}HHHII", 1, 256, kind, 1, 640) + b"\0" * 40


def riff(kind: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 100) + kind + b"\0" * 96


def wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(100))
    return out.getvalue()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readings.txt", TEXT)
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return out.getvalue()


def pe(machine: int = 0x8664, at: int = 0x80, mark: bytes = b"PE\0\0") -> bytes:
    return (b"MZ" + bytes(58) + struct.pack("<I", at)).ljust(at, b"\0") + mark + struct.pack("<H", machine) + bytes(250)


def sqlite() -> bytes:
    with sqlite3.connect(":memory:") as data:
        data.execute("create table a (b)")
        return data.serialize()


def font(tables: int = 12, search: int = 128) -> bytes:
    return struct.pack(">IHHHH", 0x10000, tables, search, 3, 64) + b"DSIG" + bytes(200)


def der(*inside: bytes, more: int = 400) -> bytes:
    body = b"".join(inside) + bytes(more)
    return b"\x30\x82" + struct.pack(">H", len(body)) + body


RSA = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\0"
VERSION_3 = b"\x30\x82\x01\x20\xa0\x03\x02\x01\x02\x02\x10"


def sid(*parts: int, authority: int = 5) -> bytes:
    return bytes([1, len(parts), 0, 0, 0, 0, 0, authority]) + struct.pack(f"<{len(parts)}I", *parts)


def acl(*, revision: int = 2, size: int | None = None, count: int = 1) -> bytes:
    entry = struct.pack("<BBHI", 0, 0, 8 + len(sid(18)), 0x1F01FF) + sid(18)
    return struct.pack("<BBHHH", revision, 0, 8 + len(entry) if size is None else size, count, 0) + entry


def descriptor(control: int = 0x8004, owner: int = 20) -> bytes:
    group = owner + len(sid(18))
    return struct.pack("<BBHIIII", 1, 0, control, owner, group, 0, group + len(sid(18))) + sid(18) + sid(18) + acl()


def wide(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


def floats(kind: str, many: int) -> bytes:
    rng = random.Random(3)
    return struct.pack(f"<{many}{kind}", *(rng.uniform(-100, 100) for _ in range(many)))


def encoded() -> bytes:
    return base64.b64encode(NOISE(300))


FOUND: dict[str, tuple[bytes, str]] = {
    "png": (png(), "PNG image"),
    "jpeg": (jpeg(), "JPEG image"),
    "jpeg, exif": (jpeg(0xE1, b"Exif\0\0", 40), "JPEG image"),
    "jpeg, cut": (jpeg(0xE1, b"Exif\0\0", 4000)[:500], "JPEG image"),
    "gif": (b"GIF89a" + struct.pack("<HH", 16, 16) + bytes(40), "GIF image"),
    "bmp": (bmp(), "BMP image"),
    "dib": (dib(), "bitmap (BITMAPINFO and pixels)"),
    "dib, grey": (dib(64, 48, 8), "bitmap (BITMAPINFO and pixels)"),
    "tiff": (tiff(), "TIFF image"),
    "tiff, big endian": (tiff(">"), "TIFF image"),
    "webp": (riff(b"WEBPVP8 "), "WebP image"),
    "zip": (zipped(), "zip archive"),
    "gzip": (gzip.compress(TEXT), "gzip data"),
    "zlib": (zlib.compress(TEXT), "zlib data"),
    "zlib, fast": (zlib.compress(TEXT + NOISE(5000), 1), "zlib data"),
    "zlib, a long stream": (zlib.compress(NOISE(9000), 9), "zlib data"),
    "xz": (lzma.compress(TEXT), "xz data"),
    "bzip2": (bz2.compress(TEXT), "bzip2 data"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24\x10" + bytes(30), "zstd data"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40\xa7" + bytes(30), "lz4 data"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(30), "7z archive"),
    "rar": (b"Rar!\x1a\7\1\0" + bytes(30), "RAR archive"),
    "wave": (wav(), "WAVE sound"),
    "avi": (riff(b"AVI LIST"), "AVI video"),
    "ogg": (b"OggS\0\2" + bytes(50), "Ogg sound"),
    "id3": (b"ID3\4\0\0\0\0\2\1" + bytes(50), "MP3 sound (ID3)"),
    "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0" + bytes(50), "MP4 data"),
    "pe": (pe(), "PE image"),
    "pe, x86": (pe(0x14C, 0xF8), "PE image"),
    "elf": (b"\x7fELF\2\1\1" + bytes(60), "ELF image"),
    "java": (b"\xca\xfe\xba\xbe\0\0\0\x34\0\x20" + bytes(60), "Java class file"),
    "pdf": (b"%PDF-1.7\n" + bytes(60), "PDF document"),
    "ole": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60), "OLE compound document"),
    "sqlite": (sqlite(), "SQLite database"),
    "font": (font(), "OpenType font"),
    "certificate": (der(VERSION_3), "X.509 certificate"),
    "signed data": (der(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x82\1\0"), "PKCS #7 signed data"),
    "private key": (der(b"\x02\x01\0\x02\x82\x01\x01"), "RSA private key"),
    "private key, PKCS #8": (der(b"\x02\x01\0\x30\x0d" + RSA), "RSA private key"),
    "public key": (der(b"\x30\x0d" + RSA), "RSA public key"),
    "bcrypt": (b"RSA1" + struct.pack("<5I", 2048, 3, 256, 0, 0) + NOISE(259), "RSA public key (bcrypt)"),
    "sid": (sid(21, 111111, 222222, 333333, 1001), "SID"),
    "sid, well known": (sid(18), "SID"),
    "security descriptor": (descriptor(), "security descriptor"),
    "acl": (acl(), "access control list"),
    "json": (b'{"name": "camera", "width": 640}\0', "JSON text"),
    "json, indented": (b'{\r\n    "name": "camera",\r\n    "width": 640\r\n}\0', "JSON text"),
    "json, array": (b'[{"id":1,"text":"a"},{"id":2}]', "JSON text"),
    "json, array of texts": (b'["left", "right", "middle"]', "JSON text"),
    "json, wide": (wide('{"name": "camera", "width": 640}'), "JSON text (UTF-16)"),
    "xml": (b'<?xml version="1.0" encoding="utf-8"?><a/>', "XML text"),
    "html": (b"<!DOCTYPE html><html><head>", "HTML text"),
    "markup": (b'<Camera Name="left"><Width>640</Width></Camera>', "XML or HTML text"),
    "markup, wide": (wide("<Camera Name=\"left\"><Width>640</Width>"), "XML or HTML text (UTF-16)"),
    "sql": (b"SELECT id, name FROM cameras WHERE id = ?", "SQL text"),
    "sql, update": (b"update cameras set name = 'left'", "SQL text"),
    "url": (b"https://example.com/a/b?c=d", "URL"),
    "url, wide": (wide("https://example.com/a/b"), "URL (UTF-16)"),
    "http": (b"HTTP/1.1 200 OK\r\nServer: a\r\n", "HTTP message"),
    "pem": (b"-----BEGIN CERTIFICATE-----\nMIIB", "PEM text"),
    "path": (b"C:\\Windows\\System32\\ntdll.dll\0", "file path"),
    "path, wide": (wide("D:\\data\\readings.txt"), "file path (UTF-16)"),
    "path, device": (wide("\\Device\\HarddiskVolume3\\a.txt"), "file path (UTF-16)"),
    "registry": (wide("\\REGISTRY\\MACHINE\\SOFTWARE\\Acme"), "registry path (UTF-16)"),
    "guid": (b"{6B29FC40-CA47-1067-B31D-00DD010662DA}\0", "GUID text"),
    "base64": (encoded(), "base64 text"),
    "hexadecimal": (NOISE(64).hex().encode(), "hexadecimal text"),
    "utf-8": ("Größe und Länge der Bänder\0".encode(), "text (UTF-8)"),
    "utf-8, Chinese": ("图像处理参数".encode(), "text (UTF-8)"),
    "floats": (b"\xfe\xca\xed\xfe" * 2 + floats("f", 200), "array of float"),
    "doubles": (b"\xfe\xca\xed\xfe" * 2 + floats("d", 200), "array of double"),
    "encrypted": (NOISE(8192), "compressed or encrypted data (by its entropy)"),
    "frame": (b"\x07\x93\x11\x84" * 2 + bytes(800 * 600 - 8), "frame of 800 × 600 × 1 bytes (by its size)"),
}  # fmt: skip

NOT_FOUND: dict[str, bytes] = {
    "png without a header": b"\x89PNG\r\n\x1a\n" + NOISE(60),
    "png of no width": png(0),
    "jpeg whose segment nothing follows": jpeg(behind=b"\1\2"),
    "jpeg of another head": jpeg(0xE0, b"ABCD\0"),
    "two letters of a bitmap": b"BM" + NOISE(90),
    "bmp longer than its block": bmp()[:-1],
    "bmp of two planes": bmp(planes=2),
    "a size of 40": struct.pack("<IiiHHI", 40, 20, 10, 1, 7, 0) + bytes(4000),
    "dib longer than its block": dib(cut=1),
    "tiff that leads out of its block": tiff(at=1000),
    "tiff whose field has no type": tiff(kind=99),
    "zip of no method": b"PK\3\4\x14\0\0\0\x77\0" + bytes(60),
    "gzip of no system": b"\x1f\x8b\x08\0\0\0\0\0\0\x77" + bytes(60),
    "zlib that does not inflate": b"\x78\x9c" + NOISE(200),
    "zlib, two bytes": b"\x78\x9c" + bytes(14),
    "lz4 of reserved bits": b"\x04\x22\x4d\x18\xff\xff" + bytes(60),
    "RIFF of something": riff(b"CTRLLIST"),
    "id3 of another version": b"ID3\xfe\0\0\0\0\2\1" + bytes(50),
    "mp4 without a brand": b"\0\0\0\x20ftyp\1\2\3\4" + bytes(50),
    "MZ alone": b"MZ" + NOISE(100),
    "MZ that leads nowhere": pe(mark=b"NE\0\0"),
    "MZ of no machine": pe(0x7777),
    "class file of no version": b"\xca\xfe\xba\xbe\0\0\7\7\0\x20" + bytes(60),
    "sqlite of an odd page": b"SQLite format 3\0\7\7" + bytes(60),
    "font of another search range": font(search=127),
    "DER longer than its block": der(VERSION_3)[:-1],
    "DER of something": der(b"\x02\x01\7\x04\x10" + bytes(40)),
    "bcrypt of odd bits": b"RSA1" + struct.pack("<5I", 2049, 3, 256, 0, 0) + NOISE(259),
    "sid in a large block": sid(18).ljust(400, b"\x33"),
    "sid of no authority": sid(18, authority=200),
    "descriptor that is not self-relative": descriptor(0x0004),
    "descriptor that leads out of its block": descriptor(owner=4000),
    "acl longer than its block": acl(size=4000),
    "acl without entries": acl(count=0),
    "text in braces": b"{a text, nothing else} and more",
    "text in brackets": b"[a text, nothing else] and more",
    "less than": b"<not at all an element",
    "a sentence about a selection": b"selected cameras are shown here",
    "letter and colon": b"C: is a drive, they say",
    "a long word": b"CFrameGrabberNodeFactoryInterfaceImplementationDetails",
    "a guid with a wrong digit": b"{6B29FC40-CA47-1067-B31D-00DD010662DX}\0",
    "a name of many words": b"GetIndexOfFirstNonAsciiByteInUtf16LatinOrVector128Ab",
    "a table of digits": b"0203040506070809101112131415161718192021222324252627",
    "one repeated digit": b"1" * 64,
    "latin letters": "Größe und Länge der Bänder\0".encode("latin-1"),
    "broken utf-8": "Größe und Länge".encode()[:-9] + b"\xc3\xc3\xc3 a",
    "pixels": bytes(random.Random(4).choice(range(0x38, 0x48)) for _ in range(800)),
    "a ramp": bytes(range(256)) * 32,
    "numbers": struct.pack("<300I", *range(1000, 1300)),
    "pointers": struct.pack("<300Q", *(0x7FF700000000 + 16 * i for i in range(300))),
    "half a megabyte": b"\x07\x93\x11\x84" * 2 + bytes(512 * 1024 - 8),
}
