"""What model.yaml says of a model, also of one that shares a template with others."""

from pathlib import Path
from typing import Any

import yaml


def read_description(name: str, folder: Path) -> dict[str, Any]:
    """Return what model.yaml says, or model-template.yaml with the row of the model in models.tsv.

    Parameters
    ----------
    name
        Name of the model in its source.
    folder
        Its directory.
    """
    path = next((path for path in (folder / "model.yaml", folder / "model.yml") if path.exists()), None)
    if path is not None:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    from kipoi.sources import LocalComponentGroup

    group = LocalComponentGroup.load(str(folder))
    row = next(row for row in group.df.model if name == row or name.endswith(f"/{row}"))
    return yaml.safe_load(group.template.render(**group.get_model_row(row))) or {}
