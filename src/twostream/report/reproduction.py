"""What somebody needs to run a project again: its seed, its settings and the versions of the packages."""

from __future__ import annotations

from typing import Any

import yaml

from twostream.project.project import Project
from twostream.volume.uri import Uri


def reproduction(project: Project, name: str) -> dict[str, Any]:
    """Seed, versions and settings; paths are shortened to file names, so that no folder of this machine is shown."""
    settings = project.config.model_dump(mode="json")
    for volume in ("image", "labels", "source"):
        if settings[volume]:
            settings[volume]["uri"] = Uri.parse(settings[volume]["uri"]).short
    text = yaml.safe_dump(settings, sort_keys=False)
    return {"name": name, "seed": project.config.seed, "versions": _versions(project), "settings": text}


def _versions(project: Project) -> dict[str, str]:
    """{package: version} with which round 0 began; empty before that."""
    path = project.path(0, "config.yaml")
    try:
        return {k: str(v) for k, v in (yaml.safe_load(path.read_text()).get("versions") or {}).items()}
    except (OSError, yaml.YAMLError, AttributeError):
        return {}
