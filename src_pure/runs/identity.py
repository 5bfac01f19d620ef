"""Which run a file belongs to. Every file of a run carries an id drawn at its birth and a digest of its configuration.

<run>/run.json  the identity that all other files of the folder are compared with
"""

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from src_pure.config.names import dotted
from src_pure.errors import DamagedError, ForeignError
from src_pure.runs.atomic import Description, read_json, replacing, validated

RUN = "run.json"
# keys that may differ from the run that is continued: they change no number that it computes
HARMLESS = {"run_dir", "resume", "resume_anyway", "log_seconds", "grace_seconds", "tensorboard"}
HARMLESS_SECTIONS = {"wandb", "checkpoint"}


class Identity(NamedTuple):
    """Files carry it under these names."""

    run_id: str  # random, drawn when the run was made
    config_sha256: str  # of what changes numbers in its configuration

    def check(self, found: "Identity | None", file: Path) -> None:
        """Raises ForeignError for a file that belongs to another run, or does not say to which."""
        if found == self:
            return
        if found is None:
            whose = "does not say which run it belongs to"
        else:
            other = "another run" if found.run_id != self.run_id else "a run of another configuration"
            whose = f"belongs to {other} ({found.run_id[:8]}, this is {self.run_id[:8]})"
        raise ForeignError(f"{file} {whose}; restore the file of this run, or move this one away")


class OwnedFile(Description):
    """A JSON file that says which run it belongs to."""

    run_id: str
    config_sha256: str

    @property
    def identity(self) -> Identity:
        return Identity(self.run_id, self.config_sha256)


def new_identity(config: dict[str, Any]) -> Identity:
    return Identity(secrets.token_hex(16), config_digest(config))


def write_identity(folder: Path, identity: Identity) -> None:
    """run.json of a new run."""
    with replacing(folder / RUN) as file:
        file.write(json.dumps(identity._asdict(), indent=2).encode() + b"\n")


def read_identity(folder: Path) -> Identity:
    """What run.json says; raises DamagedError for a folder without it."""
    try:
        return validated(read_json(folder / RUN), OwnedFile, folder / RUN).identity
    except DamagedError as error:
        raise DamagedError(f"{error}; without it this folder cannot be continued: choose another run_dir") from None


def config_digest(config: dict[str, Any]) -> str:
    """The digest of a configuration as its file has it; total_steps may be raised, so it is left out."""
    values = {key: value for key, value in dotted(config).items() if not (harmless(key) or key == "total_steps")}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def harmless(name: str) -> bool:
    """Whether a key, dotted, changes no number of a training."""
    return name in HARMLESS or name.partition(".")[0] in HARMLESS_SECTIONS or name.endswith(".name")
