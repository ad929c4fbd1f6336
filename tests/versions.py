"""Another version of Safelight: this package as it is, but for its number, and for what a migration adds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import safelight
from safelight.control import migrations

MIGRATION = """
from alembic import op
import sqlalchemy as sa

revision = "9999"
down_revision = "{newest}"


def upgrade():
    for table in ("connections", "deployments", "endpoints", "jobs", "models", "operations"):
        op.add_column(table, sa.Column("of_tomorrow", sa.Text(), nullable=True))
    op.create_table("of_tomorrow", sa.Column("name", sa.Text(), primary_key=True))
"""


def write_version(folder: Path, version: str, *, migrates: bool = False) -> str:
    """What to set PYTHONPATH to, for processes of that version."""
    package = folder / "safelight"
    package.mkdir(parents=True)
    for each in Path(safelight.__file__).parent.iterdir():
        if each.stem not in ("__init__", "__pycache__", "control"):
            (package / each.name).symlink_to(each)
    (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
    shutil.copytree(Path(str(migrations.__file__)).parents[1], package / "control")
    if migrates:
        versions = package / "control" / "migrations" / "versions"
        newest = max(each.stem for each in versions.glob("v*.py"))[1:5]
        (versions / "v9999_of_tomorrow.py").write_text(MIGRATION.format(newest=newest))
    return f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
