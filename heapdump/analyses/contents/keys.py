"""Formats of certificates, of keys and of Windows' security.

Sources: X.509 (RFC 5280), PKCS (RFC 8017, 5652), bcrypt.h, wincrypt.h, winnt.h.
"""

from __future__ import annotations

import numpy as np

from heapdump.analyses.contents.first_bytes import Format, Heads, Mask, Numbers, every, one_of, within

_RSA_BITS = (384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16384)
_ROUNDING = 64
"""Bytes that a buffer may be longer than the object in it."""

_MOST_AUTHORITIES = 15
_OID_SIGNED = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
_OID_RSA = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"


def _fills(heads: Heads) -> Mask:
    """A DER object of two bytes of length that has room in the block."""
    good: Mask = (heads.be(2, 2) + 4 <= heads.size) & (heads.be(2, 2) >= 128)
    return good


def _is_certificate(heads: Heads) -> Mask:
    """Its body lies in it, and names version 3 or 2 and a serial number."""
    body = heads.be(6, 2)
    is_versioned = heads.is_at(8, b"\xa0\x03\x02\x01") & within(heads.le(12, 1), 1, 2) & (heads.le(13, 1) == 2)
    return every(_fills(heads), heads.is_at(4, b"\x30\x82"), body + 4 < heads.be(2, 2), is_versioned)


def _is_signed_data(heads: Heads) -> Mask:
    return _fills(heads) & heads.is_at(4, _OID_SIGNED) & heads.is_at(15, b"\xa0\x82")


def _is_private_key(heads: Heads) -> Mask:
    """PKCS #1: version 0 and a modulus; PKCS #8: version 0 and the algorithm RSA."""
    plain = heads.is_at(4, b"\x02\x01\0\x02\x82")
    return every(_fills(heads), plain | (heads.is_at(4, b"\x02\x01\0\x30\x0d") & heads.is_at(9, _OID_RSA)))


def _is_public_key(heads: Heads) -> Mask:
    return _fills(heads) & heads.is_at(4, b"\x30\x0d") & heads.is_at(6, _OID_RSA)


def _is_bcrypt_key(heads: Heads) -> Mask:
    """Bits of the key, bytes of exponent and modulus: BCRYPT_RSAKEY_BLOB."""
    bits = heads.le(4, 4)
    return every(one_of(bits, *_RSA_BITS), within(heads.le(8, 4), 1, 8), heads.le(12, 4) * 8 == bits)


def _sid_bytes(heads: Heads, at: int) -> Numbers:
    """Bytes of the SID at an offset; 0 where there is none: revision 1, 1 to 15 authorities, an authority below 20."""
    count = heads.le(at + 1, 1)
    is_sid = (
        (heads.le(at, 1) == 1)
        & within(count, 1, _MOST_AUTHORITIES)
        & (heads.be(at + 2, 4) == 0)
        & (heads.le(at + 6, 1) == 0)
        & within(heads.le(at + 7, 1), 1, 19)
    )
    return np.where(is_sid, 8 + 4 * count, 0)


def _is_sid(heads: Heads) -> Mask:
    """The block has room for the SID and little more."""
    size = _sid_bytes(heads, 0)
    good: Mask = (size > 0) & (heads.size >= size) & (heads.size <= size + 4)
    return good


def _is_security_descriptor(heads: Heads) -> Mask:
    """Self-relative: owner, group and lists lie behind the header; the first of them is a SID or a list of its size."""
    control = heads.le(2, 2)
    offsets = np.stack([heads.le(at, 4) for at in (4, 8, 12, 16)], axis=1)
    is_good = (offsets == 0) | ((offsets >= 20) & (offsets < heads.size[:, None]) & (offsets % 4 == 0))
    first = np.where(offsets == 0, 1 << 32, offsets).min(axis=1)
    starts_there = (first == 20) & ((_sid_bytes(heads, 20) > 0) | _is_list(heads, 20))
    good: Mask = (control & 0x8000 != 0) & (heads.le(1, 1) == 0) & is_good.all(axis=1) & starts_there
    return good


def _is_list(heads: Heads, at: int) -> Mask:
    """An ACL: revision 2 or 4, a size that the block has room for, its first entry of a size within it."""
    size, count, entry = heads.le(at + 2, 2), heads.le(at + 4, 2), heads.le(at + 10, 2)
    good: Mask = (
        one_of(heads.le(at, 1), 2, 4)
        & (heads.le(at + 1, 1) == 0)
        & (heads.le(at + 6, 2) == 0)
        & (size >= 8 + 12 * count)
        & (size + at <= heads.size)
        & within(count, 1, 1024)
        & within(entry, 12, 1 << 15)
        & (entry % 4 == 0)
        & (entry + 8 <= size)
    )
    return good


def _is_acl(heads: Heads) -> Mask:
    """The entries fill the list, and the first of them names a SID."""
    return _is_list(heads, 0) & (heads.size <= heads.le(2, 2) + _ROUNDING) & (_sid_bytes(heads, 16) > 0)


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
