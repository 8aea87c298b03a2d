"""What opens a bucket, and what is wrong when it does not open.

Reads     the environment; of `~/.aws/credentials` and `~/.aws/config` what obstore does not read itself
Promises  nothing of a credential is in what is raised, shown or stored
"""

from __future__ import annotations

import configparser
import os
import re
import socket
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raydist import address
from raydist.errors import StoreError

_READ_BY_CLIENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_HELP = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role of this machine",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
}
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_STATUS = re.compile(r"status code: (\d{3}[^:\n]*)")
_BODY = re.compile(r"<(?:\?xml|Error|html|!DOCTYPE)\b.*?(?:</Error>|</html>|\Z)", re.DOTALL | re.IGNORECASE)
_SIGNED = re.compile(r"(X-Amz-[A-Za-z-]+|AWSAccessKeyId|Signature)=[^&\s\"')]+", re.IGNORECASE)
_NO_METADATA = re.compile(r"169\.254\.169\.254|computeMetadata|metadata\.google")
_SILENT = re.compile(r"error sending request|timed out|connect(?:ion)? (?:error|refused|reset|closed)", re.IGNORECASE)
_AWAY = re.compile(
    r"body error|error decoding response body|after \d+ retries|status(?: code)?:? (?:429|5\d\d)|"
    r"\b(?:SlowDown|ServiceUnavailable|InternalError)\b",
    re.IGNORECASE,
)
_OF_SERVER = re.compile(r"status code|Generic (?:S3|GCS) error|LanceError\(IO\)|<Error>|<\?xml", re.IGNORECASE)
_OWN_ENDPOINT = re.compile(r"endpoint_url\s*=\s*(\S+)")
_DENIED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|Unauthenticated|"
    r"status code: 40[13]|necessary privileges|credentials|Missing SecretAccessKey|Missing AccessKeyId",
    re.IGNORECASE,
)


def of_s3(bucket: str) -> dict[str, Any]:
    """Arguments for obstore's S3Store: keys of a profile, and the region, where the environment does not say them.

    Raises:
        StoreError: there are no credentials, or a profile that is named and cannot be used.
    """
    known = os.environ
    arguments: dict[str, Any] = {}
    profile: dict[str, str] = {}
    if not any(known.get(name) for name in _READ_BY_CLIENT):
        profile = _profile(known.get("AWS_PROFILE", ""))
        arguments |= _keys(profile, bucket)
    if not (known.get("AWS_REGION") or known.get("AWS_DEFAULT_REGION")):
        region = profile.get("region") or region_of(bucket)
        if region:
            arguments["region"] = region
    return arguments


def explained(location: str, text: str) -> str:
    """What a client's error means, in one line without the client's own."""
    text, whole = scrubbed(text), text
    place = address.public(location)
    scheme = address.scheme_of(location)
    bucket = location.partition("://")[2].partition("/")[0]
    server = server_of(location)
    code, message = _CODE.search(whole), _MESSAGE.search(whole)
    status = _STATUS.search(text)
    said = ", ".join(found[1].strip() for found in (code, message) if found and found[1].strip())
    said = said or (status[1].strip() if status else text.partition("\n")[0].rpartition(" - ")[2][:200])
    if is_bucket_missing(text):
        return f"there is no bucket {bucket!r} at {server}: make it, or correct the address {place!r}"
    if _NO_METADATA.search(text):
        return _without(place, scheme)
    if _DENIED.search(text):
        return f"{place!r} may not be used ({said}): check {_HELP[scheme]}, and what they may do in bucket {bucket!r}"
    if _SILENT.search(text) or "builder error" in text:
        return (
            f"{server} does not answer for {place!r}: is it running, and is the address right? Another S3 server than "
            "Amazon's is named by AWS_ENDPOINT_URL"
        )
    if "301" in (status[1] if status else ""):
        return f"{place!r} is in another region: set AWS_REGION to the bucket's"
    return f"{place!r} cannot be used: {said}"


def scrubbed(text: str) -> str:
    """A client's error without what the server answered, but for its code and message: the rest may hold key ids and
    session tokens, as S3 sends them back when one ran out."""
    return _SIGNED.sub(r"\1=...", _BODY.sub(_said, text))


def _said(body: re.Match[str]) -> str:
    return ", ".join(found[1].strip() for found in (_CODE.search(body[0]), _MESSAGE.search(body[0])) if found)


