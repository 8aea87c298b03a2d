"""address: where a thing on a server lies, as text: `s3://bucket/key`, `gs://bucket/key`, `https://host/path`.

Pure functions. A bucket's keys stand as they are, whatever characters they have; an http(s) path is percent-encoded.
Promises  what is shown or stored of an address never holds a password, a token or a signature
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

BUCKETS = ("s3", "gs")
WEB = ("http", "https")

_ADDRESS = re.compile(rf"({'|'.join((*BUCKETS, *WEB))})://", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_MEANT = {"s3n": "s3", "s3a": "s3", "gcs": "gs", "ftp": "https", "ftps": "https"} | {
    known: known for known in BUCKETS + WEB
}
_UNENCODED = "/!$&'()*+,;=:@-._~"
"""What a path of a URL may hold as it is (RFC 3986, section 3.3)."""


def is_address(location: str) -> bool:
    """Whether a location is on a server and not a path on this machine."""
    return _ADDRESS.match(location) is not None


def not_read(text: str) -> str:
    """For a text that is meant as an address and is none that can be read: that, and what to give; else empty."""
    found = _SCHEME.match(text)
    if found is None or is_address(text):
        return ""
    scheme, rest = found[1].lower(), text[found.end() :]
    meant = public(f"{_MEANT.get(scheme, WEB[0])}://{rest}")
    given = found[0] + meant.partition("://")[2]
    if scheme == "file":
        given, help_ = text, f"give the path: {'/' + unquote(rest.removeprefix('localhost/'))!r}"
    elif scheme in _MEANT:
        help_ = f"did you mean {meant!r}?"
    elif found[0].endswith("://"):
        help_ = "copy it to one of these, or to a disk"
    else:
        return ""  # a path with a colon in it
    return f"{given!r} is no address that raydist reads: expected s3://, gs://, http:// or https://; {help_}"


def scheme_of(location: str) -> str:
    """`s3`, `gs`, `http` or `https`."""
    return location.partition("://")[0].lower()


def public(location: str) -> str:
    """An address without what may be a secret: user and password, and everything from `?` or `#` on of a URL."""
    scheme, mark, rest = location.partition("://")
    if scheme.lower() in WEB:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{mark}{host.rpartition('@')[2]}{slash}{path}"


def plain(location: str) -> str:
    """An address as an archive holds it: scheme and host in small letters, encoded in one way, no slash at the end.

    Raises:
        ValueError: it is no URL, names no bucket or host, or holds a secret or a query; the message may be shown.
    """
    scheme, _, rest = location.partition("://")
    scheme = scheme.lower()
    host, slash, path = rest.partition("/")
    if "@" in host:
        raise ValueError(
            f"{public(location)!r} was given with a user or password: expected none in an address, which is stored and "
            "shown. Credentials come from the usual places (environment, profile, ~/.netrc)"
        )
    if not host:
        raise ValueError(f"{public(location)!r} names no {'host' if scheme in WEB else 'bucket'}")
    if scheme in BUCKETS:
        return f"{scheme}://{host}{slash}{path}".rstrip("/")
    try:
        split = urlsplit(location)
    except ValueError as error:
        raise ValueError(f"{public(location)!r} is no URL ({error}): expected http(s)://HOST[:PORT]/PATH") from error
    if split.query or split.fragment:
        raise ValueError(
            f"{public(location)!r} was given with a query: expected a URL without one. Signed URLs run out, and an "
            "archive would store their signature; `s3://` and `gs://` addresses need none"
        )
    return f"{scheme}://{split.netloc.lower()}{_encoded(unquote_to_bytes(split.path))}".rstrip("/")


def join(location: str, below: bytes) -> str:
    """The address of what lies at a raw path below another."""
    if not below:
        return location
    text = _encoded(below) if scheme_of(location) in WEB else below.decode(errors="surrogateescape")
    return f"{location.rstrip('/')}/{text}"


def below(location: str, root: str) -> bytes:
    """The raw path of an address below another, b"" for itself.

    Raises:
        ValueError: it does not lie there.
    """
    if location == root:
        return b""
    if not location.startswith(root.rstrip("/") + "/"):
        raise ValueError(f"{location!r} does not lie below {root!r}")
    text = location[len(root.rstrip("/")) + 1 :]
    return unquote_to_bytes(text) if scheme_of(location) in WEB else text.encode(errors="surrogateescape")


def parent(location: str) -> str:
    """The address of the folder; a bucket or host has none and gives itself."""
    scheme, _, rest = location.partition("://")
    return f"{scheme}://{rest.rpartition('/')[0] or rest}"


def name(location: str) -> bytes:
    """The last part: of the path, or the bucket or host."""
    last = location.partition("://")[2].rpartition("/")[2]
    return unquote_to_bytes(last) if scheme_of(location) in WEB else last.encode(errors="surrogateescape")


def _encoded(path: bytes) -> str:
    return quote(path, safe=_UNENCODED)
