"""Formats of certificates, of keys and of Windows' security.

Sources: X.509 (RFC 5280), PKCS (RFC 8017, 5652), bcrypt.h, wincrypt.h, winnt.h.
"""

from __future__ import annotations

import numpy as np

from heapdump.analyses.contents.first_bytes import FirstBytes, Format, Mask, Numbers, all_of, one_of, within

_RSA_BITS = (384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16384)
_ROUNDING = 64
"""Bytes that a buffer may be longer than the object in it."""

_MOST_AUTHORITIES = 15
_OID_SIGNED = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
_OID_RSA = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"


def _fills(blocks: FirstBytes) -> Mask:
    """A DER object of two bytes of length that has room in the block."""
    good: Mask = (blocks.big_endian(2, 2) + 4 <= blocks.size) & (blocks.big_endian(2, 2) >= 128)
    return good


def _is_certificate(blocks: FirstBytes) -> Mask:
    """Its body lies in it, and names version 3 or 2 and a serial number."""
    body = blocks.big_endian(6, 2)
    is_versioned = (
        blocks.is_at(8, b"\xa0\x03\x02\x01")
        & within(blocks.little_endian(12, 1), 1, 2)
        & (blocks.little_endian(13, 1) == 2)
    )
    return all_of(_fills(blocks), blocks.is_at(4, b"\x30\x82"), body + 4 < blocks.big_endian(2, 2), is_versioned)


def _is_signed_data(blocks: FirstBytes) -> Mask:
    return _fills(blocks) & blocks.is_at(4, _OID_SIGNED) & blocks.is_at(15, b"\xa0\x82")


def _is_private_key(blocks: FirstBytes) -> Mask:
    """PKCS #1: version 0 and a modulus; PKCS #8: version 0 and the algorithm RSA."""
    plain = blocks.is_at(4, b"\x02\x01\0\x02\x82")
    return all_of(_fills(blocks), plain | (blocks.is_at(4, b"\x02\x01\0\x30\x0d") & blocks.is_at(9, _OID_RSA)))


def _is_public_key(blocks: FirstBytes) -> Mask:
    return _fills(blocks) & blocks.is_at(4, b"\x30\x0d") & blocks.is_at(6, _OID_RSA)


def _is_bcrypt_key(blocks: FirstBytes) -> Mask:
    """Bits of the key, bytes of exponent and modulus: BCRYPT_RSAKEY_BLOB."""
    bits = blocks.little_endian(4, 4)
    return all_of(
        one_of(bits, *_RSA_BITS), within(blocks.little_endian(8, 4), 1, 8), blocks.little_endian(12, 4) * 8 == bits
    )


def _sid_bytes(blocks: FirstBytes, at: int) -> Numbers:
    """Bytes of the SID at an offset; 0 where there is none: revision 1, 1 to 15 authorities, an authority below 20."""
    count = blocks.little_endian(at + 1, 1)
    is_sid = (
        (blocks.little_endian(at, 1) == 1)
        & within(count, 1, _MOST_AUTHORITIES)
        & (blocks.big_endian(at + 2, 4) == 0)
        & (blocks.little_endian(at + 6, 1) == 0)
        & within(blocks.little_endian(at + 7, 1), 1, 19)
    )
    return np.where(is_sid, 8 + 4 * count, 0)


def _is_sid(blocks: FirstBytes) -> Mask:
    """The block has room for the SID and little more."""
    size = _sid_bytes(blocks, 0)
    good: Mask = (size > 0) & (blocks.size >= size) & (blocks.size <= size + 4)
    return good


def _is_security_descriptor(blocks: FirstBytes) -> Mask:
    """Self-relative: owner, group and lists lie behind the header; the first of them is a SID or a list of its size."""
    control = blocks.little_endian(2, 2)
    offsets = np.stack([blocks.little_endian(at, 4) for at in (4, 8, 12, 16)], axis=1)
    is_good = (offsets == 0) | ((offsets >= 20) & (offsets < blocks.size[:, None]) & (offsets % 4 == 0))
    first = np.where(offsets == 0, 1 << 32, offsets).min(axis=1)
    starts_there = (first == 20) & ((_sid_bytes(blocks, 20) > 0) | _is_list(blocks, 20))
    good: Mask = (control & 0x8000 != 0) & (blocks.little_endian(1, 1) == 0) & is_good.all(axis=1) & starts_there
    return good


def _is_list(blocks: FirstBytes, at: int) -> Mask:
    """An ACL: revision 2 or 4, a size that the block has room for, its first entry of a size within it."""
    size, count, entry = (
        blocks.little_endian(at + 2, 2),
        blocks.little_endian(at + 4, 2),
        blocks.little_endian(at + 10, 2),
    )
    good: Mask = (
        one_of(blocks.little_endian(at, 1), 2, 4)
        & (blocks.little_endian(at + 1, 1) == 0)
        & (blocks.little_endian(at + 6, 2) == 0)
        & (size >= 8 + 12 * count)
        & (size + at <= blocks.size)
        & within(count, 1, 1024)
        & within(entry, 12, 1 << 15)
        & (entry % 4 == 0)
        & (entry + 8 <= size)
    )
    return good


def _is_acl(blocks: FirstBytes) -> Mask:
    """The entries fill the list, and the first of them names a SID."""
    return _is_list(blocks, 0) & (blocks.size <= blocks.little_endian(2, 2) + _ROUNDING) & (_sid_bytes(blocks, 16) > 0)


FORMATS = (
    Format("X.509 certificate", b"\x30\x82", _is_certificate),
    Format("PKCS #7 signed data", b"\x30\x82", _is_signed_data),
    Format("RSA private key", b"\x30\x82", _is_private_key),
    Format("RSA public key", b"\x30\x82", _is_public_key),
    Format("RSA public key (bcrypt)", b"RSA1", _is_bcrypt_key),
    Format("RSA private key (bcrypt)", b"RSA2", _is_bcrypt_key),
    Format("RSA private key (bcrypt)", b"RSA3", _is_bcrypt_key),
    Format("RSA public key (CryptoAPI)", b"\x06\x02\0\0\0\xa4\0\0RSA1"),
    Format("RSA private key (CryptoAPI)", b"\x07\x02\0\0\0\xa4\0\0RSA2"),
    Format("SID", b"\x01", _is_sid),
    Format("security descriptor", b"\x01\0", _is_security_descriptor),
    Format("access control list", b"\x02\0", _is_acl),
    Format("access control list", b"\x04\0", _is_acl),
)