def is_away(text: str) -> bool:
    """Whether a client's error says that the server did not answer, or cannot at the moment."""
    is_told = is_bucket_missing(text) or _NO_METADATA.search(text) or _DENIED.search(text)
    return not is_told and bool(_SILENT.search(text) or _AWAY.search(text))


def is_of_server(text: str) -> bool:
    """Whether an error of Lance is one of the server below it."""
    return bool(_OF_SERVER.search(text)) or is_away(text)


def is_bucket_missing(text: str) -> bool:
    """Whether that is what a client's error says."""
    return "NoSuchBucket" in text or "bucket does not exist" in text


def _without(place: str, scheme: str) -> str:
    return f"{place!r}: there are no credentials on this machine: expected {_HELP[scheme]}"


def server_of(location: str) -> str:
    """Who holds the bucket, for a message."""
    if address.scheme_of(location) == "gs":
        return "Google Cloud Storage"
    server = os.environ.get("AWS_ENDPOINT_URL") or ""
    return repr(address.public(server)) if server else "Amazon S3"


def endpoint_of_profile() -> str:
    """The S3 server that the profile in use names, "" if none."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return ""
    return _endpoint(os.environ.get("AWS_PROFILE", ""), *((file, _changed(file)) for file in _files()))


@lru_cache(maxsize=4)
def _endpoint(name: str, *files: tuple[str, int]) -> str:
    del files  # what was read of them holds until they change
    try:
        profile = _profile(name)
    except StoreError:  # told where its keys are needed
        return ""
    own = _OWN_ENDPOINT.search(_section(_files()[1], f"services {profile.get('services', '')}").get("s3", ""))
    return own[1] if own else profile.get("endpoint_url", "")


def _changed(file: str) -> int:
    try:
        return Path(file).expanduser().stat().st_mtime_ns
    except OSError:
        return 0


def _files() -> tuple[str, str]:
    """Of credentials, and of settings."""
    return (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    )


def _section(file: str, title: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    with suppress(OSError, configparser.Error):
        parser.read_string(Path(file).expanduser().read_text(encoding="utf-8"))
    return dict(parser.items(title)) if parser.has_section(title) else {}


def _profile(name: str) -> dict[str, str]:
    """Settings of a profile (empty: the default one) in the shared files; {} if there is none."""
    files = _files()
    found: dict[str, str] = {}
    for file, section in zip(files, (name or "default", f"profile {name}" if name else "default"), strict=True):
        for title in (section, name):
            found = {**(_section(file, title) if title else {}), **found}
    if name and not found:
        raise StoreError(
            f"AWS_PROFILE={name!r}: there is no such profile in {' or '.join(files)}; correct the name, or unset it"
        )
    return found


def _keys(profile: dict[str, str], bucket: str) -> dict[str, Any]:
    place = f"s3://{bucket}"
    if profile.get("aws_access_key_id") and profile.get("aws_secret_access_key"):
        names = {"access_key_id": "aws_access_key_id", "secret_access_key": "aws_secret_access_key"}
        names |= {"session_token": "aws_session_token"} if profile.get("aws_session_token") else {}
        return {name: profile[key] for name, key in names.items()}
    if any(key.startswith(("sso_", "role_", "source_", "credential_", "login_", "web_identity_")) for key in profile):
        return {"credential_provider": _provider(place)}
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true" or not _has_metadata():
        raise StoreError(_without(place, "s3"))
    return {}


def _provider(place: str) -> Any:
    """For profiles that get their keys elsewhere: AWS's own library asks for them."""
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{place!r}: the AWS profile gets its keys by a role or sign-in, which needs boto3 here: run "
            "`pip install boto3`, or put keys into the environment (`eval $(aws configure export-credentials "
            "--format env)`)"
        ) from error
    return Boto3CredentialProvider(boto3.Session(profile_name=os.environ.get("AWS_PROFILE") or None))


def _has_metadata() -> bool:
    """Whether this machine is one of Amazon's, which tells its role: without asking first, a client waits for long."""
    server = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
    split = urlsplit(server)
    try:
        socket.create_connection((split.hostname or "", split.port or 80), timeout=1).close()
    except OSError:
        return False
    return True


@cache
def region_of(bucket: str) -> str:
    """As Amazon says; "" leaves it to the client, as another server does."""
    if os.environ.get("AWS_ENDPOINT_URL"):
        return ""
    import pyarrow as pa
    from pyarrow import fs

    with suppress(OSError, pa.ArrowException):
        return str(fs.resolve_s3_region(bucket))
    return ""
