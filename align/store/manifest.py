"""What a run folder is a run of: ``run.json``.

The identity is what decides the pictures (resolved method, backbone, reward, protocol); the record is what is
good to know about them (whole configuration, versions, fingerprints, git state, machine). Only the identity
is compared when a folder is opened again. What a session ran with is appended to ``sessions``, whose numbers
rows name; that of a folder of an older version, whose rows name none, has no number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from align import writing
from align.reading import parse_json, read_bytes
from align.store.errors import StoreError, as_store_error
from align.store.jsonable import json_value
from align.store.measured import CHECKER

FORMAT = 1
OF_A_SESSION = ("versions", "git", "machine", "fingerprints")
"""Parts of the record that may be others when a run goes on."""
OLD_CHECKER = "1"
"""Fingerprint of the checker in versions that recorded none."""
_ABSENT = object()


@dataclass(frozen=True)
class Manifest:
    """The description of a run."""

    identity: Mapping[str, Any]
    """Nested mapping of all that decides the pictures, prompts and seeds aside."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Nested mapping of all else that ``run.json`` shall hold."""

    def plain_identity(self) -> dict[str, Any]:
        """The identity in plain JSON values, as it is written and compared."""
        value: dict[str, Any] = json_value(self.identity, nonfinite_as_text=True)
        return value

    @property
    def digest(self) -> str:
        """The identity's digest: the ``config`` column."""
        return digest(self.plain_identity())


def digest(identity: Mapping[str, Any]) -> str:
    """Digest of a plain identity, 12 hex digits; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def first_difference(old: Any, new: Any, path: str = "") -> tuple[str, str, str] | None:
    """The first place, in sorted order, where two values differ, as (dotted key, old, new); None if equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        pairs = [(key, old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(number), a, b) for number, (a, b) in enumerate(zip(old, new, strict=True))]
    elif old is not _ABSENT and new is not _ABSENT and json.dumps(old) == json.dumps(new):
        return None
    else:
        return path or "identity", _short(old), _short(new)
    below = (first_difference(a, b, f"{path}.{key}" if path else key) for key, a, b in pairs)
    return next(filter(None, below), None)


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_run(folder: Path) -> dict[str, Any] | None:
    """The content of ``run.json``; None when there is none. Raises StoreError: it is damaged or cannot be read."""
    path = folder / "run.json"
    with as_store_error(f"read {path}"):
        try:
            text = read_bytes(path).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return None
    try:
        value = parse_json(text)
        if not isinstance(value, dict) or not isinstance(value.get("identity"), dict):
            raise ValueError("no identity")
        if wrong := _wrong(value):
            raise ValueError(f"{wrong} is not what was written there")
        json_value(value)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}); restore it or choose another run.folder") from error
    return value


def _wrong(run: Mapping[str, Any]) -> str:
    """The first part of a ``run.json`` that is of another kind than what is read of it; empty if there is none."""
    record, sessions, earlier = run.get("record", {}), run.get("sessions", []), run.get("earlier", [])
    if not isinstance(earlier, list) or not all(isinstance(one, dict) for one in earlier):
        return "earlier"
    if not isinstance(sessions, list):
        return "sessions"
    for place, one in [("record", record), *((f"sessions.{k}", one) for k, one in enumerate(sessions))]:
        if not isinstance(one, dict):
            return place
        if not isinstance(one.get("session"), int | None) or ("session" not in one and one is not record):
            return f"{place}.session"
        for name in (*OF_A_SESSION, "sources"):
            if not isinstance(one.get(name, {}), dict | None if name == "git" else dict):
                return f"{place}.{name}"
        if not isinstance((one.get("git") or {}).get("commit"), str | None):
            return f"{place}.git.commit"
    return ""


def write_run(folder: Path, value: Mapping[str, Any]) -> None:
    """Replace ``run.json`` as a whole. Raises StoreError."""
    with as_store_error(f"write {folder / 'run.json'}"):
        text = json.dumps(json_value(value), indent=2, allow_nan=False)
        writing.write_text(folder / "run.json", f"{text}\n")


def started_run(
    manifest: Manifest, existing: Mapping[str, Any] | None, plan: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of ``run.json`` when a run starts or goes on; ``existing`` is None in a new folder."""
    existing = existing or {}
    sessions = list(existing.get("sessions", []))
    if existing and not sessions:
        old = existing.get("started"), existing.get("config"), existing.get("record", {})
        sessions.append(_session(None, *old))
    number = 1 + max((one["session"] or 0 for one in sessions), default=0)
    known = [existing["identity"], *existing.get("earlier", [])] if existing else []
    return {
        "format": FORMAT,
        "status": "started",
        "started": existing.get("started") or now(),
        "updated": now(),
        "counts": existing.get("counts"),
        "plan": dict(plan),
        "config": manifest.digest,
        "identity": manifest.plain_identity(),
        "earlier": [identity for identity in known if digest(identity) != manifest.digest],
        "record": dict(manifest.record),
        "sessions": [*sessions, _session(number, now(), manifest.digest, manifest.record)],
    }


def _session(number: int | None, started: Any, config: Any, record: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: record[name] for name in OF_A_SESSION if name in record}
    return {"session": number, "started": started, "config": config, **parts}


def other_versions(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What earlier sessions ran in other versions than the last one, such as "torch 2.12 (now 2.13)"."""

    def of(session: Mapping[str, Any]) -> dict[str, str | None]:
        commit = str((session.get("git") or {}).get("commit") or "")[:12]
        return {**(session.get("versions") or {}), "commit": commit or None}

    current, found = of(sessions[-1]), dict[str, None]()
    for session in sessions[:-1]:
        for name, version in of(session).items():
            if version is not None and version != current.get(name):
                found[f"{name} {version} (now {current.get(name) or 'unknown'})"] = None
    return list(found)


def inline_fingerprints(run: Mapping[str, Any]) -> dict[str, str]:
    """Fingerprints, by metric, of what measured values that stand in the lines of items: in folders of an older version."""
    record = next((one for one in run["sessions"] if one["session"] is None), None)
    if record is None:
        return {}
    found: dict[str, str] = {CHECKER: OLD_CHECKER}
    for what, fingerprint in record.get("fingerprints", {}).items():
        kind, _, name = str(what).partition(" ")
        # Of several checkpoints all but the first name theirs in brackets.
        name, _, part = name.partition(" ")
        if kind == "reward" and not name.endswith(":"):
            found[name] = f"{found.get(name, '')} {fingerprint}" if part else str(fingerprint)
    return found


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_identity(folder: Path, existing: Mapping[str, Any], manifest: Manifest, *, extend: bool) -> None:
    """Refuse a folder of another configuration with a StoreError that names the first setting that differs.

    A folder that was extended belongs to each of its configurations.
    """
    if extend:
        return
    new = manifest.plain_identity()
    known = [existing["identity"], *existing.get("earlier", [])]
    difference = first_difference(known[0], new)
    if difference is None or any(digest(identity) == digest(new) for identity in known[1:]):
        return
    key, was, wanted = difference
    raise StoreError(
        f"{folder} was made with {key}={was}, this run has {wanted}: "
        "choose another run.folder, or run.extend=true to keep both"
    )
