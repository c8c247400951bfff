"""Say which path is which page, and build links: pages live beside the routes of the API, the Hub and LoRAX.

===========================  =======================================================================
``/api/…``, ``/v2/…``        programs': the API, clients of the Hub, LoRAX. No page begins so
``/healthz`` and the like    programs': ``/healthz``, ``/readyz``, ``/metrics``, ``/openapi.json``
``/NS/NAME/resolve/…``       clients of the Hub
``/``, ``/WORD``             pages: no adapter has a path of one part
``/bases/DIGEST``            page of a base
``/bases/OLD/upgrades/NEW``  page of what an upgrade of a base means for its adapters
``/jobs/ID``                 page of a job: an adapter ``jobs/7`` has none, its versions have theirs
``/NS/NAME``, ``…/vN``       pages of an adapter and its versions; ``-`` stands for no namespace
``/NS/NAME/vN/lineage``      page of what it was made from, and what was made of it
``/NS/NAME/vN/spectra``      page of how large its deltas are, and how they spread
``/NS/NAME/diff/vN..vM``     page of what changed between two versions
``/_/…``                     files and actions of the pages: no namespace begins with ``_``
===========================  =======================================================================
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from starlette.convertors import IntegerConvertor, PathConvertor, StringConvertor, register_url_convertor

from loreg.entities import Version
from loreg.errors import LoregError
from loreg.refs import NO_NAMESPACE, AdapterName, Ref, page_path, parse_adapter_name, parse_ref

#: Namespaces whose paths are programs': their adapters have no page.
PROGRAMS = ("api", "v2")
_NUMBER = "v[1-9][0-9]{0,8}"
_PART = "[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"


class _NamespaceConvertor(StringConvertor):
    regex = f"(?!(?:{'|'.join(PROGRAMS)})/)(?:{NO_NAMESPACE}|{_PART})"


class _AdapterConvertor(StringConvertor):
    regex = _PART


class _NumberConvertor(StringConvertor):
    regex = _NUMBER


class _DigestConvertor(StringConvertor):
    regex = "[0-9a-f]{64}"


class _RepositoryConvertor(PathConvertor):
    """What a client of the Hub calls a repository; not where the pages of an adapter called ``resolve`` are."""

    regex = rf"(?!{_PART}/resolve/(?:{_NUMBER}/(?:inside|lineage|spectra)|diff/{_NUMBER}\.\.{_NUMBER})$).*"


class _JobConvertor(IntegerConvertor):
    regex = "[1-9][0-9]{0,9}"


register_url_convertor("namespace", _NamespaceConvertor())
register_url_convertor("adapter", _AdapterConvertor())
register_url_convertor("number", _NumberConvertor())
register_url_convertor("job", _JobConvertor())
register_url_convertor("digest", _DigestConvertor())
register_url_convertor("repository", _RepositoryConvertor())

#: Where clients of the Hub read the file of a repository.
RESOLVE = "/{repository:repository}/resolve/{revision}/{path:path}"
_RESOLVE = re.compile(f"/{_RepositoryConvertor.regex}/resolve/[^/]+/.*")

ADAPTER = "/{namespace:namespace}/{name:adapter}"
VERSION = ADAPTER + "/{number:number}"
LINEAGE = VERSION + "/lineage"
SPECTRA = VERSION + "/spectra"
CHOOSE_DIFF = ADAPTER + "/diff"
DIFF = CHOOSE_DIFF + "/{before:number}..{after:number}"
BASE = "/bases/{digest:digest}"
UPGRADE = BASE + "/upgrades/{new:digest}"
JOBS = "/jobs"
JOB = JOBS + "/{job_id:job}"


def is_for_programs(path: str) -> bool:
    """Return whether what is at the path, or is missing there, is answered as to a program."""
    first = path.lstrip("/").partition("/")[0]
    return first in (*PROGRAMS, "healthz", "readyz", "metrics", "openapi.json") or bool(_RESOLVE.fullmatch(path))


def version_path(version: Version) -> str:
    """Return the path of a version's page."""
    return page_path(version.adapter, version.number)


def parse_adapter_path(namespace: str, name: str) -> AdapterName:
    """Return the adapter that the parts of its path mean."""
    return parse_adapter_name(name if namespace == NO_NAMESPACE else f"{namespace}/{name}")


def parse_version_path(namespace: str, name: str, number: str) -> Ref:
    """Return the ref that the parts of a version's path mean."""
    return Ref(parse_adapter_path(namespace, name), number=int(number.removeprefix("v")))


def diff_path(adapter: AdapterName, before: int, after: int) -> str:
    """Return the path of the page of what changed between two versions."""
    return f"{page_path(adapter)}/diff/v{before}..v{after}"


def ref_path(ref: str) -> str:
    """Return the path of the page of ``ns/name:vN`` or ``ns/name``; empty for what is neither."""
    try:
        parsed = parse_ref(ref)
    except LoregError:
        return ""
    return page_path(parsed.adapter, parsed.number)


def base_path(digest: str) -> str:
    """Return the path of a base's page."""
    return f"/bases/{digest}"


def upgrade_path(old: str, new: str) -> str:
    """Return the path of the page of an upgrade from one base to another."""
    return f"{base_path(old)}/upgrades/{new}"


def job_path(job_id: int) -> str:
    """Return the path of a job's page."""
    return f"{JOBS}/{job_id}"


def api_path(adapter: AdapterName, *parts: str) -> str:
    """Return the path in the API of an adapter, or of what is below it."""
    return f"/api/v1/adapters{page_path(adapter)}/" + "/".join(parts)


def with_query(path: str, pairs: list[tuple[str, str]]) -> str:
    """Return the path with a query of these pairs, without the empty ones."""
    query = urlencode([(name, value) for name, value in pairs if value], quote_via=quote, safe="/:@<>=,*")
    return f"{path}?{query}" if query else path
