"""Which run a file belongs to. Every file of a run carries the run's random id and a digest of its configuration.

<run>/run.json  the identity that all other files in the folder must match
"""

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from src_pure.config.names import dotted, harmless
from src_pure.errors import DamagedError, ForeignError
from src_pure.runs.atomic import Description, read_json, replacing, validated

RUN = "run.json"


class Identity(NamedTuple):
    """The identity of a run; files store it under these field names."""

    run_id: str  # random, drawn when the run is created
    config_sha256: str  # digest of the part of the configuration that affects numbers

    def check(self, found: "Identity | None", file: Path) -> None:
        """Raises ForeignError if a file belongs to another run or has no identity."""
        if found == self:
            return
        if found is None:
            whose = "does not say which run it belongs to"
        else:
            other = "another run" if found.run_id != self.run_id else "a run of another configuration"
            whose = f"belongs to {other} ({found.run_id[:8]}, this is {self.run_id[:8]})"
        raise ForeignError(f"{file} {whose}; restore the file of this run, or move this one away")


class OwnedFile(Description):
    """A JSON file that carries the identity of its run."""

    run_id: str
    config_sha256: str

    @property
    def identity(self) -> Identity:
        return Identity(self.run_id, self.config_sha256)


def new_identity(config: dict[str, Any]) -> Identity:
    return Identity(secrets.token_hex(16), config_digest(config))


def write_identity(folder: Path, identity: Identity) -> None:
    """Writes run.json of a new run."""
    with replacing(folder / RUN) as file:
        file.write(json.dumps(identity._asdict(), indent=2).encode() + b"\n")


def read_identity(folder: Path) -> Identity:
    """The identity in run.json; raises DamagedError if the file is missing or invalid."""
    try:
        return validated(read_json(folder / RUN), OwnedFile, folder / RUN).identity
    except DamagedError as error:
        raise DamagedError(f"{error}; without it this folder cannot be continued: choose another run_dir") from None


def config_digest(config: dict[str, Any]) -> str:
    """The digest of the configuration in config.yaml, without total_steps, which may be raised later."""
    values = {key: value for key, value in dotted(config).items() if not (harmless(key) or key == "total_steps")}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
